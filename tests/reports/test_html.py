"""The page without a browser: its content, what it must not contain, and its numbers, equal to those of the CSVs."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from furnished import ERROR, HOSTILE, NETWORKS, disturb, furnish, m

from cnnperf import record as store
from cnnperf.errors import CnnperfWarning, UsageError
from cnnperf.record import Record
from cnnperf.reports._sections import answers, training
from cnnperf.reports.csv import write as write_csv
from cnnperf.reports.html import LIBRARY, PAGE, SYMBOLS, write
from cnnperf.tables.report import report_of
from cnnperf.tables.table import Report, Table
from cnnperf.tables.verdicts import VerdictRow
from cnnperf.task import Task

Trained = Callable[..., Record]
VOID = {"meta", "img", "input", "link", "br"}


class Page(HTMLParser):
    """The content of a page, as an HTML parser sees it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[tuple[str, dict[str, str | None]]] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.numbers: list[tuple[str | None, str]] = []
        """The table that each stands in, and the value that it carries."""
        self.texts: list[str] = []
        """Outside of numbers, scripts and styles."""
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Record an element."""
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        if tag == "data":
            self.numbers.append((self._table(), str(attributes["value"])))
        if tag not in VOID:
            self.open.append((tag, attributes))

    def handle_endtag(self, tag: str) -> None:
        """Close an element, which must be the last one opened."""
        assert self.open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        """Record a text."""
        inside = [tag for tag, _ in self.open]
        if "script" in inside:
            self.scripts.append(data)
        elif "style" not in inside and "data" not in inside:
            self.texts.append(data)

    def ids(self) -> list[str]:
        """Return the ids of the sections."""
        return [str(attributes["id"]) for tag, attributes in self.tags if tag == "section"]

    def drawn(self) -> dict[str, Any]:
        """Return the data of the plots, each row without its missing values."""
        found: dict[str, Any] = json.loads(self.scripts[0])
        for rows in found["rows"].values():
            named = (dict(zip(rows["columns"], row, strict=True)) for row in rows["rows"])
            rows["rows"] = [{name: value for name, value in row.items() if value is not None} for row in named]
        return found

    def _table(self) -> str | None:
        return next((a["data-table"] for tag, a in reversed(self.open) if tag == "table"), None)


def written(report: Report) -> str:
    """Return what the format writes to a stream."""
    out = io.StringIO()
    write(report, out)
    return out.getvalue()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, trained: Trained) -> tuple[Path, Path]:
    """Return two runs of three networks through all stages."""
    root = tmp_path_factory.mktemp("runs")
    return tuple(
        furnish(root / name, trained, networks=NETWORKS[:3], repeats=3, shift=shift)
        for name, shift in (("before", 0.0), ("after", 0.1))
    )


@pytest.fixture(scope="module")
def both(runs: tuple[Path, Path]) -> tuple[Report, str]:
    """Return the report of both runs, and its page."""
    report = report_of(runs)
    return report, written(report)


Both = tuple[Report, str]


def test_every_section_is_there_in_order(both: Both) -> None:
    """The page of two runs through all stages has every section, each with a link."""
    page = Page(both[1])
    assert page.ids() == [
        "answers",
        "summary",
        "leaderboard",
        "comparison",
        "tradeoff",
        "engines",
        "training",
        "profiles",
        "networks",
        "predictions",
        "notes",
    ]
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert links == [f"#{name}" for name in page.ids()]


def test_a_section_is_there_only_when_the_records_hold_it(tmp_path: Path, trained: Trained) -> None:
    """A single training without curves gets a page without plots and pictures."""
    store.append(tmp_path, trained())
    page = Page(written(report_of([tmp_path])))
    assert page.ids() == ["answers", "summary", "leaderboard", "notes"]
    assert page.drawn() == {"specs": {}, "rows": {}}


def test_failed_and_skipped_rows_stand_there_with_their_reason(both: Both) -> None:
    """The summary and the leaderboard give the reasons of failures and skips unchanged."""
    texts = " ".join(Page(both[1]).texts)
    assert texts.count(" ".join(ERROR.split())) >= 4
    assert texts.count("no CUDA device") >= 4


def test_names_and_errors_are_text(both: Both) -> None:
    """A model called `<script>` opens no element, neither in the page nor in the data of its plots."""
    text = both[1]
    assert "<script>alert" not in text
    assert "<img src=x" not in text
    page = Page(text)
    assert sum(tag == "script" for tag, _ in page.tags) == 2 + len(LIBRARY)
    assert {str(a["src"])[:22] for tag, a in page.tags if tag == "img"} == {"data:image/webp;base64"}
    assert HOSTILE in {row["model"] for rows in page.drawn()["rows"].values() for row in rows["rows"] if "model" in row}


def test_the_page_stands_alone_and_is_small(tmp_path: Path, trained: Trained) -> None:
    """The page of seven networks takes at most 1 MB beside the plot library, and fetches nothing."""
    text = written(report_of([furnish(tmp_path / "seven", trained)]))
    library = sum(len((PAGE / file).read_bytes()) for file in LIBRARY)
    assert len(text.encode()) - library <= 1_000_000
    assert "default-src 'none'" in text
    page = Page(text)
    for tag, attributes in page.tags:
        assert tag != "link"
        for name in ("src", "href"):
            assert str(attributes.get(name, "#")).startswith(("#", "data:")), (tag, attributes)


@pytest.fixture(scope="module")
def tables(both: Both, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, str]]]:
    """Return the rows read back from the CSVs."""
    folder = tmp_path_factory.mktemp("csv")
    write_csv(both[0], folder)
    texts = {file.stem: io.StringIO(file.read_bytes().decode(), newline="") for file in folder.glob("*.csv")}
    return {name: list(csv.DictReader(text)) for name, text in texts.items()}


Tables = dict[str, list[dict[str, str]]]


def test_every_number_of_the_tables_is_one_of_its_csv(both: Both, tables: Tables) -> None:
    """Each number on the page carries a value of its table's CSV, to the last digit."""
    cells = {name: {cell for row in rows for cell in row.values()} for name, rows in tables.items()}
    everywhere = set().union(*cells.values())
    numbers = Page(both[1]).numbers
    assert len(numbers) > 1000
    for table, value in numbers:
        assert value in (everywhere if table is None else cells[table]), (table, value)


