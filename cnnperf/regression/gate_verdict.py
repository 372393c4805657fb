"""The verdicts of the gate for times, and the notes on them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from statistics import median

from cnnperf.duet.contest import Contest
from cnnperf.duet.schedule import LONGEST_CALL_S, Conditions, Played, differing
from cnnperf.machine.disturbance import Disturbance
from cnnperf.machine.fingerprint import fingerprint
from cnnperf.regression import ratios
from cnnperf.regression.gate import Result
from cnnperf.regression.gate_test_result import Scope, quoted
from cnnperf.regression.rule import Decision, Rule
from cnnperf.regression.samples_file import SAMPLES_FILE
from cnnperf.regression.verdict import Comparison, Outcome, Verdict
from cnnperf.sides import Both, Side
from cnnperf.stats import SignedRanks
from cnnperf.units import amount_of


class TimeVerdict(Verdict):
    """The verdict on one metric of one cell, compared in turns; `n` is the number of replicates."""

    pairs: int
    """Pairs of samples in a replicate."""
    cpu_change: float | None = None
    """The change of the process's CPU time, which should agree with that of the wall time."""
    rule: Rule

    @property
    def evidence(self) -> str:
        """The evidence for the outcome, in words."""
        if self.change is None:
            return self.remark
        n = f"n={self.n}×{self.pairs} pairs"
        words = [f"{self._excluded()} {n}"] if self.outcome == "same" else [self._changed(), n]
        if self.outcome != "same" and self.p is not None and self.p_holm is not None:
            sign = "<" if self.p_holm <= self.rule.worse_level else ">"
            words.append(f"p={self.p:.2g} (Holm {self.p_holm:.2g} {sign} {self.rule.worse_level:g})")
        if self.cpu_change is not None:
            agrees = "agrees" if self._cpu_agrees() else "DISAGREES"
            words.append(f"cpu {100 * self.cpu_change:+.1f} % {agrees}")
        return "  ".join([*words, self.remark] if self.remark else words)

    def _excluded(self) -> str:
        theta = 100 * self.rule.theta
        return (
            f"{100 * (self.change or 0):+.1f} % (upper {100 * (self.high or 0):+.1f} % < {theta:g} %): {theta:g} % "
            f"excluded at {100 * (1 - self.rule.beta):g} %, smaller ones are not;"
        )

    def _cpu_agrees(self) -> bool:
        assert self.cpu_change is not None
        low = -math.inf if self.low is None else self.low
        high = math.inf if self.high is None else self.high
        return low - self.rule.tau <= self.cpu_change <= high + self.rule.tau


def comparison(result: Result) -> Comparison:
    """Return the verdicts of a comparison, and its notes."""
    return Comparison(
        verdicts=tuple(_verdict(result, contest) for contest in result.compared), notes=tuple(_notes(result))
    )


def _verdict(result: Result, contest: Contest) -> Verdict:
    decision, fault = result.decisions[contest.key], result.faults.get(contest)
    played = result.played.get(contest, [])
    if fault and fault.absent == "candidate":
        return Verdict(cell=contest.cell, metric=contest.metric, outcome="missing", remark=str(fault))
    if not played or decision.outcome == "error":
        outcome: Outcome = decision.outcome
        n = len(played) or None
        return Verdict(cell=contest.cell, metric=contest.metric, outcome=outcome, n=n, remark=decision.reason)
    conditions = result.conditions[contest]
    counted = played[: decision.n]
    times = Both.each(lambda side: median(_middle(each, side) for each in counted) / conditions.calls)
    return TimeVerdict(
        cell=contest.cell,
        metric=contest.metric,
        outcome=decision.outcome,
        unit="s",
        baseline=times.baseline,
        candidate=times.candidate,
        change=_change(decision.estimate),
        low=_change(decision.low),
        high=_change(decision.high),
        p=decision.p,
        p_holm=decision.p_holm,
        n=decision.n,
        remark="; ".join(filter(None, (_reason(decision, result.replicate_s), _cut(conditions)))),
        pairs=conditions.pairs,
        cpu_change=_change(float(SignedRanks([ratios.difference(each, "cpu_s") for each in counted]).estimate)),
        better="lower",
        rule=result.rule,
    )


def _reason(decision: Decision, replicate_s: float | None) -> str:
    """Return the reason of a decision, with the minutes that would decide."""
    if decision.needed is None or replicate_s is None:
        return decision.reason
    minutes = max(1, round((decision.needed - decision.n) * replicate_s / 60))
    return f"{decision.reason}, about {amount_of(minutes, 'more minute')}"


def _cut(conditions: Conditions) -> str:
    """Return the number of images that were measured instead of those of the suite; empty if they are these."""
    if conditions.cut is None:
        return ""
    of_suite, measured = conditions.cut
    return (
        f"measured with {amount_of(measured, 'image')} per call on both sides: {of_suite} take over "
        f"{1e3 * LONGEST_CALL_S:.0f} ms here"
    )


