"""The calls that two versions take in turns."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
import torch

from cnnperf.errors import StageError
from cnnperf.ipc.messages import Opening
from cnnperf.workers import subjects


@pytest.mark.parametrize("by", ["spin", "sleep"])
def test_a_slowed_call_takes_longer_by_a_share_of_its_duration(
    by: Literal["spin", "sleep"], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call of 1 s that is slowed by a quarter ends after 1.25 s, asleep or with the clock read again and again."""
    clock, slept, reads = [0.0], [], []

    def read() -> float:
        clock[0] += 0.001
        reads.append(clock[0])
        return clock[0]

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock[0] += seconds

    def work(seconds: float) -> None:
        clock[0] += seconds

    monkeypatch.setattr(subjects, "perf_counter", read)
    monkeypatch.setattr(subjects, "sleep", sleep)
    opening = Opening.model_construct(slowdown=0.25, slowdown_by=by)
    subjects.slowed(lambda: work(0.6), lambda: work(0.4), opening)()
    assert clock[0] == pytest.approx(1.25, abs=0.01)
    assert slept == ([pytest.approx(0.25, abs=0.001)] if by == "sleep" else [])
    assert (len(reads) > 100) == (by == "spin")


def test_altered_tensors_of_the_other_side_are_refused(tmp_path: Path) -> None:
    """Weights with a flipped bit are not loaded; those of a version that writes no checksum are."""
    file = tmp_path / "weights.pt"
    subjects._save({"weight": torch.arange(4.0)}, file)
    assert subjects._load(file)["weight"].tolist() == [0, 1, 2, 3]
    content = bytearray(file.read_bytes())
    place = content.index(torch.arange(4.0).numpy().tobytes())
    content[place] ^= 1
    file.write_bytes(content)
    with pytest.raises(StageError, match=f"{file}: its content has changed"):
        subjects._load(file)
    file.with_suffix(".json").unlink()
    assert subjects._load(file)["weight"][0] != 0
