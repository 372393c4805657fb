"""A self-test from the parent's side: the outcome of each ending of a claim's process, and the files written."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from processes import has_ended

from cnnperf import registry
from cnnperf.claims import gate
from cnnperf.errors import UsageError
from cnnperf.ipc.messages import ToClaim
from cnnperf.ipc.process import Launch, WorkerProcess
from cnnperf.running import selftest
from cnnperf.running.selftest import SELFTEST_FILE, SelfTest, begun, carry_out, matching

CHILDREN = Path(__file__).parent / "children.py"


class Noted:
    """Records the progress and the outcomes of a self-test."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.endings: dict[str, str] = {}
        self.heard: Callable[[str], None] = lambda text: None

    def progressed(self, name: str, text: str) -> None:
        """Record the text, and pass it to the listener."""
        self.texts.append(text)
        self.heard(text)

    def finished(self, outcome: selftest.ClaimOutcome) -> None:
        """Record the ending."""
        self.endings[outcome.name] = outcome.ending


class Clock:
    """A clock that stands still until it is set; a hanging claim sets it past its time limit."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        """Return the time that was set."""
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Give the self-test a clock of the test's own."""
    found = Clock()
    monkeypatch.setattr(selftest, "time", found)
    return found


@pytest.fixture
def tested(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., tuple[SelfTest, Noted]]:
    """Return a function that runs claims with the given behaviours, by the claim's name."""

    def child(request: ToClaim, log: Path, threads: int | None = None) -> WorkerProcess:
        return WorkerProcess(request, log=log, launch=Launch(command=(sys.executable, str(CHILDREN))))

    monkeypatch.setattr(selftest, "_child", child)

    def test(
        minutes: float = 1.0, clock: Clock | None = None, limit_s: float | None = None, **behaviours: str
    ) -> tuple[SelfTest, Noted]:
        for name, behaviour in behaviours.items():
            monkeypatch.setenv(f"PLANTED_{name}", behaviour)
        watcher = Noted()
        end = (clock or time).monotonic() + 60 * minutes
        if clock:
            over_s = clock.now_s + limit_s if limit_s else end
            watcher.heard = lambda text: setattr(clock, "now_s", over_s) if text.startswith("child") else None
        return carry_out(begun("cpu", minutes, end), tuple(behaviours), tmp_path / "out", watcher, end), watcher

    return test


Tested = Callable[..., tuple[SelfTest, Noted]]


def test_each_way_of_ending_is_told_and_the_rest_go_on(tested: Tested, tmp_path: Path) -> None:
    """A crashed claim has failed, with its reason and log; the others run, and the worst ending decides."""
    found, watcher = tested(
        layers="crashes", parity="faults", memory_tensor="fails", latency="doubts", training="holds"
    )
    assert watcher.endings == {
        "layers": "failed",
        "parity": "failed",
        "memory_tensor": "failed",
        "latency": "undecided",
        "training": "held",
    }
    crashed = found.outcomes[0]
    assert crashed.fault == "its process crashed (SIGSEGV)"
    assert crashed.log_tail == ("last words",)
    assert len(crashed.readings) == 1
    assert "at work" in watcher.texts
    assert found.exit_code == 1
    written = json.loads((tmp_path / "out" / SELFTEST_FILE).read_text())
    assert [each["ending"] for each in written["outcomes"]] == [each.ending for each in found.outcomes]
    assert written["outcomes"][0]["readings"][0]["difference"] == 0
    assert (tmp_path / "out/logs/layers.log").read_text() == "last words\n"


@pytest.mark.parametrize(
    ("behaviours", "code"),
    [({"layers": "holds"}, 0), ({"layers": "holds", "parity": "doubts"}, 3), ({"layers": "doubts"}, 3)],
)
def test_only_what_is_undecided_is_3(tested: Tested, behaviours: dict[str, str], code: int) -> None:
    """The exit code is 0 if all claims held, and 3 if any is undecided and none failed."""
    assert tested(**behaviours)[0].exit_code == code


def test_what_does_not_apply_is_no_failure(tested: Tested) -> None:
    """A skipped claim has its reason and is no failure."""
    found, _ = tested(parity="skips", layers="holds")
    assert found.outcomes[0].skipped == "no such thing here"
    assert found.exit_code == 0


