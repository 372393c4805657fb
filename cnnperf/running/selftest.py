"""A self-test from the parent's side: a fresh process per claim with a time limit, and a folder that can be shared."""

from __future__ import annotations

import fnmatch
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Protocol

import psutil
from pydantic import computed_field

from cnnperf import registry
from cnnperf.errors import RunError, UsageError, shorten
from cnnperf.ipc.checked_figure import CheckedFigure
from cnnperf.ipc.log import tail
from cnnperf.ipc.messages import (
    ClaimEnded,
    ClaimRequest,
    ClaimSkipped,
    DeviceFound,
    DeviceRequest,
    Failed,
    Message,
    Noted,
    ReadingTaken,
    ToClaim,
)
from cnnperf.ipc.process import PYTHON, Launch, WorkerProcess
from cnnperf.machine.fingerprint import fingerprint, usable_cores
from cnnperf.record import Machine
from cnnperf.running.anonymous import anonymous, places
from cnnperf.running.runner import created, folder_to_make
from cnnperf.suite import Suite
from cnnperf.task import Frozen

SELFTEST_SCHEMA: Literal[1] = 1
"""Version of the document's format. 1: the first."""
SELFTEST_FILE = "selftest.json"
KEPT = ("runs/*/records.jsonl", "runs/*/logs/*.log", "gate/*/duet.jsonl", "logs/*.log")
"""Files of the scratch folder that are copied to the result folder: no weights, no images."""
SELFTEST_VARIABLES = (
    *("OMP_", "GOMP_", "KMP_", "MKL_", "MALLOC_"),
    *("CUDA_", "NVIDIA_", "CUBLAS_", "CUDNN_", "TORCH_", "PYTORCH_"),
)
"""Prefixes of environment variables that affect computations."""
DEVICE_S = 120.0
"""Time limit for a device to answer, within the given minutes."""
LAST_S = 60.0
"""A claim that takes all remaining time must end this long before the minutes do, or at half of the remaining time; it
ends by itself after its current work."""
SHORTEST_S = 5.0
"""Minimum remaining time to start a claim."""

Ending = Literal["held", "failed", "undecided", "reported", "skipped"]


class ClaimOutcome(Frozen):
    """The result of one claim."""

    name: str
    claim: str
    readings: tuple[CheckedFigure, ...] = ()
    skipped: str | None = None
    """Reason why the claim could not be tested completely."""
    out_of_time: bool = False
    """Whether the given minutes ended the claim."""
    fault: str | None = None
    """The error that ended the claim."""
    seconds: float = 0.0
    log_tail: tuple[str, ...] = ()

    @computed_field  # type: ignore[prop-decorator]
    @property
    def ending(self) -> Ending:
        """The worst result: the claim did not hold if a reading failed or the process crashed."""
        found = {reading.verdict for reading in self.readings}
        if self.fault or "failed" in found:
            return "failed"
        if self.out_of_time or "undecided" in found:
            return "undecided"
        if "held" in found:
            return "held"
        return "skipped" if self.skipped or not found else "reported"


class SelfTest(Frozen):
    """All results and descriptions needed to judge a self-test remotely."""

    version: Literal[1] = SELFTEST_SCHEMA
    started: str
    device: str
    label: str
    facts: Mapping[str, Any]
    """Torch's description of its build."""
    machine: Machine
    environment: Mapping[str, str]
    """Variables of the claims' processes that affect computations."""
    threads: int
    minutes: float
    outcomes: tuple[ClaimOutcome, ...] = ()
    interrupted: bool = False

    def count(self, ending: Ending) -> int:
        """Return the number of claims with this outcome."""
        return sum(outcome.ending == ending for outcome in self.outcomes)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def exit_code(self) -> Literal[0, 1, 3, 130]:
        """Return 0 if all applicable claims held, 1 if any did not, 3 if any is undecided or none applies."""
        if self.interrupted:
            return 130
        if self.count("failed"):
            return 1
        return 3 if self.count("undecided") or not self.count("held") else 0


