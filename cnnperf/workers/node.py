"""The tasks of a cell on a node that sees the run folder: the request and all messages are files."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from cnnperf.ipc.channel import SET_PARENT_DEATH_SIGNAL
from cnnperf.ipc.family import set_of_process
from cnnperf.ipc.messages import CellRequest, Refused, decode, encode
from cnnperf.running.cell import MESSAGES, REQUEST, run_cell


def main(folder: Path) -> None:
    """Run the cell whose request lies in the folder; after a refusal, wait until the job is cancelled."""
    set_of_process(SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    request = decode((folder / REQUEST).read_bytes())
    assert isinstance(request, CellRequest)
    with open(folder / MESSAGES, "ab") as file:
        for message in run_cell(request, folder):
            file.write(encode(message))
            file.flush()
            os.fsync(file.fileno())
            if isinstance(message, Refused):
                signal.pause()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
