"""The result of the gate test on this machine; later verdicts quote it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from cnnperf.datasets import Roots
from cnnperf.errors import CnnperfWarning, RunError
from cnnperf.machine.fingerprint import fingerprint
from cnnperf.record import Machine, Processor
from cnnperf.regression.verdict import Verdict
from cnnperf.stats import Interval, binomial_bounds
from cnnperf.task import Frozen
from cnnperf.units import amount_of

NEVER = "gate test: never run on this machine; run cnnperf doctor"
DECIDED = ("worse", "better", "same")
DECIDED_SHARE = 0.5
"""Minimum share of unchanged cells that are decided. With fewer, the absence of false alarms shows little."""
FOUND_SHARE = 0.8
"""Minimum share of slowed cells that are called worse, to show that the gate finds slowdowns on this machine."""


class Tally(Frozen):
    """The number of verdicts with one outcome, and of all that count."""

    found: int
    trials: int

    @property
    def bounds(self) -> Interval:
        """The exact one-sided 95 % bounds of the rate; without a trial 0 and 1."""
        return binomial_bounds(self.found, self.trials) if self.trials else Interval(0.0, 1.0)

    def __str__(self) -> str:
        return f"{self.found} of {self.trials}"


class Scope(Frozen):
    """The conditions of a comparison of times; a gate test is valid only within its own."""

    devices: tuple[str, ...]
    threads: int | None
    """None: as many as there are cores."""
    metrics: tuple[str, ...]
    torch: str | None
    """Version of torch; None if unknown."""

    def __str__(self) -> str:
        torch = [] if self.torch is None else [f"torch {self.torch}"]
        return ", ".join([*self.devices, _threads(self.threads), *self.metrics, *torch])

    def lacks(self, other: Scope) -> list[str]:
        """Return the parts of the other's scope that this one lacks."""
        lacking = [name for name in (*other.devices, *other.metrics) if name not in (*self.devices, *self.metrics)]
        if other.threads != self.threads:
            lacking.append(_threads(other.threads))
        if other.torch is not None and other.torch != self.torch:
            lacking.append(f"torch {other.torch}")
        return lacking


