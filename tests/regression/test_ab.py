"""`cnnperf.ab` called as in a notebook: it returns verdicts, prints nothing, finds faults before making anything."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from in_process import called, workers_here
from processes import completed

import cnnperf
from cnnperf.duet.pair import Fault
from cnnperf.errors import CnnperfWarning, UsageError
from cnnperf.machine.git import git as real_git
from cnnperf.record import FILE
from cnnperf.regression import gate, revisions, worktrees
from cnnperf.regression.ab import UnwatchedComparison
from cnnperf.regression.samples_file import SAMPLES_FILE
from cnnperf.suite import load_suite

SUITE = """
datasets = [{ name = "synthetic", train = 64, test = 32 }]
models = ["unruly:build"]
threads = 1
[train]
validation_images = 0
batch_size = 32
"""
PROJECT = '[project]\nname = "mine"\nversion = "1"\ndependencies = [{}]\n'


def git(*arguments: str) -> str:
    """Run git in the working directory and return what it prints."""
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "init.defaultBranch=main"]
    return completed("git", *identity, *arguments, check=True).stdout.strip()


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Work in a repository: `before` asks for another package than `main`, `later` for another Python."""
    folder = tmp_path / "repository"
    folder.mkdir()
    monkeypatch.chdir(folder)
    (folder / "tiny.toml").write_text(SUITE)
    (folder / "bare").write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "$@"\n')
    (folder / "bare").chmod(0o755)
    git("init", "-q")
    for tag, project in (
        ("before", PROJECT.format('"one"')),
        ("later", PROJECT.format("") + 'requires-python = ">=99"\n'),
        ("now", PROJECT.format("")),
    ):
        (folder / "pyproject.toml").write_text(project)
        git("add", ".")
        git("commit", "-q", "-m", tag)
        git("tag", tag)
    with workers_here():
        yield


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a record of what is made: worktrees are real, environments only recorded."""
    found: list[str] = []

    def run_git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        if arguments[0] == "worktree" and arguments[1] != "list":
            found.append(" ".join(arguments[:2]))
        return real_git(folder, *arguments)

    def environment(dependencies: Sequence[str], tree: Path, where: str, installing: Any) -> Path:
        installing(f"{where} has other dependencies; making an environment for it")
        found.append(f"environment {' '.join(dependencies)}")
        return Path(sys.executable)

    monkeypatch.setattr(worktrees, "git", run_git)
    monkeypatch.setattr(revisions, "environment_with", environment)
    return found


@pytest.fixture
def calibrated(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Break every contest off before its first turn; return what would have been measured."""
    found: dict[str, Any] = {}

    def calibrate(versions: Any, contests: Any, *_: Any) -> Iterator[tuple[Any, Fault]]:
        found.update(
            versions=list(versions),
            contests=contests,
            trees=[version.tree and version.tree.is_dir() for version in versions],
        )
        yield from ((contest, Fault("broken off")) for contest in contests)

    monkeypatch.setattr(gate, "calibrate", calibrate)
    return found


