"""Two workers in turns: real processes with tiny networks, and fake workers for tests of the parent's side.

A worker that imports torch costs seconds, so that a calibration of one network serves many tests.
"""

from __future__ import annotations

import json
import math
import random
import re
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import psutil
import pytest
from forked import workers_forked
from in_process import workers_here
from processes import environment

import cnnperf
from cnnperf.duet import schedule
from cnnperf.duet.contest import Contest, Version, contests
from cnnperf.duet.pair import Fault, Patience
from cnnperf.duet.schedule import Conditions, Played, calibrate, differing, order_of, replicate, unequal
from cnnperf.errors import UsageError
from cnnperf.ipc.family import SWEEP
from cnnperf.ipc.messages import PROTOCOL, SuiteRequest, letters
from cnnperf.record import Record
from cnnperf.regression import ratios
from cnnperf.running.preflight import prepare
from cnnperf.sides import Both, Side
from cnnperf.suite import parse
from cnnperf.task import Choice, Task

PATIENCE = Patience(open_s=120.0, warmup_s=2.0)
FEW_PAIRS = 20
PLANTED = {"PLANTED": "1"}


@pytest.fixture(scope="module", autouse=True)
def _importable() -> Any:
    """Make the networks in unruly.py importable, here and in the workers, which are forks of this process."""
    with pytest.MonkeyPatch.context() as patch, workers_forked():
        patch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
        yield


def planted(models: Sequence[object], metrics: Sequence[str] = ("infer.forward",), **train: object) -> list[Contest]:
    """Return the contests of a suite with these models on a few small images."""
    settings = {"validation_images": 0, "batch_size": 32, **train}
    document = {
        "datasets": [{"name": "synthetic", "train": 256, "test": 64}],
        "models": list(models),
        "threads": 1,
        "train": {key: value for key, value in settings.items() if value is not None},
    }
    with workers_here():
        tasks = prepare(SuiteRequest(suite=parse(document, where="x", name="x"), where="x")).tasks
    return list(contests(tasks, metrics=metrics))


def version(**changes: Any) -> Version:
    """Return the version of this tree, with changes."""
    return Version(name="this tree", **changes)


def workers_left() -> list[psutil.Process]:
    """Return the descendants of this process that are still alive, but for the one that waits for its end."""
    alive = (each for each in psutil.Process().children(recursive=True) if each.status() != psutil.STATUS_ZOMBIE)
    return [each for each in alive if SWEEP not in each.cmdline()]


Calibrated = tuple[dict[Contest, Conditions], Path]


@pytest.fixture(scope="module")
def calibrated(once: Callable[[str, Callable[[Path], Any]], Any]) -> Calibrated:
    """Calibrate both metrics of a well-behaved network, and the forward pass of one that may crash.

    Returns the conditions by contest, and the folder of weights and outputs.
    """

    def make(scratch: Path) -> Any:
        both = planted(["unruly:build"], ("infer.forward", "train.step"))
        all_three = [*both, *planted([{"name": "unruly:build", "kind": "crashes"}])]
        return dict(calibrate(Both(version(), version()), all_three, scratch, PATIENCE, FEW_PAIRS)), scratch

    made: Calibrated = once("calibrated", make)
    return made


def of(found: dict[Contest, Conditions], *metrics: str, crashes: bool = False) -> dict[Contest, Conditions]:
    """Return the conditions of these metrics, with the network that may crash only if requested."""
    return {
        contest: on
        for contest, on in found.items()
        if contest.metric in metrics and (crashes or not contest.tasks.baseline.cell.model.options)
    }


@pytest.fixture(scope="module")
def played(calibrated: Calibrated, once: Callable[[str, Callable[[Path], Any]], Any]) -> dict[str, Any]:
    """Measure both metrics once, with equal sides."""
    found, scratch = of(calibrated[0], "infer.forward", "train.step"), calibrated[1]

    def make(_: Path) -> Any:
        outcomes = dict(replicate(Both(version(), version()), found, scratch, random.Random(1), PATIENCE))
        return {contest.metric: (found[contest], outcomes[contest]) for contest in found}

    made: dict[str, Any] = once("played", make)
    return made


