"""JSON files of pytest-benchmark, held against each other: each time is listed, and none is judged."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Annotated, Any

from pydantic import Field, ValidationError

from cnnperf.errors import StoreError, first_error, names_listed
from cnnperf.record import Finite
from cnnperf.regression.conditions import differing_facts
from cnnperf.regression.judge import INDICATIVE_TIMES
from cnnperf.regression.verdict import Comparison, Verdict, is_difference
from cnnperf.sides import Both
from cnnperf.task import Frozen

_SUFFIX = ".json"
_MEDIAN = "median"
"""The statistic that is listed: the one that single slow rounds disturb least."""


class BenchmarkStats(Frozen, extra="ignore"):
    """The statistics of a benchmark; others than the median are not read."""

    median: Annotated[Finite, Field(ge=0, le=1e12)]
    """Seconds of a call, median over the rounds."""


class TimedBenchmark(Frozen, extra="ignore"):
    """A benchmark of a file."""

    fullname: Annotated[str, Field(min_length=1)]
    stats: BenchmarkStats


class BenchmarkFile(Frozen, extra="ignore"):
    """A file that pytest-benchmark wrote."""

    benchmarks: tuple[TimedBenchmark, ...]
    machine_info: Mapping[str, Any] = {}

    @property
    def facts(self) -> dict[str, Any]:
        """The facts of the machine that two files may differ in; not the present frequency of its processor."""
        facts = {name: value for name, value in self.machine_info.items() if isinstance(value, str | int)}
        cpu = self.machine_info.get("cpu")
        return facts | ({"cpu": cpu["brand_raw"]} if isinstance(cpu, Mapping) and "brand_raw" in cpu else {})


def is_benchmark_file(path: Path) -> bool:
    """Return whether a path is that of such a file rather than that of a run."""
    return path.suffix == _SUFFIX and not path.is_dir()


def compare_files(paths: Both[tuple[Path, ...]]) -> Comparison:
    """List the time of each benchmark that both sides have: the median of its rounds and, of several files, of theirs.

    Raises StoreError for a file that cannot be read, or that is none of pytest-benchmark.
    """
    files = Both(*([_read(path) for path in dict.fromkeys(side)] for side in paths))
    before, after = map(_times, files)
    verdicts = (_verdict(name, Both(times, after[name])) for name, times in before.items() if name in after)
    return Comparison(verdicts=tuple(verdicts), notes=tuple(_notes(files, before, after)))


def _read(path: Path) -> BenchmarkFile:
    try:
        return BenchmarkFile.model_validate_json(path.read_bytes())
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror}); give a file of pytest-benchmark") from error
    except ValidationError as error:
        words = first_error(error)
        raise StoreError(
            f"{path}: no file of pytest-benchmark ({words}); give one that pytest --benchmark-json wrote"
        ) from error


def _times(files: Iterable[BenchmarkFile]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = defaultdict(list)
    for file in files:
        for benchmark in file.benchmarks:
            found[benchmark.fullname].append(benchmark.stats.median)
    return dict(found)


def _verdict(name: str, times: Both[list[float]]) -> Verdict:
    baseline, candidate = map(median, times)
    is_in_unit = is_difference(_MEDIAN, "s", baseline, candidate)
    return Verdict(
        cell=name,
        metric=_MEDIAN,
        outcome="indicative",
        unit="s",
        baseline=baseline,
        candidate=candidate,
        change=candidate - baseline if is_in_unit else candidate / baseline - 1,
        n=min(map(len, times)),
        better="lower",
    )


def _notes(
    files: Both[list[BenchmarkFile]], before: Mapping[str, list[float]], after: Mapping[str, list[float]]
) -> Iterator[str]:
    told = {
        "differences (allowed)": ", ".join(differing_facts(*([f.facts for f in of] for of in files), is_mixed=True)),
        "not measured in the candidate, and not judged": names_listed(name for name in before if name not in after),
        "not in the baseline, and not compared": names_listed(name for name in after if name not in before),
    }
    yield from (f"{about}: {words}" for about, words in told.items() if words)
    yield INDICATIVE_TIMES
