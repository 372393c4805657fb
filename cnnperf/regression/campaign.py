"""The A/A campaign: a suite compared with itself in many runs, and how often it called unchanged code worse.

`measure_run` makes one run under one condition and keeps it in a folder of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from cnnperf.errors import UsageError
from cnnperf.registry import unknown
from cnnperf.regression.ab import ComparisonWatcher, ab
from cnnperf.regression.revisions import HERE_NAMED
from cnnperf.sides import PAIRS
from cnnperf.task import Frozen

Condition = Literal["quiet", "neighbour", "shared"]
CONDITIONS: dict[Condition, str] = {
    "quiet": "on a quiet machine",
    "neighbour": "beside a process that keeps one core busy",
    "shared": "beside other work of the machine",
}
RUN_FILE, VERDICTS_FILE = "campaign.json", "verdicts.json"
BUSY = "import os\nparent = os.getppid()\nwhile os.getppid() == parent:\n    for _ in range(100_000): pass\n"
"""The neighbour: it keeps one core busy, and ends when its parent process has ended."""


class CampaignRun(Frozen):
    """Facts of one run, beside its samples and verdicts."""

    occasion: str
    condition: Condition
    pairs: int
    """The most pairs of samples in a replicate."""
    command: tuple[str, ...]
    """The `cnnperf ab` that makes the same comparison."""
    began: str
    seconds: float
    load: float
    """Load average of the run's last five minutes; the measurement itself contributes 1."""
    exit_code: int
    """The exit status of that command."""


def measure_run(
    suite: str,
    out: Path,
    *,
    occasion: str,
    condition: Condition = "quiet",
    threads: int | None = None,
    pairs: int = PAIRS[1],
    minutes: float | None = None,
    watcher: ComparisonWatcher | None = None,
) -> CampaignRun:
    """Compare this tree with itself on a suite, as `cnnperf ab` does, and store the run in a folder below `out`.

    condition: `neighbour` starts another process that keeps one core busy; `shared` records that the machine has other
    work, and starts none. threads, pairs, minutes: as in `cnnperf ab`.
    Raises UsageError if the request cannot be carried out, RunError if the run fails midway, KeyboardInterrupt if
    Ctrl-C ended the comparison early; such a run is not counted.
    """
    if condition not in CONDITIONS:
        raise UsageError(f"`condition`: {unknown('condition', condition, CONDITIONS)}")
    folder = _new_folder(out, occasion, condition)
    given = {"--threads": threads, "--minutes": minutes}
    options = [str(word) for option, value in given.items() if value is not None for word in (option, value)]
    words = ("ab", suite, "--baseline", HERE_NAMED, "--pairs", str(pairs), *options, "--out", str(folder))
    began, start = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
    with neighbour(condition):
        comparison = ab(
            suite,
            baseline=HERE_NAMED,
            threads=threads,
            pairs=pairs,
            minutes=minutes,
            out=folder,
            watcher=watcher,
        )
    if comparison.interrupted:
        raise KeyboardInterrupt
    run = CampaignRun(
        occasion=occasion,
        condition=condition,
        pairs=pairs,
        command=("cnnperf", *words),
        began=began,
        seconds=time.monotonic() - start,
        load=os.getloadavg()[1],
        exit_code=comparison.exit_code,
    )
    (folder / VERDICTS_FILE).write_text(comparison.model_dump_json(indent=2) + "\n", encoding="utf-8")
    # Written last: its presence says that the run is complete.
    (folder / RUN_FILE).write_text(run.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return run


def _new_folder(out: Path, occasion: str, condition: Condition) -> Path:
    if not occasion.replace("-", "").replace("_", "").isalnum():
        raise UsageError(f"`occasion`: {occasion!r} is not a valid name; give letters, digits, - and _")
    number = 1
    while (folder := out / f"{occasion}-{condition}-{number:02}").exists():
        number += 1
    return folder


@contextmanager
def neighbour(condition: Condition) -> Iterator[None]:
    """Keep one core busy with another process if the condition is `neighbour`."""
    if condition != "neighbour":
        yield
        return
    with subprocess.Popen([sys.executable, "-c", BUSY]) as process:
        try:
            yield
        finally:
            process.kill()