@pytest.fixture(scope="module")
def slowed(calibrated: Calibrated, once: Callable[[str, Callable[[Path], Any]], Any]) -> dict[str, Any]:
    """Measure the forward pass against one that is slowed to twice the time, by spinning and by sleeping."""
    found, scratch = of(calibrated[0], "infer.forward"), calibrated[1]

    def make(_: Path) -> Any:
        outcomes = {}
        for by in ("spin", "sleep"):
            versions = Both(version(), version(slowdown=1.0, slowdown_by=by))
            [(_, outcomes[by])] = replicate(versions, found, scratch, random.Random(3), PATIENCE)
        return outcomes

    made: dict[str, Any] = once("slowed", make)
    return made


@pytest.mark.parametrize("metric", ["infer.forward", "train.step"])
def test_each_arm_takes_its_samples_in_turns(played: dict[str, tuple[Conditions, Played]], metric: str) -> None:
    """Each side takes the planned number of samples, after a warm-up, with calls that add up to at least 10 ms."""
    conditions, outcome = played[metric]
    assert isinstance(outcome, Played), outcome
    assert conditions.calls * conditions.call_s >= 0.010
    assert 12 <= conditions.pairs <= FEW_PAIRS
    for taken in outcome.taken:
        assert len(taken.samples) == conditions.pairs
        assert len(taken.warmup) >= conditions.warmup
        assert all(sample.wall_s > 0 and sample.cpu_s > 0 for sample in taken.samples)
    assert Counter(outcome.order) == {"baseline": conditions.pairs, "candidate": conditions.pairs}


@pytest.mark.parametrize("metric", ["infer.forward", "train.step"])
def test_equal_arms_compute_the_same(played: dict[str, tuple[Conditions, Played]], metric: str) -> None:
    """Equal sides have equal outputs, to the bit."""
    one, other = played[metric][1].opened
    assert one == other


def test_who_waits_uses_no_processor(played: dict[str, tuple[Conditions, Played]], slowed: dict[str, Played]) -> None:
    """Parent and blocked worker together use less than 1 % of a core while the other worker measures.

    The least of three replicates counts on either side: a worker that polls does so in each, and a busy machine is not
    at fault.
    """
    outcomes = [played["infer.forward"][1], *slowed.values()]
    for versions in zip(*(outcome.taken for outcome in outcomes), strict=True):
        blocked = [taken.blocked_cpu_s / taken.blocked_s for taken in versions]
        parent = [outcome.parent_cpu_s / outcome.disturbance.seconds for outcome in outcomes]
        assert min(map(sum, zip(blocked, parent, strict=True))) < 0.01


def test_the_others_go_on_after_a_crash(calibrated: Calibrated) -> None:
    """If one network crashes, the fault names the side, the other network is measured, and no worker is left."""
    found, scratch = of(calibrated[0], "infer.forward", crashes=True), calibrated[1]
    versions = Both(version(), version(environment=PLANTED))
    outcomes = list(replicate(versions, found, scratch, random.Random(0), PATIENCE))
    by_kind = {each.tasks.baseline.cell.model.options.get("kind", "behaves"): outcome for each, outcome in outcomes}
    assert list(by_kind) == ["crashes", "behaves"]
    assert isinstance(by_kind["behaves"], Played), by_kind["behaves"]
    assert isinstance(by_kind["crashes"], Fault)
    assert "candidate (this tree): the process crashed (SIGSEGV)" in str(by_kind["crashes"])
    assert workers_left() == []


PRETENDED = """
import json, os, signal, sys, time

def say(**message): os.write(int(sys.argv[2]), json.dumps(message).encode() + b"\\n")

say(hello={{"protocol": {protocol}, "facts": {facts}}})
for line in sys.stdin:
    {do}
"""


def pretending(folder: Path, do: str = "pass", *, protocol: int = PROTOCOL, facts: object = {}) -> Version:
    """Return a version whose fake worker sends a hello without torch, and runs the given code for each request."""
    (folder / "cnnperf").mkdir(parents=True)
    (folder / "cnnperf/__init__.py").touch()
    (folder / "cnnperf/duet_worker.py").write_text(PRETENDED.format(protocol=protocol, facts=facts, do=do))
    return version(path=(folder,), cwd=folder)


