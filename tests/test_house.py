"""The architecture page: its map and layers agree with the code, and the package's root stays small."""

from __future__ import annotations

import ast
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from cnnperf.registry import VERBS

PACKAGE = Path(__file__).parents[1] / "cnnperf"
TEXT = (PACKAGE / "README.md").read_text(encoding="utf-8")
MOST_LINES = 90
MOST_AT_ROOT = 14


def code() -> list[str]:
    """Return the page's code spans, those within lines."""
    return re.findall(r"`([^`\n]+)`", TEXT)


@pytest.mark.parametrize("path", [each for each in code() if "/" in each or each.endswith(".py")])
def test_every_path_exists(path: str) -> None:
    """Every path on the page exists, in the package or beside it."""
    assert (PACKAGE / path).exists() or (PACKAGE.parent / path).exists()


def test_every_package_is_on_the_map() -> None:
    """Every package is named on the page."""
    packages = {f"{file.parent.name}/" for file in PACKAGE.glob("*/__init__.py")}
    assert packages - set(code()) == set()


def test_every_module_at_the_root_is_explained() -> None:
    """The root has few modules, and each is named on the page."""
    modules = {file.name for file in PACKAGE.glob("*.py")}
    assert len(modules) <= MOST_AT_ROOT
    assert {name for name in modules if not name.startswith("__")} - set(code()) == set()


def test_the_layers_are_those_that_are_checked() -> None:
    """The layers on the page equal those of the import contract, line by line."""
    settings = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))
    [contract] = [each for each in settings["tool"]["importlinter"]["contracts"] if each["type"] == "layers"]
    assert re.findall(r"^    (\S.*)$", TEXT, re.MULTILINE) == contract["layers"]


def test_no_import_is_excepted() -> None:
    """No import contract has an exception."""
    settings = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))
    assert [each["name"] for each in settings["tool"]["importlinter"]["contracts"] if "ignore_imports" in each] == []


def test_each_name_of_a_type_has_one_meaning() -> None:
    """No two classes or type aliases of the package have the same name."""
    places: dict[str, list[str]] = defaultdict(list)
    for file in PACKAGE.rglob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        classes = [node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
        assigned = [target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets]
        aliases = [each.id for each in assigned if isinstance(each, ast.Name) and re.match("[A-Z][a-z]", each.id)]
        for name in (*classes, *aliases):
            places[name.lstrip("_")].append(str(file.relative_to(PACKAGE)))
    assert {name: files for name, files in places.items() if len(files) > 1} == {}


SHARED = {
    "GIVEN": "the parameters of a room's verb that its caller passes, asked of each room that has options",
    "main": "the start of a process: each file of workers/ is one, and so is the command line",
    "recipe": "the settings that a model's file recommends; `models.recipe` asks the file",
}
"""Names that several files define with one meaning. So do the choices of a room, and commands have the name of the call
that they print."""


def test_each_name_that_another_file_reads_has_one_meaning() -> None:
    """No two files define the same function or constant if another file imports it, apart from listed exceptions."""
    trees = {file: ast.parse(file.read_text(encoding="utf-8")) for file in PACKAGE.rglob("*.py")}
    read: set[str] = set()
    places: dict[str, set[str]] = defaultdict(set)
    for file, tree in trees.items():
        imported = [each for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for each in node.names]
        here = {each.asname or each.name for each in imported}
        owners = [
            node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        ]
        read |= {each.name for each in imported} | {each.attr for each in owners if each.value.id in here}
        is_command = file.parent.name == "cli"
        defined = [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and not is_command]
        targets = [target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets]
        targets += [node.target for node in tree.body if isinstance(node, ast.AnnAssign)]
        defined += [each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)]
        room = file.parent.name if file.parent.name in VERBS else None
        for name in defined:
            is_declared = room and (not file.stem.startswith("_") or name == VERBS[room])
            of_room = "a verb" if name in VERBS.values() else f"{room}/"
            places[name].add(of_room if is_declared else str(file.relative_to(PACKAGE)))
    found = {name: files for name, files in places.items() if len(files) > 1 and name in read}
    assert {name: files for name, files in found.items() if name not in SHARED and not name.startswith("_")} == {}
    assert set(SHARED) <= set(found), "an exception that none needs"


def test_every_dataclass_of_the_tables_is_frozen() -> None:
    """Every dataclass in the tables package is frozen."""
    found = []
    for file in (PACKAGE / "tables").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            made = [ast.unparse(each) for each in node.decorator_list] if isinstance(node, ast.ClassDef) else []
            found += [f"{file.name}: {each}" for each in made if "dataclass" in each and "frozen=True" not in each]
    assert found == []


def test_no_stage_is_told_by_its_name() -> None:
    """No code compares a stage with a literal name, a tuple of names, or a constant."""
    found = []
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            sides = [node.left, *node.comparators] if isinstance(node, ast.Compare) else []
            if any(isinstance(side, ast.Attribute) and side.attr == "stage" for side in sides):
                literal = any(isinstance(side, ast.Constant | ast.Tuple | ast.List | ast.Set) for side in sides)
                constant = any(isinstance(side, ast.Name) and side.id.isupper() for side in sides)
                found += [f"{file.name}: {ast.unparse(node)}"] * (literal or constant)
    assert found == []


def test_the_command_line_imports_no_private_file() -> None:
    """No command imports a file whose name begins with an underscore, which belongs to the choices of its room."""
    found = []
    for file in (PACKAGE / "cli").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [each.name for each in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            module = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            paths = [f"{module}{name}" for name in names if module != "__future__."]
            found += [f"{file.name}: {path}" for path in paths if re.search(r"(^|\.)_", path)]
    assert found == []


def test_it_is_short() -> None:
    """The page has at most 90 lines."""
    assert len(TEXT.splitlines()) <= MOST_LINES


def docstrings(file: Path) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of each docstring, those below attributes and constants included."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        body = getattr(node, "body", None)
        for each in body if isinstance(body, list) else ():
            if (
                isinstance(each, ast.Expr)
                and isinstance(each.value, ast.Constant)
                and isinstance(each.value.value, str)
            ):
                yield each.lineno, each.value.value


def test_no_docstring_opens_with_a_pronoun() -> None:
    """A docstring of the package or its tests names its subject."""
    opening = re.compile(r"(It|Its|They|Their|These|This|Those|That|What|Whatever|Whoever|Which|So|Such|Of|Neither)\b")
    files = (file for folder in (PACKAGE, PACKAGE.parent / "tests") for file in folder.rglob("*.py"))
    found = [f"{file.name}:{line}" for file in files for line, text in docstrings(file) if opening.match(text)]
    assert found == []
