"""Two workers in turns: real processes, tiny networks."""

from __future__ import annotations

import math
import random
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import psutil
import pytest

import cnnperf
from cnnperf import duet, ratios
from cnnperf.duet import Conditions, Played, calibrate, differing, order_of, replicate, unequal
from cnnperf.duet_arms import UNTIMED, Arm, Contest, contests
from cnnperf.duet_pair import Fault, Patience
from cnnperf.errors import UsageError
from cnnperf.preflight import Request, prepare
from cnnperf.stages._recipe import Recipe
from cnnperf.suite import parse

HERE = Path(__file__).parent
PATIENCE = Patience(open_s=20.0, warmup_s=10.0)
PLANTED = {"PLANTED": "1"}
FAULTS = ("crashes", "is_killed", "hangs", "starves", "is_infinite", "is_other")


@pytest.fixture(scope="module", autouse=True)
def _importable() -> Any:
    """Let suites name the networks in planted.py, here and in the workers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(HERE))
        yield


def planted(models: Sequence[object], metrics: Sequence[str] = ("infer.forward",), **train: object) -> list[Contest]:
    """Return the contests of a suite of these models on a few small images."""
    settings = {"validation_images": 0, "batch_size": 32, **train}
    document = {
        "datasets": [{"name": "synthetic", "train": 256, "test": 64}],
        "models": list(models),
        "threads": 1,
        "train": {key: value for key, value in settings.items() if value is not None},
    }
    tasks = prepare(Request(suite=parse(document, where="x", name="x"), where="x")).tasks
    return list(contests(tasks, metrics=metrics))


def arm(**changes: Any) -> Arm:
    """Return this tree, changed."""
    return Arm(name="this tree", **changes)


def workers_left() -> list[psutil.Process]:
    """Return the children of this process that still live."""
    return [child for child in psutil.Process().children(recursive=True) if child.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Measure both metrics of a well-behaved network once, both arms alike."""
    scratch = tmp_path_factory.mktemp("scratch")
    found = dict(
        calibrate((arm(), arm()), planted(["planted:build"], ("infer.forward", "train.step")), scratch, PATIENCE)
    )
    outcomes = dict(replicate((arm(), arm()), found, scratch, random.Random(1), PATIENCE))  # type: ignore[arg-type]
    return {contest.metric: (found[contest], outcomes[contest]) for contest in found}


@pytest.mark.parametrize("metric", ["infer.forward", "train.step"])
def test_each_arm_takes_its_samples_in_turns(played: dict[str, tuple[Conditions, Played]], metric: str) -> None:
    """As many as planned in either arm, after a warm-up, of calls enough for ten milliseconds."""
    conditions, outcome = played[metric]
    assert isinstance(outcome, Played), outcome
    assert conditions.calls * conditions.call_s >= 0.010
    assert 12 <= conditions.pairs <= 60
    for taken in outcome.taken:
        assert len(taken.samples) == conditions.pairs
        assert len(taken.warmup) >= conditions.warmup
        assert all(sample.wall_s > 0 and sample.cpu_s > 0 for sample in taken.samples)
    assert Counter(outcome.order) == {"A": conditions.pairs, "B": conditions.pairs}


@pytest.mark.parametrize("metric", ["infer.forward", "train.step"])
def test_equal_arms_compute_the_same(played: dict[str, tuple[Conditions, Played]], metric: str) -> None:
    """Weights from one file, inputs and seed the same: not a bit differs."""
    one, other = played[metric][1].opened
    assert one == other