OPENED = {"outputs": {"error": 0.0}, "settings": {"batch_size": 32}, "source": None}
SOUND = f"say(open=json.loads({json.dumps(OPENED)!r}))"


@pytest.mark.parametrize(
    ("do", "words", "absent"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "the process crashed (SIGSEGV)", None),
        ("os.kill(os.getpid(), signal.SIGKILL)", "was killed (SIGKILL); the system does that", None),
        ("print('last words', flush=True); os._exit(7)", "ended with exit status 7: last words", None),
        ("time.sleep(600)", "candidate (this tree) said nothing for 2 s and was stopped", None),
        ("say(error='out of memory: no more')", "candidate (this tree): out of memory: no more", None),
        ("say(open={'absent': 'there is no such model'})", "there is no such model", "candidate"),
        (
            SOUND.replace('"error": 0.0', '"error": 0.1'),
            "the sides' outputs differ: the relative distance from the baseline's float64 run is 0 (baseline) and 0.1 ",
            None,
        ),
        (SOUND.replace('"error": 0.0', '"loss": 1.0'), "the sides compute different things (error and loss)", None),
        (
            SOUND.replace('"batch_size": 32', '"batch_size": 16'),
            "a call takes different numbers of images on the two sides; set one train.batch_size in the suite for "
            "both; their settings differ in batch_size (32 against 16)",
            None,
        ),
    ],
    ids=("crashes", "is killed", "exits", "hangs", "is out of memory", "has no model", "error", "other", "batch size"),
)
def test_what_goes_wrong_is_a_sentence(tmp_path: Path, do: str, words: str, absent: Side | None) -> None:
    """Each fault of a worker is one sentence with its cause, and no worker is left."""
    [contest] = planted(["unruly:build"])
    versions = Both(pretending(tmp_path / "baseline", SOUND), pretending(tmp_path / "candidate", do))
    on = {contest: Conditions(1, 0.01, 12, 3)}
    patience = PATIENCE._replace(open_s=2.0) if "sleep" in do else PATIENCE
    [(_, fault)] = replicate(versions, on, tmp_path, random.Random(0), patience)
    assert isinstance(fault, Fault)
    assert words in str(fault)
    assert "\n" not in str(fault)
    assert fault.absent == absent
    assert workers_left() == []


def test_a_slowdown_that_was_injected_is_seen(slowed: dict[str, Played]) -> None:
    """A doubling of the time is detected, by spinning or by sleeping."""
    for outcome in slowed.values():
        assert isinstance(outcome, Played), outcome
        assert ratios.difference(outcome, "wall_s") > math.log(1.2)


BATCH = "request['with']['task']['cell']['model'].get('train', {}).get('batch_size', 32)"
SLOW = f"""request = json.loads(line); asked = request["do"]; batch = {BATCH} if asked == "open" else batch
    if asked == "open": say(open={{"outputs": {{"error": 0.0}}, "settings": {{"batch_size": batch}}, "source": None}})
    elif asked == "settle": say(settle={{"calls": 1, "call_s": batch / 64, "steady": True}})
    else: say(error=f"asked for {{batch}} images")"""
"""A worker whose calls take a 64th of a second per image, and that says how many images it was asked for."""


def test_a_call_that_is_too_long_is_measured_with_fewer_images(tmp_path: Path) -> None:
    """A call of 32 images, which takes 500 ms, is measured with 12, on both sides."""
    versions = Both(*(pretending(tmp_path / name, SLOW) for name in ("one", "other")))
    [(contest, on)] = calibrate(versions, planted(["unruly:build"]), tmp_path, PATIENCE)
    assert isinstance(on, Conditions), on
    assert (on.cut, on.call_s) == ((32, 12), 12 / 64)
    [(_, fault)] = replicate(versions, {contest: on}, tmp_path, random.Random(0), PATIENCE)
    assert "asked for 12 images" in str(fault)