REVISIONS = {"baseline": "before", "candidate": "now"}
BAD: list[tuple[dict[str, Any], str]] = [
    ({"minutes": float("nan")}, "^`minutes`: got nan; give a number above 0"),
    ({"minutes": -1.0}, "^`minutes`: got -1.0; give a number above 0"),
    ({"minutes": 0.5}, r"^`minutes`: 0\.5 is too short; 6 replicates, the fewest for a verdict, take about 1 minute$"),
    (
        {"baseline": None},
        r"^`baseline`: nothing to compare with; give a git revision \(origin/main, HEAD~1\), a Python",
    ),
    ({"pairs": 13}, "^`pairs`: got 13; give an even number from 12 to 60"),
    ({"threads": 0}, "^`threads`: got 0; give 1 or more"),
    ({"only": "resnet*"}, r"^`only`: nothing matches 'resnet\*'"),
    ({"candidate_set": ["precision=bf16"]}, "must be section.key=value, such as train.memory_format=contiguous$"),
    ({"candidate_set": ["infer.pairs=0"]}, r"^`candidate_set`: only settings of \[train\] can be changed, got 'infer'"),
    ({"baseline_set": ["train.precison=bf16"]}, "did you mean 'precision'"),
    ({"baseline_set": ["train.batch_size=32"]}, "^`baseline_set`: train.batch_size=32 changes nothing"),
    ({"candidate_set": ["train.batch_size=0"]}, "batch_size"),
    ({"candidate_set": ["train.seconds=9"]}, "changes nothing that is measured.* list the model twice in `models`"),
    ({"candidate_set": ["train.warmup=0.3"]}, "^`candidate_set`: train.warmup=0.3 changes nothing that is measured"),
    ({"baseline_set": ["train.schedule=cosine"]}, "changes nothing that is measured"),
    ({"candidate_set": ["train.lr=0.1"]}, "^`candidate_set`: train.lr=0.1 changes nothing that is timed"),
    ({"candidate_set": ["train.momentum=0.5"]}, "changes nothing that is timed.* list the model twice in `models`"),
    (
        {"baseline_set": ["train.muon_steps=5"], "candidate_set": ["train.crop_padding=reflect"]},
        "^`baseline_set` and `candidate_set`: train.muon_steps=5, train.crop_padding=reflect changes nothing that is",
    ),
    ({"candidate": "nonsense"}, "^`candidate`: 'nonsense' is neither a Python interpreter nor a revision"),
    ({"candidate": "./bare"}, r"^`candidate`: \./bare has no cnnperf"),
    ({"candidate": "/bin/true"}, r"^`candidate`: /bin/true is not a working Python \(exit status 0, "),
    ({"candidate": "later"}, "^`candidate`: later: that revision needs Python >=99"),
    ({"baseline": "now", "candidate": "HEAD"}, "name the same version"),
    ({"baseline": sys.executable, "candidate": sys.executable}, "name the same version"),
    ({"out": Path("tiny.toml/out")}, r"^tiny\.toml/out: cannot be written \(Not a directory\)"),
    ({"out": Path("/proc/deep/out")}, "^/proc/deep/out: cannot be written"),
    ({"out": Path("new/deep"), "data": Path("nowhere")}, "nowhere"),
    ({"out": Path("held")}, "^`out`: held already contains a run; give another folder$"),
    ({"out": Path("run")}, "^`out`: run already contains a run; give another folder$"),
    ({"data": Path("nowhere")}, "nowhere"),
]


@pytest.mark.parametrize(("changes", "words"), BAD, ids=[str(changes) for changes, _ in BAD])
def test_what_cannot_be_carried_out(made: list[str], changes: dict[str, Any], words: str) -> None:
    """A comparison with a wrong argument makes no worktree, no environment and no folder."""
    Path("held").mkdir()
    Path("held", SAMPLES_FILE).touch()
    Path("run").mkdir()
    Path("run", FILE).touch()
    with pytest.raises(UsageError, match=words):
        cnnperf.ab("tiny.toml", **{"out": Path("out"), **REVISIONS, **changes})
    assert made == []
    assert not Path("out").exists()
    assert not Path("new").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (SUITE.replace("unruly:build", "resnt"), "unknown model 'resnt'"),
        (SUITE.replace("unruly:build", "unruly:bulid"), "bulid"),
        (SUITE.replace("batch_size", "batch_sice"), "did you mean 'batch_size'"),
        (SUITE.replace("threads", "treads"), "did you mean 'threads'"),
        ("datasets =", "not valid TOML"),
    ],
)
def test_a_suite_that_is_wrong(made: list[str], text: str, words: str) -> None:
    """`ab` refuses a suite with a wrong name, a wrong setting or broken TOML, and makes nothing."""
    Path("wrong.toml").write_text(text)
    with pytest.raises(UsageError, match=words):
        cnnperf.ab("wrong.toml", **REVISIONS)
    assert made == []


