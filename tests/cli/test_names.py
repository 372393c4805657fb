"""`cnnperf list`: the names of a kind, and the description of one of them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from in_process import called

import cnnperf
from cnnperf import registry
from cnnperf.cli.names import ROOMS
from cnnperf.record import reference_runs
from cnnperf.suite import shipped

PACKAGE = Path(cnnperf.__file__).parent


@pytest.mark.parametrize("room", ROOMS)
def test_lists_are_names_a_line(room: str) -> None:
    """`list` with a kind prints its names, one per line."""
    shipping = {"suites": shipped, "references": reference_runs}
    known = shipping[room]() if room in shipping else registry.names(room)
    done = called("list", room)
    assert (done.returncode, done.stdout.splitlines()) == (0, list(known))


def test_a_model_is_described_with_its_options_and_its_recipes() -> None:
    """The description of a model has its file's first line, values and default of options, and a recipe by dataset."""
    done = called("list", "models", "resnet")
    assert (done.returncode, done.stderr) == (0, "")
    first, *lines = done.stdout.splitlines()
    assert first == registry.description("models", "resnet").splitlines()[0]
    assert "  depth = 20: 20, 32, 44, 56, 110, 18, 34 or 50" in lines
    assert "  shortcut = true: true or false" in lines
    assert any(line.startswith("recipe for cifar10") for line in lines)
    assert any(line.startswith("  optimizer = ") for line in lines)


@pytest.mark.parametrize(
    ("room", "name", "line"),
    [
        ("datasets", "synthetic", "  shape = [3, 32, 32]: list of 3: whole number from 1 to 4,096"),
        ("engines", "onnxruntime", '  optimization = "all": '),
        ("stages", "train", '  optimizer = "adamw": "sgd", "nesterov", "adamw" or "muon". muon: orthogonalised'),
        ("stages", "train", "  seconds: number above 0"),
        ("stages", "profile", "  train = {}: table. The training whose steps"),
        ("devices", "cuda", "  index = 0: whole number from 0"),
        ("models", "torch.nn:ReLU", "  inplace = false: any value"),
    ],
)
def test_options_have_default_and_values(room: str, name: str, line: str) -> None:
    """The options of a dataset, an engine, a device and a stage are described, a line each."""
    assert any(each.startswith(line) for each in called("list", room, name).stdout.splitlines())


@pytest.mark.parametrize("room", [room for room in ROOMS if room != "references"])
def test_a_name_of_each_kind_can_be_described(room: str) -> None:
    """The first name of each kind is described; an unknown one is refused with the nearest."""
    name = next(iter(shipped() if room == "suites" else registry.names(room)))
    done = called("list", room, name)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout) > 20
    refused = called("list", room, f"{name}x")
    assert refused.returncode == 2
    assert f"did you mean '{name}'?" in refused.stderr


def test_a_suite_is_printed_as_it_is() -> None:
    """The description of a suite is its file."""
    assert called("list", "suites", "smoke").stdout == shipped()["smoke"].read_text()


ELSEWHERE = {"fcntl", "resource", "pwd", "grp", "termios", "pty", "tty"}
"""Modules that Windows lacks."""


def imported(file: Path, seen: dict[Path, set[str]]) -> None:
    """Note all modules that a file imports as soon as it is imported, and those of the package's files among them."""
    if file in seen or not file.exists():
        return
    seen[file] = set(of_file := list(top_level(ast.parse(file.read_text(encoding="utf-8")).body)))
    for name in of_file:
        place = PACKAGE.parent.joinpath(*name.split("."))
        for each in (place.with_suffix(".py"), *(up / "__init__.py" for up in (place, *place.parents))):
            if each.is_relative_to(PACKAGE):
                imported(each, seen)


def top_level(body: list[ast.stmt]) -> Iterator[str]:
    """Yield the modules that statements outside functions import, and what may be a module of a package."""
    for node in body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ClassDef | ast.If) and "TYPE_CHECKING" not in ast.dump(node):
            yield from top_level(node.body)


def test_the_command_line_starts_without_modules_of_unix() -> None:
    """The package, the command line and `list` import no module that Windows lacks."""
    seen: dict[Path, set[str]] = {}
    for start in ("__init__.py", "__main__.py", "cli/app.py", "suite.py", "registry.py", "reports/__init__.py"):
        imported(PACKAGE / start, seen)
    assert PACKAGE / "cli" / "infer.py" in seen
    assert {str(file): names & ELSEWHERE for file, names in seen.items() if names & ELSEWHERE} == {}
