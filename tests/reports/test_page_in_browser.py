"""The page in a real Chromium: drawn, sorted and filtered without errors, on small and large screens, light or dark."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Iterator
from itertools import combinations, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import pytest
from furnished import NETWORKS, disturb, furnish
from in_process import workers_here

import cnnperf
from cnnperf import record as store
from cnnperf.record import Record
from cnnperf.reports.csv import write as write_csv
from cnnperf.reports.html import write
from cnnperf.tables.engine_row import BestEngine
from cnnperf.tables.leaderboard_row import LeaderboardRow
from cnnperf.tables.report import report_of
from cnnperf.task import Task
from cnnperf.units import scaled

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

Trained = Callable[..., Record]
SHEET = 1047
"""Pixels across A4, less its margins."""
PATIENCE_MS = 300_000
"""For a machine that measures something beside this."""


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    """Start the system's Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Its sandbox needs a user who is not root.
        yield playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"], timeout=PATIENCE_MS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, trained: Trained) -> Path:
    """Write the page of two runs, and the CSVs of the same report."""
    root = tmp_path_factory.mktemp("page")
    runs = [
        furnish(root / name, trained, networks=NETWORKS[:3], repeats=3, shift=shift)
        for name, shift in (("before", 0.0), ("after", 0.1))
    ]
    report = report_of(runs)
    with open(root / "page.html", "w", encoding="utf-8") as out:
        write(report, out)
    write_csv(report, root)
    return root


class Watched:
    """An open page with its console messages, errors, dialogs and requests."""

    def __init__(self, page: Page, file: Path) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.requests: list[str] = []
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: (self.complaints.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: self.requests.append(request.url[:30]))
        page.goto(file.as_uri())
        page.wait_for_selector("body[aria-busy=false]")


@pytest.fixture(scope="module")
def opened(browser: Browser, folder: Path) -> Iterator[Watched]:
    """Open the page once, at a laptop's size."""
    page = browser.new_page(viewport={"width": 1440, "height": 900}, color_scheme="light")
    yield Watched(page, folder / "page.html")
    page.close()