def test_every_row_that_is_drawn_is_a_row_of_its_csv(both: Both, tables: Tables) -> None:
    """Each row of a plot is a row of its table's CSV, to the last digit."""
    found = 0
    for drawn in Page(both[1]).drawn()["rows"].values():
        rows = tables[drawn["table"]]
        columns = {tuple(row) for row in drawn["rows"]}
        for names in columns:
            held = {tuple(row[name] for name in names) for row in rows}
            for row in drawn["rows"]:
                if tuple(row) == names:
                    assert tuple(map(str, row.values())) in held, (drawn["table"], row)
                    found += 1
    assert found > 100


def test_every_other_figure_is_a_text_of_the_tables(both: Both, tables: Tables) -> None:
    """Each figure in a text of the page is from a name, a reason, a note or the page's templates."""
    known = [cell for rows in tables.values() for row in rows for cell in row.values()]
    known += [*both[0].notes, *(note for table in both[0].tables for note in table.notes)]
    known += [file.read_text() for file in PAGE.glob("*.html")]
    known += [cell.replace("T", " ") for rows in tables["runs"] for cell in rows.values()]
    figures = {figure for text in known for figure in re.findall(r"\d+(?:[.,]\d+)*", text)}
    strange = defaultdict(list)
    for text in Page(both[1]).texts:
        for figure in re.findall(r"\d+(?:[.,]\d+)*", text):
            if figure not in figures:
                strange[figure].append(text)
    assert not strange


def test_the_best_networks_come_first(tmp_path: Path, trained: Trained) -> None:
    """The most accurate network and those not told apart from it are named; a speed of one process is no proof."""
    for model, accuracy in (("lenet", 0.7), ("nin", 0.69), ("mlp", 0.5)):
        store.append(tmp_path, trained(model, accuracy=accuracy, n=1000))
    (group,) = answers(report_of([tmp_path]))
    found = {answer.words: ([row["model"] for row in answer.rows], answer.is_proved) for answer in group.answers}
    assert found["highest test accuracy"] == (["lenet", "nin"], True)
    assert found["fastest training"][1] is False
    text = written(report_of([tmp_path]))
    assert text.index('id="answers"') < text.index('id="summary"')
    assert "; not told apart from it: <strong>nin</strong>" in text
    assert text.count(">(not proved)<") == sum(not is_proved for _, is_proved in found.values())


def test_a_disturbed_network_is_not_the_best(tmp_path: Path, trained: Trained) -> None:
    """The best speed is that of an undisturbed network; if all were disturbed, none is named."""
    fast = trained("mlp", step_s=(0.001, 0.001, 0.001))
    waiting = [m.model_copy(update={"remarks": {**m.remarks, "waited_share": 0.4}}) for m in fast.measurements]
    store.append(tmp_path, fast.model_copy(update={"measurements": tuple(waiting)}))
    assert {answer.rows for group in answers(report_of([tmp_path])) for answer in group.answers} == {()}
    assert "none: every measurement was disturbed" in written(report_of([tmp_path]))
    store.append(tmp_path, trained("lenet"))
    (group,) = answers(report_of([tmp_path]))
    assert {row["model"] for answer in group.answers for row in answer.rows} == {"lenet"}


