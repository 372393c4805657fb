"""The reference results: what was decided by them, and the pictures beside them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cnnperf.ipc.process import WAITING
from cnnperf.tables.engine_ranks import DISAGREES
from cnnperf.task import DEFAULT_WAITING

REFERENCE = Path(__file__).parent.parent / "results" / "reference"


@pytest.fixture(scope="module")
def waiting() -> pd.DataFrame:
    """Return images/s by network, with a column for each condition and policy: medians over rounds."""
    found = pd.read_csv(REFERENCE / "waiting" / "waiting.csv")
    return found.pivot_table("images_per_s", "network", ["condition", "policy"], aggfunc="median")


def test_the_default_way_of_waiting_costs_little_when_quiet(waiting: pd.DataFrame) -> None:
    """It loses at most 3 % of the speed that torch's own default has (geometric mean over the networks)."""
    policy = f"spin {WAITING[DEFAULT_WAITING]['GOMP_SPINCOUNT']}"
    ratios = waiting["quiet", policy] / waiting["quiet", "default"]
    assert np.exp(np.log(ratios).mean()) >= 0.97


def test_the_tutorial_s_pictures_show_what_was_measured() -> None:
    """Every point's value, as its label tells the ear, is one of the CSV, and none is left out."""
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
    """The lowest and the highest of the ratios that the document names are those of the CSV."""
    layers, profiles = (pd.read_csv(REFERENCE / "profile" / f"{name}.csv") for name in ("layers", "profiles"))
    ratios = layers.groupby("model")["seconds"].sum() / profiles.set_index("model")["step_s"]
    ends = " to ".join(f"{ratios[name]:.2f} ({name})" for name in (ratios.idxmin(), ratios.idxmax()))
    document = (REFERENCE / "README.md").read_text(encoding="utf-8")
    assert f"| sum of a profile's rows ÷ a plain step, ≤ 1.05 | {ends} in the stored profiles |" in document


def test_the_engines_layers_add_up_to_their_latency() -> None:
    """Within 15 % of it, or the row is flagged; so is a paired speed-up that the separate latencies do not bear out."""
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
            agrees = row["speedup_low"] <= base[key] / row["latency_s"] <= row["speedup_high"]
            assert agrees or DISAGREES in row["speedup_flags"], key
            assert not (isinstance(row["speedup_flags"], str) and row["best"] == "yes"), key
    assert seen == 27
