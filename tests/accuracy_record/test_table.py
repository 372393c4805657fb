"""The page of all accuracy records."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cnnperf.accuracy_record import RECORDS
from cnnperf.accuracy_record.folder import records_below
from cnnperf.accuracy_record.table import HEADS, RULES, page_of, write_page
from cnnperf.record import Measurement

ROOT = Path(__file__).parents[2]


def test_the_page_has_a_table_for_each_kind(written: Callable[..., Path], tmp_path: Path) -> None:
    """Records of one dataset, budget and device share a table in the order of their dates."""
    flip = Measurement(metric="train.test_accuracy_flip", unit="fraction", better="higher", values=(0.63,))
    written("20250103-second", 0.6, 0.62)
    written("20250102-first", 0.6, 0.62, measured=[flip], target=0.55)
    written("20250104-other", 0.9, 0.91, dataset="mnist", target=0.8)
    page = write_page(tmp_path / "records").read_text()
    assert page.startswith(RULES)
    rows = [line for line in page.splitlines() if line.startswith(("## cifar", "## mnist", "| 2025"))]
    assert [row.split(" | ")[0] for row in rows] == [
        *("## cifar10-60s-cpu", "| 2025-01-02", "| 2025-01-03"),
        *("## mnist-60s-cpu", "| 2025-01-04"),
    ]
    cells = dict(zip(HEADS, rows[1].strip("| ").split(" | "), strict=True))
    assert cells == {
        "date": "2025-01-02",
        "record": "[first](cifar10-60s-cpu/20250102-first/)",
        "network": "lenet",
        "test accuracy, %": "61.00",
        "deviation": "1.41",
        "mirrored, %": "63.00",
        "seeds": "2",
        "claim": "above 55 %",
        "p": "0.053",
        "processor or GPU": "Some Processor @ 2 GHz",
        "threads": "2",
        "torch": "2.9.0",
        "cnnperf": "0.1.0",
    }


def test_without_a_record_the_page_says_so(tmp_path: Path) -> None:
    """The page without a record has the rules and no table."""
    page = page_of({}, tmp_path)
    assert page.startswith(RULES)
    assert page.endswith("No record stands yet.\n")


def test_the_page_of_the_repository_is_the_one_that_the_command_writes() -> None:
    """The page in `results/records` is that of the records in it."""
    root = ROOT / RECORDS
    assert (root / "README.md").read_text(encoding="utf-8") == page_of(records_below(root), root)
