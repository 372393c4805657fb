"""Rooms: a room is a folder, each file in it is a choice, and the file's stem is the choice's name."""

from __future__ import annotations

import ast
import difflib
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from cnnperf.errors import UsageError, names_listed, shorten

if TYPE_CHECKING:
    from pydantic import BaseModel

FOLDER_OF_NETWORKS = "CNNPERF_NETWORKS"
"""Variable with the folder that a worker searches last for a network that a suite names as `pkg.module:callable`."""
VERBS = {
    "models": "build",
    "datasets": "load",
    "devices": "acquire",
    "engines": "load",
    "stages": "measure",
    "reports": "write",
    "claims": "check",
}
"""The verb of each room: the function that every file in the room defines."""


LONGEST_NAME = 60
"""Most characters of an unknown name in a message."""


def names(room: str) -> tuple[str, ...]:
    """List the room's choices, sorted, by reading the folder; nothing is imported."""
    folder = Path(__file__).parent / room
    return tuple(sorted(file.stem for file in folder.glob("[!_]*.py")))


def declared(room: str, name: str) -> Mapping[str, Any]:
    """Return the declarations in a choice's file, by name, without importing it.

    Constants that are literals map to their values, functions to True. Raises UsageError with the nearest name if
    there is no such choice.
    """
    return _declarations(_file(room, name))


def description(room: str, name: str) -> str:
    """Return the docstring of a choice's file, without importing it. Raises UsageError as `declared` does."""
    return ast.get_docstring(ast.parse(_file(room, name).read_text(encoding="utf-8"))) or ""


def having(room: str, word: str) -> tuple[str, ...]:
    """List the choices of a room whose files declare a name as a function or as a constant with a true value."""
    return tuple(name for name in names(room) if declared(room, name).get(word))


@cache
def _declarations(file: Path) -> Mapping[str, Any]:
    found: dict[str, Any] = {}
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        match node:
            case ast.FunctionDef(name=name):
                found[name] = True
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=value)
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
            ):
                with suppress(ValueError):  # A computed value is unknown without importing the file.
                    found[name] = ast.literal_eval(value)
    return found


def _file(room: str, name: str) -> Path:
    if name not in names(room):
        raise UsageError(unknown(room.removesuffix("s"), name, names(room)))
    return Path(__file__).parent / room / f"{name}.py"


def module(room: str, name: str) -> ModuleType:
    """Import the file of one choice. Raises UsageError with the nearest name if there is none."""
    return importlib.import_module(f"cnnperf.{room}.{_file(room, name).stem}")


def foreign_module(path: str) -> ModuleType:
    """Import a module that a suite names.

    A worker finds it in the working directory and its `src` too, after all other places.
    """
    if folder := os.environ.get(FOLDER_OF_NETWORKS):
        places = (folder, os.path.join(folder, "src"))  # noqa: PTH118 - as sys.path has them
        sys.path += [place for place in places if place not in sys.path]
    return importlib.import_module(path)


def source_file(room: str, name: str) -> Path | None:
    """Return the file of a choice or of the module in `pkg.module:callable`; None if there is no file."""
    path, colon, _ = name.partition(":")
    found = foreign_module(path) if colon else module(room, name)
    return Path(found.__file__) if found.__file__ else None


def find(room: str, name: str) -> Callable[..., Any]:
    """Return the verb of one choice, or of anything importable as `pkg.module:callable`."""
    if ":" not in name:
        verb: Callable[..., Any] = getattr(module(room, name), VERBS[room])
        return verb
    path, _, attribute = name.partition(":")
    try:
        found = foreign_module(path)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as error:  # Importing runs the user's code, which may raise anything.
        raise UsageError(f"cannot import {shorten(name, 100)!r} ({shorten(error)}); {_cure(path, error)}") from error
    if not callable(found):
        raise UsageError(f"{name!r} is not callable, got {type(found).__name__}; name a function or class")
    return found


def _cure(path: str, error: Exception) -> str:
    """Return the cure for a module that cannot be imported."""
    absent = error.name if isinstance(error, ModuleNotFoundError) else None
    if not absent:
        return "write it as pkg.module:callable"
    if f"{path}.".startswith(f"{absent}."):
        return "the module is not installed: run pip install . in its project, or set PYTHONPATH=src"
    return f"{shorten(path, 60)} imports it: run pip install {shorten(absent, 60)}"


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Return the message for an unknown name: did-you-mean, then the known names."""
    return with_known(f"unknown {kind}", name, known)


def with_known(verdict: str, name: str, known: Iterable[str]) -> str:
    """Return a verdict on a name, the nearest known name and all known names."""
    known = tuple(known)
    name = shorten(name, LONGEST_NAME)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"{verdict} {name!r}{hint} (known: {names_listed(known)})"


def options(verb: Callable[..., Any], given: Collection[str] = ()) -> type[BaseModel]:
    """Return the settings of a verb, as a pydantic model that forbids unknown fields.

    If one parameter of the verb is a pydantic model, the settings are that model's fields; otherwise they are the
    verb's parameters without those `given` by the caller. For a foreign verb (`pkg.module:callable`) only names are
    checked, not values; with `**kwargs` any name is valid.
    """
    from pydantic import BaseModel, ConfigDict, create_model  # Late: listing rooms needs no pydantic.

    foreign = not (verb.__module__ or "").startswith("cnnperf.")
    try:
        parameters = inspect.signature(verb, eval_str=not foreign).parameters.values()
    except ValueError as error:
        raise UsageError(f"{verb.__name__!r} has no readable signature ({error}); name a Python function") from error
    for parameter in parameters:
        if inspect.isclass(parameter.annotation) and issubclass(parameter.annotation, BaseModel):
            return parameter.annotation
    fields: dict[str, Any] = {
        p.name: (Any if foreign else p.annotation, ... if p.default is p.empty else p.default)
        for p in parameters
        if p.name not in given and p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)
    }
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters)
    config = ConfigDict(extra="allow" if open_ended else "forbid", frozen=True, protected_namespaces=())
    return create_model("Options", __config__=config, **fields)
