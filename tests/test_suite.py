"""Suites: reading from TOML, error messages, and the planned tasks."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnperf.errors import CnnperfError, SuiteError, UsageError
from cnnperf.suite import Suite, load_suite, parse, plan, shipped, with_every_device
from cnnperf.task import Choice, Task

MINIMAL = {"datasets": ["synthetic"], "models": ["lenet"]}


def suite(**changes: object) -> Suite:
    """Parse the smallest suite with changes."""
    return parse(MINIMAL | changes, where="x.toml", name="x")


def test_defaults_are_filled_in() -> None:
    """A suite with only datasets and models runs the training stage once on the CPU."""
    read = suite()
    assert [str(device) for device in read.devices] == ["cpu"]
    assert (read.name, read.stages, read.repeats, read.seed) == ("x", ("train",), 1, 0)


def test_a_model_is_a_name_or_a_table() -> None:
    """A model's options and stage overrides are kept apart, and both are in the printed name."""
    read = suite(models=["lenet", {"name": "resnet", "depth": 32, "shortcut": False, "train": {"lr": 0.1}}])
    assert str(read.models[0]) == "lenet"
    assert str(read.models[1]) == "resnet[depth=32,shortcut=false,train.lr=0.1]"
    assert read.models[1].options == {"depth": 32, "shortcut": False}
    assert read.models[1].sections == {"train": {"lr": 0.1}}


def test_a_suite_survives_json() -> None:
    """A suite is equal after a round trip through JSON."""
    read = suite(models=["lenet", {"name": "resnet", "depth": 32, "train": {"lr": 0.1}}], train={"seconds": 3})
    assert Suite.model_validate_json(read.model_dump_json()) == read


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"modles": ["lenet"]}, ["x.toml: unknown key 'modles'", "did you mean 'models'?"]),
        ({"sections": {}}, ["x.toml: unknown key 'sections'"]),
        ({"models": ["resnt"]}, ["x.toml: models.0: unknown model 'resnt'", "did you mean 'resnet'?", "lenet"]),
        ({"datasets": ["cifar"]}, ["datasets.0: unknown dataset 'cifar'", "did you mean 'cifar10'?"]),
        ({"devices": ["gpu"]}, ["devices.0: unknown device 'gpu'", "cpu, cuda"]),
        ({"devices": ["cuda:one"]}, ["devices.0: not an index; write cuda:0 for", "cuda:all for", "got 'cuda:one'"]),
        ({"devices": ["cuda:"]}, ["devices.0: not an index"]),
        ({"devices": ["cuda:-1"]}, ["devices.0: not an index"]),
        ({"devices": ["cuda:01"]}, ["devices.0: not an index"]),
        ({"devices": ["cpu:0"]}, ["devices.0: cpu has no index; write 'cpu', got 'cpu:0'"]),
        ({"devices": [{"name": "cuda:1", "index": 1}]}, ["devices.0: the index is given twice; remove one"]),
        ({"devices": ["cuda:1", {"name": "cuda", "index": 1}]}, ["devices.1: 'cuda[index=1]' is a duplicate"]),
        ({"stages": ["tarin"]}, ["stages.0: unknown stage 'tarin'", "did you mean 'train'?"]),
        ({"models": []}, ["models: ", "at least 1 item"]),
        ({"models": [{"depth": 20}]}, ["models.0: give a name, or a table with a name"]),
        ({"models": ["lenet", "lenet"]}, ["models.1: 'lenet' is a duplicate"]),
        ({"models": [{"name": "lenet", "trian": {"lr": 1}}]}, ["models.0: unknown section 'trian'"]),
        ({"models": "lenet"}, ["models: ", "got 'lenet'"]),
        ({"repeats": 0}, ["repeats: ", "at least 1", "got 0"]),
        ({"seed": "one"}, ["seed: ", "integer", "got 'one'"]),
        ({"seed": "1"}, ["seed: ", "integer", "got '1'"]),
        ({"stages": ["train", "train"]}, ["stages.1: 'train' is a duplicate"]),
        ({"only": ["resnet"]}, ["only.0: 'resnet' matches no cell"]),
        ({"train": 3}, ["train: ", "got 3"]),
    ],
)
def test_faults_say_where_what_and_the_cure(changes: dict[str, object], words: list[str]) -> None:
    """Each fault in a suite is reported in one sentence that names the file and the key."""
    with pytest.raises(SuiteError) as caught:
        suite(**changes)
    text = str(caught.value)
    assert text.startswith("x.toml: ")
    assert "\n" not in text
    for word in words:
        assert word in text