class ClaimWatcher(Protocol):
    """Listener to a self-test."""

    def planned(self, names: Sequence[str]) -> None:
        """The device is available; these claims will be tested."""

    def progressed(self, name: str, text: str) -> None:
        """A claim reports its current work."""

    def finished(self, outcome: ClaimOutcome) -> None:
        """A claim has ended."""


def selftest(
    *, device: str, minutes: float, only: str | None, out: Path | None, watcher: ClaimWatcher
) -> tuple[SelfTest, Path]:
    """Test the claims that match a glob on a device, and return the results and their folder.

    out: folder to create; default: a new one below `results/selftest/`. Ctrl-C ends the test early. Raises UsageError
    if the request cannot be carried out, RunError if the test fails midway.
    """
    if not (math.isfinite(minutes) and minutes > 0):
        raise UsageError(f"`minutes`: give a number above 0, got {minutes}")
    names = matching(only)
    folder = folder_to_make(Suite.model_construct(name="selftest", datasets=(), models=()), out, SELFTEST_FILE)
    end = time.monotonic() + 60 * minutes
    test = begun(device, minutes, end)
    folder = out or created(folder)
    watcher.planned(names)
    return carry_out(test, names, folder, watcher, end), folder


def matching(only: str | None = None) -> tuple[str, ...]:
    """Return the claims that match a glob; claims without a time limit come last.

    Raises UsageError if none matches.
    """
    names = [name for name in registry.names("claims") if only is None or fnmatch.fnmatchcase(name, only)]
    if not names:
        known = ", ".join(registry.names("claims"))
        raise UsageError(f"`only`: no claim matches {only!r}; give a glob over these: {known}")
    return tuple(sorted(names, key=lambda name: (registry.module("claims", name).LIMIT_S is None, name)))


def begun(device: str, minutes: float, end: float) -> SelfTest:
    """Describe the machine and the device. Raises UsageError if the device is missing or does not answer in time.

    end: end of the minutes on the monotonic clock.
    """
    kind, colon, _ = device.partition(":")
    if colon and kind in registry.names("devices"):
        raise UsageError(
            f"`device`: {shorten(repr(device), 60)}: the self-test takes the first device; give {kind}, and hide the "
            "others (CUDA_VISIBLE_DEVICES)"
        )
    if absent := registry.unknown_in("devices", device):
        raise UsageError(f"`device`: {absent}")
    with tempfile.TemporaryDirectory(prefix="cnnperf-selftest-") as folder:
        found: DeviceFound | None = None
        reason = ""
        log = Path(folder) / "log"
        with _child(DeviceRequest(device=device), log) as worker, _no_orphans(), suppress(TimeoutError):
            for message in worker.messages(_until(min(time.monotonic() + DEVICE_S, end))):
                if isinstance(message, DeviceFound):
                    found = message
                elif isinstance(message, ClaimSkipped):
                    reason = message.reason
        if found is None:
            reason = reason or f"it did not answer: {' '.join(tail(log, 3))}"
            raise UsageError(f"`device` {device}: {reason}; nothing was measured")
    threads = usable_cores()
    variables = _launch(threads).variables()
    return SelfTest(
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        device=device,
        label=found.label,
        facts=found.facts,
        machine=fingerprint(),
        environment={name: value for name, value in sorted(variables.items()) if name.startswith(SELFTEST_VARIABLES)},
        threads=threads,
        minutes=minutes,
    )


