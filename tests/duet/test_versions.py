"""Two versions of the code, from the parent's side: the exact request that an older version gets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cnnperf.duet.contest import Contest, Version
from cnnperf.duet.versions import started
from cnnperf.ipc.messages import PROTOCOL
from cnnperf.machine.fingerprint import fingerprint
from cnnperf.sides import Both, Side
from cnnperf.task import Cell, Choice, Task

TASK = Task(
    cell=Cell(dataset=Choice(name="mnist"), model=Choice(name="lenet"), device=Choice(name="cpu")),
    stage="train",
    seed=7,
    threads=1,
    waiting="brief",
    allocator="keep",
    timeout_s=60,
    settings={"batch_size": 32, "lr": 0.1},
    suite="x",
)
HELLO = {"protocol": PROTOCOL, "facts": {}, "machine": fingerprint().model_dump(mode="json")}
WORKER = f"""
import json, os, sys

def say(**message): os.write(int(sys.argv[2]), json.dumps(message).encode() + b"\\n")

print([*os.sched_getaffinity(0)], flush=True)
say(hello=json.loads({json.dumps(HELLO)!r}))
for line in sys.stdin:
    print(line.strip(), flush=True)
    say(open={{"outputs": {{"error": 0.0}}, "settings": {{}}, "source": None}})
"""


@pytest.fixture
def old(tmp_path: Path) -> Version:
    """Return a version whose worker logs its requests."""
    (tmp_path / "old/cnnperf").mkdir(parents=True)
    (tmp_path / "old/cnnperf/__init__.py").touch()
    (tmp_path / "old/cnnperf/duet_worker.py").write_text(WORKER)
    return Version(name="old", path=(tmp_path / "old",), cwd=tmp_path / "old", slowdown=0.5)


@pytest.mark.parametrize("sides", [("baseline", "candidate"), ("baseline",)])
def test_a_version_is_asked_in_the_words_of_the_protocol(old: Version, tmp_path: Path, sides: tuple[Side, ...]) -> None:
    """The request has only fields that an older version knows and the side's settings; a lone baseline leads."""
    chosen: Both[dict[str, object]] = Both({"batch_size": 32}, {"batch_size": 32, "lr": 0.2})
    contest = Contest("train.step", Both(TASK, TASK), tmp_path / "arrays", chosen)
    with started(Both(old, old), tmp_path, TASK) as versions:
        opened = versions.open(contest, tmp_path / "store", sides)
        assert versions.machines == Both(fingerprint(), fingerprint())
    assert tuple(opened) == sides
    cores: dict[Side, list[int]] = {}
    for side in sides:
        cores[side], asked = map(json.loads, (tmp_path / f"{side}.log").read_text().splitlines())
        assert asked == {
            "do": "open",
            "with": {
                "task": {
                    "cell": {"dataset": {"name": "mnist"}, "model": {"name": "lenet"}, "device": {"name": "cpu"}},
                    "stage": "train",
                    "repeat": 0,
                    "seed": 7,
                    "threads": 1,
                    "timeout_s": 60.0,
                    "settings": chosen.of(side),
                    "variant": {},
                    "needs": [],
                    "data": None,
                },
                "metric": "train.step",
                "folder": str(tmp_path / "arrays"),
                "store": str(tmp_path / "store"),
                "leads": len(sides) == 1,
                "tree": None,
                "repository": None,
                "slowdown": 0.5,
                "slowdown_by": "spin",
            },
        }
    assert {len(core) for core in cores.values()} == {1}, "both have one thread, and share a core"
    assert len({*map(tuple, cores.values())}) == 1
