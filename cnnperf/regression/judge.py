"""Compares one metric of two sides; each unit has its own method."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Literal

from cnnperf.inference.accuracy import ParityOutcome
from cnnperf.inference.metrics import SPEEDUP
from cnnperf.inference.outcome import speedup
from cnnperf.record import Measurement
from cnnperf.regression.rule import Rule
from cnnperf.regression.verdict import Outcome, Verdict, is_difference
from cnnperf.sides import Both
from cnnperf.stats import Welch, binomial_deviation, binomial_interval
from cnnperf.units import amount_of

LEAST_SEEDS = 3
"""Minimum number of trainings per side to estimate the variation between trainings."""

LEAST_PROCESSES = 2
"""Minimum number of processes per side to know the variation of their memory."""

TOLD_BY_TRAINING = "based on one training; see the test of the trainings' accuracy and the engine's parity"

INDICATIVE_TIMES = "times and speeds are indicative: two processes that run the same code easily differ by 20 %"

UNTOLD_BY_PARITY = "based on one training; the candidate's parity is {} and must be ok (raise test_images if undecided)"

JUDGED = ("count", "bytes", "fraction")
"""Units in which two separate runs can be compared."""


@dataclass(frozen=True, slots=True)
class Compared:
    """One metric of one cell on both sides, one measurement per repeat."""

    cell: str
    metric: str
    sides: Both[tuple[Measurement, ...]]
    seeds: Both[tuple[int, ...]]
    """The seed of the training that each repeat describes."""
    is_of_training: bool
    """Whether the training itself measured it, rather than a later stage that reads its weights."""
    is_trained: bool
    """Whether its weights were trained in the runs; weights of an ONNX file or a random draw were not."""
    is_training_judged: bool
    """Whether the accuracy of that training is tested in the same comparison."""
    parity: ParityOutcome | None
    """Whether the candidate's engine computes the same as torch; None if not recorded."""
    unequal_training: str | None
    """Why the two sides were not trained equally long; None if they were."""
    unlike_machines: str | None
    """The differences between the machines of the two sides; None if there are none."""
    is_reference: bool = False
    """Whether the baseline was measured on another machine, to be held against: memory is then only shown."""

    @property
    def measurement(self) -> Measurement:
        """Any one of them; unit and direction are the same in all."""
        return self.sides.baseline[0]

    @property
    def repeats(self) -> Both[int]:
        """The number of repeats."""
        return Both(*map(len, self.sides))

    def verdict(self, outcome: Outcome, numbers: Both[float], remark: str = "") -> Verdict:
        """Make a verdict on the figures of the two sides, with their difference or ratio as the change."""
        baseline, candidate = numbers
        unit = self.measurement.unit
        return Verdict(
            cell=self.cell,
            metric=self.metric,
            outcome=outcome,
            unit=unit,
            baseline=baseline,
            candidate=candidate,
            change=candidate - baseline if is_difference(self.metric, unit, *numbers) else candidate / baseline - 1,
            n=min(self.repeats),
            remark=remark,
            better=self.measurement.better,
        )

    def gain(self, numbers: Both[float]) -> float:
        """Return the candidate's improvement over the baseline, in the metric's unit."""
        baseline, candidate = numbers
        return candidate - baseline if self.measurement.better == "higher" else baseline - candidate


@dataclass(frozen=True, slots=True)
class Pending:
    """A comparison whose outcome waits for the p-values of all the others."""

    verdict: Verdict
    """The verdict without its outcome."""
    loss: Welch
    """The test of the candidate's loss."""
    better: Literal["lower", "higher"]

    def p_worse(self, rule: Rule) -> float:
        """Return the p-value of the hypothesis that the loss is at most tau."""
        return self.loss.p_above(rule.tau)

    def p_better(self, rule: Rule) -> float:
        """Return the p-value of the hypothesis that the gain is at most tau."""
        return self.loss.p_below(-rule.tau)

    def settled(self, rule: Rule, worse: float, better: float) -> Verdict:
        """Return the verdict, given the p-values adjusted for all comparisons."""
        low, high = self.loss.lower(rule.beta), self.loss.upper(rule.beta)
        outcome: Outcome = "inconclusive"
        remark = f"a loss of {100 * rule.theta:g} points is not excluded; more repeats would decide"
        if worse <= rule.alpha:
            outcome, remark = "worse", ""
        elif better <= rule.alpha:
            outcome, remark = "better", ""
        elif high < rule.theta and low <= rule.tau:
            outcome, remark = "same", ""
        elif high < rule.theta:
            remark = f"a loss of {100 * rule.tau:g} point is likely but not proven; more repeats would decide"
        lost = self.loss.estimate > 0
        ends = (low, high) if self.better == "lower" else (-high, -low)
        return self.verdict.model_copy(
            update={
                "outcome": outcome,
                "remark": remark,
                "low": ends[0],
                "high": ends[1],
                "p": self.p_worse(rule) if lost else self.p_better(rule),
                "p_holm": worse if lost else better,
            }
        )