def test_profiles_alone_have_the_best_networks_too(tmp_path: Path, trained: Trained) -> None:
    """A run without a training names the networks of the fastest steps and of the least memory."""
    run = furnish(tmp_path / "run", trained, networks=["lenet", "nin"])
    (tmp_path / "profiled").mkdir()
    for record in store.read(run):
        if record.task.stage == "profile":
            store.append(tmp_path / "profiled", record)
    found = [answer for group in answers(report_of([tmp_path / "profiled"])) for answer in group.answers]
    assert {answer.words.partition(",")[0] for answer in found} == {"fastest", "least memory"}
    assert all(answer.rows for answer in found)


def test_many_footnotes_are_folded(tmp_path: Path, trained: Trained) -> None:
    """Five footnotes of a table are open, six are folded."""
    for index, model in enumerate(("lenet", "nin", "mlp", "vgg", "resnet", "alexnet")):
        store.append(tmp_path, trained(model, accuracy=0.095))
        if index > 3:
            page = Page(written(report_of([tmp_path])))
            (notes,) = [attributes for _, attributes in page.tags if attributes.get("class") == "footnotes"]
            assert ("open" in notes) == (index == 4)


def test_each_engine_is_the_fastest_of_its_own_batch_size(both: Both) -> None:
    """There is one fastest engine for each batch size, with its latency; rows that are not sound are none."""
    found = [answer for group in answers(both[0]) if group.is_of_engines for answer in group.answers]
    fastest = [answer for answer in found if answer.column.name == "latency_s"]
    assert len(fastest) > 1
    for answer in fastest:
        assert all(row.is_sound for row in answer.rows)
        assert f" {answer.rows[0]['batch_size']} image" in answer.words
    assert {answer.words for answer in found if answer not in fastest} == {"least memory"}


def test_every_plot_says_how_to_read_it(both: Both) -> None:
    """Each plot has sentences of its own kind beside it."""
    page = Page(both[1])
    plots = [attributes for _, attributes in page.tags if attributes.get("class") == "plot"]
    readings = [attributes for _, attributes in page.tags if attributes.get("class") == "reading"]
    assert len(plots) == len(readings) > 10
    assert all(chart.reading.endswith(".") for group in training(both[0]) for chart in group.charts)


def test_a_trace_is_named_where_there_is_one(tmp_path: Path, trained: Trained) -> None:
    """The trace of a profile is named by its path in the run folder, if the file is there."""
    run = furnish(tmp_path / "run", trained, networks=["lenet"])
    assert "ui.perfetto.dev" not in written(report_of([run]))
    table = report_of([run]).table("profiles")
    assert table
    row = next(row for row in table.rows if row.model == "lenet" and row.status == "ok")
    path = run / "artifacts" / row.task / f"batch-{row.batch_size}.pt.trace.json.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    assert str(path.relative_to(run)) in written(report_of([run]))


def test_verdicts_are_told_apart_without_colour(both: Both) -> None:
    """Each outcome has its own word and symbol, so that colour is not needed."""
    table = both[0].table("verdicts")
    assert table
    outcomes = {row["outcome"] for row in table.rows}
    assert {"better", "same", "indicative", "error"} <= outcomes
    texts = [text.strip() for text in Page(both[1]).texts]
    for outcome in outcomes:
        place = texts.index(outcome)
        assert texts[place - 1] == SYMBOLS[outcome]
    assert len({SYMBOLS[outcome] for outcome in ("better", "same", "indicative", "error", "inconclusive")}) == 5


