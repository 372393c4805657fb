"""The documents: generated parts are current, links have targets, and README.md is short."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import reference_tables
import suite_format

from cnnperf import registry
from cnnperf.bench import settings_of
from cnnperf.record.folder import FILE
from cnnperf.regression.gate_verdict import TimeVerdict
from cnnperf.regression.rule import TYPICAL_DEVIATIONS, Rule, power
from cnnperf.reports import _layers, _verdicts
from cnnperf.suite import parse
from cnnperf.tables import campaigns
from cnnperf.tables.engine_row import EngineRow

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = sorted(
    file
    for file in ROOT.rglob("*.md")
    if not any(part.startswith(".") or part == "build" for part in file.relative_to(ROOT).parts)
)
CAMPAIGN = ROOT / "results" / "reference" / "aa"
COMMANDS = ROOT / "results" / "reference" / "commands"
Part = Callable[[str, str, str], None]


@pytest.mark.parametrize("name", reference_tables.PARTS)
def test_the_reference_says_what_was_measured(part: Part, name: str) -> None:
    """Each generated part of the reference's README.md matches its CSV files."""
    part("results/reference/README.md", name, reference_tables.PARTS[name]())


def test_readme_shows_the_leaderboard_that_was_measured(part: Part) -> None:
    """The leaderboard in README.md is that of the stored run, in the form that the command prints."""
    text = f"```text\n$ cnnperf run cifar --device cpu\n{reference_tables.leaderboard('cifar', 96)}\n…\n```"
    part("README.md", "leaderboard", text)


@pytest.mark.parametrize("command", ["profile", "infer", "ab"])
def test_readme_shows_what_the_command_printed(command: str) -> None:
    """Each block of README.md is an excerpt of the stored output; a line `…` stands for the lines left out."""
    stored = "\n" + (COMMANDS / f"{command}.txt").read_text(encoding="utf-8")
    place = 0
    for part in "\n".join(["", *readme_block(command, with_gaps=True), ""]).split("\n…"):
        place = stored.find(part.rstrip("\n") + "\n", place)
        assert place >= 0, part
    assert stored.startswith(f"\n$ cnnperf {command} ")


def readme_block(command: str, *, with_gaps: bool = False) -> list[str]:
    """Return the lines of a command's block in README.md; with gaps, also its first line and the lines `…`."""
    [found] = re.findall(rf"^```text\n(\$ cnnperf {command} .*?)^```$", README, flags=re.DOTALL | re.MULTILINE)
    lines = found.splitlines()
    return lines if with_gaps else [line for line in lines[1:] if line != "…"]


def form(line: str) -> str:
    """Return a printed line with its numbers and the text in parentheses masked."""
    return re.sub(r"[-+]?[\d.]+(e-\d+)?", "0", re.sub(r"\(.*?\)", "()", line))


def test_readme_shows_a_profile_as_the_command_prints_it() -> None:
    """README.md's profile has columns of the command in their order, and sentences in the form of a stored output."""
    title, above, heads, *rows, total, hooks, mfu = readme_block("profile")
    printed = (ROOT / "tests/data/profile.txt").read_text(encoding="utf-8").splitlines()
    titles = iter(column.title.split("\n") for column in _layers.COLUMNS)
    columns = [next(words for words in titles if words[-1] == head) for head in re.split(r"\s{2,}", heads)]
    assert above.split() == [words[0] for words in columns if len(words) > 1]
    assert all(len(re.split(r"\s{2,}", row)) == len(columns) for row in rows)
    assert total.startswith("total ")
    assert {form(hooks), form(mfu)} < set(map(form, printed))
    names = form(title).split(" · ")
    assert len(names) == len(form(printed[0]).split(" · "))
    assert form(printed[0]).split(" · ")[2:5] == names[2:5]


def test_readme_shows_engines_as_infer_prints_them() -> None:
    """README.md's table of engines has columns of the command, in their order."""
    place, heads = next((n, line) for n, line in enumerate(readme_block("infer")) if line.startswith("model  engine"))
    counted = iter(readme_block("infer")[place - 1].split())
    shown = [next(counted) if head == "n=1" else head for head in re.split(r"\s{2,}", heads)]
    titles = iter(column.title or column.name for column in EngineRow.columns())
    assert all(title in titles for title in shown), shown


def test_readme_shows_verdicts_as_ab_prints_them() -> None:
    """README.md's verdicts, worse and same, have the form of the command's."""
    common = {"cell": "lenet", "metric": "infer.forward", "pairs": 60, "rule": Rule()}
    slower = {"change": 0.06, "low": 0.035, "high": 0.078, "p": 0.00031, "p_holm": 0.0012, "cpu_change": 0.064}
    alike = {"change": -0.012, "low": -0.03, "high": 0.008, "p": 0.9, "p_holm": 1.0, "cpu_change": -0.003}
    verdicts = (
        TimeVerdict(outcome="worse", n=14, **slower, **common),
        TimeVerdict(outcome="same", n=8, **alike, **common),
    )
    printed = [line.plain for line in _verdicts.readable_lines(verdicts)]
    forms, shown = ([form(line).split()[2:] for line in lines] for lines in (printed, readme_block("ab")))
    assert sorted(shown) == sorted(forms)


