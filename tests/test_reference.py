"""The reference results: what `results/reference/README.md` says is what its CSV files hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cnnperf.process import WAITING
from cnnperf.task import DEFAULT_WAITING

REFERENCE = Path(__file__).parent.parent / "results" / "reference"


def rows(heading: str) -> list[list[str]]:
    """Return the cells of the first table below a heading of the README, without its head."""
    text = (REFERENCE / "README.md").read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2]
    lines = [line for line in text.partition("\n## ")[0].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def digits(number: float) -> str:
    """Write three digits, thousands set apart."""
    rounded = float(f"{number:.3g}")
    return f"{rounded:,.0f}" if rounded >= 1000 else f"{rounded:g}"


@pytest.fixture(scope="module")
def waiting() -> pd.DataFrame:
    """Return images/s by network, with a column for each condition and policy: medians over rounds."""
    found = pd.read_csv(REFERENCE / "waiting" / "waiting.csv")
    return found.pivot_table("images_per_s", "network", ["condition", "policy"], aggfunc="median")


def test_the_table_of_waiting_is_its_csv(waiting: pd.DataFrame) -> None:
    """Images/s quiet / beside a neighbour, to three digits."""
    policies = ("default", "passive", *(f"spin {n}" for n in (1000, 3000, 10_000, 30_000, 100_000, 1_000_000)))
    wanted = [
        [network, *(f"{digits(row['quiet', policy])} / {digits(row['busy', policy])}" for policy in policies)]
        for network, row in waiting.iterrows()
    ]
    assert rows("Waiting") == wanted


def test_the_default_way_of_waiting_costs_little_when_quiet(waiting: pd.DataFrame) -> None:
    """It loses at most 3 % of the speed that torch's own default has (geometric mean over the networks)."""
    policy = f"spin {WAITING[DEFAULT_WAITING]['GOMP_SPINCOUNT']}"
    ratios = waiting["quiet", policy] / waiting["quiet", "default"]
    assert np.exp(np.log(ratios).mean()) >= 0.97