def test_readings_of_one_training_stand_in_one_plot(tmp_path: Path, trained: Trained) -> None:
    """One plot draws all accuracies of a training, where it has more than train and validation."""
    for network, names in (("lenet", ("train", "validation")), ("nin", ("train", "epoch_test", "validation"))):
        point = {"step": 10, "samples": 1280, "seconds": 1.5, "epoch": 0.25, "n": 2000}
        measured = [m(f"train.{name}_accuracy", "fraction", 0.5, better="higher", remarks=point) for name in names]
        store.append(tmp_path, trained(network, measured=measured, label_smoothing=0.2))
    drawn = Page(written(report_of([tmp_path]))).drawn()
    (name,) = (name for name in drawn["specs"] if name.startswith("readings"))
    spec = drawn["specs"][name]["spec"]
    assert spec["transform"][0]["fold"] == ["train_accuracy", "test_accuracy", "validation_accuracy"]
    assert len(drawn["rows"][drawn["specs"][name]["data"][0]]["rows"]) == 1


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory, trained: Trained) -> Report:
    """Return the report of one run whose suite was changed, so that every task has two settings."""
    run = furnish(tmp_path_factory.mktemp("twice") / "run", trained, networks=["lenet", "nin"])
    for record in store.read(run):
        task = record.task.model_copy(update={"settings": {**record.task.settings, "lr": 0.5}})
        if record.task.stage != "train":
            store.append(run, record.model_copy(update={"task": task, "key": task.key}))
        elif record.status == "ok":
            kept = [each for each in record.measurements if each.metric != "train.epoch_test_accuracy"]
            changes = {"task": task, "key": task.key, "artifacts": {}, "measurements": tuple(kept)}
            store.append(run, record.model_copy(update=changes))
    return report_of([run])


def test_trainings_of_changed_settings_are_lines_of_their_own(twice: Report) -> None:
    """Trainings under changed settings are separate lines, and the hover names the task."""
    [group] = [group for group in training(twice) if "synthetic" not in group.title]
    encoding = group.charts[0].spec["encoding"]
    assert [each["field"] for each in encoding["detail"]] == ["run", "repeat", "task"]
    assert "task" in [each["field"] for each in encoding["tooltip"]]
    assert len({row["task"] for row in group.charts[0].rows}) == 4


def test_engines_of_changed_settings_have_plots_of_their_own(twice: Report) -> None:
    """Engines under changed settings have separate plots of throughput and separate fronts."""
    from cnnperf.reports._sections import networks, tradeoffs

    [lenet] = [group for group in networks(twice) if group.title.startswith("lenet")]
    plots = [chart for chart in lenet.charts if chart.title.startswith("Throughput")]
    assert [chart.title for chart in plots] == [f"Throughput by batch size · lr {lr}" for lr in (None, 0.5)]
    for chart in plots:
        assert len({(row["engine"], row["batch_size"]) for row in chart.rows}) == len(chart.rows) == 6
    table = twice.table("engines")
    assert table
    on_front = [(row.model, row.evidence.rivals, row.batch_size) for row in table.rows if row.pareto == "yes"]
    assert len({model for model, _, _ in on_front}) < len({rivals for _, rivals, _ in on_front})
    fronts = [rows for group in tradeoffs(twice) for chart in group.charts for _, rows in chart.more.values()]
    assert sorted(map(len, fronts)) == sorted(Counter(on_front).values())


def test_profiles_of_changed_settings_are_both_drawn(twice: Report) -> None:
    """Profiles under changed settings are both drawn, each with its task in the title."""
    from cnnperf.reports._sections import networks

    table = twice.table("layers")
    assert table
    [lenet] = [group for group in networks(twice) if group.title.startswith("lenet")]
    tasks = dict.fromkeys(row.task for row in table.rows if row.model == "lenet" and not row.engine)
    titles = [chart.title for chart in lenet.charts if chart.title.endswith("time by layer")]
    assert titles == [f"Training steps of 32 images · task {task}: time by layer" for task in tasks]


def test_predictions_of_changed_settings_are_both_shown(twice: Report) -> None:
    """Predictions under changed settings are both shown, each with its task in the title."""
    from cnnperf.reports._sections import predictions

    table = twice.table("confusion")
    assert table
    tasks = dict.fromkeys(row.task for row in table.rows if row.model == "lenet")
    found = [each for each in predictions(twice) if each.title.startswith("lenet")]
    assert [each.title for each in found] == [f"lenet · cifar10 · cpu · task {task}" for task in tasks]
    assert len(tasks) == 2
    assert all(len(each.matrix) == len(each.matrix[0]) == 10 for each in found)


def test_changed_settings_whose_first_repeat_failed_are_shown(tmp_path: Path, trained: Trained) -> None:
    """The second repeat's predictions are shown where the first repeat failed."""
    from cnnperf.reports._sections import predictions

    run = furnish(tmp_path / "run", trained, networks=["lenet"], repeats=2)
    first, *_ = found = [each for each in store.read(run) if each.task.stage == "train" and each.status == "ok"]
    changed = [
        each.model_copy(update={"task": task, "key": task.key, "artifacts": {}})
        for each in found
        for task in [each.task.model_copy(update={"settings": {**each.task.settings, "lr": 0.5}})]
    ]
    failed = {"status": "failed", "error": "non-finite loss", "measurements": ()}
    store.append(run, changed[0].model_copy(update=failed))
    store.append(run, changed[1])
    titles = [each.title for each in predictions(report_of([run]))]
    assert titles == [f"lenet · cifar10 · cpu · task {each.key}" for each in (first, changed[1])]


