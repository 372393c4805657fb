"""How a comparison of two versions is shown: a line a verdict, GitHub's Markdown, or JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TextIO

from rich.console import Console
from rich.text import Text

from cnnperf.regression.verdict import FAILING, Comparison, Verdict
from cnnperf.reports.markdown import escaped

STYLES = {**dict.fromkeys(FAILING, "bold red"), "inconclusive": "yellow", "better": "green", "indicative": "dim"}

MARKS = {**dict.fromkeys(FAILING, "❌"), "inconclusive": "❔", "better": "✅", "same": "✅", "indicative": ""}


def lines(verdicts: Sequence[Verdict]) -> Iterator[Text]:
    """Yield a line a verdict, for people."""
    subjects = [f"{v.cell} {v.metric}" for v in verdicts]
    width = max(map(len, subjects), default=0)
    for subject, verdict in zip(subjects, verdicts, strict=True):
        line = f"{subject:{width}}  {verdict.outcome.upper():12}  {verdict.evidence}"
        yield Text(line.rstrip(), style=STYLES.get(verdict.outcome, ""))


def write_console(comparison: Comparison, out: TextIO) -> None:
    """Write a line a verdict, then the summary and the notes."""
    console = Console(file=out, highlight=False, soft_wrap=True)
    for line in lines(comparison.verdicts):
        console.print(line)
    console.print(Text(comparison.summary, style="bold"))
    for note in comparison.notes:
        console.print(Text(note, style="dim"))


def write_markdown(comparison: Comparison, out: TextIO) -> None:
    """Write the summary, a table of the verdicts and the notes, for GitHub."""
    out.write(f"**{comparison.summary}**\n\n")
    if comparison.verdicts:
        out.write("| | cell | metric | verdict | evidence |\n| --- | --- | --- | --- | --- |\n")
    for verdict in comparison.verdicts:
        cells = (MARKS[verdict.outcome], verdict.cell, verdict.metric, verdict.outcome, verdict.evidence)
        out.write(f"| {' | '.join(map(escaped, cells))} |\n")
    out.writelines([f"\n- {escaped(note)}" for note in comparison.notes] + ["\n"])


def write_json(comparison: Comparison, out: TextIO) -> None:
    """Write everything as one JSON object, raw SI, null for what there is not."""
    out.write(comparison.model_dump_json(indent=2) + "\n")


WRITERS = {"console": write_console, "markdown": write_markdown, "json": write_json}
"""How a comparison can be written, by the name of the format."""