def keep(page: Page, name: str) -> None:
    """Take a screenshot of the whole page if CNNPERF_SCREENSHOTS names a folder, as in CI."""
    if folder := os.environ.get("CNNPERF_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / name, full_page=True)


def rows_of(folder: Path, table: str) -> list[dict[str, str]]:
    """Return a CSV's rows."""
    with open(folder / f"{table}.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_everything_is_drawn_without_a_word(opened: Watched, folder: Path) -> None:
    """Every section is visible and every plot has marks; no message or dialog occurs and only the file is fetched."""
    page = opened.page
    sections = page.locator("section")
    assert sections.count() == 11
    assert all(sections.nth(i).is_visible() for i in range(11))
    marks = ".mark-symbol path, .mark-rect path, .mark-line path"
    plots = page.locator(".plot").evaluate_all(f"all => all.map(plot => plot.querySelectorAll('{marks}').length)")
    assert len(plots) > 30
    assert min(plots) > 0
    assert opened.complaints == []
    assert {url for url in opened.requests if not url.startswith("data:")} == {(folder / "page.html").as_uri()[:30]}
    keep(page, "page-light.png")


def test_the_numbers_are_those_of_the_csv(opened: Watched, folder: Path) -> None:
    """The leaderboard shows the values of its CSV, row by row and column by column."""
    shown = opened.page.locator("#leaderboard table").evaluate_all(
        """tables => tables.flatMap(table => {
             const heads = [...table.tHead.rows[0].cells].map(head => head.textContent.trim());
             return [...table.tBodies[0].rows].map(row => Object.fromEntries([...row.cells].map((cell, i) => [heads[i],
               cell.querySelector('data')?.value ?? (cell.querySelector('.missing') ? '' : cell.textContent.trim())])));
           })"""
    )
    columns = (*LeaderboardRow.columns(), *BestEngine.columns())
    heads = {column.title or column.name.replace("_", " "): column.name for column in columns}
    rows = rows_of(folder, "leaderboard")
    assert len(shown) == len(rows) > 5
    for line, row in zip(shown, rows, strict=True):
        assert len(line) > 3
        assert line == {head: row[heads[head]] for head in line}


def test_a_head_sorts_its_table(opened: Watched) -> None:
    """A column head sorts by value, by key and by click, up and down; missing values stay last."""
    head = opened.page.locator("#leaderboard thead th", has_text="params").first
    table = opened.page.locator("#leaderboard table").first

    def column() -> list[float | None]:
        place = head.evaluate("head => head.cellIndex")
        cells = "(table, i) => [...table.tBodies[0].rows].map(row => row.cells[i].querySelector('data')?.value ?? null)"
        return [None if value is None else float(value) for value in table.evaluate(cells, place)]

    head.locator("button").focus()
    opened.page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    up = [value for value in column() if value is not None]
    assert up == sorted(up)
    assert len(set(up)) > 2
    assert column()[-1] is None
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert [value for value in column() if value is not None] == up[::-1]
    assert column()[-1] is None
    assert table.locator("th[aria-sort=none]").count() == table.locator("thead th").count() - 1


def test_the_first_click_brings_the_best_to_the_top(opened: Watched) -> None:
    """A column of which more is better is sorted downwards first."""
    head = opened.page.locator("#leaderboard thead th", has_text="test accuracy").first
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"


def test_the_name_stays_in_sight(browser: Browser, folder: Path) -> None:
    """On a phone the name of a row's network stays when its table is scrolled sideways, and sections are folded."""
    page = browser.new_page(viewport={"width": 360, "height": 800})
    Watched(page, folder / "page.html")
    scroll = page.locator("#engines .scroll").first
    name = scroll.locator("tbody .name").first
    assert scroll.evaluate("each => each.scrollWidth > each.clientWidth + 100")
    scroll.evaluate("each => { each.scrollLeft = each.scrollWidth; }")
    place = "each => each.getBoundingClientRect().left"
    left = name.evaluate(place) - scroll.evaluate(place)
    assert 0 <= left < 2
    assert not page.locator("nav li").first.is_visible()
    page.locator("nav summary").click()
    page.locator("nav a[href='#engines']").click()
    assert not page.locator("nav li").first.is_visible()
    page.close()


def test_a_caption_is_in_sight(browser: Browser, folder: Path) -> None:
    """On a phone the caption of a table wider than the screen is not."""
    page = browser.new_page(viewport={"width": 360, "height": 800})
    Watched(page, folder / "page.html")
    ends = page.locator("caption:visible span").evaluate_all(
        "all => all.map(each => each.getBoundingClientRect().right)"
    )
    assert len(ends) > 5
    assert max(ends) <= 360
    page.close()


def test_no_name_of_a_point_covers_another(browser: Browser, tmp_path: Path, trained: Trained) -> None:
    """Four networks at the same point of a trade-off have names that do not overlap, on a phone and a laptop."""
    run = furnish(tmp_path / "run", trained, networks=["lenet"])
    names = ["lenet", "nin", "vgg", "resnet"]
    for record in store.read(run):
        for name in names[1:] if record.task.stage == "infer" else ():
            cell = trained(name).task.cell.model_dump()
            task = Task.model_validate(record.task.model_dump() | {"cell": cell})
            store.append(run, record.model_copy(update={"task": task, "key": task.key}))
    with open(tmp_path / "page.html", "w", encoding="utf-8") as out:
        write(report_of([run]), out)
    for width in (360, 1440):
        page = browser.new_page(viewport={"width": width, "height": 900})
        Watched(page, tmp_path / "page.html")
        shown = page.locator("#tradeoff .plot").first.locator(".mark-text.role-mark text:not([opacity='0'])")
        assert sorted(shown.all_text_contents()) == sorted(names)
        boxes = [box for each in shown.all() if (box := each.bounding_box())]
        for one, other in combinations(boxes, 2):
            is_beside = any(
                min(one[at] + one[size], other[at] + other[size]) - max(one[at], other[at]) < 3
                for at, size in (("x", "width"), ("y", "height"))
            )
            assert is_beside, (one, other)
        page.close()


def test_no_line_strikes_a_name_out(opened: Watched) -> None:
    """A name whose nearest place lies on a line is drawn beside it."""
    top, line = opened.page.evaluate(
        """async () => {
             const across = { field: "x", type: "quantitative", scale: { domain: [0, 100] } };
             const up = { ...across, field: "y" };
             const values = [0, 100].map((x) => ({ x, y: 58, name: "" }));
             const layer = [
               { data: { values }, mark: "line", encoding: { x: across, y: up } },
               { data: { values: [{ x: 50, y: 50, name: "conv" }] }, mark: "text",
                 encoding: { x: across, y: up, text: { field: "name" } } },
             ];
             const spec = withNamesApart(vegaLite.compile({ width: 200, height: 200, layer }).spec);
             const view = await new vega.View(vega.parse(spec), { renderer: "none" }).runAsync();
             const marks = view.scenegraph().root.items[0].items;
             const name = marks.find((mark) => mark.marktype === "text").items[0];
             return [name.bounds.y1, 200 * (1 - 0.58)];
           }"""
    )
    assert top > line


@pytest.mark.parametrize(
    ("width", "scheme"),
    [
        (360, "dark"),
        pytest.param(360, "light", marks=pytest.mark.slow),
        pytest.param(1440, "dark", marks=pytest.mark.slow),
        pytest.param(1440, "light", marks=pytest.mark.slow),
    ],
)
def test_axe_finds_nothing(browser: Browser, folder: Path, scheme: Any, width: int) -> None:
    """axe-core, with all its rules for WCAG 2.2 AA and best practices, reports no violation."""
    axe_playwright = pytest.importorskip("axe_playwright_python.sync_playwright")
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    Watched(page, folder / "page.html")
    found = axe_playwright.Axe().run(page).response["violations"]
    assert [(each["id"], node["target"], node["failureSummary"]) for each in found for node in each["nodes"]] == []
    page.close()


def test_a_filter_leaves_the_rows_that_hold_every_word(opened: Watched) -> None:
    """The filter ignores case and tells how many rows it leaves; an empty filter shows all rows."""
    box = opened.page.get_by_label("Filter the rows").first
    rows = opened.page.locator("#leaderboard tbody tr:visible")
    total = rows.count()
    box.fill("MLP failed")
    assert rows.count() == 2
    assert opened.page.locator("#leaderboard [role=status]").text_content() == f"2 of {total} rows"
    box.fill("")
    assert rows.count() == total


def test_the_numbers_behind_a_plot_are_a_table(opened: Watched, folder: Path) -> None:
    """The table beneath a plot shows the plotted numbers to the last digit."""
    details = opened.page.locator("#training details[data-rows]").first
    details.locator("summary").click()
    details.locator("table").wait_for()
    held = {row["validation_accuracy"] for row in rows_of(folder, "curves")} | {"0"}
    heads = details.locator("th").all_text_contents()
    place = heads.index("validation accuracy") + 1
    values = details.locator(f"tbody tr td:nth-child({place}) data").evaluate_all("all => all.map(each => each.value)")
    assert len(values) == len(rows_of(folder, "curves"))
    assert set(map(float, values)) <= set(map(float, held))


def test_a_hover_tells_all_facts_as_text(opened: Watched) -> None:
    """A hover shows latency and accuracy in a description list without any other element."""
    mark = opened.page.locator("#tradeoff .plot .mark-symbol path").first
    mark.scroll_into_view_if_needed()
    mark.hover(force=True)
    tip = opened.page.locator("#tip")
    tip.wait_for(state="visible")
    words = tip.text_content() or ""
    assert re.search(r"latency[\d.]+ (s|ms|µs)", words)
    assert "test accuracy" in words
    assert set(tip.evaluate("tip => [...tip.querySelectorAll('*')].map(each => each.tagName)")) == {"DL", "DT", "DD"}


def test_hovers_write_numbers_as_the_tables_do(opened: Watched) -> None:
    """The page's function and `scaled` format every unit alike, ties too; a missing value gives an empty text."""
    values = (0.000000123, 0.00488, 0.5, 1.0, 2.345, 42.0, 999.4, 4176404.0, 2.5e9)
    ties = 0.8125, 0.1875, 2.125, 2.135, 10.25, 0.05, 1.005
    of_units = dict.fromkeys(("s", "bytes", "fraction", "1", "images/s"), values + ties) | {
        "count": (0, 7, 4321, 123456),
        "points": (0.0, 0.0031, -0.02),
    }
    for unit, numbers in of_units.items():
        shown = opened.page.evaluate("([values, unit]) => values.map(value => told(value, unit))", [numbers, unit])
        assert shown == [scaled(number, unit) for number in numbers]
    assert opened.page.evaluate("[told(null, 's'), told(undefined, 'fraction')]") == ["", ""]


def test_no_hover_tells_of_what_is_absent(opened: Watched) -> None:
    """No hover shows NaN, undefined or null; that of a change has the words of the table."""
    tip = opened.page.locator("#tip")
    told = {}
    for plot in opened.page.locator(".plot").all():
        mark = plot.locator(".mark-symbol.role-mark path, .mark-rect.role-mark path").last
        if mark.count():
            mark.scroll_into_view_if_needed()
            mark.hover(force=True)
            tip.wait_for(state="visible")
            told[plot.get_attribute("data-chart")] = tip.inner_text()
    assert len(told) > 30
    assert [words for words in told.values() if re.search(r"NaN|undefined|null", words)] == []
    assert re.search(r"baseline\s+\d+\.\d %", told["changes-fractions"])
    assert re.search(r"change\s+\+10\.0 points", told["changes-fractions"])


@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (3840, "light")])
def test_no_width_scrolls_sideways(browser: Browser, folder: Path, width: int, scheme: Any) -> None:
    """No page is wider than the screen, no plot overflows, and dark colours are not printed."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    watched = Watched(page, folder / "page.html")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    luminance = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0]")
    assert (luminance < 60) == (scheme == "dark")
    assert watched.complaints == []
    past_its_plot = page.locator(".plot").evaluate_all(
        """plots => plots.filter(plot => {
             const right = plot.getBoundingClientRect().right;
             const all = [...plot.querySelectorAll('.role-legend text, .role-mark path')];
             const drawn = all.filter(each => each.getBBox().width);
             return drawn.some(each => each.getBoundingClientRect().left > right - 2
               || (each.tagName === 'text' && each.getBoundingClientRect().right > right + 1));
           }).map(plot => plot.dataset.chart)"""
    )
    assert past_its_plot == []
    if scheme == "dark":
        keep(page, "page-dark-phone.png")
        page.emulate_media(media="print", color_scheme="dark")
        style = "style => getComputedStyle(style).getPropertyValue('--page').trim()"
        assert page.locator("html").evaluate(style) == "#fff"
    page.close()


def test_it_can_be_read_by_ear(opened: Watched) -> None:
    """Every plot, picture, table, region and control has a name, and headings skip no level."""
    page = opened.page
    assert page.locator("h1").count() == 1
    unnamed = page.evaluate(
        """[...document.querySelectorAll('.plot, [role=region]')].filter(each => !each.ariaLabel).length
           + [...document.images].filter(each => !each.alt).length
           + [...document.querySelectorAll('main table.sortable')].filter(each => !each.caption).length
           + [...document.querySelectorAll('input')].filter(each => !each.labels.length).length"""
    )
    assert unnamed == 0
    levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3,h4')].map(each => Number(each.tagName[1]))")
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_a_plot_is_read_as_it_is_described(opened: Watched) -> None:
    """Each plot has its own description as its accessible name."""
    names = opened.page.locator(".plot").evaluate_all("all => all.map(each => each.ariaLabel)")
    assert len(set(names)) == len(names)
    assert any("one network's front" in name for name in names)


def test_a_plot_is_saved_as_a_picture_of_its_own(opened: Watched, folder: Path) -> None:
    """A saved plot is well-formed SVG with its description as the title and no CSS variable."""
    figure = opened.page.locator("#training figure").first
    with opened.page.expect_download() as download:
        figure.locator("button.save").click()
    name = figure.locator(".plot").get_attribute("data-chart")
    assert download.value.suggested_filename == f"{name}.svg"
    download.value.save_as(folder / "saved.svg")
    text = (folder / "saved.svg").read_text(encoding="utf-8")
    assert ElementTree.fromstring(text)[0].text == figure.locator(".plot").get_attribute("aria-label")
    assert "var(--" not in text
    assert "#0072b2" in text


def test_no_words_run_into_their_neighbours(opened: Watched) -> None:
    """A long name is broken within its cell, so that no cell overflows."""
    row = opened.page.locator("#leaderboard tbody tr").first
    wide = row.evaluate(
        """row => {
             const cell = row.cells[2], words = cell.textContent;
             cell.textContent = "trashnet[" + "train.normalize=half,".repeat(12) + "]";
             const over = [...row.cells].filter(each => each.scrollWidth > each.clientWidth + 1).length;
             cell.textContent = words;
             return over;
           }"""
    )
    assert wide == 0


ALL_STAGES = """
datasets = [{ name = "synthetic", train = 512, test = 256 }]
models = ["lenet"]
devices = ["cpu"]
stages = ["train", "profile", "export", "infer"]
timeout_s = 500
threads = 1
[train]
steps = 10
validation_images = 128
[profile]
samples = 3
batch_sizes = [4]
[export]
test_images = 64
[infer]
engines = ["torch", "onnxruntime"]
batch_sizes = [1, 8]
samples = 11
seconds = 0.0
pairs = 0
test_images = 64
"""


@pytest.mark.usefixtures("quick_probes")
def test_a_run_through_all_stages_has_every_section(browser: Browser, tmp_path: Path) -> None:
    """The page of a real run through all stages has every section but the comparison."""
    (tmp_path / "all.toml").write_text(ALL_STAGES)
    run = tmp_path / "run"
    with workers_here():
        records = list(cnnperf.run(cnnperf.load_suite(tmp_path / "all.toml"), run))
    assert [(record.task.stage, record.error) for record in records if record.status != "ok"] == []
    with open(tmp_path / "page.html", "w", encoding="utf-8") as out:
        write(report_of([run]), out)
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    watched = Watched(page, tmp_path / "page.html")
    assert page.locator("section").evaluate_all("all => all.map(each => each.id)") == [
        *("answers", "summary", "leaderboard", "tradeoff", "engines"),
        *("training", "profiles", "networks", "predictions", "notes"),
    ]
    # On a busy machine a title has the mark of doubt.
    titles = [title.removesuffix(" †") for title in page.locator("#networks figcaption").all_text_contents()]
    assert {f"Training steps of 4 images: {what}" for what in ("time by layer", "memory saved", "roofline")} <= set(
        titles
    )
    assert "Throughput by batch size" in titles
    assert any(title.startswith("Layers in onnxruntime") for title in titles)
    layers = page.locator("#networks .plot").first.locator(".role-axis-label text").all_text_contents()
    assert layers.index("conv1") < layers.index("conv2") < layers.index("linear1")
    assert watched.complaints == []
    page.close()


def test_a_legend_has_the_shapes_of_its_points(opened: Watched) -> None:
    """The legends of a roofline and of a front show the points' shapes; the roofline has one legend."""
    for place in ("#networks .plot[data-chart$=roofline]", "#tradeoff .plot"):
        plot = opened.page.locator(place).first
        outlines = "all => all.map(each => each.getAttribute('d').replace(/[^A-Za-z]/g, ''))"
        shown = plot.locator(".role-legend-symbol path").evaluate_all(outlines)[:2]
        assert len(set(shown)) == 2
        assert set(plot.locator(".mark-symbol.role-mark path").evaluate_all(outlines)) <= set(shown)
    labels = opened.page.locator("#networks .plot[data-chart$=roofline]").first.locator(".role-legend-label text")
    assert labels.all_text_contents() == ["forward", "backward"]