def test_one_table_has_the_engines_of_all_networks(both: Both) -> None:
    """The engines of all networks and both runs are rows of one table, which can be sorted by any column."""
    tables = re.findall(r'<table[^>]*data-table="engines">.*?</table>', both[1], re.DOTALL)
    assert len(tables) == 1
    table = both[0].table("engines")
    assert table
    assert tables[0].partition("<tbody>")[2].count("<tr") == len(table.rows) == 2 * 3 * 2 * 3
    assert all(f">{name}</td>" in tables[0] for name in ("lenet", "nin"))


def test_a_doubtful_speed_up_has_its_mark_and_its_footnote(both: Both) -> None:
    """Each doubtful speed-up has a mark and a footnote with the reason, and no other has."""
    table = both[0].table("engines")
    assert table
    flags = [row["speedup_flags"] for row in table.rows if row["speedup_flags"]]
    assert 0 < len(flags) < len(table.rows)
    marks = re.findall(r'<span class="doubt" title="(.*?)">†</span>', both[1])
    assert sorted(marks) == sorted([*flags, *(row["layers_flag"] for row in table.rows if row["layers_flag"])])
    notes = [text for text in Page(both[1]).texts if text.startswith("† ") and ": speed-up: " in text]
    assert sorted(note.partition(": speed-up: ")[2] for note in notes) == sorted(flags)


def test_several_runs_are_told_apart(both: Both) -> None:
    """Tables with rows of several runs have a column for the run."""
    page = both[1]
    assert page.count('<button type="button">run</button>') >= 3


def test_two_runs_of_one_suite_are_not_mixed(both: Both) -> None:
    """Pictures and plots of a network are of its own run, though tasks of two runs have equal keys."""
    from cnnperf.reports._sections import networks, predictions

    found = predictions(both[0])
    assert any(network.pictures for network in found)
    for one in found:
        assert {picture.row.run for picture in one.pictures} <= {one.matrix[0][0].run}
    for network in networks(both[0]):
        descriptions = [chart.description for chart in network.charts]
        assert len(set(descriptions)) == len(descriptions)


def test_only_ratios_are_drawn_as_ratios() -> None:
    """A change in bytes without a ratio is not drawn; shares of images have a plot of their own."""
    from cnnperf.reports._sections import change_charts

    values = {"x.ratio": ("bytes", 2.0, 3.0), "x.none": ("bytes", 0.0, 4096.0), "x.share": ("fraction", 0.5, 0.6)}
    rest = {**dict.fromkeys(("low", "high", "p", "p_holm", "n")), "cell": "c", "outcome": "worse", "remark": ""}
    rows = tuple(
        VerdictRow(metric=metric, unit=unit, baseline=a, candidate=b, change=1.0, **rest)
        for metric, (unit, a, b) in values.items()
    )
    charts = change_charts(Report((Table("verdicts", VerdictRow.columns(), rows),)))
    assert [[row["metric"] for row in chart.rows] for chart in charts] == [["x.share"], ["x.ratio"]]


def test_the_caption_says_how_many_changes_are_drawn() -> None:
    """A plot of all changes names no number; one of the largest says of how many.

    A change of 0 is one of them if it was tested, and none if it is indicative.
    """
    from cnnperf.reports._sections import CHANGES, change_charts

    rest = {**dict.fromkeys(("low", "high", "p", "p_holm", "n")), "cell": "c", "outcome": "inconclusive", "remark": ""}
    rows = tuple(
        VerdictRow(metric=f"x{i}", unit="s", baseline=1.0, candidate=1.0 + i, change=float(i), **rest)
        for i in range(CHANGES + 1)
    )
    untested = replace(rows[0], metric="untested", outcome="indicative")
    charts = [
        chart
        for found in ((*rows[:CHANGES], untested), rows)
        for chart in change_charts(Report((Table("verdicts", VerdictRow.columns(), found),)))
    ]
    assert [len(chart.rows) for chart in charts] == [CHANGES, CHANGES]
    assert charts[0].rows[-1]["change"] == 0.0
    assert " of " not in charts[0].description.partition("metric")[2].partition("its interval")[0]
    assert f"the first {CHANGES} of {CHANGES + 1}, verdicts first, then the largest" in charts[1].description


