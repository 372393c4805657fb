"""Merging: runs become one run that reads as if one machine had made it, and nothing is taken twice or lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cnnperf import record as store
from cnnperf.errors import RunError, StageError, StoreError, UsageError
from cnnperf.record import Artifact, Record
from cnnperf.running.merge import merge

Made = Callable[..., Path]


@pytest.fixture
def run(tmp_path: Path, trained: Callable[..., Record]) -> Made:
    """Return a function that stores a run of records, each with weights and a log."""

    def made(name: str, *records: Record) -> Path:
        folder = tmp_path / name
        (folder / "logs").mkdir(parents=True)
        for record in records:
            path = f"artifacts/{record.key}/weights.pt"
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(record.key.encode())
            (folder / "logs" / f"{record.key}.log").write_text(name)
            store.append(folder, record.model_copy(update={"artifacts": {"weights": Artifact.of(folder, path)}}))
        return folder

    return made


def test_two_shards_make_one_run(tmp_path: Path, run: Made, trained: Callable[..., Record]) -> None:
    """Records of every attempt, artifacts and logs are in the merged run, and the runs stay as they were."""
    failed = trained(repeat=0, status="failed", error="x").model_copy(update={"shard": "1/2"})
    one, two = (trained(repeat=n).model_copy(update={"shard": f"{n + 1}/2"}) for n in range(2))
    first, second = run("first", failed, one), run("second", two)
    before = {path: path.read_bytes() for folder in (first, second) for path in folder.rglob("*") if path.is_file()}
    out = tmp_path / "out"
    merged = merge([first, second], out)
    assert merged.missing == ()
    assert store.read_attempts(out) == (*store.read_attempts(first), *store.read_attempts(second))
    assert merged.records == store.read(out)
    assert len(merged.records) == 2
    for record in merged.records:
        weights = record.artifacts["weights"].verified(out)
        assert weights.read_bytes() == record.key.encode()
        assert (out / "logs" / f"{record.key}.log").is_file()
    assert all(path.read_bytes() == content for path, content in before.items())


def test_a_missing_shard_is_named(tmp_path: Path, run: Made, trained: Callable[..., Record]) -> None:
    """Two of three shards are given, and the third is named."""
    runs = [run(f"r{n}", trained(repeat=n).model_copy(update={"shard": f"{n}/3"})) for n in (1, 3)]
    merged = merge(runs, tmp_path / "out")
    assert merged.missing == (f"{merged.records[0].task.suite} 2/3",)


def test_a_task_with_other_figures_is_refused_by_name(
    tmp_path: Path, run: Made, trained: Callable[..., Record]
) -> None:
    """Nothing is written; equal figures of one task are taken once, and so is a run that is named twice."""
    one = trained()
    first, same = run("first", one), run("same", one)
    other = run("other", one.model_copy(update={"duration_s": one.duration_s + 1}))
    out = tmp_path / "out"
    with pytest.raises(UsageError, match=f"{one.task.label} has other figures in {first}; leave one"):
        merge([first, other], out)
    assert not out.exists()
    assert store.read_attempts(tmp_path / "first") == merge([first, same, first], out).records


def test_it_refuses_what_it_cannot_merge(tmp_path: Path, run: Made, trained: Callable[..., Record]) -> None:
    """A folder without records, an existing run, a changed artifact and a path outside the run: no records result."""
    first, second = run("first", trained(repeat=0)), run("second", trained(repeat=1))
    with pytest.raises(StoreError, match="cannot be read"):
        merge([first, tmp_path / "nowhere"], tmp_path / "a")
    with pytest.raises(UsageError, match="already contains a run"):
        merge([first], second)
    (weights,) = (second / "artifacts").rglob("weights.pt")
    weights.write_bytes(b"altered")
    with pytest.raises(StageError, match="its content has changed"):
        merge([first, second], tmp_path / "b")
    assert not (tmp_path / "b" / store.FILE).exists()
    (tmp_path / "secret").write_text("secret")
    led = run("led", trained(repeat=2))
    outside = {"weights": Artifact(path="../secret")}
    store.append(led, store.read(led)[0].model_copy(update={"artifacts": outside}))
    with pytest.raises(StageError, match="outside the run folder"):
        merge([led], tmp_path / "c")
    assert not (tmp_path / "c" / store.FILE).exists()


def test_a_folder_that_cannot_be_written_leaves_the_runs(
    tmp_path: Path, run: Made, trained: Callable[..., Record]
) -> None:
    """The error names the folder and the cure."""
    first = run("first", trained())
    out = tmp_path / "out"
    (out / "artifacts").parent.mkdir()
    (out / "artifacts").write_text("a file where a folder is needed")
    with pytest.raises(RunError, match="the runs are unchanged"):
        merge([first], out)
    assert len(store.read(first)) == 1


def test_the_last_attempt_counts_also_if_it_equals_an_earlier_one(
    tmp_path: Path, run: Made, trained: Callable[..., Record]
) -> None:
    """A task that was measured, failed, and was measured again as before is ok in the merged run."""
    folder = run("one", trained(), trained(status="failed", error="x"), trained())
    assert [record.status for record in store.read(folder)] == ["ok"]
    merged = merge([folder], tmp_path / "out")
    assert merged.records == store.read(tmp_path / "out") == store.read(folder)