def test_who_waits_uses_no_processor(played: dict[str, tuple[Conditions, Played]]) -> None:
    """The parent and the blocked worker together use less than 1 % of a core while the other measures."""
    for _, outcome in played.values():
        for taken in outcome.taken:
            assert taken.blocked_cpu_s / taken.blocked_s + outcome.parent_cpu_s / outcome.disturbance.seconds < 0.01


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Played | Fault]:
    """Measure networks that go wrong in the candidate, each in its own way, and one that does not."""
    scratch = tmp_path_factory.mktemp("scratch")
    models = [{"name": "planted:build", "kind": kind} for kind in ("behaves", *FAULTS)]
    found = dict(calibrate((arm(), arm()), planted([*models, "planted:otherwise"]), scratch, PATIENCE))
    arms = arm(), arm(environment=PLANTED)
    outcomes = replicate(arms, found, scratch, random.Random(2), PATIENCE)  # type: ignore[arg-type]
    kinds = {contest: contest.tasks[0].cell.model.options.get("kind", "otherwise") for contest in found}
    return {str(kinds[contest]): outcome for contest, outcome in outcomes}


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("crashes", "the process crashed (SIGSEGV)"),
        ("is_killed", "was killed (SIGKILL); the system does that when memory runs out"),
        ("hangs", "candidate (this tree) said nothing for 20 s and was ended"),
        ("starves", "out of memory"),
        ("is_infinite", "the logits are not finite"),
        ("is_other", "the sides compute different outputs"),
        ("otherwise", "the baseline's weights do not fit this network"),
    ],
)
def test_what_goes_wrong_is_a_sentence(faults: dict[str, Played | Fault], kind: str, words: str) -> None:
    """Each fault says what and in which arm."""
    fault = faults[kind]
    assert isinstance(fault, Fault)
    assert words in str(fault)
    assert "\n" not in str(fault)


def test_the_others_go_on(faults: dict[str, Played | Fault]) -> None:
    """What is well is measured, and no worker is left behind."""
    assert isinstance(faults["behaves"], Played), faults["behaves"]
    assert workers_left() == []


def test_a_slowdown_that_was_injected_is_seen(tmp_path: Path) -> None:
    """Twice the time is more than any noise; of a sleep, CPU time sees less than the clock, of spinning all of it."""
    [contest] = planted(["planted:build"])
    found = dict(calibrate((arm(), arm()), [contest], tmp_path, PATIENCE))
    unseen: dict[str, float] = {}
    for by in ("spin", "sleep"):
        arms = arm(), arm(slowdown=1.0, slowdown_by=by)
        [(_, outcome)] = replicate(arms, found, tmp_path, random.Random(3), PATIENCE)  # type: ignore[arg-type]
        assert isinstance(outcome, Played), outcome
        slower = ratios.difference(outcome, "wall_s")
        assert slower > math.log(1.2)
        unseen[by] = slower - ratios.difference(outcome, "cpu_s")
    assert unseen["sleep"] > 2 * abs(unseen["spin"]), unseen


def test_a_call_that_is_too_long_names_the_batch_that_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused before anything is measured."""
    monkeypatch.setattr("cnnperf.duet.LONGEST_CALL_S", 1e-6)
    [(_, fault)] = calibrate((arm(), arm()), planted(["planted:build"]), tmp_path, PATIENCE)
    assert isinstance(fault, Fault)
    assert "train.batch_size = 1 would fit" in str(fault)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"python": "/nonexistent/python"}, "--baseline: /nonexistent/python cannot be run"),
        ({"python": "/bin/false"}, "ended with exit status 1 before it was ready"),
    ],
)
def test_an_interpreter_that_is_none(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    """A usage error, before anything is measured."""
    with pytest.raises(UsageError, match="--baseline") as caught:
        list(calibrate((arm(**changes), arm()), planted(["planted:build"]), tmp_path, PATIENCE))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("version", "words"), [(None, "has a cnnperf without the duet"), (1, "has version 1 of the duet's protocol")]
)
def test_a_cnnperf_of_another_age(tmp_path: Path, version: int | None, words: str) -> None:
    """One without a duet, and one with another."""
    package = tmp_path / "cnnperf"
    package.mkdir()
    (package / "__init__.py").touch()
    if version:
        (package / "duet_worker.py").write_text(
            f"import json, os, sys, time\nhello = {{'protocol': {version}, 'facts': {{}}}}\n"
            "os.write(int(sys.argv[2]), json.dumps({'hello': hello}).encode() + b'\\n')\ntime.sleep(60)"
        )
    with pytest.raises(UsageError) as caught:
        list(calibrate((arm(path=(tmp_path,), cwd=tmp_path), arm()), planted(["planted:build"]), tmp_path, PATIENCE))
    assert words in str(caught.value)
    assert workers_left() == []


def test_code_from_outside_a_revision_is_refused(tmp_path: Path) -> None:
    """What is measured would be the present tree's, whatever the revision holds."""
    arms = arm(), arm(path=(tmp_path,), cwd=tmp_path)
    found = dict(calibrate((arm(), arm()), planted(["planted:build"]), tmp_path, PATIENCE))
    [(_, fault)] = replicate(arms, found, tmp_path, random.Random(0), PATIENCE)  # type: ignore[arg-type]
    assert isinstance(fault, Fault)
    assert "planted.py and is not part of the compared tree" in str(fault)