def test_a_change_is_read_in_its_own_unit(both: Both) -> None:
    """The page writes a change in points, in the unit of its values, or in percent if it is a ratio."""
    values = {
        "infer.accuracy_drop[engine=torch]": ("1", 0.001, -0.002, -0.003),
        "infer.class_disagreements": ("count", 0.0, 4.0, 4.0),
        "x.ratio": ("bytes", 1024.0, 2048.0, 1.0),
    }
    rest = {**dict.fromkeys(("low", "high", "p", "p_holm", "n")), "cell": "c", "outcome": "worse", "remark": ""}
    rows = tuple(
        VerdictRow(metric=metric, unit=unit, baseline=a, candidate=b, change=change, **rest)
        for metric, (unit, a, b, change) in values.items()
    )
    verdicts = Table("verdicts", VerdictRow.columns(), rows)
    tables = tuple(verdicts if table.name == "verdicts" else table for table in both[0].tables)
    page = io.StringIO()
    write(replace(both[0], tables=tables), page)
    shown = re.findall(r"<data[^>]*>(.*?)</data>", page.getvalue().partition('data-table="verdicts"')[2])
    assert shown[:9] == ["0.1 %", "-0.2 %", "-0.3 points", "0", "4", "+4", "1.00 KiB", "2.00 KiB", "+100.0 %"]


def test_hovers_have_no_format_that_fails_on_absent_values(both: Both) -> None:
    """The page's own function formats every number in a hover."""

    def encodings(spec: dict[str, Any]) -> list[dict[str, Any]]:
        return [each["encoding"] for each in (spec, *spec.get("layer", ())) if "encoding" in each]

    specs = [each["spec"] for each in Page(both[1]).drawn()["specs"].values()]
    lines = [line for spec in specs for of in encodings(spec) for line in of.get("tooltip", ())]
    assert len(lines) > 100
    assert {(line["type"], line.get("formatType")) for line in lines} == {("nominal", None), ("quantitative", "told")}


def test_a_change_is_hovered_as_the_table_has_it() -> None:
    """The hover of a change has both values in the row's unit, and bounds only if they were tested."""
    from cnnperf.reports._sections import change_charts

    rows = tuple(
        VerdictRow(
            metric=metric, unit=unit, baseline=a, candidate=b, change=change, low=low, high=high, cell="c",
            outcome="worse", remark="", p=None, p_holm=None, n=None,
        )
        for metric, unit, a, b, change, low, high in (
            ("x.bytes", "bytes", 4176404.0, 5220505.0, 0.25, None, None),
            ("x.seconds", "s", 0.00488, 0.00732, 0.5, None, None),
            ("x.share", "fraction", 0.5, 0.4, -0.1, -0.15, -0.05),
        )
    )  # fmt: skip
    charts = change_charts(Report((Table("verdicts", VerdictRow.columns(), rows),)))
    found = [text for chart in charts for text in chart.spec["transform"][1]["from"]["data"]["values"]]
    assert [list(text.values()) for text in found] == [
        ["c  x.share", "50.0 %", "40.0 %", "-10.0 points", "-15.0 points", "-5.0 points"],
        ["c  x.seconds", "4.88 ms", "7.32 ms", "+50.0 %"],
        ["c  x.bytes", "3.98 MiB", "4.98 MiB", "+25.0 %"],
    ]


def test_the_legend_of_layers_names_only_what_is_drawn(both: Both) -> None:
    """The legend omits the backward pass where only forward passes are drawn; colours stay the same."""
    specs = [spec["spec"] for name, spec in Page(both[1]).drawn()["specs"].items() if name.endswith("-time")]
    colours = [spec["encoding"]["color"] for spec in specs]
    assert {tuple(colour["legend"]["values"]) for colour in colours} == {
        ("forward_s", "backward_s", "elsewhere"),
        ("forward_s", "elsewhere"),
    }
    assert len({tuple(colour["scale"]["range"]) for colour in colours}) == 1


def test_what_failed_of_two_runs_says_in_which(both: Both) -> None:
    """A failure is listed with its run, and the leaderboard's first column is the run."""
    named = [text for text in Page(both[1]).texts if text.endswith("cpu train") and "mlp" in text]
    assert [name.partition(": ")[0] for name in named] == list(both[0].folders)
    board = both[1].partition('data-table="leaderboard"')[2]
    assert re.findall(r'<button type="button">(.*?)</button>', board)[0] == "run"