def test_a_device_that_is_not_there(made: list[str]) -> None:
    """`ab` refuses a suite whose only device is absent, since no cell is left to compare."""
    Path("far.toml").write_text('devices = ["cuda"]\n' + SUITE)
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("the device is there")
    with pytest.raises(UsageError, match="nothing to compare"):
        cnnperf.ab("far.toml", **REVISIONS)
    assert made == []


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--basline", "before"), "No such option: --basline"),
        (("--baseline", "before", "--candidate", "now", "--format", "cvs"), "unknown format 'cvs'"),
        (("--baseline", "before", "--candidate", "now", "--minutes", "soon"), "Invalid value for '--minutes'"),
        (("--baseline", "before", "--candidate", "before"), "name the same version"),
    ],
)
def test_the_command_makes_nothing_either(made: list[str], words: tuple[str, ...], sentence: str) -> None:
    """The command `ab` refuses wrong options with exit status 2 and makes nothing."""
    done = called("ab", "tiny.toml", *words, TERMINAL_WIDTH="200")
    assert (done.returncode, done.stdout) == (2, "")
    assert sentence in done.stderr
    assert made == []


class Seen(UnwatchedComparison):
    """Keeps what the comparison reports to its watcher."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def installing(self, text: str) -> None:
        """Keep the text."""
        self.told.append(text)

    def measured(self, number: int, contest: Any, outcome: Any) -> None:
        """Keep the contest's key and its outcome."""
        self.told.append(f"{contest.key}: {outcome}")