def test_invalid_toml_says_line_and_column(tmp_path: Path) -> None:
    """A TOML syntax error is reported with the file, line and column."""
    file = tmp_path / "bad.toml"
    file.write_text('datasets = ["mnist"]\nmodels = [lenet]\n')
    with pytest.raises(SuiteError, match=r"bad\.toml: not valid TOML: .*line 2, column 11"):
        load_suite(file)


UNREADABLE = {
    b"seed = 1\n# \xff": "not UTF-8 (at line 2, column 3)",
    b"seed = nan": "line 1: nan is not a finite number",
    b"\ntimeout_s = inf": "line 2: inf is not a finite number",
    b"datasets = " + b"[" * 5000: "not valid TOML",
    b"seed = " + b"1" * 5000: "not valid TOML",
    b'datasets = ["mnist"]\nmodels = ["lenet"]\nseed = 0x' + b"f" * 5000: "a value that cannot be stored",
    b'datasets = ["mnist"]\nmodels = ["lenet"]\nname = "../../etc"': "name: ",
    b'datasets = ["mnist"]\nmodels = ["lenet"]\nname = "a\\u0000b"': "name: ",
}


@pytest.mark.parametrize("content", UNREADABLE)
def test_what_python_or_json_cannot_carry_is_refused(tmp_path: Path, content: bytes) -> None:
    """Invalid UTF-8, infinite, NaN or huge numbers, deep nesting and names unfit for a folder are refused."""
    file = tmp_path / "bad.toml"
    file.write_bytes(content)
    with pytest.raises(SuiteError) as caught:
        load_suite(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert UNREADABLE[content] in str(caught.value)


def test_a_missing_suite_names_those_that_ship(tmp_path: Path) -> None:
    """A misspelt suite name is refused, and the message names the nearest suite; a folder is refused too."""
    with pytest.raises(SuiteError, match=r"cifra: no such file; .* did you mean 'cifar'\?"):
        load_suite("cifra")
    with pytest.raises(SuiteError, match=rf"^{tmp_path} is a folder; give a TOML file$"):
        load_suite(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SuiteError, match="not a regular file"):
        load_suite(tmp_path / "pipe")
    with pytest.raises(SuiteError, match="cannot be read"):
        load_suite("a" * 300)


MANY = ", ".join(f"{{ name = 'mlp', hidden = [{number + 1}] }}" for number in range(1000))
"""A thousand different models."""
LONG = {
    "long name of a model": 'models = ["' + "m" * 100_000 + '"]',
    "long key": "k" * 100_000 + " = 1",
    "long quoted key": '"' + "k" * 100_000 + '" = 1',
    "long key of a section": "models = ['mlp']\ntrain = { " + "k" * 100_000 + " = 1 }\nstages = [1]",
    "huge text for a number": 'models = ["mlp"]\nseed = "' + "9" * 100_000 + '"',
    "huge number": 'models = ["mlp"]\nseed = ' + "9" * 4_000,
    "long name of the suite": 'models = ["mlp"]\nname = "' + "n" * 100_000 + '"',
    "long glob": 'models = ["mlp"]\nonly = ["' + "g" * 100_000 + '"]',
    "long name of a stage": 'models = ["mlp"]\nstages = ["' + "s" * 100_000 + '"]',
    "long table": "models = [{ depth = 1, text = '" + "t" * 100_000 + "' }]",
    "long infinite number": 'models = ["mlp"]\n[train]\nlr = ' + "9" * 4_000 + ".0",
    "long duplicate": "models = [{ name = 'mlp', o = '"
    + "o" * 100_000
    + "' }, { name = 'mlp', o = '"
    + "o" * 100_000
    + "' }]",
    "a thousand models and a duplicate": f"models = [{MANY}, 'lenet', 'lenet']",
    "key of many parts": ".".join("k" * 50_000) + " = 1",
    "quoted key of many parts": " . ".join(["'k'"] * 50_000) + " = 1",
    "key twice": "models = ['mlp']\n" + ("k" * 100_000 + " = 1\n") * 2,
}
"""Suites, without their datasets, with a fault whose message would repeat a long text."""


@pytest.mark.parametrize("fault", LONG)
def test_an_error_repeats_no_long_text(tmp_path: Path, fault: str) -> None:
    """A message has at most 500 characters, whatever the suite contains."""
    file = tmp_path / "long.toml"
    file.write_text('datasets = ["synthetic"]\n' + LONG[fault], encoding="utf-8")
    with pytest.raises(SuiteError) as caught:
        load_suite(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert len(str(caught.value).removeprefix(str(file))) <= 400
    assert "\n" not in str(caught.value)


def test_a_glob_that_matches_nothing_lists_some_cells() -> None:
    """The message names the first cells and the number of the others."""
    many = suite(models=[{"name": "mlp", "hidden": [number]} for number in range(2000)])
    with pytest.raises(UsageError, match=r"these cells: synthetic/mlp\[hidden=.*, … and 1,99\d more$") as caught:
        many.narrowed(only="x" * 1000)
    assert len(str(caught.value)) <= 500


def test_a_suite_of_many_megabytes_is_not_read(tmp_path: Path) -> None:
    """A file that is too large for a suite is refused at once."""
    file = tmp_path / "large.toml"
    with file.open("wb") as content:
        content.truncate(2**40)
    with pytest.raises(SuiteError, match="larger than 16 MiB"):
        load_suite(file)


def test_the_suite_of_ci_fits_a_pull_request() -> None:
    """The `ci` suite has at most ten cell-metrics, one thread and only the generated dataset."""
    suite = load_suite("ci")
    assert 2 * len(list(suite.cells())) <= 10
    assert suite.threads == 1
    assert {dataset.name for dataset in suite.datasets} == {"synthetic"}


@pytest.mark.parametrize("name", sorted(shipped()))
def test_every_shipped_suite_is_valid(name: str) -> None:
    """Every suite of the package loads by its name and plans at least one task."""
    assert plan(load_suite(name))


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.dates()
names = st.text(max_size=5) | st.just("name")
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)
keys = st.sampled_from([*Suite.model_fields, "train"]) | st.text(max_size=5)


@given(st.dictionaries(keys, values, max_size=6))
def test_no_document_ends_in_a_traceback(document: dict[str, object]) -> None:
    """Any document is parsed into a suite or refused with a message that begins with the file's name."""
    for candidate in (document, MINIMAL | document):
        try:
            parse(candidate, where="x.toml", name="x")
        except CnnperfError as error:
            assert str(error).startswith("x.toml: ")  # noqa: PT017 - either outcome is right


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_no_file_ends_in_a_traceback(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """A file with random content is refused with a message that names the file."""
    file = tmp_path_factory.mktemp("suite") / "any.toml"
    file.write_bytes(content)
    with pytest.raises(SuiteError, match=r"any\.toml: "):
        load_suite(file)


def test_all_cells_run_once_and_then_all_again() -> None:
    """All cells run through their stages before the next repeat begins; repeat i has the suite's seed plus i."""
    tasks = plan(suite(models=["lenet", "resnet"], stages=["train", "profile"], repeats=2, seed=7))
    assert [(task.repeat, task.seed, task.cell.model.name, task.stage) for task in tasks] == [
        (repeat, 7 + repeat, model, stage)
        for repeat in (0, 1)
        for model in ("lenet", "resnet")
        for stage in ("train", "profile")
    ]
    assert tasks[0].label == "synthetic/lenet/cpu train"


def test_only_keeps_the_cells_that_match() -> None:
    """A glob selects cells by model or by full id, in which brackets of options are literal."""
    read = suite(datasets=["synthetic", "mnist"], models=["lenet", {"name": "resnet", "depth": 32}], devices=["cpu"])
    assert {task.cell.id for task in plan(read, "resnet*")} == {
        "synthetic/resnet[depth=32]/cpu",
        "mnist/resnet[depth=32]/cpu",
    }
    assert [task.cell.id for task in plan(read, "mnist/resnet[depth=32]/cpu")] == ["mnist/resnet[depth=32]/cpu"]
    assert len(plan(read, "resnet")) == 2
    with pytest.raises(UsageError, match=r"`only`: nothing matches 'vgg\*'.*mnist/lenet/cpu"):
        read.narrowed(only="vgg*")


def test_the_command_line_says_how_often() -> None:
    """`narrowed` replaces the suite's repeats if repeats are given."""
    assert [task.seed for task in plan(suite(repeats=1).narrowed(repeats=3))] == [0, 1, 2]
    assert suite(repeats=2).narrowed().repeats == 2


def test_the_suite_s_own_only_combines_unlike_cells() -> None:
    """The suite's `only` can pair each model with its own dataset."""
    read = suite(datasets=["synthetic", "mnist"], models=["lenet", "resnet"], only=["mnist/le*", "synthetic/res*"])
    assert [cell.id for cell in read.cells()] == ["synthetic/resnet/cpu", "mnist/lenet/cpu"]


def test_the_command_line_narrows_a_suite() -> None:
    """`narrowed` replaces device and stages, and checks them like those of a file."""
    assert [str(device) for device in suite().narrowed(device="cuda").devices] == ["cuda"]
    with pytest.raises(SuiteError, match=r"^`device`: unknown device 'cpuu'; did you mean 'cpu'"):
        suite().narrowed(device="cpuu")
    with pytest.raises(SuiteError, match=r"^`device`: unknown device ''"):
        suite().narrowed(device="")
    with pytest.raises(SuiteError, match=r"^`stages`: unknown stage 'trian'; did you mean 'train'"):
        suite().narrowed(stages=["trian"])
    with pytest.raises(SuiteError, match=r"^`stages`: 'train' is a duplicate; remove one"):
        suite().narrowed(stages=["train", "train"])


def test_a_key_changes_with_whatever_decides_the_outcome() -> None:
    """A task's key changes with seed, threads, dataset, options and settings, but not with the time limit."""
    [task] = plan(suite())
    [same] = plan(suite(timeout_s=5))
    assert task.key == same.key
    changes: list[dict[str, object]] = [
        {"seed": 1},
        {"threads": 1},
        {"datasets": ["mnist"]},
        {"models": [{"name": "lenet", "pool": "max"}]},
        {"models": [{"name": "lenet", "train": {"lr": 1}}]},
        {"train": {"seconds": 1}},
    ]
    keys = {plan(suite(**change))[0].key for change in changes}
    assert len(keys | {task.key}) == len(changes) + 1


def test_a_task_survives_json_with_its_key() -> None:
    """A task and its key are equal after a round trip through JSON."""
    [task] = plan(suite(models=[{"name": "lenet", "pool": "max", "train": {"lr": 1}}], train={"seconds": 3}))
    back = Task.model_validate_json(task.model_dump_json())
    assert back == task
    assert back.key == task.key


def test_a_device_may_have_an_index() -> None:
    """`cuda:1` is the table with that index; other colons are those of code of other packages."""
    read = suite(devices=["cuda:1", {"name": "cuda:10", "tf32": True}, "mypkg.devices:slow"])
    assert list(map(str, read.devices)) == ["cuda[index=1]", "cuda[index=10,tf32=true]", "mypkg.devices:slow"]
    assert read.devices[:1] == suite(devices=[{"name": "cuda", "index": 1}]).devices
    assert read.narrowed(device="cuda:0").devices == (Choice.model_validate({"name": "cuda", "index": 0}),)
    with pytest.raises(SuiteError, match=r"^`device`: not an index; write cuda:0 for .*, got 'cuda:x'$"):
        read.narrowed(device="cuda:x")
    assert not read.is_open
    assert not suite(devices=[{"name": "cpu", "index": "all"}]).is_open


def test_every_device_of_a_kind_has_its_cells() -> None:
    """`cuda:all` stands for each device that is counted, with the other options; the globs are checked afterwards."""
    read = suite(devices=["cpu", {"name": "cuda:all", "tf32": True}], only=["cuda[index=1,tf32=true]"])
    assert read.is_open
    assert read.narrowed(only="lenet") == read
    found = with_every_device(read, "x.toml", {"cuda": 2}.__getitem__)
    assert list(map(str, found.devices)) == ["cpu", "cuda[index=0,tf32=true]", "cuda[index=1,tf32=true]"]
    assert [cell.id for cell in found.cells()] == ["synthetic/lenet/cuda[index=1,tf32=true]"]
    with pytest.raises(SuiteError, match=r"^x\.toml: only\.0: .* matches no cell"):
        with_every_device(read, "x.toml", {"cuda": 1}.__getitem__)
    twice = suite(devices=["cuda:0", "cuda:all"])
    with pytest.raises(SuiteError, match=r"^x\.toml: devices\.1: 'cuda\[index=0\]' is a duplicate; remove one$"):
        with_every_device(twice, "x.toml", {"cuda": 2}.__getitem__)


def test_without_a_device_of_its_kind_one_is_left_to_be_skipped() -> None:
    """`cuda:all` becomes `cuda` on a machine without one."""
    assert list(map(str, with_every_device(suite(devices=["cuda:all"]), "x.toml", lambda _: 0).devices)) == ["cuda"]


def test_the_suite_s_name_decides_nothing() -> None:
    """A task stores the name of its suite, but its key does not depend on that name."""
    [one], [other] = plan(suite(name="mine")), plan(suite(name="yours"))
    assert (one.suite, other.suite) == ("mine", "yours")
    assert one.key == other.key


def test_equal_choices_are_one() -> None:
    """Equal choices have the same hash, so that a set keeps only one."""
    one, other = Choice.model_validate("lenet"), Choice(name="lenet")
    assert {one, other} == {one}
    assert json.loads(one.model_dump_json()) == {"name": "lenet"}