def test_the_format_of_suites_is_that_of_the_schema(part: Part) -> None:
    """The format in `suites/README.md` equals the one generated from the schema and the rooms."""
    part("suites/README.md", "format", suite_format.text())


def test_every_stage_has_its_keys_in_the_format_of_suites(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every stage has a section, and a stage that the fixed order does not name follows those that it names."""
    document, stages = suite_format.suite_schema(), registry.names("stages")
    document["properties"]["counting"] = {"description": "Counts.", "properties": {}}
    real = registry.names
    monkeypatch.setattr(suite_format, "suite_schema", lambda: document)
    monkeypatch.setattr(registry, "names", lambda room: (*stages, "counting") if room == "stages" else real(room))
    found = re.findall(r"^### `\[(\w+)\]`$", suite_format.text(), re.MULTILINE)
    assert found == ["train", "profile", "export", "infer", *sorted({*stages, "counting"} - set(suite_format.ORDER))]


def test_a_stated_default_holds_where_a_suite_leaves_the_setting_out() -> None:
    """Each stated default is the value that a suite has if it does not give the setting."""
    document = suite_format.suite_schema()
    suite = parse({"datasets": ["mnist"], "models": ["lenet"]}, where="mine.toml", name="mine")
    assert untrue(document["properties"], suite.model_dump(mode="json")) == []
    for stage in registry.names("stages"):
        kind = settings_of(stage)
        settings = kind.resolve({} if stage == "train" else {"batch_size": 7}, {}, {})
        assert untrue(document["properties"][stage]["properties"], settings.model_dump(mode="json")) == []


def untrue(properties: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    """Return the keys whose stated default is not the value in the settings."""
    stated = {name: schema["default"] for name, schema in properties.items() if schema.get("default")}
    return [name for name, default in stated.items() if settings.get(name, default) != default]


def test_the_gate_s_power_is_what_a_run_prints(part: Part) -> None:
    """The table of the gate's power equals the computed one, and the help of `ab` has its last three columns."""
    rule, lines = Rule(), {}
    for label, comparisons in {"alone": 1, "one of ten": 10}.items():
        found = (power(rule, rule.scheduled(comparisons), comparisons, each) for each in TYPICAL_DEVIATIONS)
        lines[label] = [f"{100 * each:.0f}" for each in found]
    heads = ("standard deviation of replicates", *(f"{100 * each:g} %" for each in TYPICAL_DEVIATIONS))
    text = reference_tables.table(heads, ([label, *found] for label, found in lines.items()))
    part("cnnperf/regression/README.md", "power", text)
    help_text = " ".join((ROOT / "cnnperf/cli/ab.py").read_text(encoding="utf-8").split())
    for found in lines.values():
        assert " / ".join(found[1:]) in help_text


def test_the_gate_says_how_often_it_erred(part: Part) -> None:
    """The sentence on errors equals the one that `cnnperf campaign report` prints for the stored campaign."""
    text = "No campaign is stored in `results/reference/aa` yet."
    if CAMPAIGN.is_dir():
        rows = [
            campaigns.CountRow(**{name: _number(value) for name, value in row.items()})
            for row in reference_tables.read(f"{CAMPAIGN.name}/counts.csv")
        ]
        sentence = campaigns.sentence(rows)
        text = f"{sentence[0].upper()}{sentence[1:]}."
    part("cnnperf/regression/README.md", "campaign", text)


def _number(text: str) -> int | float | str:
    if text.isdigit():
        return int(text)
    return float(text) if re.fullmatch(r"[\d.]+(e-\d+)?", text) else text


def test_readme_is_short() -> None:
    """README.md has at most 220 lines and 12,000 bytes."""
    content = (ROOT / "README.md").read_bytes()
    assert len(content.splitlines()) <= 220
    assert len(content) <= 12_000


def test_readme_reports_runs_alone() -> None:
    """The patterns that README.md passes to `cnnperf report` match run folders only."""
    listed = re.findall(r"^cnnperf report (\S+)", README, flags=re.MULTILINE)
    assert listed
    assert [path for pattern in listed for path in ROOT.glob(pattern) if not (path / FILE).is_file()] == []


def prose(document: Path) -> str:
    """Return a document without its code blocks."""
    return re.sub(r"^```.*?^```$", "", document.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def anchors(document: Path) -> set[str]:
    """Return the anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(document), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links() -> Iterator[tuple[Path, str]]:
    """Yield every link of every document that leads to a path or a heading."""
    for document in DOCUMENTS:
        for target in re.findall(r"\]\(([^)\s]+)\)", prose(document)):
            if not re.match(r"[a-z]+:", target):
                yield document, target


@pytest.mark.parametrize(
    ("document", "target"),
    [*links()],
    ids=lambda value: str(value.relative_to(ROOT)) if isinstance(value, Path) else value,
)
def test_links_lead_somewhere(document: Path, target: str) -> None:
    """Each link leads to a file or folder of the repository, and to a heading in it if one is named."""
    name, _, anchor = target.partition("#")
    path = (document.parent / name).resolve() if name else document
    assert path.exists()
    assert path.is_relative_to(ROOT)
    if anchor:
        assert anchor in anchors(path)
