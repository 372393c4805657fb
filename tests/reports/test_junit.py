"""The JUnit format: which cases pass, fail and are skipped, as its readers see them."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from in_process import called

from cnnperf.regression.verdict import Comparison, Verdict
from cnnperf.reports.junit import write, write_verdicts
from cnnperf.tables.table import Report

RUN = Path(__file__).parent.parent / "golden" / "smoke" / "20250102T030405Z-box"


def verdict(outcome: str, **fields: object) -> Verdict:
    """Make a verdict on a time."""
    given = {"cell": "mnist/lenet/cpu", "metric": f"m[is={outcome}]", "unit": "s", "outcome": outcome}
    return Verdict.model_validate(given | fields)


WORSE = verdict("worse", baseline=0.02, candidate=0.021, change=0.05, low=0.021, high=0.059, remark='a<b & "c"\x07')
OTHERS = [verdict(outcome, remark="why") for outcome in ("missing", "error", "inconclusive", "indicative", "same")]
SHOWN = Comparison(verdicts=(WORSE, *OTHERS, verdict("better")), notes=("a note\nof two lines",))


def text_of(comparison: Comparison) -> str:
    """Return what is written of a comparison."""
    out = io.StringIO()
    write_verdicts(comparison, out)
    return out.getvalue()


def ends(text: str) -> dict[str, tuple[str, str]]:
    """Return the element and the message of each case by name; `passed` for a case without one."""
    found = {}
    for case in ElementTree.fromstring(text).iter("testcase"):
        end = next((each for each in case if each.tag != "system-out"), None)
        found[case.attrib["name"]] = ("passed", "") if end is None else (end.tag, end.attrib["message"])
    return found


def test_a_verdict_fails_where_the_exit_status_is_1() -> None:
    """Worse, missing and error fail; inconclusive and indicative are skipped with the sentence; the others pass."""
    assert ends(text_of(SHOWN)) == {
        "m[is=worse]": ("failure", 'worse: 20.0 ms → 21.0 ms +5.0 % [+2.1, +5.9] a<b & "c"'),
        "m[is=missing]": ("failure", "missing: why"),
        "m[is=error]": ("error", "error: why"),
        "m[is=inconclusive]": ("skipped", "inconclusive: why"),
        "m[is=indicative]": ("skipped", "indicative: why"),
        "m[is=same]": ("passed", ""),
        "m[is=better]": ("passed", ""),
    }


def test_a_comparison_of_nothing_is_a_suite_without_cases() -> None:
    """No verdict is a suite of 0 cases, with the summary that says so."""
    [suite] = ElementTree.fromstring(text_of(Comparison(verdicts=(), notes=())))
    assert suite.attrib == {"name": "cnnperf", "tests": "0", "failures": "0", "errors": "0", "skipped": "0"}
    assert suite.findtext("system-out") == "nothing was compared → exit 3"


def test_the_tasks_of_a_report_are_cases(report: Report) -> None:
    """Every task is a case with its seconds; failed and timed out ones fail, with the reason."""
    out = io.StringIO()
    write(report, out)
    [suite] = ElementTree.fromstring(out.getvalue())
    [tasks] = (table for table in report.tables if table.name == "tasks")
    cases = suite.findall("testcase")
    assert [case.attrib["classname"] for case in cases] == [f"{r.dataset}/{r.model}/{r.device}" for r in tasks.rows]
    assert all(float(case.attrib["time"]) >= 0 for case in cases)
    ends_of = {"failed": "failure", "timeout": "failure", "skipped": "skipped"}
    expected = Counter(ends_of.get(row.status) for row in tasks.rows)
    assert expected["failure"] == int(suite.attrib["failures"]) == 2
    assert expected["skipped"] == int(suite.attrib["skipped"]) == 1
    messages = [element.attrib["message"] for element in suite.iter("failure")]
    assert messages == ["timeout: took longer than 60 s", "failed: non-finite loss at step 3 | lr 0.1"]


def test_engines_have_a_case_for_their_parity() -> None:
    """The command writes the parity of each engine at each batch size."""
    done = called("report", RUN, "--format", "junit")
    assert done.returncode == 0, done.stderr
    parities = {name: end for name, (end, _) in ends(done.stdout).items() if name.startswith("parity ")}
    assert "parity onnxruntime batch 1" in parities
    assert set(parities.values()) <= {"passed", "failure", "skipped"}


def test_junitparser_reads_it(tmp_path: Path) -> None:
    """The reader of another project finds the same cases, ends and counts."""
    junitparser: Any = pytest.importorskip("junitparser")
    file = tmp_path / "junit.xml"
    file.write_text(text_of(SHOWN), encoding="utf-8")
    [suite] = junitparser.JUnitXml.fromfile(str(file))
    counts = suite.tests, suite.failures, suite.errors, suite.skipped
    suite.update_statistics()
    assert counts == (suite.tests, suite.failures, suite.errors, suite.skipped) == (7, 2, 1, 2)
    results = {case.name: [type(each).__name__ for each in case.result] for case in suite}
    assert results["m[is=worse]"] == ["Failure"]
    assert results["m[is=error]"] == ["Error"]
    assert results["m[is=inconclusive]"] == ["Skipped"]
    assert {case.classname for case in suite} == {"mnist/lenet/cpu"}
