"""A comparison of two versions on a terminal: one line per verdict."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.text import Text

from cnnperf.regression.verdict import FAILING, Verdict
from cnnperf.units import printable

STYLES = {**dict.fromkeys(FAILING, "bold red"), "inconclusive": "yellow", "better": "green", "indicative": "dim"}


def readable_lines(verdicts: Sequence[Verdict]) -> Iterator[Text]:
    """Yield one readable line per verdict."""
    subjects = [f"{v.cell} {v.metric}" for v in verdicts]
    width = max(map(len, subjects), default=0)
    for subject, verdict in zip(subjects, verdicts, strict=True):
        line = f"{subject:{width}}  {verdict.outcome.upper():12}  {verdict.evidence}"
        yield Text(printable(line.rstrip()), style=STYLES.get(verdict.outcome, ""))
