"""The formats of a comparison: console, Markdown and JSON."""

from __future__ import annotations

import io
import json

from cnnperf.regression.verdict import Comparison, Verdict
from cnnperf.reports import VERDICTS, writer


def verdict(outcome: str, **fields: object) -> Verdict:
    """Make a verdict on a time."""
    return Verdict.model_validate({"cell": "mnist/lenet/cpu", "metric": "m", "unit": "s", "outcome": outcome} | fields)


WORSE = verdict(
    "worse", metric="loss|x", baseline=0.02, candidate=0.021, change=0.05, low=0.021, high=0.059, p=0.0002, p_holm=0.002
)
FALLEN = verdict("better", unit="fraction", baseline=0.5, candidate=0.6, change=0.1, low=0.08, n=3, remark="hm")
SHOWN = Comparison(verdicts=(WORSE, FALLEN, verdict("missing", remark="gone")), notes=("a_note",))


def test_the_console_has_a_line_a_verdict_and_one_for_all() -> None:
    """The console has a line per verdict, with fitting units, bounds and points, and a line of counts."""
    out = io.StringIO()
    writer("console", VERDICTS)(SHOWN, out)
    assert out.getvalue().splitlines() == [
        "mnist/lenet/cpu loss|x  WORSE         20.0 ms → 21.0 ms  +5.0 % [+2.1, +5.9]  p=0.0002 (Holm 0.002)",
        "mnist/lenet/cpu m       BETTER        50.0 % → 60.0 %  +10.0 points [+8.0, ]  n=3  hm",
        "mnist/lenet/cpu m       MISSING       gone",
        "1 worse, 1 missing, 1 better → exit 1",
        "a_note",
    ]


def test_markdown_is_a_table_whatever_the_names() -> None:
    """Every row of the Markdown table has as many cells as its head, also with a bar in a name."""
    out = io.StringIO()
    writer("markdown", VERDICTS)(SHOWN, out)
    rows = [line for line in out.getvalue().splitlines() if line.startswith("|")]
    assert len(rows) == 5
    assert {line.replace("\\|", "").count("|") for line in rows} == {6}
    assert out.getvalue().startswith("**1 worse, 1 missing, 1 better → exit 1**")
    assert out.getvalue().endswith("- a\\_note\n")


def test_json_is_all_of_it() -> None:
    """The JSON reads back to an equal comparison, and a missing value is null."""
    out = io.StringIO()
    writer("json", VERDICTS)(SHOWN, out)
    document = json.loads(out.getvalue())
    assert document.pop("exit_code") == 1
    assert document["verdicts"][2]["baseline"] is None
    assert Comparison.model_validate(document) == SHOWN