def test_it_prints(opened: Watched, folder: Path) -> None:
    """A printed page has plots and tables no wider than a sheet, and no controls.

    Plots are blocks on paper, so that text after a plot longer than a sheet does not overlap it.
    """
    page = opened.page
    page.emulate_media(media="print")
    page.set_viewport_size({"width": SHEET, "height": 700})
    tables = page.locator("main table:visible").evaluate_all("all => all.map(each => each.offsetWidth)")
    assert max(tables) <= SHEET
    assert not page.locator("nav").is_visible()
    assert not page.locator(".filter").first.is_visible()
    assert page.locator("#training svg").first.is_visible()
    assert page.locator(".plots").first.evaluate("plots => getComputedStyle(plots).display") == "block"
    assert len(page.pdf()) > 50_000
    page.emulate_media(media="screen")


def test_disturbed_points_have_the_mark_of_doubt(browser: Browser, tmp_path: Path, trained: Trained) -> None:
    """Each disturbed engine has its mark in the plots of engines, each disturbed training at the end of its line."""
    run = furnish(tmp_path / "run", trained, networks=["lenet", "nin"])
    disturb(run, "nin")
    with open(tmp_path / "page.html", "w", encoding="utf-8") as out:
        write(report_of([run]), out)
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    watched = Watched(page, tmp_path / "page.html")
    drawn = page.locator("#training .plot, #tradeoff .plot, #networks .plot").evaluate_all(
        """all => all.map(plot => [plot.closest("figure").querySelector("figcaption").textContent,
             [...plot.querySelectorAll(".mark-text text")].filter(each => each.textContent === "†").length])"""
    )
    kinds = ("against seconds", "against samples", "Batch of", "Throughput", "†")
    marks: dict[str, set[int]] = {}
    for title, count in drawn:
        marks.setdefault(next((kind for kind in kinds if kind in title), "others"), set()).add(count)
    assert marks == {
        "against seconds": {1},
        "against samples": {0},
        "Batch of": {2},
        "Throughput": {0, 6},
        "†": {0},
        "others": {0},
    }
    assert watched.complaints == []
    page.close()
