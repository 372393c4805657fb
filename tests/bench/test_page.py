"""The cost of writing the HTML page, without imports."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path

from furnished import NETWORKS, furnish
from pytest_benchmark.fixture import BenchmarkFixture

from cnnperf.record import Record
from cnnperf.reports.html import write
from cnnperf.tables.report import report_of


def test_the_page_of_seven_networks_is_written_in_half_a_second(
    benchmark: BenchmarkFixture, tmp_path: Path, trained: Callable[..., Record]
) -> None:
    """Reading the records and writing the page takes at most 0.5 s of CPU time, without imports."""
    benchmark.group = "records → page ≤ 0.5 s of CPU (seven networks)"
    assert len(NETWORKS) == 7
    run = furnish(tmp_path / "run", trained)
    spent: list[float] = []

    def page() -> None:
        start = time.process_time()
        write(report_of([run]), io.StringIO())
        spent.append(time.process_time() - start)

    benchmark.pedantic(page, rounds=5, warmup_rounds=1)
    benchmark.extra_info["cpu_s"] = spent[-1]
    assert min(spent) <= 0.5
