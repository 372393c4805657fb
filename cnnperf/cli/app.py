"""The command line: thin commands over the library; results go to stdout, everything else to stderr."""

from __future__ import annotations

import errno
import os
import signal
import sys
import warnings
from typing import Annotated, Any, NoReturn

import typer

from cnnperf.cli import (
    ab,
    campaign,
    check,
    choose,
    columns,
    data,
    doctor,
    export,
    infer,
    merge,
    names,
    profile,
    record,
    report,
    run,
    selftest,
    tensorboard,
)
from cnnperf.cli.help import FLAG, add_command
from cnnperf.cli.options import with_options
from cnnperf.errors import CURES, CnnperfError, CnnperfWarning, FaultsError
from cnnperf.units import printable

LONGEST = 500
"""Most characters of a printed error."""
REFUSED = (errno.EACCES, errno.EPERM, errno.ENAMETOOLONG)
"""Errors of the system for a path that the user gave."""

app = typer.Typer(
    help="Train, profile and time convolutional networks in PyTorch and ONNX Runtime, and tell whether a change made "
    "them slower.",
    epilog="Begin with: cnnperf run quickstart",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command line; an error that the user can correct is printed as one sentence and sets the exit status."""
    warnings.showwarning = _show_warning
    warnings.simplefilter("always", CnnperfWarning)
    # SIGTERM and the end of the terminal end a command like Ctrl-C: the child is stopped and records are kept.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # `nohup` ignores it.
        signal.signal(signal.SIGHUP, signal.default_int_handler)
    try:
        app()
    except FaultsError as error:
        *others, last = with_options(str(error)).splitlines()
        for fault in others:
            print(_line_of(fault), file=sys.stderr)
        _end(last, error.exit_code)
    except CnnperfError as error:
        _end(with_options(str(error)), error.exit_code)
    except MemoryError:
        _end(f"out of memory; {CURES[errno.ENOMEM]}", 1)
    except OSError as error:
        if error.errno is None:
            raise
        place = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        cure = CURES.get(error.errno, "correct that and try again")
        _end(f"{place}{error.strerror}; {cure}", 2 if error.errno in REFUSED else 1)


def _end(sentence: str, status: int) -> NoReturn:
    """Print an error as one line and end the command."""
    print(_line_of(sentence), file=sys.stderr)
    sys.exit(status)


def _line_of(sentence: str) -> str:
    """Return an error as one line; of a long one the place at its start and the cure at its end."""
    line = printable(" ".join(f"cnnperf: {sentence}".split()))
    return line if len(line) <= LONGEST else f"{line[: LONGEST // 2]} … {line[3 - LONGEST // 2 :]}"


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", metavar=FLAG, help="Print the version and exit.")] = False,
) -> None:
    if version:
        from importlib.metadata import version as version_of

        print(f"cnnperf {version_of('cnnperf')}")
        raise typer.Exit


def schema() -> None:
    """Print the JSON schema of suite files; with it, an editor completes and checks TOML."""
    import json

    from cnnperf.ipc.messages import SchemaRequest, SchemaWritten
    from cnnperf.running.preflight import ask

    print(json.dumps(ask(SchemaRequest(), SchemaWritten).document, indent=2))


# Added in the order of the help.
for each in (run, merge, report, choose, columns, names):
    each.add_commands(app)
add_command(app, schema, "cnnperf schema > suite.schema.json")
for each in (data, profile, infer, tensorboard, export, check, ab, record, doctor, selftest, campaign):
    each.add_commands(app)


def _show_warning(message: Warning | str, category: type[Warning], *where: Any, **rest: Any) -> None:
    is_own = issubclass(category, CnnperfWarning)
    print(f"cnnperf: warning: {printable(with_options(str(message)))}" if is_own else message, file=sys.stderr)