def test_code_of_the_present_tree_is_no_revision(tmp_path: Path) -> None:
    """A helper that only the tree at hand has is refused; a model that only it has is none of the revision's."""
    for folder in ("here/lib", "there/lib"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "here/lib/helping.py").write_text("from planted import build\n")
    (tmp_path / "here/lib/helped.py").write_text("from helping import build\n")
    (tmp_path / "there/helped.py").write_text("from helping import build\n")
    here, there = tmp_path / "here", tmp_path / "there"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{here / 'lib'}:{HERE}")
        [contest] = planted(["helped:build"])
        found = dict(calibrate((arm(), arm()), [contest], tmp_path, PATIENCE))
        revision = arm(path=(there,), cwd=there, tree=there, repository=here)
        [(_, stray)] = replicate((arm(), revision), found, tmp_path, random.Random(0), PATIENCE)  # type: ignore[arg-type]
        (there / "helped.py").unlink()
        [(_, absent)] = replicate((arm(), revision), found, tmp_path, random.Random(0), PATIENCE)  # type: ignore[arg-type]
    assert isinstance(stray, Fault)
    assert "here/lib/helping.py was imported, which belongs to this tree" in str(stray)
    assert isinstance(absent, Fault)
    assert (absent.absent, str(absent).partition(": ")[2]) == (1, "that revision has no lib/helped.py")


def test_a_second_chance_to_start(tmp_path: Path) -> None:
    """A machine may be too busy to start processes in time; twice is a fault."""
    [contest] = planted(["planted:build"])
    started: list[int] = []

    def workers(_: object) -> Any:
        started.append(1)
        if len(started) == 1:
            raise Fault("said nothing")
        return nullcontext()

    assert list(duet._each([contest], workers, lambda *_: "measured")) == [(contest, "measured")]
    started[:] = [0]

    def none(_: object) -> Any:
        started.append(1)
        raise Fault("said nothing")

    [(_, fault)] = duet._each([contest], none, lambda *_: "measured")
    assert str(fault) == "said nothing"
    assert len(started) == 3


def test_what_is_not_timed_is_a_setting() -> None:
    """The names are those of the recipe."""
    assert set(UNTIMED) <= set(Recipe.model_fields)


