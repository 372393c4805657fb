"""A suite whose dataset, network, device, stage and engine are code of a user, and a format that is."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from in_process import called, workers_here
from PIL import Image

import cnnperf
from cnnperf.errors import SuiteError, UsageError
from cnnperf.ipc.messages import SuiteRequest
from cnnperf.models._recipes import mirrored
from cnnperf.running.preflight import prepare
from cnnperf.suite import parse

DOCUMENT = (Path(__file__).parents[2] / "suites" / "README.md").read_text(encoding="utf-8")
[EXAMPLE] = re.findall(r"```python\n# mypkg/parts\.py\n(.*?)```", DOCUMENT, re.DOTALL)
[EXAMPLE_SUITE] = re.findall(r"```toml\n([^`]*mypkg\.parts:count.*?)```", DOCUMENT, re.DOTALL)
CODE = f"""{EXAMPLE}

def unfinished(report, out):
    raise ValueError("no ink")


def outcomes(comparison, out):
    out.write(f"so many: {{len(comparison.verdicts)}}")
"""
SHORT = "[train]\nsteps = 2\nbatch_size = 20"
SUITE = f"""threads = 1
{EXAMPLE_SUITE.replace("mypkg.parts", "of_mine").replace("[train]", SHORT)}
batch_sizes = [4]
samples = 11
seconds = 0.0
pairs = 0
test_images = 50
"""


PLAIN = """
datasets = [{ name = "synthetic", shape = [1, 28, 28], train = 60, test = 20 }]
models = ["lenet"]
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Write the user's module and suite into a folder, which the commands are called from."""
    folder, path = tmp_path_factory.mktemp("mine"), list(sys.path)
    (folder / "of_mine.py").write_text(CODE)
    (folder / "mine.toml").write_text(SUITE)
    yield folder
    sys.path[:] = path
    sys.modules.pop("of_mine", None)


@pytest.fixture(scope="module")
def run(place: Path) -> Path:
    """Run the suite, and return the run folder."""
    done = called("run", "mine.toml", "--out", "run", cwd=place, CNNPERF_CACHE=str(place / "cache"))
    assert done.returncode == 0, done.stderr
    return place / "run"


def test_every_part_of_a_suite_may_be_code_of_a_user(run: Path) -> None:
    """Dataset, network, device, stage and engine of a user run with their options, and are in the tables by name."""
    tasks = pd.read_csv(run / "tasks.csv")
    assert list(tasks.stage) == ["train", "of_mine:count", "infer", "infer"]
    assert set(tasks.status) == {"ok"}, list(tasks.reason)
    assert set(tasks.dataset) == {"of_mine:noise[seed=3]"}
    assert set(tasks.device) == {"of_mine:board"}
    [counted] = [m for record in cnnperf.read(run) for m in record.find("counted.images")]
    assert counted.values == (5,)
    assert [record.artifacts.keys() for record in cnnperf.read(run)][1] == {"notes"}
    engines = pd.read_csv(run / "engines.csv").set_index("engine")
    assert engines.parity["of_mine:layout[channels_last=false]"] == "ok"
    board = pd.read_csv(run / "leaderboard.csv")
    assert set(board.data) == {"noise"}


def test_a_format_may_be_code_of_a_user(run: Path, place: Path) -> None:
    """`report` and `check` write in a format that is a function of a user; each has its own."""
    shown = called("report", "run", "--format", "of_mine:titles", cwd=place)
    assert "leaderboard" in shown.stdout.split(), shown.stderr
    compared = ("check", "--baseline", "run", "--candidate", "run", "--format")
    assert called(*compared, "of_mine:outcomes", cwd=place).stdout.startswith("so many: ")
    done = called("report", "run", "--format", "shutil:rmtree", cwd=place)
    assert (done.returncode, run.is_dir()) == (2, True)
    assert "--format: 'shutil:rmtree' was not called" in done.stderr
    done = called("report", "run", "--format", "of_mine:unfinished", cwd=place)
    line = 1 + CODE[: CODE.index("no ink")].count("\n")
    words = f"'of_mine:unfinished' failed (ValueError: no ink; of_mine.py, line {line}); correct its code"
    assert (done.returncode, done.stderr) == (2, f"cnnperf: --format: {words}\n")


def test_a_dry_run_says_that_it_imports_code(place: Path) -> None:
    """A dry run names the code of other packages before it imports it, and says nothing where there is none."""
    done = called("run", "mine.toml", "--dry-run", cwd=place, CNNPERF_CACHE=str(place / "cache"))
    names = "of_mine:noise, of_mine:net, of_mine:board, of_mine:count, of_mine:layout"
    assert f"cnnperf: warning: the check imports and calls code of other packages: {names}\n" in done.stderr
    assert done.stdout
    (place / "plain.toml").write_text(PLAIN)
    assert "imports" not in called("run", "plain.toml", "--dry-run", cwd=place).stderr