def test_fewer_images_are_those_of_both_sides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If every call is too long, both sides measure two images, although the model has a batch size of its own."""
    monkeypatch.setattr(schedule, "LONGEST_CALL_S", 0.0)
    versions, own = Both(version(), version()), {"name": "unruly:build", "train": {"batch_size": 16}}
    found = dict(calibrate(versions, planted([own], ["train.step"]), tmp_path, PATIENCE, 12))
    assert [on.cut for on in found.values()] == [(16, 2)]
    [(_, outcome)] = replicate(versions, found, tmp_path, random.Random(0), PATIENCE)
    assert isinstance(outcome, Played), outcome
    assert [opened.settings["batch_size"] for opened in outcome.opened] == [2, 2]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"python": "/nonexistent/python"}, "`baseline`: /nonexistent/python cannot be run"),
        ({"python": "/bin/false"}, "ended with exit status 1 before it was ready"),
    ],
)
def test_an_interpreter_that_is_none(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    """An interpreter that cannot run is a usage error that names the side."""
    with pytest.raises(UsageError, match="`baseline`") as caught:
        list(calibrate(Both(version(**changes), version()), planted(["unruly:build"]), tmp_path, PATIENCE))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("protocol", "words"),
    [(None, "has a cnnperf that cannot compare versions"), (1, "has version 1 of the protocol of comparisons")],
)
def test_a_cnnperf_of_another_age(tmp_path: Path, protocol: int | None, words: str) -> None:
    """A cnnperf without the duet, or with another version of its protocol, is a usage error."""
    old = pretending(tmp_path / "old", protocol=protocol or 0)
    if not protocol:
        (tmp_path / "old/cnnperf/duet_worker.py").unlink()
    with pytest.raises(UsageError) as caught:
        list(calibrate(Both(old, old), planted(["unruly:build"]), tmp_path, PATIENCE))
    assert words in str(caught.value)
    assert workers_left() == []


def test_code_from_outside_a_revision_is_refused(tmp_path: Path) -> None:
    """A model from outside a revision's tree is refused, since its code is not the revision's."""
    versions = Both(version(path=(tmp_path,), cwd=tmp_path), version())
    [(_, fault)] = calibrate(versions, planted(["unruly:build"]), tmp_path, PATIENCE)
    assert isinstance(fault, Fault)
    assert "unruly.py, which is not part of the compared tree" in str(fault)


def test_code_of_the_present_tree_is_no_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A helper module that only the present tree has is refused, although the revision has the model."""
    for folder in ("here/lib", "there/lib"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "here/lib/helping.py").write_text("from unruly import build\n")
    (tmp_path / "here/lib/helped.py").write_text("from helping import build\n")
    (tmp_path / "there/helped.py").write_text("from helping import build\n")
    here, there = tmp_path / "here", tmp_path / "there"
    monkeypatch.setenv("PYTHONPATH", f"{here / 'lib'}:{environment()['PYTHONPATH']}")
    monkeypatch.syspath_prepend(here / "lib")
    [contest] = planted(["helped:build"])
    revision = version(path=(there,), cwd=there, tree=there, repository=here)
    [(_, stray)] = calibrate(Both(revision, version()), [contest], tmp_path, PATIENCE)
    assert isinstance(stray, Fault)
    assert "here/lib/helping.py of this tree instead of the revision's copy" in str(stray)


def test_a_second_chance_to_start(tmp_path: Path) -> None:
    """A start of workers that fails once is repeated, and a second failure is a fault."""
    [contest] = planted(["unruly:build"])
    started: list[int] = []

    def workers(_: object) -> Any:
        started.append(1)
        if len(started) == 1:
            raise Fault("said nothing")
        return nullcontext()

    assert list(schedule._each([contest], workers, lambda *_: "measured")) == [(contest, "measured")]
    started[:] = [0]

    def none(_: object) -> Any:
        started.append(1)
        raise Fault("said nothing")

    [(_, fault)] = schedule._each([contest], none, lambda *_: "measured")
    assert str(fault) == "said nothing"
    assert len(started) == 3


@pytest.mark.parametrize("devices", [("cpu", "cuda", "cpu"), ("cuda", "cpu", "cuda")])
def test_no_two_devices_share_workers(trained: Callable[..., Record], tmp_path: Path, devices: tuple[str, ...]) -> None:
    """Contests are measured by workers that were started, and so bound to cores, for their own device."""
    task = trained().task.model_copy(update={"threads": 1})

    def on(device: str) -> Task:
        return task.model_copy(update={"cell": task.cell.model_copy(update={"device": Choice(name=device)})})

    asked = [Contest(f"train.step{i}", Both(on(each), on(each)), tmp_path) for i, each in enumerate(devices)]
    started: list[str] = []

    def workers(task: Task) -> Any:
        started.append(task.cell.device.name)
        return nullcontext(task.cell.device.name)

    found = dict(schedule._each(asked, workers, lambda running, _: running))
    assert started == list(dict.fromkeys(devices))
    assert found.keys() == set(asked)
    for contest, device in found.items():
        assert device == contest.tasks.baseline.cell.device.name


