"""The reference results: the defaults that rest on them, and the tables and pictures beside them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t

from cnnperf.ipc.process import WAITING
from cnnperf.record import read
from cnnperf.sides import SIDES
from cnnperf.tables.engine_ranks import DISAGREES
from cnnperf.task import DEFAULT_WAITING

REFERENCE = Path(__file__).parent.parent / "results" / "reference"


@pytest.fixture(scope="module")
def waiting() -> pd.DataFrame:
    """Return median images/s over rounds, with a row per network and a column per condition and policy."""
    found = pd.read_csv(REFERENCE / "waiting" / "waiting.csv")
    return found.pivot_table("images_per_s", "network", ["condition", "policy"], aggfunc="median")


def test_the_default_way_of_waiting_costs_little_when_quiet(waiting: pd.DataFrame) -> None:
    """On a quiet machine, the default waiting policy has at least 97 % of the speed of torch's own (geometric mean)."""
    policy = f"spin {WAITING[DEFAULT_WAITING]['GOMP_SPINCOUNT']}"
    ratios = waiting["quiet", policy] / waiting["quiet", "default"]
    assert np.exp(np.log(ratios).mean()) >= 0.97


def test_the_tutorial_s_pictures_show_what_was_measured() -> None:
    """The tutorial's pictures show exactly the losses and accuracies of the CSV file."""
    curves = pd.read_csv(REFERENCE / "tutorial" / "curves.csv")
    lenet, trashnet = (curves[curves["model"].str.startswith(name)] for name in ("lenet", "trashnet"))
    names = ("train_accuracy", "train_accuracy_after_step", "test_accuracy", "test_accuracy_raw")
    accuracies = {f"{name} {100 * value:.1f} %" for name in names for value in trashnet[name]}
    pictures = {name: (REFERENCE / "tutorial" / f"{name}.svg").read_text() for name in ("lenet", "trashnet")}
    document = (REFERENCE / "README.md").read_text(encoding="utf-8")
    assert all(f"](tutorial/{name}.svg)" in document for name in pictures)
    drawn = re.findall(r'"samples: \d+; train loss: ([\d.e-]+);', pictures["lenet"])
    assert {f"{float(loss):.6g}" for loss in drawn} == {f"{loss:.6g}" for loss in lenet["train_loss"]}
    points = re.findall(r'"epoch: \d+; accuracy: ([\d.]+)%; reading: (\w+);', pictures["trashnet"])
    assert {f"{name} {float(value):.1f} %" for value, name in points} == accuracies


def test_the_profiles_rows_add_up_to_a_step() -> None:
    """The document states the lowest and the highest ratio of a profile's row sum to a plain step in the CSV files."""
    layers, profiles = (pd.read_csv(REFERENCE / "profile" / f"{name}.csv") for name in ("layers", "profiles"))
    ratios = layers.groupby("model")["seconds"].sum() / profiles.set_index("model")["step_s"]
    beyond = " and ".join(sorted(ratios[ratios > 1.05].index))
    ends = " to ".join(f"{ratios[name]:.2f} ({name})" for name in (ratios.idxmin(), ratios.idxmax()))
    document = (REFERENCE / "README.md").read_text(encoding="utf-8")
    claim = f"{ends} in the stored profiles" + (f"; not met by {beyond}" if beyond else "")
    assert f"| sum of a profile's rows ÷ a plain step, ≤ 1.05 | {claim} |" in document


def separately_possible(model: str, engine: str, batch_size: int, ratio: float) -> bool:
    """Return whether two further processes like those of the pairs would have this ratio of latencies, at 99 %."""
    for record in read("reference/engines"):
        cell, variant = record.task.cell, record.task.variant
        if (str(cell.model), str(variant.get("engine"))) == (model, engine):
            pairs = record.find("infer.pair_seconds", batch_size=batch_size)
            sides = [[np.log(np.median(m.values)) for m in pairs if m.tags["side"] == side] for side in SIDES]
            parts = [np.var(side, ddof=1) * (1 + 1 / len(side)) for side in sides]
            freedom = sum(parts) ** 2 / sum(part**2 / (len(side) - 1) for part, side in zip(parts, sides, strict=True))
            difference = np.log(ratio) - (np.mean(sides[0]) - np.mean(sides[1]))
            return bool(abs(difference) <= t.ppf(0.995, freedom) * np.sqrt(sum(parts)))
    raise LookupError(model)


def test_the_engines_layers_add_up_to_their_latency() -> None:
    """A row is flagged if its layer sum is over 15 % off the latency, or its speed-up contradicts the latencies."""
    engines = pd.read_csv(REFERENCE / "engines" / "engines.csv")
    layers = pd.read_csv(REFERENCE / "engines" / "layers.csv")
    cell = ["dataset", "model", "batch_size"]
    sums = layers.groupby([*cell, "engine"])["engine_s"].sum()
    of_torch = layers[layers["engine"] == "onnxruntime"].groupby(cell)["forward_s"].sum()
    base = engines[engines["engine"] == "torch"].set_index(cell)["latency_s"]
    seen = 0
    for row in engines.to_dict("records"):
        key = tuple(row[name] for name in cell)
        if row["layers_share"] == row["layers_share"]:
            total = of_torch[key] if row["engine"] == "torch" else sums[*key, row["engine"]]
            assert row["layers_share"] == pytest.approx(total / row["latency_s"], rel=1e-3)
            assert isinstance(row["layers_flag"], str) == (abs(row["layers_share"] - 1) > 0.15), key
            seen += 1
        if row["speedup_pairing"] == "paired":
            ratio = base[key] / row["latency_s"]
            agrees = separately_possible(row["model"], row["engine"], row["batch_size"], ratio)
            assert agrees == (DISAGREES not in str(row["speedup_flags"])), key
            assert not (isinstance(row["speedup_flags"], str) and row["best"] == "yes"), key
    assert seen == 27