def recipes(scratch: Path, *recommended: str) -> tuple[Path, ...]:
    """Lay out cnnperf anew in a folder for each of these recipes of the MLP."""
    folders = []
    for number, recipe in enumerate(recommended):
        folder = scratch / str(number)
        shutil.copytree(Path(cnnperf.__file__).parent, folder / "cnnperf", ignore=shutil.ignore_patterns("__pycache__"))
        file = folder / "cnnperf/models/mlp.py"
        file.write_text(f"{file.read_text()}\n\ndef recipe(dataset):\n    return {recipe}\n")
        folders.append(folder)
    return tuple(folders)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"memory_format": "channels_last"}, None),
        ({"lr": 0.1}, r"the losses are .*; their settings differ in lr \(0.01 against 0.1\)"),
        ({"batch_size": 16}, "different numbers of images on the two sides"),
    ],
)
def test_each_arm_has_the_recipe_of_its_own_version(tmp_path: Path, changed: dict[str, Any], words: str | None) -> None:
    """A change of a default is measured, or said to make the arms unlike."""
    base = {"optimizer": "sgd", "lr": 0.01, "batch_size": 32}
    places = recipes(tmp_path, repr(base), repr(base | changed))
    arms = arm(path=places[:1], cwd=places[0]), arm(path=places[1:], cwd=places[1])
    [contest] = planted(["mlp"], ["train.step"], batch_size=None)
    conditions = dict(calibrate(arms, [contest], tmp_path, PATIENCE))
    [(_, outcome)] = replicate(arms, conditions, tmp_path, random.Random(0), PATIENCE)  # type: ignore[arg-type]
    if words:
        assert isinstance(outcome, Fault)
        assert re.search(words, str(outcome))
    else:
        assert isinstance(outcome, Played), outcome
        assert differing(*(each.settings for each in outcome.opened)) == [
            "memory_format (contiguous against channels_last)"
        ]


def test_arms_under_unlike_conditions_are_refused(tmp_path: Path) -> None:
    """Here the number of threads."""
    [contest] = planted(["planted:build"])
    conditions = {contest: Conditions(1, 0.01, 12, 3)}
    arms = arm(), arm(environment={"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"})
    with pytest.raises(UsageError, match=r"the sides differ in threads \(1 against 2\)"):
        list(replicate(arms, conditions, tmp_path, random.Random(0), PATIENCE))


@pytest.mark.parametrize(
    ("one", "other", "is_equal"),
    [
        ({"error": 3e-7}, {"error": 3e-7}, True),
        ({"error": 3e-6}, {"error": 2e-5}, True),
        ({"error": 3e-6}, {"error": 4e-5}, False),
        ({"error": 4e-5}, {"error": 3e-6}, False),
        ({"error": 0.0}, {"error": 9e-6}, True),
        ({"error": float("nan")}, {"error": 1e-7}, False),
        ({"error": 1e-7}, {"error": float("nan")}, False),
        ({"error": 1e-7}, {"error": float("inf")}, False),
        ({"error": 1e-7}, {"loss": 1e-7}, False),
        ({"loss": 2.0}, {"loss": 2.001}, True),
        ({"loss": 2.0}, {"loss": 2.01}, False),
        ({"loss": 2.0}, {"loss": float("nan")}, False),
    ],
)
def test_when_outputs_are_equal(one: dict[str, float], other: dict[str, float], is_equal: bool) -> None:
    """Within ten times the other's error; within a thousandth of the loss."""
    assert (unequal(one, other) is None) == is_equal


@pytest.mark.parametrize(("call_s", "calls", "pairs"), [(0.001, 10, 60), (0.06, 1, 50), (0.25, 1, 12), (0.1, 1, 30)])
def test_a_turn_fits_into_six_seconds(call_s: float, calls: int, pairs: int) -> None:
    """As many pairs as do, an even number from 12 to 60, or to fewer where so many are asked for."""
    assert Conditions.of(calls, call_s).pairs == pairs
    assert Conditions.of(calls, call_s, 20).pairs == min(pairs, 20)


def test_the_order_of_turns_is_balanced_and_random() -> None:
    """Each four turns are ABBA or BAAB, and both come about."""
    order = order_of(60, random.Random(0))
    quads = Counter(order[start : start + 4] for start in range(0, 120, 4))
    assert set(quads) == {"ABBA", "BAAB"}
    assert len(order) == 120