def _middle(played: Played, side: Side) -> float:
    return median(sample.wall_s for sample in played.taken.of(side).samples)


def _change(logarithm: float) -> float | None:
    return math.expm1(logarithm) if math.isfinite(logarithm) else None


def _rule_notes(result: Result) -> Iterator[str]:
    """Yield the rule's error rates, and its power at the scatter of these replicates."""
    rule = result.rule
    if result.compared:
        compared, looks = len(result.compared), len(rule.looks)
        yield (
            f"gate: if none of the {compared} cell-metrics is slower by more than {100 * rule.tau:g} %, at most "
            f"{100 * rule.alpha:g} % of runs call any worse (Holm; the last {looks - 1} looks); one that is slower by "
            f"{100 * rule.theta:g} % is called the same in at most {100 * rule.beta:g} % of runs (all {looks} looks)"
        )
    if words := result.power():
        yield f"power: {words}"
    if any(each.outcome in ("worse", "better") for each in result.decisions.values()):
        yield (
            f"each estimate is that of the deciding look: {result.overstated()}; each bound holds at "
            f"{100 * (1 - rule.beta):g} % over all looks"
        )


def _notes(result: Result) -> Iterator[str]:
    baseline, candidate = (version.name for version in result.versions)
    yield f"baseline {baseline}, candidate {candidate}"
    yield from _rule_notes(result)
    if shared := _shared(result):
        yield f"both sides use the same file, and only their environments differ: {', '.join(shared)}"
    if differences := _versions(result):
        yield f"different versions (allowed): {differences}"
    for differences in _settings(result):
        yield differences
    if excluded := [f"{key} {bound:.1f} %" for key, bound in _excluded(result)]:
        yield f"upper bounds of a slowdown: {', '.join(excluded)}"
    if any(result.played.values()):
        yield f"noise: {result.noise()}"
        disturbances = [each.disturbance for played in result.played.values() for each in played]
        if words := Disturbance.over(disturbances).words:
            yield f"disturbed: {'; '.join(words)}"
    new = [each.key for each in result.contests if each not in result.compared]
    if new:
        yield f"not in the baseline, and not compared: {', '.join(new)}"
    if result.interrupted:
        yield "interrupted: verdicts use the replicates measured so far"
    yield quoted(scope(result))
    if result.folder is not None and any(result.played.values()):
        yield f"every sample: {result.folder / SAMPLES_FILE}"


def scope(result: Result) -> Scope:
    """Return the conditions of the comparison; the version of torch is that of the candidate's worker."""
    tasks = [contest.tasks.candidate for contest in result.compared]
    played = next((each for several in result.played.values() for each in several), None)
    machine = played.machines.candidate if played else fingerprint()
    return Scope(
        devices=tuple(dict.fromkeys(task.cell.device.name for task in tasks)),
        threads=tasks[0].threads if tasks else None,
        metrics=tuple(dict.fromkeys(contest.metric for contest in result.compared)),
        torch=machine.packages.get("torch"),
    )


def _versions(result: Result) -> str:
    machines = next((played[0].machines for played in result.played.values()), None)
    if machines is None:
        return ""
    one, other = ({"python": m.python, "commit": m.commit, **m.packages} for m in machines)
    names = dict.fromkeys([*one, *other])
    return ", ".join(f"{n} ({one.get(n)} against {other.get(n)})" for n in names if one.get(n) != other.get(n))


def _shared(result: Result) -> list[str]:
    """Return the files of models that two interpreters share."""
    if result.versions.baseline.python == result.versions.candidate.python:
        return []
    opened = [played[0].opened for played in result.played.values() if played]
    return list(dict.fromkeys(str(one.source) for one, other in opened if one.source and one.source == other.source))


def _settings(result: Result) -> Iterator[str]:
    """Yield the settings that differ between the sides, with their cells."""
    cells: dict[str, dict[str, None]] = defaultdict(dict)
    for contest, played in result.played.items():
        for difference in differing(*(each.settings for each in played[0].opened)) if played else ():
            cells[difference][contest.cell] = None
    for difference, found in cells.items():
        yield f"settings differ: {difference} in {', '.join(found)}"


def _excluded(result: Result) -> Iterator[tuple[str, float]]:
    """Yield the upper bound of each contest's slowdown in percent, unless its replicates permit no verdict."""
    series = result.series()
    for key, decision in result.decisions.items():
        if _is_bounded(decision) and not series[key].first(decision.n).doubt():
            yield key, 100 * max(0.0, math.expm1(decision.high))


def _is_bounded(decision: Decision) -> bool:
    return decision.outcome in ("same", "better", "inconclusive") and math.isfinite(decision.high)