def with_recipes(folder: Path, recipes: Mapping[str, Mapping[str, object]]) -> Version:
    """Copy cnnperf with these recipes of its models, and return the version of the copy."""
    shutil.copytree(Path(cnnperf.__file__).parent, folder / "cnnperf", ignore=shutil.ignore_patterns("__pycache__"))
    for model, recipe in recipes.items():
        with open(folder / f"cnnperf/models/{model}.py", "a", encoding="utf-8") as file:
            file.write(f"\n\ndef recipe(dataset):\n    return {recipe!r}\n")
    return version(path=(folder,), cwd=folder)


def test_each_arm_has_the_recipe_of_its_own_version(tmp_path: Path) -> None:
    """Each side trains by its own version's recipe; settings that differ are listed, and unlike losses are a fault."""
    recipe = {"optimizer": "sgd", "lr": 0.01, "batch_size": 8}
    changes = {"lenet": {"memory_format": "channels_last", "lr": 0.0101}, "mlp": {"lr": 0.1}}
    one = with_recipes(tmp_path / "one", dict.fromkeys(changes, recipe))
    other = with_recipes(tmp_path / "other", {name: recipe | change for name, change in changes.items()})
    both = planted(list(changes), ["train.step"], batch_size=None)
    conditions = dict(calibrate(Both(one, other), both, tmp_path, PATIENCE, FEW_PAIRS))
    last_is_the_fault = random.Random(1)  # So that no fresh pair of processes has to follow.
    outcomes = replicate(Both(one, other), conditions, tmp_path, last_is_the_fault, PATIENCE)  # type: ignore[arg-type]
    by_model = {contest.tasks.baseline.cell.model.name: outcome for contest, outcome in outcomes}
    fault, played = by_model["mlp"], by_model["lenet"]
    assert isinstance(played, Played), played
    rates = [f"{rate} (0.01 against 0.0101)" for rate in ("lr", "bias_lr")]
    listed = [*rates, "memory_format (contiguous against channels_last)"]
    assert sorted(differing(*(each.settings for each in played.opened))) == sorted(listed)
    assert isinstance(fault, Fault)
    assert re.search(r"the losses are .*; their settings differ in lr \(0.01 against 0.1\)", str(fault))


def test_arms_under_unlike_conditions_are_refused(tmp_path: Path) -> None:
    """Sides that differ in the number of threads are refused."""
    [contest] = planted(["unruly:build"])
    conditions = {contest: Conditions(1, 0.01, 12, 3)}
    versions = [pretending(tmp_path / str(threads), facts={"threads": threads}) for threads in (1, 2)]
    with pytest.raises(UsageError, match=r"the sides differ in threads \(1 against 2\)"):
        list(replicate(Both(*versions), conditions, tmp_path, random.Random(0), PATIENCE))


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
    """Outputs are equal within ten times the other's error, or within a thousandth of the loss."""
    assert (unequal(one, other) is None) == is_equal


@pytest.mark.parametrize(("call_s", "calls", "pairs"), [(0.001, 10, 60), (0.06, 1, 50), (0.25, 1, 12), (0.1, 1, 30)])
def test_a_turn_fits_into_six_seconds(call_s: float, calls: int, pairs: int) -> None:
    """The number of pairs in a turn is from 12 to 60, or at most the given limit, so that a turn takes six seconds."""
    assert Conditions.of(calls, call_s).pairs == pairs
    assert Conditions.of(calls, call_s, 20).pairs == min(pairs, 20)


def test_the_order_of_turns_is_balanced_and_random() -> None:
    """Every four turns have the order ABBA or BAAB, and both orders occur."""
    order = order_of(60, random.Random(0))
    quads = Counter(letters(order[start : start + 4]) for start in range(0, 120, 4))
    assert set(quads) == {"ABBA", "BAAB"}
    assert len(order) == 120
