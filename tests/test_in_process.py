"""The stand-ins for real processes give the results of real processes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from in_process import called, workers_here
from processes import completed, environment

from cnnperf import record as store
from cnnperf.errors import CnnperfError, SuiteError
from cnnperf.ipc.messages import Prepared, Settle, SuiteRequest
from cnnperf.record import Measurement, Record
from cnnperf.running.preflight import ask, prepare
from cnnperf.running.runner import Unwatched, execute
from cnnperf.suite import parse

DOCUMENT = {
    "datasets": [{"name": "synthetic", "shape": [1, 28, 28], "train": 300, "test": 50}],
    "models": ["lenet", "broken:raised"],
    "threads": 1,
    "train": {"steps": 4, "validation_images": 100, "batch_size": 50},
}


def request(**changes: object) -> SuiteRequest:
    """Return the request of a small suite."""
    return SuiteRequest(suite=parse(DOCUMENT | changes, where="x.toml", name="x"), where="x.toml")


def ran(folder: Path) -> list[Record]:
    """Run the suite and return its records."""
    return list(execute(prepare(request()).tasks, folder, Unwatched()))


def figure(measured: Measurement) -> tuple[str, set[str], set[str]]:
    """Return a measurement's metric, tag names and remark names, without the random remark `disturbed`."""
    return measured.metric, {*measured.tags}, measured.remarks.keys() - {"disturbed"}


def test_a_worker_here_gives_the_record_of_a_real_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker in this process gives the record of a real worker: the same metrics, exact losses and error messages."""
    monkeypatch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
    real, (state, threads) = ran(tmp_path / "real"), (torch.get_rng_state(), torch.get_num_threads())
    with workers_here():
        here = ran(tmp_path / "here")
    for one, other in zip(real, here, strict=True):
        assert (one.key, one.status, one.error, one.signal) == (other.key, other.status, other.error, other.signal)
        assert [figure(m) for m in one.measurements] == [figure(m) for m in other.measurements]
        for metric in ("train.loss", "train.test_accuracy", "train.confusion", "train.threads", "train.parameters"):
            assert [m.values for m in one.find(metric)] == [m.values for m in other.find(metric)]
        assert {k: a.path for k, a in one.artifacts.items()} == {k: a.path for k, a in other.artifacts.items()}
        assert one.log_tail[-1:] == other.log_tail[-1:]
    assert [record.key for record in store.read(tmp_path / "here")] == [record.key for record in here]
    assert torch.equal(state, torch.get_rng_state())
    assert threads == torch.get_num_threads()


def test_a_request_that_is_refused_raises_as_from_a_real_worker() -> None:
    """A refused request raises the error of a real worker; an unexpected error keeps its traceback."""
    with workers_here():
        with pytest.raises(SuiteError, match=r"train: .*'batch_siz'; did you mean 'batch_size'"):
            prepare(request(train={"steps": 4, "batch_siz": 50}))
        with pytest.raises(CnnperfError, match=r"the check of the request crashed \(exit status 1\)(.|\n)*KeyError"):
            ask(Settle(), Prepared)


@pytest.mark.parametrize("words", [("list", "models"), ("list", "modles"), ("--version",)])
def test_a_command_called_here_leaves_what_a_real_one_leaves(words: tuple[str, ...]) -> None:
    """A command called in this process has the exit status, stdout and stderr of a real process."""
    real, here = completed(sys.executable, "-m", "cnnperf", *words, env=environment(COLUMNS="80")), called(*words)
    assert (here.returncode, here.stdout, here.stderr) == (real.returncode, real.stdout, real.stderr)
