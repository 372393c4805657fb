"""Tables and sentences of the documents on the reference runs, made from the CSV files in `results/reference/`.

New measurements need no edit here: a sentence of figures is made of differences, and says so where there is none.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import fmean, geometric_mean, median
from typing import Any
from unittest import mock

from doc_table import table

from cnnperf.machine.disturbance import is_disturbing
from cnnperf.reports import console
from cnnperf.stats import quartiles
from cnnperf.tables.engine_row import Evidence
from cnnperf.tables.facts import GROUP
from cnnperf.tables.leaderboard_row import LeaderboardRow
from cnnperf.tables.profiles import ProfileRow
from cnnperf.tables.repeats import Rivals
from cnnperf.tables.table import Column, Report, Row, Table

REFERENCE = Path(__file__).parents[2] / "results" / "reference"
Rows = list[dict[str, str]]

UNKNOWN = Evidence(
    rivals=Rivals("", None, ()),
    baseline="torch",
    ratios=(),
    waiting=None,
    pairs=(),
    unsteady=0,
    engines=(),
    settings={},
)
"""Files of a table do not hold it."""


def read(name: str) -> Rows:
    """Return the rows of a reference table."""
    with open(REFERENCE / name, encoding="utf-8") as file:
        return list(csv.DictReader(file))


def by_model(name: str) -> dict[str, dict[str, str]]:
    """Return the rows of a reference table by their model."""
    return {row["model"]: row for row in read(name)}


def printed(
    rows: Rows, kind: type[Row], group: tuple[str, ...], width: int, *, hidden: Iterable[str] = (), **others: Any
) -> str:
    """Return the text that the command prints for a table in a terminal of this width, without its notes.

    hidden: columns that are left out; others: the rows' fields that are no columns, and so in no file.
    """
    shown = tuple(replace(column, shown=None) if column.name in hidden else column for column in kind.columns())
    values = tuple(kind(**{c.name: _value(c, row.get(c.name, "")) for c in shown}, **others) for row in rows)
    out = io.StringIO()
    with mock.patch.dict("os.environ", {"COLUMNS": str(width)}):
        console.write(Report((Table("table", shown, values, group),)), out)
    text, _, _ = out.getvalue().partition("Columns hidden")
    return "\n".join(line.rstrip() for line in text.rstrip().splitlines())


def _value(column: Column, text: str) -> str | int | float | None:
    if text == "":
        return None
    if column.unit is None:
        return text
    return int(text) if re.fullmatch(r"-?\d+", text) else float(text)


MEMORY = ("peak_above_start_bytes", "peak_bytes")
"""Columns of the leaderboard that are not quoted of runs whose peaks include the evaluation."""


def leaderboard(run: str, width: int = 100, *, hidden: tuple[str, ...] = ()) -> str:
    """Return the leaderboard that `cnnperf run` printed for a suite, without some columns."""
    group = ("dataset", "device", "budget", "threads", "host", "device_label")
    return printed(
        read(f"{run}/leaderboard.csv"),
        LeaderboardRow,
        group,
        width,
        hidden=hidden,
        training="",
        asked={},
        earliest_target_s=None,
        further={},
    )


def leaderboards() -> str:
    """Return the leaderboards of `cifar` and `mnist`, each with a sentence on machine, software and data."""
    return "\n\n".join(
        f"```text\n$ cnnperf run {run} --device cpu\n{leaderboard(run, hidden=hidden)}\n```\n\n"
        f"{provenance(f'{run}/leaderboard.csv')}"
        for run, hidden in (("cifar", ()), ("mnist", MEMORY))
    )


def provenance(name: str) -> str:
    """Return a sentence on the machine, software and data of a table's rows."""
    rows = read(name)

    def each(column: str) -> str:
        return ", ".join(dict.fromkeys(row[column] for row in rows if row.get(column)))

    checksums = dict.fromkeys(f"{row['data']} `{row['data_sha256'][:8]}…`" for row in rows if row.get("data_sha256"))
    facts = {"threads": each("threads"), "torch": each("torch"), "repeats": each("repeats"), "first seed": each("seed")}
    words = "; ".join(f"{name}: {value}" for name, value in facts.items() if value)
    return f"Measured on {each('cpu_model') or each('cpu')}; {words}; sha256 of the data: {', '.join(checksums)}."