def is_compared(measurement: Measurement) -> bool:
    """Return whether a metric is compared: it has a direction, and is not a point of a curve."""
    return measurement.better is not None and not measurement.is_point


def is_judged(measurement: Measurement) -> bool:
    """Return whether a comparison of it can affect the exit status; one of times cannot."""
    return is_compared(measurement) and (measurement.unit in JUDGED or "artifact" in measurement.tags)


def judge(compared: Compared, rule: Rule) -> Verdict | Pending:
    """Compare one metric: counts and sizes of artifacts exactly, memory by a margin, fractions by a test.

    The last two need repeats. Without them memory is indicative, and a fraction inconclusive, except one of an engine
    whose training is tested. Everything else, above all times, is indicative, since the runs did not take turns.
    """
    measurement = compared.measurement
    if measurement.unit == "count" or "artifact" in measurement.tags:
        return _exact(compared)
    if measurement.unit == "bytes":
        return _memory(compared, rule)
    if measurement.unit == "fraction":
        return _fraction(compared)
    return compared.verdict("indicative", _middle(compared))


def _exact(compared: Compared) -> Verdict:
    before, after = ({m.values for m in side} for side in compared.sides)
    numbers = Both(sum(min(before)), sum(min(after)))
    if before == after and len(before) == 1:
        return compared.verdict("same", numbers)
    if len(before) > 1 or len(after) > 1:
        return compared.verdict("inconclusive", numbers, "the repeats of one side differ from each other")
    return compared.verdict(
        "better" if compared.gain(numbers) > 0 else "worse",
        numbers,
        f"must be equal: {numbers.baseline:,.0f} → {numbers.candidate:,.0f}",
    )


def _memory(compared: Compared, rule: Rule) -> Verdict:
    numbers = _middle(compared)
    if compared.unlike_machines and compared.is_reference:
        return compared.verdict("indicative", numbers, "of another machine")
    if compared.unlike_machines:
        return compared.verdict("inconclusive", numbers, f"measure both on one machine: {compared.unlike_machines}")
    if compared.repeats.candidate < LEAST_PROCESSES <= compared.repeats.baseline:
        # Were it indicative, a candidate would escape the comparison by leaving repeats out.
        return compared.verdict("inconclusive", numbers, _lacking(compared.repeats, LEAST_PROCESSES, "repeat"))
    if compared.repeats.baseline < LEAST_PROCESSES:
        return compared.verdict("indicative", numbers, f"needs {LEAST_PROCESSES} repeats per side")
    before, after = numbers
    if after > before * (1 + rule.theta):
        outcome: Outcome = "worse"
    elif before > after * (1 + rule.theta):
        outcome = "better"
    else:
        return compared.verdict("same", numbers)
    (least, most), (others_least, others_most) = (_range(side) for side in compared.sides)
    if least <= others_most and others_least <= most:
        return compared.verdict(
            "inconclusive", numbers, "the repeats of the two sides overlap; more repeats would decide"
        )
    return compared.verdict(outcome, numbers)