def test_what_failed_or_was_disturbed_says_in_which_repeat(tmp_path: Path, trained: Trained) -> None:
    """A failed or disturbed task is listed with its repeat, so that no name occurs twice."""
    from cnnperf import record as store

    steps = m("train.loss", "1", 0.5, remarks={"disturbed": "2 % of samples lost the CPU for > 1 ms"})
    for repeat in range(2):
        store.append(tmp_path, trained("lenet", measured=[steps], repeat=repeat))
        store.append(tmp_path, trained("mlp", status="failed", error="boom", repeat=repeat))
    page = written(report_of([tmp_path]))
    for part, model in (("ends", "mlp"), ("disturbed", "lenet")):
        names = re.findall(r"<li><strong>(.*?)</strong>", page.partition(f'<ul id="{part}"')[2].partition("</ul>")[0])
        assert names == [f"{model} · cifar10 · cpu train", f"{model} · cifar10 · cpu train repeat 1"]


def test_plots_of_generated_images_say_so(tmp_path: Path, trained: Trained) -> None:
    """Headings name generated images, and do not name real ones."""
    point = {"step": 10, "samples": 1280, "seconds": 1.5, "epoch": 0.25, "n": 2000}
    curve = m("train.validation_accuracy", "fraction", 0.5, better="higher", remarks=point)
    confusion = m("train.confusion", "count", 1, 0, 0, 1, better=None, num_classes=2)
    generated = {"name": "synthetic", "fallback": "no connection"}
    for name, data in (("lenet", {}), ("nin", {"data": generated})):
        store.append(tmp_path, trained(name, measured=[curve, confusion], **data))
    texts = Page(written(report_of([tmp_path]))).texts
    for heading in ("cifar10 · data=synthetic · cpu · 60 s", "nin · cifar10 · data=synthetic · cpu"):
        assert heading in texts
    assert "lenet · cifar10 · cpu" in texts


def test_of_a_thousand_classes_the_page_names_the_most_frequent_confusions(tmp_path: Path, trained: Trained) -> None:
    """Instead of a matrix of a thousand classes, the page lists the most frequent confusions, the first first."""
    values = np.zeros((1000, 1000))
    values[7, 7], values[8, 9], values[3, 4] = 50, 2, 5
    counts = m("train.confusion", "count", *values.ravel().tolist(), better=None, num_classes=1000)
    store.append(tmp_path, trained("lenet", measured=[counts]))
    page = written(report_of([tmp_path]))
    section = page.partition("The most frequent confusions")[2].partition("</table>")[0]
    found = re.findall(r"<tr><td>(\d+)</td><td>(\d+)</td><td><data value=\"(\d+)\">", section)
    assert found == [("3", "4", "5"), ("8", "9", "2")]
    assert 'class="confusion"' not in page


def test_curves_of_unlike_machines_or_threads_share_no_plot(tmp_path: Path, trained: Trained) -> None:
    """Curves of unlike hosts or threads have separate plots, whose headings name the difference."""
    point = {"step": 10, "samples": 1280, "seconds": 1.5, "epoch": 0.25, "n": 2000}
    curve = m("train.validation_accuracy", "fraction", 0.5, better="higher", remarks=point)
    first = trained("lenet", measured=[curve], host="one")
    task = Task.model_validate(first.task.model_dump() | {"threads": 8})
    for name, records in (
        ("a", [first, trained("nin", measured=[curve], host="one")]),
        ("b", [trained("lenet", measured=[curve], host="two")]),
        ("c", [first.model_copy(update={"task": task, "key": task.key})]),
    ):
        (tmp_path / name).mkdir()
        for record in records:
            store.append(tmp_path / name, record)
    heading = "cifar10 · cpu · 60 s"
    report = report_of([tmp_path / name for name in "abc"])
    assert [(g.title, [row["model"] for row in g.charts[0].rows]) for g in training(report)] == [
        (f"{heading} · host one · threads 2", ["lenet", "nin"]),
        (f"{heading} · host two · threads 2", ["lenet"]),
        (f"{heading} · host one · threads 8", ["lenet"]),
    ]
    assert [group.title for group in training(report_of([tmp_path / "b"]))] == [heading]


def test_a_plot_of_smoothed_losses_names_their_networks(tmp_path: Path, trained: Trained) -> None:
    """The title of a plot of train losses names the networks with label smoothing, if there are any."""
    point = {"step": 2, "samples": 256, "seconds": 1.5, "epoch": 0.25, "n": 2000}
    loss = m("train.loss", "1", 2.0, 1.0)
    curve = m("train.validation_accuracy", "fraction", 0.5, better="higher", remarks=point)
    for name, smoothing in (("lenet", 0.0), ("speedrun", 0.1)):
        store.append(tmp_path, trained(name, measured=[loss, curve], label_smoothing=smoothing))
    page = written(report_of([tmp_path]))
    titles = set(re.findall(r"<figcaption>(.*?)</figcaption>", page))
    assert {f"train loss against {x} (with label smoothing: speedrun)" for x in ("seconds", "samples")} <= titles
    assert "validation accuracy against seconds" in titles
    plain = tmp_path / "plain"
    plain.mkdir()
    store.append(plain, trained(measured=[loss, curve], label_smoothing=0.0))
    assert "label smoothing:" not in written(report_of([plain]))