IDEAS: Mapping[str, tuple[str, str]] = {
    "mlp": ("one hidden layer, no convolution", ""),
    "lenet": ("convolution and pooling (1998)", "mlp"),
    "lenet[batch_norm=true]": ("batch normalisation, five layers", "lenet"),
    "alexnet": ("deeper and wider, ReLU, dropout (2012)", "lenet"),
    "alexnet[batch_norm=true]": ("batch normalisation, eight layers", "alexnet"),
    "vgg[batch_norm=false]": ("3×3 convolutions only (2014)", "alexnet"),
    "vgg": ("batch normalisation, 11 layers", "vgg[batch_norm=false]"),
    "nin[batch_norm=false]": ("1×1 convolutions, no dense layer (2013)", "alexnet"),
    "nin": ("batch normalisation", "nin[batch_norm=false]"),
    "googlenet[batch_norm=false]": ("parallel branches, 22 layers (2014)", "vgg[batch_norm=false]"),
    "googlenet": ("batch normalisation", "googlenet[batch_norm=false]"),
    "resnet[batch_norm=false]": ("shortcuts, 20 layers (2015)", "vgg[batch_norm=false]"),
    "resnet": ("batch normalisation", "resnet[batch_norm=false]"),
    "resnet[shortcut=false]": ("no shortcuts", "resnet"),
    "resnet[depth=56]": ("56 layers", "resnet"),
    "resnet[depth=56,shortcut=false]": ("no shortcuts, 56 layers", "resnet[depth=56]"),
}
"""The idea that each network of `ideas` shows, and the network to compare it with."""


def ideas() -> str:
    """Return the table of `ideas`: each network beside the one it grew from."""
    rows = by_model("ideas/leaderboard.csv")
    lines = []
    assert rows.keys() == IDEAS.keys()
    for model, (idea, other) in IDEAS.items():
        row = rows[model]
        beside = (f"`{other}`", points(row, rows[other]), times(row, rows[other])) if other else ("–", "–", "–")
        lines.append((f"`{model}`", idea, accuracy(row), to_target(row), speed(row), *beside))
    heads = ("network", "idea", "test accuracy", "to 40 %", "images/s", "beside", "points", "× images/s")
    return f"{table(heads, lines)}\n\n{provenance('ideas/leaderboard.csv')}"


def percent(fraction: float | str) -> str:
    """Format a share as percent."""
    return f"{100 * float(fraction):.1f} %"


def accuracy(row: Mapping[str, str]) -> str:
    """Format a test accuracy with half the width of its interval."""
    half = (float(row["test_accuracy_high"]) - float(row["test_accuracy_low"])) / 2
    return f"{percent(row['test_accuracy'])} ±{100 * half:.1f}"


def points(row: Mapping[str, str], other: Mapping[str, str]) -> str:
    """Format the difference of two rows' test accuracies in points."""
    return f"{100 * (float(row['test_accuracy']) - float(other['test_accuracy'])):+.1f}".replace("-", "−")


def times(row: Mapping[str, str], other: Mapping[str, str]) -> str:
    """Format the ratio of two rows' images per second."""
    return f"{float(row['images_per_s']) / float(other['images_per_s']):.2f}"


def speed(row: Mapping[str, str]) -> str:
    """Format images per second."""
    per_s = float(row["images_per_s"])
    return f"{per_s / 1000:.3g} k" if per_s >= 1000 else f"{per_s:.0f}"


def to_target(row: Mapping[str, str]) -> str:
    """Format the time to the target: from the last evaluation that missed it to the first that reached it."""
    if not row["time_to_target_s"]:
        return "–"
    last = float(row["time_to_target_s"])
    first = max(0.0, last - float(row.get("time_to_target_resolution_s") or last))
    return f"{first:.2g}–{last:.2g} s"


def engines() -> str:
    """Return the speed-ups of the engines, one table per dataset, and a sentence on their parity."""
    rows = read("engines/engines.csv")
    datasets = dict.fromkeys(row["dataset"] for row in rows)
    tables = [_engines([row for row in rows if row["dataset"] == dataset], dataset) for dataset in datasets]
    drop = max((row for row in rows if row["accuracy_drop"]), key=lambda row: float(row["accuracy_drop"]))
    mapped = min(float(row["mapped_share"]) for row in rows if row["mapped_share"])
    parity = {word: sum(row["parity"] == word for row in rows) for word in dict.fromkeys(row["parity"] for row in rows)}
    pairs = sorted({int(row["speedup_pairs"]) for row in rows if row["speedup_pairs"]})
    outcomes = ", ".join(f"{count} rows {word}" for word, count in parity.items())
    sentence = (
        f"Pairs of processes: {', '.join(map(str, pairs))}. Parity: {outcomes}. "
        f"At least {math.floor(1000 * mapped) / 10:.1f} % of the kernels' time is mapped to modules. "
        f"Largest drop in accuracy: {100 * float(drop['accuracy_drop']):.2f} "
        f"points on {int(drop['test_images']):,} images ({drop['engine']}, {drop['model']})."
    )
    return "\n\n".join([*tables, sentence, provenance("engines/engines.csv")])