def carry_out(test: SelfTest, names: Sequence[str], folder: Path, watcher: ClaimWatcher, end: float) -> SelfTest:
    """Test the claims one after the other, until the minutes end, and write the folder.

    Ctrl-C ends the test early. Raises UsageError if the folder cannot be created, RunError if a later write fails.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"`out`: {folder} cannot be written ({error.strerror}); give another folder") from error
    with tempfile.TemporaryDirectory(prefix="cnnperf-selftest-") as place:
        scratch = Path(place)
        (scratch / "logs").mkdir()
        try:
            for name in names:
                outcome = _outcome(name, test, scratch, end, watcher)
                test = test.model_copy(update={"outcomes": (*test.outcomes, outcome)})
                watcher.finished(outcome)
        except KeyboardInterrupt:
            test = test.model_copy(update={"interrupted": True})
        _send(test, scratch, folder)
    return test


def _outcome(name: str, test: SelfTest, scratch: Path, end: float, watcher: ClaimWatcher) -> ClaimOutcome:
    module = registry.module("claims", name)
    begun, left_s = time.monotonic(), end - time.monotonic()
    patience_s = min(module.LIMIT_S or left_s, left_s)
    outcome = ClaimOutcome(name=name, claim=module.CLAIM)
    if left_s < SHORTEST_S:
        return outcome.model_copy(update={"skipped": _used_up(test), "out_of_time": True})
    seconds = max(left_s - LAST_S, left_s / 2) if module.LIMIT_S is None else patience_s
    request = ClaimRequest(device=test.device, claim=name, scratch=scratch, seconds=seconds, threads=test.threads)
    log, heard = scratch / "logs" / f"{name}.log", _Heard()
    timed_out = False
    # Innermost, because the children of the claim's process cannot be identified after it has ended.
    with _child(request, log, test.threads) as worker, _no_orphans():
        try:
            for message in worker.messages(_until(begun + patience_s)):
                if isinstance(message, Noted):
                    watcher.progressed(name, message.text)
                heard.enter(message)
        except TimeoutError:
            timed_out = True
            _end(psutil.Process().children(recursive=True))
    facts: dict[str, Any] = {"readings": tuple(heard.readings), "seconds": round(time.monotonic() - begun, 3)}
    facts |= {"skipped": heard.skipped, "fault": heard.fault}
    if timed_out and patience_s == module.LIMIT_S:
        facts["fault"] = f"took longer than its {patience_s:.0f} s; ended"
    elif timed_out:
        facts |= {"skipped": _used_up(test), "out_of_time": True}
    elif not heard.has_ended:
        facts["fault"] = f"its process {worker.ending}"
    if facts["fault"]:
        facts["log_tail"] = tail(log)
    return outcome.model_copy(update=facts)


def _used_up(test: SelfTest) -> str:
    return f"the {test.minutes:g} minutes were used up; raise `minutes`"


@dataclass(slots=True)
class _Heard:
    """The messages of a claim's process so far."""

    readings: list[CheckedFigure] = field(default_factory=list)
    skipped: str | None = None
    fault: str | None = None
    has_ended: bool = False

    def enter(self, message: Message) -> None:
        """Store the content of a message."""
        match message:
            case ReadingTaken():
                self.readings.append(message.reading)
            case ClaimSkipped():
                self.skipped = message.reason
            case Failed():
                self.fault = message.reason
            case ClaimEnded():
                self.has_ended = True


def _child(request: ToClaim, log: Path, threads: int | None = None) -> WorkerProcess:
    return WorkerProcess(request, log=log, launch=_launch(threads))


def _launch(threads: int | None) -> Launch:
    return Launch(command=(*PYTHON, "cnnperf.workers.claim"), threads=threads)


def _until(end: float) -> Callable[[], float]:
    return lambda: max(0.0, end - time.monotonic())


@contextmanager
def _no_orphans() -> Iterator[None]:
    """On an interrupt, end the processes that a claim's process has started in their own process groups."""
    try:
        yield
    except BaseException:
        _end(psutil.Process().children(recursive=True))
        raise


def _end(processes: Sequence[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def _send(test: SelfTest, scratch: Path, folder: Path) -> None:
    """Write all results, without this machine's paths. Raises RunError."""
    known = {str(scratch): "<scratch>", str(folder.resolve()): "<out>", **places()}
    try:
        for pattern in KEPT:
            for file in scratch.glob(pattern):
                path = folder / file.relative_to(scratch)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(anonymous(file.read_text(encoding="utf-8", errors="replace"), known), encoding="utf-8")
        text = anonymous(test.model_dump_json(indent=1), known)
        (folder / SELFTEST_FILE).write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise RunError(f"{folder}: cannot be written ({error.strerror}); free disk space and run it again") from error