def test_layers_at_two_batch_sizes_are_told_apart(both: Both) -> None:
    """The titles of layer plots name the mode and the batch size."""
    titles = re.findall(r"<figcaption>(.*?)</figcaption>", both[1])
    assert {f"Training steps of 32 images: {what}" for what in ("time by layer", "memory saved", "roofline")} < set(
        titles
    )
    assert "Forward passes of 32 images: roofline" in titles


def test_two_runs_that_cannot_be_compared_say_why(tmp_path: Path, trained: Trained) -> None:
    """The comparison gives the reason of its refusal; runs without a common cell have no comparison."""
    for name, record in (("a", trained()), ("b", trained(seconds=30.0)), ("c", trained("nin"))):
        (tmp_path / name).mkdir()
        store.append(tmp_path / name, record)
    unlike = Page(written(report_of([tmp_path / "a", tmp_path / "b"])))
    assert "comparison" in unlike.ids()
    assert "train.seconds (60.0 against 30.0)" in " ".join(unlike.texts)
    assert "comparison" not in Page(written(report_of([tmp_path / "a", tmp_path / "c"]))).ids()


def test_pictures_that_are_gone_are_left_out(tmp_path: Path, trained: Trained) -> None:
    """Broken pictures are omitted, and the section of predictions stays."""
    run = furnish(tmp_path / "run", trained, networks=["lenet"])
    for file in run.glob("artifacts/*/*"):
        file.write_bytes(b"torn")
    with pytest.warns(CnnperfWarning, match=r"test images are left out: .*examples.npz: not readable"):
        page = Page(written(report_of([run])))
    assert "predictions" in page.ids()
    assert "img" not in {tag for tag, _ in page.tags}


def test_without_its_libraries_the_cure_is_named(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error for a missing jinja2 is one sentence that names the extra to install."""
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(UsageError, match=r"^the format 'html' needs jinja2; pip install 'cnnperf\[report\]'"):
        written(both[0])


def test_a_disturbed_cell_has_its_mark_and_its_footnote(tmp_path: Path, trained: Trained) -> None:
    """The page marks a disturbed speed and an accuracy by chance, each with its reason as title and footnote."""
    from cnnperf import record as store

    words = "a thread waited for a core for 40.0 % of the time"
    first, *others = trained(accuracy=0.095, seconds=None, steps=9).measurements
    waiting = first.model_copy(update={"remarks": {"waited_share": 0.4}})
    base = trained(accuracy=0.095, seconds=None, steps=9)
    store.append(tmp_path, base.model_copy(update={"measurements": (waiting, *others)}))
    page = written(report_of([tmp_path]))
    reasons = ["no better than chance, which is 1 in 10", f"disturbed: {words}"]
    assert re.findall(r'<span class="doubt" title="(.*?)">†</span>', page) == reasons
    notes = {f"† lenet: {head}: {reason}" for head, reason in zip(("test accuracy", "images/s"), reasons, strict=True)}
    assert notes <= set(Page(page).texts)
    assert '<span class="star"' not in page


def test_plots_of_disturbed_times_have_the_mark_of_doubt(tmp_path: Path, trained: Trained) -> None:
    """Disturbed engines and trainings have a layer of marks, plots of one process a mark in the title; others none."""
    marked = {}
    for name in ("calm", "busy"):
        run = furnish(tmp_path / name, trained, networks=["nin"])
        if name == "busy":
            disturb(run, "nin")
        page = written(report_of([run]))
        parts = [
            (chart, part)
            for chart, each in Page(page).drawn()["specs"].items()
            for part in each["spec"].get("layer", ())
        ]
        drawn = {chart.partition("-")[0] for chart, part in parts if part["mark"].get("text") == "†"}
        titles = [title for title in re.findall(r"<figcaption>(.*?)</figcaption>", page) if "†" in title]
        marked[name] = drawn, len(titles)
    assert marked["calm"] == (set(), 0)
    assert marked["busy"][0] == {"curves", "tradeoff", "network"}
    assert marked["busy"][1] > 1