def _engines(rows: Rows, dataset: str) -> str:
    cells: dict[str, list[str]] = {}
    heads: list[str] = []
    for row in rows:
        engine, size = row["engine"], int(row["batch_size"])
        images = f"{size} image{'s' if size > 1 else ''}"
        if engine == "torch" and size > 1:
            continue
        of_model = cells.setdefault(row["model"], [])
        of_model.append(_latency(float(row["latency_s"])) if engine == "torch" else _speedup(row))
        head = f"`torch`, {images}" if engine == "torch" else f"`{engine}`, {images}"
        heads += [head] if head not in heads else []
    return table((f"network, {dataset}", *heads), ([f"`{model}`", *of] for model, of in cells.items()))


def _latency(seconds: float) -> str:
    return f"{1e6 * seconds:.0f} µs" if seconds < 1e-3 else f"{1e3 * seconds:.{2 if seconds < 1e-2 else 1}f} ms"


def _speedup(row: Mapping[str, str]) -> str:
    value, low, high = (
        f"{float(row[name]):.{2 if float(row[name]) < 10 else 1}f}" if row[name] else ""
        for name in ("speedup", "speedup_low", "speedup_high")
    )
    doubt = " †" if row.get("speedup_flags") or is_disturbing(row.get("disturbed") or None) else ""
    return f"{value} [{low}–{high}]{doubt}" if low else f"{value} separate"


def profiles() -> str:
    """Return the table of profiles as the command prints it."""
    hidden = ("overhead", "weights", "process_peak_above_start_bytes")
    text = printed(
        read("profile/profiles.csv"), ProfileRow, GROUP, 140, hidden=hidden, task="", asked={}, compiles=False
    )
    return f"```text\n{text}\n```"


POLICIES = ("default", "passive", *(f"spin {n}" for n in (1000, 3000, 10_000, 30_000, 100_000, 1_000_000)))


def waiting_medians() -> dict[str, dict[tuple[str, str], float]]:
    """Return the median images/s over rounds by network, and by condition and policy."""
    found: dict[str, dict[tuple[str, str], list[float]]] = {}
    for row in read("waiting/waiting.csv"):
        of_network = found.setdefault(row["network"], {})
        of_network.setdefault((row["condition"], row["policy"]), []).append(float(row["images_per_s"]))
    return {name: {key: median(values) for key, values in of.items()} for name, of in sorted(found.items())}


def waiting() -> str:
    """Return a table of images/s by waiting policy, quiet and beside a neighbour, and sentences on the slowdown."""
    medians = waiting_medians()
    heads = ("network", *(policy if " " not in policy else f"{int(policy.split()[1]):,}" for policy in POLICIES))
    lines = (
        [f"`{name}`", *(f"{digits(of['quiet', p])} / {digits(of['busy', p])}" for p in POLICIES)]
        for name, of in medians.items()
    )
    slowed = [_slowed(medians, policy, words) for policy, words in (("spin 3000", "`brief`"), ("default", "`default`"))]
    return "\n".join([table(heads, [*lines, *_means(medians)]), "", *slowed, _spread()])


def _means(medians: Mapping[str, Mapping[tuple[str, str], float]]) -> Iterable[list[str]]:
    """Yield geometric means over the networks: of the speed when quiet, and of the slowdown by the neighbour."""
    pairs = {
        "quiet ÷ `default`": (lambda of, policy: of["quiet", policy] / of["quiet", "default"]),
        "quiet ÷ beside": (lambda of, policy: of["quiet", policy] / of["busy", policy]),
    }
    for label, ratio in pairs.items():
        means = (geometric_mean([ratio(of, policy) for of in medians.values()]) for policy in POLICIES)
        yield [f"*geometric mean of {label}*", *(f"{each:.2f}" for each in means)]


def _spread() -> str:
    """Return a sentence on the largest ratio between the processes of one cell of the table."""
    of_cell: dict[tuple[str, str, str], list[float]] = {}
    for row in read("waiting/waiting.csv"):
        key = row["condition"], row["network"], row["policy"]
        of_cell.setdefault(key, []).append(float(row["images_per_s"]))
    most = {
        condition: max(max(values) / min(values) for key, values in of_cell.items() if key[0] == condition)
        for condition in ("quiet", "busy")
    }
    quiet, busy = most["quiet"], most["busy"]
    return f"Processes of one cell differ by up to {quiet:.1f} times, beside the neighbour {busy:.0f} times."


