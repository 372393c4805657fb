"""JUnit XML for CI services: a test case per verdict, or per task of a run and parity of an engine.

Of verdicts, `worse` and `missing` are failures and `error` is an error, each with its evidence. `inconclusive` and
`indicative` are skipped, because neither has passed; the message says which. A report has no verdicts: its tasks tell
how they ended, and no figure of it is judged or written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, TextIO
from xml.etree import ElementTree

from cnnperf.regression.verdict import Comparison, Outcome, Verdict
from cnnperf.tables.engine_row import EngineRow
from cnnperf.tables.runs import TaskRow
from cnnperf.tables.table import Report
from cnnperf.units import one_line, printable

End = Literal["failure", "error", "skipped"]
"""Elements of a test case that did not pass."""

OF_OUTCOMES: Mapping[Outcome, End] = {
    "worse": "failure",
    "missing": "failure",
    "error": "error",
    "inconclusive": "skipped",
    "indicative": "skipped",
}
OF_STATUSES: Mapping[str, End] = {
    "failed": "failure",
    "timeout": "failure",
    "disturbed": "failure",
    "skipped": "skipped",
}
"""A task that ends the run with status 1 is a failure."""
OF_PARITIES: Mapping[str, End] = {"failed": "failure", "undecided": "skipped"}


@dataclass(frozen=True, slots=True)
class _Case:
    """A test case."""

    subject: str
    name: str
    end: End | None
    """None if it passed."""
    state: str
    """The outcome, status or parity of which its end follows."""
    words: str
    seconds: float | None = None


def write(report: Report, out: TextIO) -> None:
    """Write a suite per run: a case per task, with its seconds, and one per engine, batch size and parity."""
    tasks, engines = report.table("tasks"), report.table("engines")
    cases: dict[str, list[_Case]] = {}
    for row in tasks.rows if tasks else ():
        cases.setdefault(row.run, []).append(_of_task(row))
    for row in engines.rows if engines else ():
        if row.parity is not None:
            cases.setdefault(row.run, []).append(_of_parity(row))
    _write((_suite(run, of_run) for run, of_run in cases.items()), out)


def write_verdicts(comparison: Comparison, out: TextIO) -> None:
    """Write one suite: a case per verdict, and the summary and the notes as its output."""
    cases = map(_of_verdict, comparison.verdicts)
    _write([_suite("cnnperf", cases, "\n".join((comparison.summary, *comparison.notes)))], out)


def _of_verdict(verdict: Verdict) -> _Case:
    end = OF_OUTCOMES.get(verdict.outcome)
    return _Case(verdict.cell, verdict.metric, end, verdict.outcome, verdict.evidence)


def _of_task(row: TaskRow) -> _Case:
    repeat = f"repeat {row.repeat}" if row.repeat else None
    name = " ".join(filter(None, (row.stage, row.variant, repeat)))
    words = row.reason or row.disturbed or ""
    return _Case(_cell(row), name, OF_STATUSES.get(row.status), row.status, words, row.duration_s)


def _of_parity(row: EngineRow) -> _Case:
    batch = f" batch {row.batch_size}" if row.batch_size else ""
    parity = row.parity or ""
    return _Case(_cell(row), f"parity {row.engine}{batch}", OF_PARITIES.get(parity), parity, row.reason or "")


def _cell(row: TaskRow | EngineRow) -> str:
    return f"{row.dataset}/{row.model}/{row.device}"


def _suite(name: str, cases: Iterable[_Case], words: str = "") -> ElementTree.Element:
    suite = ElementTree.Element("testsuite", name=printable(name))
    counts = dict.fromkeys(("tests", "failures", "errors", "skipped"), 0)
    plurals: Mapping[End, str] = {"failure": "failures", "error": "errors", "skipped": "skipped"}
    for case in cases:
        suite.append(_element(case))
        counts["tests"] += 1
        if case.end:
            counts[plurals[case.end]] += 1
    suite.attrib.update({name: str(count) for name, count in counts.items()})
    if words:
        ElementTree.SubElement(suite, "system-out").text = printable(words)
    return suite


def _element(case: _Case) -> ElementTree.Element:
    element = ElementTree.Element("testcase", classname=printable(case.subject), name=printable(case.name))
    if case.seconds is not None:
        element.set("time", f"{case.seconds:.3f}")
    if case.end:
        message = one_line(": ".join(filter(None, (case.state, case.words))))
        ElementTree.SubElement(element, case.end, type=case.state, message=message)
    elif case.words:
        ElementTree.SubElement(element, "system-out").text = printable(case.words)
    return element


def _write(suites: Iterable[ElementTree.Element], out: TextIO) -> None:
    root = ElementTree.Element("testsuites", name="cnnperf")
    root.extend(suites)
    ElementTree.indent(root)
    out.write(f'<?xml version="1.0" encoding="utf-8"?>\n{ElementTree.tostring(root, encoding="unicode")}\n')