def test_a_claim_that_hangs_is_ended_with_its_children(
    tested: Tested, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A claim that exceeds its time limit fails and is ended with its child; the next one runs."""
    monkeypatch.setattr(registry.module("claims", "layers"), "LIMIT_S", 2.0)
    found, watcher = tested(clock=clock, limit_s=2.0, layers="hangs", parity="holds")
    hung, following = found.outcomes
    assert (hung.ending, hung.fault, following.ending) == ("failed", "took longer than its 2 s; ended", "held")
    [child] = [int(text.split()[1]) for text in watcher.texts if text.startswith("child")]
    assert has_ended(child)


def test_the_environment_is_that_of_the_claims(tested: Tested, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stored environment is that of the claims' processes, not of the shell."""
    monkeypatch.setenv("OMP_PROC_BIND", "close")
    found, _ = tested(layers="holds")
    assert "OMP_PROC_BIND" not in found.environment
    assert found.environment["OMP_NUM_THREADS"] == str(found.threads)


def test_the_minutes_end_a_self_test(tested: Tested, clock: Clock) -> None:
    """A claim that was interrupted by the time limit or not begun is undecided, not failed."""
    found, _ = tested(clock=clock, layers="hangs", parity="holds")
    assert [each.ending for each in found.outcomes] == ["undecided", "undecided"]
    assert all("minutes were used up; raise `minutes`" in str(each.skipped) for each in found.outcomes)
    assert found.exit_code == 3


def test_the_claim_that_takes_what_is_left_ends_with_the_minutes(tested: Tested, clock: Clock) -> None:
    """The gate claim plans for less than the remaining time, and is undecided if it hangs until the end."""
    found, watcher = tested(clock=clock, gate="hangs")
    assert (found.outcomes[0].ending, found.outcomes[0].fault) == ("undecided", None)
    assert [text for text in watcher.texts if text.startswith("seconds")] == ["seconds 30.0"]
    assert found.outcomes[0].seconds == 60.0


def test_a_device_that_answers_too_late_is_a_usage_error(tested: Tested, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time limit includes the device's answer; without one nothing is measured."""
    monkeypatch.setenv("PLANTED_", "hangs")
    monkeypatch.setattr(selftest, "DEVICE_S", 600.0)
    with pytest.raises(UsageError, match=r"^`device` cpu: it did not answer: .*; nothing was measured"):
        tested(minutes=0.03, layers="holds")


def test_ctrl_c_keeps_what_there_is(tested: Tested, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Ctrl-C ends the self-test with exit code 130, and the file marks it as interrupted."""

    def interrupt(self: Noted, outcome: selftest.ClaimOutcome) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Noted, "finished", interrupt)
    found, _ = tested(layers="holds", parity="holds")
    assert (found.exit_code, len(found.outcomes)) == (130, 1)
    assert json.loads((tmp_path / "out" / SELFTEST_FILE).read_text())["interrupted"]


def test_a_device_that_is_not_there_is_a_usage_error(tested: Tested, monkeypatch: pytest.MonkeyPatch) -> None:
    """An absent device is a usage error with the reason, before anything is measured."""
    monkeypatch.setenv("PLANTED_", "absent")
    with pytest.raises(UsageError, match=r"^`device` cpu: there is none; nothing was measured"):
        tested(layers="holds")


def test_a_device_with_an_index_is_a_usage_error() -> None:
    """The self-test takes the first device of a kind, and says how to choose another."""
    with pytest.raises(UsageError, match=r"^`device`: 'cuda:1': the self-test takes the first device; give cuda, and "):
        selftest.begun("cuda:1", 1.0, 0.0)


def test_a_folder_that_cannot_be_made_is_a_usage_error(tmp_path: Path) -> None:
    """The error for a folder that cannot be made names the argument `out` and the cure."""
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "out"
    with pytest.raises(UsageError, match=rf"^`out`: {out} cannot be written \(.*\); give another folder$"):
        selftest.carry_out(selftest.SelfTest.model_construct(), (), out, Noted(), 0.0)


def test_the_claim_that_takes_what_is_left_comes_last() -> None:
    """Claims run in the order of their names with `gate` last; a pattern without a match is refused."""
    names = matching()
    assert gate.LIMIT_S is None
    assert names[-1] == "gate"
    assert list(names[:-1]) == sorted(names[:-1])
    assert matching("memory*") == ("memory_system", "memory_tensor")
    with pytest.raises(UsageError, match=r"no claim matches 'x'.*arithmetic"):
        matching("x")


def test_the_claims_are_told_before_the_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The watcher gets the claims after the device was found; without `out` the folder is a new one."""
    told: list[Any] = []

    class Planned:
        def planned(self, names: Sequence[str]) -> None:
            told.append(names)

    monkeypatch.setattr(selftest, "begun", lambda device, minutes, end: told.append((device, minutes)))
    monkeypatch.setattr(selftest, "carry_out", lambda test, names, *_: names)
    found, folder = selftest.selftest(device="cpu", minutes=2.0, only="memory*", out=None, watcher=Planned())
    assert told == [("cpu", 2.0), ("memory_system", "memory_tensor")]
    assert found == told[1]
    assert folder.parent == Path("results/selftest")


@pytest.mark.parametrize("minutes", [0.0, float("nan"), float("inf")])
def test_what_is_no_time_limit_is_refused(minutes: float) -> None:
    """A wrong time limit is refused before the device is looked for."""
    with pytest.raises(UsageError, match=r"^`minutes`: give a number above 0, got "):
        selftest.selftest(device="nowhere", minutes=minutes, only=None, out=None, watcher=None)
