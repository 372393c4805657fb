"""The command line: thin commands over the library; results go to stdout, everything else to stderr."""

import os
import signal
import sys
import warnings
from typing import Any, NoReturn

from cnnperf.cli.streams import end_streams, open_streams

INTERRUPTED = 130
"""Exit status of a command that a signal ended early."""


def main() -> NoReturn:
    """Run the command line as a process of its own, and end it with its exit status, whatever its streams are."""
    # It computes nothing: NumPy's threads would only wait, and where the system allows none, NumPy ends the process.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    status: Any = 0
    try:
        open_streams()
        if any(action == "error" for action, *_ in warnings.filters):  # PYTHONWARNINGS=error of the user's shell.
            warnings.simplefilter("default")
        from cnnperf.cli.app import main as command

        command()
    except SystemExit as end:
        status = end.code or 0
    except KeyboardInterrupt:
        status = INTERRUPTED
    # The result is known: a late signal must not add a traceback to it.
    for watched in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(watched, signal.SIG_IGN)
    sys.exit(end_streams(status))