def _slowed(medians: Mapping[str, Mapping[tuple[str, str], float]], policy: str, words: str) -> str:
    ratios = {name: of["quiet", policy] / of["busy", policy] for name, of in medians.items()}
    *others, most = sorted(ratios, key=lambda name: ratios[name])
    return (
        f"Beside the neighbour {words} is {ratios[others[0]]:.1f} to {ratios[others[-1]]:.1f} times slower, and for "
        f"`{most}` {ratios[most]:.1f} times."
    )


def digits(number: float) -> str:
    """Format a number with three digits and a separator of thousands."""
    rounded = float(f"{number:.3g}")
    return f"{rounded:,.0f}" if rounded >= 1000 else f"{rounded:g}"


def allocators() -> str:
    """Return a table of seconds and page faults per call, with freed memory kept or given back: medians over rounds."""
    found: dict[str, dict[tuple[str, str, str], list[float]]] = {}
    for row in read("allocators/allocators.csv"):
        for column in ("seconds", "page_faults"):
            key = row["call"], row["allocator"], column
            found.setdefault(row["network"], {}).setdefault(key, []).append(float(row[column]))
    heads, lines, alike, others = ["network"], [], [], []
    for call in ("training step", "forward pass"):
        heads += [f"{call}: `keep`, ms", "`system`, ms", "`system` ÷ `keep`", "page faults: `keep`", "`system`"]
    for network, of in sorted(found.items()):
        line = [f"`{network}`"]
        for call in ("train.step", "infer.forward"):
            kept, given = (median(of[call, allocator, "seconds"]) for allocator in ("keep", "system"))
            faults = [median(of[call, allocator, "page_faults"]) for allocator in ("keep", "system")]
            line += [
                digits(1e3 * kept),
                digits(1e3 * given),
                f"{given / kept:.2f}",
                *(f"{each:,.0f}" for each in faults),
            ]
            (alike if faults[0] == faults[1] else others).append(given / kept)
        lines.append(line)
    [cpu] = {row["cpu"] for row in read("allocators/allocators.csv")}
    sizes = {len(values) for of in found.values() for values in of.values()}
    processes = " to ".join(str(each) for each in sorted({min(sizes), max(sizes)}))
    outside = sum(not min(alike) <= each <= max(alike) for each in others)
    return (
        f"{table(heads, lines)}\n\nMedians of {processes} processes each; {cpu}.\n\n"
        f"Where both settings have equally many page faults, the ratio of the times goes from {min(alike):.2f} to "
        f"{max(alike):.2f}. A ratio in this range therefore shows no difference. "
        f"Outside of it: {outside or 'none'} of the other {len(others)}."
    )


def training() -> str:
    """Return a table of the training stage's speed beside that of loops by hand, with the spread over rounds."""
    rows = read("training/training.csv")
    heads = ("network", "beside", "batch", "stage, images/s", "loop, images/s", "ratio", "quartiles", "range", "rounds")
    lines = []
    for loop, network in dict.fromkeys((row["loop"], row["network"]) for row in rows):
        of = [row for row in rows if (row["loop"], row["network"]) == (loop, network)]
        ratios = sorted(float(row["ratio"]) for row in of)
        low, _, high = quartiles(ratios)
        speeds = (digits(median(float(row[f"{side}_images_per_s"]) for row in of)) for side in ("stage", "loop"))
        beside = {"loop": "expert's loop", "dataloader": "`DataLoader`"}[loop]
        spread = f"{low:.3f}–{high:.3f}", f"{ratios[0]:.3f}–{ratios[-1]:.3f}"
        lines.append(
            (f"`{network}`", beside, of[0]["batch_size"], *speeds, f"{median(ratios):.3f}", *spread, str(len(of)))
        )
    [cpu] = {row["cpu"] for row in rows}
    words = "Medians of the rounds, and their quartiles, interpolated linearly (Hyndman and Fan, definition 7)"
    return f"{table(heads, lines)}\n\n{words}; {cpu}."


READINGS = ("train_accuracy_after_step", "train_accuracy", "test_accuracy", "test_accuracy_raw", "train_loss")
MISTAKES = (
    (2, 3, "test images were not normalised: a network trained on pixels in [-1, 1] was shown pixels in [0, 1]"),
    (0, 1, "training accuracy was read on a batch right after the step on the same batch"),
    (1, 2, "the network's own gap: training accuracy is a mean over the epoch, on images that it trains on"),
)