def _fraction(compared: Compared) -> Verdict | Pending:
    """Compare shares of images by a test over trainings; if the test is impossible, the verdict is inconclusive.

    It is not indicative, because a network that has lost its accuracy would pass. A later stage that reads one training
    is indicative if the loss would show elsewhere: the training's accuracy is tested, and the engine's parity is ok.
    """
    before, after = (_by_seed(side, seeds) for side, seeds in zip(compared.sides, compared.seeds, strict=True))
    numbers, trainings = Both(fmean(before), fmean(after)), Both(len(before), len(after))
    counts = [[int(m.remarks["n"]) for m in side if "n" in m.remarks] for side in compared.sides]
    better = compared.measurement.better
    assert better is not None, "a metric without direction is not compared"
    verdict = compared.verdict("inconclusive", numbers).model_copy(update={"n": min(trainings)})
    if not compared.is_trained and set(before) == set(after) and len(set(before)) == 1:
        return verdict.model_copy(update={"outcome": "same"})
    if _lacks_trainings_alone(compared, counts, trainings):
        if compared.parity == "ok":
            return verdict.model_copy(update={"outcome": "indicative", "remark": TOLD_BY_TRAINING})
        return verdict.model_copy(update={"remark": UNTOLD_BY_PARITY.format(compared.parity or "not recorded")})
    if lacking := _lacking_for_test(compared, counts, trainings):
        told = _intervals(numbers, counts) if compared.is_reference and all(counts) else ""
        return verdict.model_copy(update={"remark": f"{told}{lacking}"})
    sign = -1 if better == "higher" else 1
    least = [binomial_deviation(mean, min(of)) for mean, of in zip(numbers, counts, strict=True)]
    loss = Welch([sign * v for v in before], [sign * v for v in after], (least[0], least[1]))
    return Pending(verdict, loss, better)


def _intervals(numbers: Both[float], counts: Sequence[Sequence[int]]) -> str:
    """Return the binomial intervals of both sides in words, and whether they overlap; trainings vary by more."""
    one, other = (binomial_interval(round(mean * min(of)), min(of)) for mean, of in zip(numbers, counts, strict=True))
    verb = "overlap" if one.overlaps(other) else "do not overlap"
    words = (f"{100 * each.low:.1f} to {100 * each.high:.1f} %" for each in (one, other))
    return f"95 % intervals of the test images {verb} ({' and '.join(words)}); "


def _lacks_trainings_alone(compared: Compared, counts: Sequence[Sequence[int]], trainings: Both[int]) -> bool:
    """Return whether a later stage's share lacks only trainings, on both sides, and their accuracy is tested."""
    is_later = compared.is_trained and not compared.is_of_training
    return is_later and compared.is_training_judged and all(counts) and max(trainings) < LEAST_SEEDS


def _lacking_for_test(compared: Compared, counts: Sequence[Sequence[int]], trainings: Both[int]) -> str:
    """Return what a test of fractions lacks and the cure, as a sentence; empty if it lacks nothing."""
    if not all(counts):
        return "the number of images (remark n) is missing; record it with the measurement"
    if not compared.is_trained:
        return "the network was not trained, so that chance cannot be told from change; compare trained networks"
    words = []
    if trainings.candidate < LEAST_SEEDS <= trainings.baseline:
        words.append(f"{_lacking(trainings, LEAST_SEEDS, 'training')} with different seeds")
    elif min(trainings) < LEAST_SEEDS and compared.is_of_training:
        words.append(f"needs {LEAST_SEEDS} repeats per side with different seeds")
    elif min(trainings) < LEAST_SEEDS:
        words.append(
            f"all repeats of a run read its first training; needs {LEAST_SEEDS} runs per side with different seeds"
        )
    return "; ".join([*words, compared.unequal_training] if compared.unequal_training else words)


def _lacking(found: Both[int], least: int, word: str) -> str:
    before, after = found
    return f"the candidate has {amount_of(after, word)}, the baseline {before}; run at least {least - after} more"


def _by_seed(side: Sequence[Measurement], seeds: Sequence[int]) -> list[float]:
    """Return the mean for each seed: repeats of one training, or of its readers, are not independent samples."""
    values: dict[int, list[float]] = defaultdict(list)
    for measurement, seed in zip(side, seeds, strict=True):
        values[seed].append(fmean(measurement.values))
    return [fmean(of) for of in values.values()]


def _middle(compared: Compared) -> Both[float]:
    """Return one value per side: the median of the repeats' medians; for a speed-up, the estimate over all pairs."""
    if compared.measurement.metric == SPEEDUP:
        return Both(*(speedup([v for m in side for v in m.values]) for side in compared.sides))
    return Both(*(median(median(m.values) for m in side) for side in compared.sides))


def _range(side: Sequence[Measurement]) -> tuple[float, float]:
    values = [v for m in side for v in m.values]
    return min(values), max(values)
