"""The fault matrix as a plug-in of pytest: options, the trials of random faults, and the table at the end."""

from __future__ import annotations

import random
import traceback
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ONE_OF, SAMPLED_TRIALS = 24, 3
"""Divisor of the number of faults in a sample, and trials of each random fault of it."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the fault matrix."""
    parser.addoption("--fault-seed", type=int, default=0, metavar="N", help="seed of the random faults")
    parser.addoption("--fault-trials", type=int, default=100, metavar="N", help="trials of each random fault")
    parser.addoption("--fault-sample", action="store_true", help=f"one fault of {ONE_OF}, drawn from the seed")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark all tests of this folder, and leave out those that are not drawn for a sample."""
    faults = [item for item in items if item.path.is_relative_to(HERE)]
    for item in faults:
        item.add_marker(pytest.mark.faults)
        # Any number of trials may be asked for, and each has limits of its own.
        if "trials" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.timeout(0))
    if config.getoption("--fault-sample"):
        seed = config.getoption("--fault-seed")
        left_out = [item for item in faults if _number(item.nodeid, seed) % ONE_OF]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def _number(name: str, seed: int) -> int:
    return zlib.crc32(f"{seed} {name}".encode())


class Trials:
    """A fault that is tried many times, each time with other random numbers."""

    def __init__(self, item: pytest.Item) -> None:
        option = item.config.getoption
        self._item, self._seed = item, option("--fault-seed")
        self.count = SAMPLED_TRIALS if option("--fault-sample") else option("--fault-trials")

    def run(self, one: Callable[[random.Random], None], *, scale: float = 1.0) -> None:
        """Call a function once a trial; the test fails at the end if any call raised.

        scale: how many trials to make for each one asked for: below 1 for slow ones, above 1 for cheap ones.
        """
        failures: list[str] = []
        count = max(1, round(scale * self.count))
        for number in range(count):
            try:
                one(random.Random(_number(f"{self._item.nodeid} {number}", self._seed)))
            except Exception:
                failures.append(f"trial {number}: {traceback.format_exc()}")
        self._item.user_properties += [("tried", count), ("survived", count - len(failures))]
        assert not failures, f"{len(failures)} of {count} trials (seed {self._seed}):\n" + "\n".join(failures[:5])


@pytest.fixture
def trials(request: pytest.FixtureRequest) -> Trials:
    """Return the trials of a random fault."""
    return Trials(request.node)


@pytest.fixture
def said(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Return a function that adds a sentence below the table at the end: what exactly was tried."""
    return lambda text: request.node.user_properties.append(("said", text))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print each fault: how often it was tried, and how often it was survived."""
    rows: list[tuple[str, int, int]] = []
    remarks: list[str] = []
    skipped = 0
    for outcome in ("passed", "failed", "error", "skipped"):
        for report in terminalreporter.getreports(outcome):
            file, _, name = report.nodeid.partition("::")
            if Path(file).parent.name != HERE.name or (outcome in ("passed", "failed") and report.when != "call"):
                continue
            if outcome == "skipped":
                skipped += 1
                continue
            told = {"tried": 1, "survived": int(outcome == "passed")} | dict(report.user_properties)
            words = f"{Path(file).stem}: {name}".replace("test_", "").replace("_", " ")
            rows.append((words, told["tried"], told["survived"]))
            remarks += [f"{words}: {told['said']}"] if "said" in told else []
    if not rows:
        return
    width = max(len(words) for words, _, _ in rows)
    terminalreporter.section(f"faults (seed {config.getoption('--fault-seed')})")
    for words, tried, survived in sorted(rows):
        mark = "" if tried == survived else "   <-- not survived"
        terminalreporter.write_line(f"{words:{width}}  tried {tried:6,}  survived {survived:6,}{mark}")
    for remark in sorted(remarks):
        terminalreporter.write_line(remark)
    tried, survived = (sum(row[column] for row in rows) for column in (1, 2))
    not_tried = f", {skipped} skipped" if skipped else ""
    terminalreporter.write_line(f"{len(rows)} faults, {tried:,} trials, {survived:,} survived{not_tried}")