def test_two_revisions(made: list[str], calibrated: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    """`ab` makes worktrees and an environment, removes the worktrees, returns the verdicts and prints nothing."""
    seen = Seen()
    comparison = cnnperf.ab("tiny.toml", **REVISIONS, candidate_set=["train.weight_decay=0.5"], watcher=seen)
    assert capsys.readouterr() == ("", "")
    assert made == ["worktree add", "environment one", "worktree add", "worktree remove", "worktree remove"]
    assert calibrated["trees"] == [True, True]
    one, other = calibrated["versions"]
    assert one.name.startswith("before (")
    assert other.name.endswith(" with train.weight_decay=0.5")
    assert not one.tree.exists()
    keys = [contest.key for contest in calibrated["contests"]]
    assert [key.rpartition(" ")[2] for key in keys] == ["infer.forward", "train.step"]
    assert seen.told[0] == "`baseline`: before has other dependencies; making an environment for it"
    assert seen.told[1:] == [f"{key}: broken off" for key in keys]
    assert [(verdict.outcome, verdict.remark) for verdict in comparison.verdicts] == [("error", "broken off")] * 2
    assert (comparison.exit_code, comparison.interrupted) == (1, False)
    assert len(git("worktree", "list").splitlines()) == 1


def test_a_setting_that_one_cell_has_already(calibrated: dict[str, Any]) -> None:
    """The first note names the cell that already has the setting; the gate's notes follow."""
    override = '{ name = "mlp", train = { memory_format = "channels_last" } }'
    Path("two.toml").write_text(SUITE.replace('"unruly:build"', f'"unruly:build", {override}'))
    first, *rest = cnnperf.ab("two.toml", candidate_set=["train.memory_format=channels_last"]).notes
    cell = "synthetic[train=64,test=32]/mlp[train.memory_format=channels_last]/cpu"
    assert first == f"train.memory_format=channels_last changes no setting of {cell}: both sides already have it"
    assert rest[0].startswith("baseline this tree")
    assert len(calibrated["contests"]) == 4


def test_a_setting_that_one_cell_does_not_read(calibrated: dict[str, Any]) -> None:
    """A note names the cell without the optimizer muon, in which `muon_steps` changes nothing."""
    override = '{ name = "mlp", train = { optimizer = "muon" } }'
    Path("two.toml").write_text(SUITE.replace('"unruly:build"', f'"unruly:build", {override}'))
    first, second, *_ = cnnperf.ab("two.toml", candidate_set=["train.muon_steps=5"]).notes
    cell = "synthetic[train=64,test=32]/unruly:build/cpu"
    assert first == f"train.muon_steps=5 changes nothing that is timed in {cell}"
    muon = "synthetic[train=64,test=32]/mlp[train.optimizer=muon]/cpu"
    assert second == f"train.muon_steps=5 changes the training step and not the forward pass in {muon}"


def test_images_without_colour_are_not_turned_grey(calibrated: dict[str, Any]) -> None:
    """A note names the cell whose images have one channel; where all have, `grayscale` is refused."""
    grey = '{ name = "synthetic", train = 64, test = 32, shape = [1, 32, 32] }'
    Path("two.toml").write_text(SUITE.replace("test = 32 }", f"test = 32 }}, {grey}"))
    first, *_ = cnnperf.ab("two.toml", candidate_set=["train.grayscale=0.5"]).notes
    cell = "synthetic[train=64,test=32,shape=1×32×32]/unruly:build/cpu"
    assert first == f"train.grayscale=0.5 changes nothing that is timed in {cell}"
    with pytest.raises(UsageError, match=r"^`candidate_set`: train\.grayscale=0\.5 changes nothing that is timed"):
        cnnperf.ab("two.toml", candidate_set=["train.grayscale=0.5"], only="*shape*")


def test_this_tree_against_itself(made: list[str], calibrated: dict[str, Any]) -> None:
    """`ab` compares this tree with itself when it is named, and makes no worktree or environment."""
    comparison = cnnperf.ab(load_suite("tiny.toml"), baseline=".", threads=2, out=Path("out"))
    assert made == []
    assert [version.name for version in calibrated["versions"]] == ["this tree"] * 2
    assert {task.threads for contest in calibrated["contests"] for task in contest.tasks} == {2}
    assert len(comparison.verdicts) == 2
    assert [file.name for file in Path("out").iterdir()] == [SAMPLES_FILE]


def test_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C gives inconclusive verdicts and marks the comparison as interrupted, without a further key in its JSON."""

    def calibrate(*_: Any) -> Iterator[Any]:
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(gate, "calibrate", calibrate)
    comparison = cnnperf.ab("tiny.toml", baseline=".")
    assert comparison.interrupted
    assert {verdict.outcome for verdict in comparison.verdicts} == {"inconclusive"}
    assert set(comparison.model_dump()) == {"verdicts", "notes", "exit_code"}


def test_uncommitted_changes_are_not_in_a_candidate(
    calibrated: dict[str, Any], recwarn: pytest.WarningsRecorder
) -> None:
    """A warning names the changed file if the candidate is the checked-out commit, and only then."""
    Path("pyproject.toml").write_text(PROJECT.format("") + "# changed\n")
    with pytest.warns(CnnperfWarning) as warned:
        cnnperf.ab("tiny.toml", baseline="later~1", candidate="HEAD", dry_run=True)
    told = [str(each.message) for each in warned]
    assert [each for each in told if "imports" not in each] == [
        "`candidate`: HEAD is measured without the uncommitted changes of this tree (pyproject.toml); commit them, or "
        "leave `candidate` out to measure this tree"
    ]
    with pytest.warns(CnnperfWarning, match="^the check imports and calls code of other packages: unruly:build$"):
        cnnperf.ab("tiny.toml", baseline="HEAD", dry_run=True)
    assert len(recwarn) == 0


def test_a_dry_run(made: list[str], calibrated: dict[str, Any]) -> None:
    """A dry run makes nothing and measures nothing; its notes name versions, cell-metrics, minutes and environments."""
    with pytest.warns(CnnperfWarning, match="imports"):
        comparison = cnnperf.ab("tiny.toml", **REVISIONS, candidate_set=["train.weight_decay=0.5"], dry_run=True)
    before, now = (git("rev-parse", "--short=10", name) for name in ("before", "now"))
    cell = "synthetic[train=64,test=32]/unruly:build/cpu"
    versions, forward, step, minutes, power, environment, of_steps = comparison.notes
    assert versions == f"baseline before ({before}), candidate now ({now}) with train.weight_decay=0.5"
    assert (forward, step) == (f"{cell} infer.forward", f"{cell} train.step")
    assert minutes == "2 cell-metrics, 1 to 11 minutes: 8 replicates if nothing changed, 22 at most"
    assert power.startswith("power: if one of 2 cell-metrics is slower by 5 %")
    assert environment.startswith(f"before ({before}) has other dependencies")
    assert of_steps == f"train.weight_decay=0.5 changes the training step and not the forward pass in {cell}"
    assert (made, calibrated, comparison.verdicts) == ([], {}, ())
    assert not Path("results").exists()