@pytest.mark.usefixtures("run")
def test_a_dataset_of_a_user_says_whether_it_may_be_mirrored() -> None:
    """The module of a dataset says whether its images may be mirrored; an absent one does not."""
    assert mirrored("of_mine:noise")
    assert not mirrored("of_nobody:noise")


RMTREE = "torch.serialization:shutil.rmtree"
"""A function that deletes, found in a module that is none of Python's own."""
CELL = {"datasets": [{"name": "synthetic", "train": 60, "test": 20}], "models": ["lenet"]}


def harmful(key: str, path: Path) -> dict[str, object]:
    """Return a suite that names a function that deletes, with a path as its option."""
    deleting = {"name": RMTREE, "path": str(path)}
    of_stage = {"stages": [RMTREE], RMTREE: {"path": str(path)}}
    of_engine = {"stages": ["train", "infer"], "infer": {"engines": [deleting]}}
    return {**CELL, **{"stages": of_stage, "infer": of_engine}.get(key, {key: [deleting]})}


@pytest.mark.parametrize("key", ["models", "datasets", "devices", "stages", "infer"])
@pytest.mark.parametrize("download", [True, False])
@pytest.mark.filterwarnings("ignore:the check imports and calls code of other packages")
def test_a_suite_cannot_delete_a_folder(tmp_path: Path, key: str, download: bool) -> None:
    """Nothing is deleted where a suite names a function that deletes, in a run and in a dry run; the place is named."""
    (tmp_path / "precious").mkdir()
    suite = parse(harmful(key, tmp_path / "precious"), where="x.toml", name="x")
    with workers_here(), pytest.raises(SuiteError, match=rf"^x\.toml: {key}.*'{RMTREE}' was not called: nothing"):
        prepare(SuiteRequest(suite=suite, where="x.toml", download=download))
    assert (tmp_path / "precious").is_dir()


def test_a_section_belongs_to_a_stage_of_the_suite() -> None:
    """A section of a user's stage that the suite does not name is refused, and so is an unknown plain name."""
    with pytest.raises(SuiteError, match="x: of_mine:cuont: no stage of this suite; name it in stages, or remove it"):
        parse({**CELL, "stages": ["of_mine:count"], "of_mine:cuont": {"images": 1}}, where="x", name="x")
    with pytest.raises(SuiteError, match="unknown key 'cuont'"):
        parse({**CELL, "cuont": {"images": 1}}, where="x", name="x")


@pytest.mark.usefixtures("run")
def test_a_stage_without_settings_is_a_sentence() -> None:
    """A stage of which no parameter is annotated with settings is refused by its place in the suite."""
    sys.modules["of_mine"].bare = lambda bench, settings: ()  # type: ignore[attr-defined]
    suite = parse({**CELL, "stages": ["of_mine:bare"]}, where="x.toml", name="x")
    with workers_here(), pytest.raises(UsageError, match=r"x\.toml: stages\.0: 'of_mine:bare': no parameter is annot"):
        prepare(SuiteRequest(suite=suite, where="x.toml"))


def test_a_folder_of_images_is_a_dataset_of_a_suite(tmp_path: Path) -> None:
    """A suite trains on image files below a path, decoded once, at the size that it asks for."""
    random = np.random.default_rng(0)
    for split, count in (("train", 30), ("val", 10)):
        for name in ("cat", "dog"):
            (tmp_path / "pets" / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(256, size=(20, 20, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "pets" / split / name / f"{number}.png")
    (tmp_path / "pets.toml").write_text(
        'datasets = [{ name = "folder", path = "pets", size = [28, 28], channels = 1, test = "val" }]\n'
        'models = ["mlp"]\nthreads = 1\n[train]\nsteps = 2\nbatch_size = 20\nvalidation_images = 10\n'
    )
    done = called("run", "pets.toml", "--out", "run", cwd=tmp_path, CNNPERF_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    [record] = cnnperf.read(tmp_path / "run")
    assert record.task.data is not None
    assert (record.task.data.shape, record.task.data.num_classes) == ((1, 28, 28), 2)
    assert (record.task.data.train_count, record.task.data.test_count) == (60, 20)
    (tmp_path / "pets.toml").write_text('datasets = ["folder"]\nmodels = ["mlp"]\n')
    done = called("run", "pets.toml", "--dry-run", cwd=tmp_path)
    assert (done.returncode, "datasets.0" in done.stderr, "path" in done.stderr) == (2, True, True), done.stderr