def tutorial() -> str:
    """Return TrashNet's accuracies by epoch, and the part of each mistake in the gap between the outer two."""
    epochs = [row for row in read("tutorial/curves.csv") if row["model"].startswith("trashnet")]
    readings = [[float(row[name]) for name in READINGS] for row in epochs]
    means = [fmean(column) for column in zip(*readings, strict=True)]
    last = readings[-1]
    labelled = {f"{float(row['epoch']):.0f}": reading for row, reading in zip(epochs, readings, strict=True)}
    lines = [
        (label, *map(percent, shown), f"{loss:.3f}") for label, (*shown, loss) in (labelled | {"mean": means}).items()
    ]
    heads = ("epoch", "train, after the step", "train, before the step", "test, normalised", "test, raw pixels")
    gaps = [f"{100 * (row[0] - row[3]):.1f}" for row in (last, means)]
    shares = [
        (*(f"{100 * (row[better] - row[worse]):.1f}" for row in (last, means)), cause)
        for better, worse, cause in MISTAKES
    ]
    return "\n\n".join(
        [
            table((*heads, "train loss"), lines),
            f"The tutorial read the outer two accuracies. Between them lie {gaps[0]} points after epoch {len(epochs)} "
            f"(on average over the epochs {gaps[1]}):",
            table(("points", "on average", "cause"), shares),
            f"Read as it should have been, the network is {percent(last[2])} right after {len(epochs)} epochs.",
        ]
    )


PUBLISHED = (
    *(".0958", ".1010", ".8407", ".9166", ".9491", ".9613", ".9659", ".9724"),
    *(".9735", ".9767", ".9802", ".9812", ".9794", ".9825", ".9838", ".9849"),
)
PUBLISHED_LOSS = 0.0452


def tutorial_lenet() -> str:
    """Return LeNet's test accuracy by epoch for each seed and as published, and the losses of the last epoch."""
    points = [row for row in read("tutorial/curves.csv") if row["model"].startswith("lenet")]
    curves = {seed: [row for row in points if row["seed"] == seed] for seed in dict.fromkeys(r["seed"] for r in points)}
    lines = ["epoch      " + " ".join(f"{number:>5}" for number in range(1, len(PUBLISHED) + 1))]
    lines.append("published  " + " ".join(PUBLISHED))
    for seed, curve in curves.items():
        lines.append(f"seed {seed}     " + " ".join(f"{float(row['test_accuracy']):.4f}"[1:] for row in curve))
    losses = ", ".join(f"{float(curve[-1]['train_loss']):.4f}" for curve in curves.values())
    ends = [float(curve[-1]["test_accuracy"]) for curve in curves.values()]
    below = [100 * (float(PUBLISHED[-1]) - end) for end in ends]
    text = "\n".join(lines)
    return (
        f"```text\n{text}\n```\n\nTrain loss of the last epoch: published {PUBLISHED_LOSS}; here {losses}. The seeds "
        f"end {min(below):.1f} to {max(below):.1f} points lower than published, at {percent(fmean(ends))} on average."
        f"\n\n{provenance('tutorial/leaderboard.csv')}"
    )


SENTENCES: Mapping[str, tuple[str, ...]] = {
    "LeNet is “a little better than an MLP”": ("mlp", "lenet"),
    "“batch normalisation speeds up convergence”": (
        "vgg[batch_norm=false]",
        "vgg",
        "resnet[batch_norm=false]",
        "resnet",
    ),
    "“residuals keep a deeper net from being worse”": (
        *("resnet", "resnet[shortcut=false]"),
        *("resnet[depth=56]", "resnet[depth=56,shortcut=false]"),
    ),
    "“one can try deeper nets”": ("resnet", "resnet[depth=56]"),
}


def tutorial_sentences() -> str:
    """Return a table of the tutorial's sentences with the networks of `ideas` that belong to each."""
    rows = by_model("ideas/leaderboard.csv")
    lines = [
        (sentence if index == 0 else "", f"`{model}`", accuracy(rows[model]), to_target(rows[model]))
        for sentence, models in SENTENCES.items()
        for index, model in enumerate(models)
    ]
    return table(("the tutorial says", "network", "test accuracy", "to 40 %"), lines)


PARTS: Mapping[str, Callable[[], str]] = {
    "leaderboards": leaderboards,
    "ideas": ideas,
    "profiles": profiles,
    "engines": engines,
    "waiting": waiting,
    "allocators": allocators,
    "training": training,
    "tutorial": tutorial,
    "tutorial lenet": tutorial_lenet,
    "tutorial sentences": tutorial_sentences,
}
"""The generated parts of `results/reference/README.md`, by name."""