class GateTest(Frozen):
    """One run of the gate over cells in which nothing was changed, and over the same cells slowed on purpose."""

    machine: Machine
    day: date
    slowdown: float
    """The injected delay, as a share of each call's duration."""
    scope: Scope = Scope(devices=("cpu",), threads=1, metrics=("train.step",), torch=None)
    """Conditions of the test; the default is the scope of all gate tests that were stored without one."""
    unchanged: tuple[Verdict, ...]
    slowed: tuple[Verdict, ...]

    @property
    def false_alarms(self) -> Tally:
        """The unchanged cells that were called worse, of those that were decided."""
        return _tally(_decided(self.unchanged), "worse")

    @property
    def detections(self) -> Tally:
        """The slowed cells that were called worse, of all; an undecided one counts as not found."""
        return _tally(self.slowed, "worse")

    @property
    def misses(self) -> Tally:
        """The slowed cells that were called the same or better, of those that were decided."""
        return _tally(_decided(self.slowed), "same", "better")

    @property
    def undecided(self) -> Tally:
        """The unchanged cells that were not decided."""
        return _tally(self.unchanged, "inconclusive")

    @property
    def has_decided(self) -> bool:
        """Whether any cell was decided; otherwise it is not stored."""
        return bool(_decided((*self.unchanged, *self.slowed)))

    @property
    def exit_code(self) -> Literal[0, 1, 3]:
        """1 for any false alarm, miss or cell that broke; 3 if too few were decided or found."""
        broken = _tally((*self.unchanged, *self.slowed), "error", "missing")
        if self.false_alarms.found or self.misses.found or broken.found:
            return 1
        is_tested = self.false_alarms.trials >= max(1, DECIDED_SHARE * len(self.unchanged))
        is_shown = self.detections.found >= FOUND_SHARE * self.detections.trials
        return 0 if is_tested and is_shown else 3

    @property
    def summary(self) -> tuple[str, ...]:
        """The counts, one per line, each with the bound of its rate; the outcome comes last."""
        alarms, found, misses = self.false_alarms, self.detections, self.misses
        slowed = f"cells slowed by {100 * self.slowdown:g} %"
        undecided = f" ({self.undecided.found} inconclusive, not counted)" if self.undecided.found else ""
        return (
            f"false alarms: {alarms.found} of the {alarms.trials} decided unchanged cells were called worse"
            f"{undecided}; the rate is at most {_high(alarms)}",
            f"detections: {found.found} of the {found.trials} {slowed} were called worse; "
            f"the rate is at least {_low(found)}",
            f"misses: {misses.found} of the {misses.trials} decided {slowed} were called the same or better; "
            f"the rate is at most {_high(misses)}",
            f"gate test: {self._outcome()} → exit {self.exit_code}",
        )

    def _outcome(self) -> str:
        return {
            0: "the gate held",
            1: "the gate did not hold: a false alarm, a miss or a failed cell",
            3: f"inconclusive: at least {100 * DECIDED_SHARE:g} % of the unchanged cells must be decided and "
            f"{100 * FOUND_SHARE:g} % of the slowed cells called worse; raise `minutes` or use a quieter machine",
        }[self.exit_code]

    @property
    def sentence(self) -> str:
        """The note that later verdicts on this machine quote."""
        alarms, found = self.false_alarms, self.detections
        bound = f"95 % upper bound {100 * alarms.bounds.high:.0f} %"
        undecided = f"; {self.undecided.found} inconclusive" if self.undecided.found else ""
        slowed = f"+{100 * self.slowdown:g} % {found} worse"
        counts = f"A/A {alarms} worse ({bound}{undecided}), {slowed}"
        return f"gate test on this machine: {self.day} ({self.scope}), {counts}"

    def save(self) -> Path:
        """Store it for later verdicts on this machine, replacing an earlier one. Raises RunError."""
        path = _path()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise RunError(
                f"{path}: cannot be written ({error.strerror}); set CNNPERF_CACHE to another folder"
            ) from error
        return path


def stored_gate_test() -> GateTest | None:
    """Return the last gate test on this machine: a host of this name with the same processor and as many cores."""
    path = _path()
    try:
        found = GateTest.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        kind = type(error).__name__
        warnings.warn(
            f"{path}: cannot be read as a gate test ({kind}); run cnnperf doctor", CnnperfWarning, stacklevel=2
        )
        return None
    return found if _computes_on(found.machine) == _computes_on(fingerprint()) else None


def quoted(scope: Scope) -> str:
    """Return a note on the last gate test on this machine, with the parts of a scope that it did not test."""
    found = stored_gate_test()
    if found is None:
        return NEVER
    lacking = found.scope.lacks(scope)
    return f"{found.sentence}; not tested: {', '.join(lacking)}" if lacking else found.sentence


def _computes_on(machine: Machine) -> tuple[object, ...]:
    """Return what must be equal for two machines to have the same processor, since names are shared, and cores."""
    known = machine.processor or Processor()
    identity = known.vendor, known.family, known.model, known.stepping, known.instruction_sets
    return machine.cpu, machine.cores, *identity


def _path() -> Path:
    host = re.sub(r"[^\w.-]+", "-", fingerprint().host) or "host"
    return Roots.from_environment().cache / "gate-test" / f"{host}.json"


def _threads(count: int | None) -> str:
    return "one thread per core" if count is None else amount_of(count, "thread")


def _low(tally: Tally) -> str:
    return f"{100 * tally.bounds.low:.0f} % (exact, 95 %)"


def _high(tally: Tally) -> str:
    return f"{100 * tally.bounds.high:.0f} % (exact, 95 %)"


def _decided(verdicts: Sequence[Verdict]) -> list[Verdict]:
    return [verdict for verdict in verdicts if verdict.outcome in DECIDED]


def _tally(verdicts: Sequence[Verdict], *outcomes: str) -> Tally:
    return Tally(found=sum(verdict.outcome in outcomes for verdict in verdicts), trials=len(verdicts))
