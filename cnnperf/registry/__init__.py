"""Rooms: a room is a folder, each file in it is a choice, and the file's stem is the choice's name.

Other packages add choices to most rooms: named as `pkg.module:attribute`, or registered as entry points of the group
`cnnperf.<room>`.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import inspect
import traceback
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from cnnperf.errors import CnnperfError, UsageError, is_out_of_memory, names_listed, shorten
from cnnperf.registry import foreign
from cnnperf.registry.foreign import FOLDER_OF_NETWORKS as FOLDER_OF_NETWORKS
from cnnperf.registry.foreign import Registered
from cnnperf.registry.foreign import evaluated as evaluated
from cnnperf.registry.foreign import foreign_module as foreign_module

if TYPE_CHECKING:
    from pydantic import BaseModel

VERBS = {
    "models": "build",
    "datasets": "load",
    "devices": "acquire",
    "engines": "load",
    "stages": "measure",
    "executors": "run_tasks",
    "reports": "write",
    "sinks": "store",
    "claims": "check",
}
"""The verb of each room: the function that every file in the room defines."""


FORM = "write it as pkg.module:callable"
LONGEST_NAME = 60
"""Most characters of an unknown name in a message."""


def names(room: str) -> tuple[str, ...]:
    """List the room's own choices, sorted, by reading the folder; nothing is imported."""
    folder = Path(__file__).parents[1] / room
    return tuple(sorted(file.stem for file in folder.glob("[!_]*.py")))


def registered(room: str) -> Mapping[str, Registered]:
    """Return the choices that installed packages register for a room, by name; nothing is imported."""
    return foreign.entry_points(room, VERBS[room], names(room))


def unknown_in(room: str, name: str, kind: str = "") -> str | None:
    """Return the message for a name that a room does not have; None if it has it.

    kind: what the name stands for, if not a choice of the room. Only `find` tells if `pkg.module:attribute` exists.
    """
    if ":" in name:
        return None if foreign.FORM_OF_PLACE.fullmatch(name) else f"{shorten(repr(name), 100)}: {FORM}"
    if name in names(room) or name in registered(room):
        return None
    if dispute := foreign.disputed(room, VERBS[room], name):
        return dispute
    return unknown(kind or room.removesuffix("s"), name, (*names(room), *registered(room)))


def place_of(room: str, name: str) -> str | None:
    """Return `pkg.module:attribute` of a choice of another package; None for a file of the room.

    Raises UsageError with the nearest name if there is no such choice.
    """
    if name in names(room):
        return None
    if absent := unknown_in(room, name):
        raise UsageError(absent)
    return name if ":" in name else registered(room)[name].place


def declared(room: str, name: str) -> Mapping[str, Any]:
    """Return the declarations in a choice's file, or in the module of another package, by name, without importing it.

    Constants that are literals map to their values, functions to True. Nothing is declared by a module that has no
    readable file. Raises UsageError with the nearest name if there is no such choice.
    """
    place = place_of(room, name)
    if place is None:
        return _declarations(_file(room, name))
    file = foreign.source(place.partition(":")[0])
    with suppress(OSError, SyntaxError, ValueError):  # The import of the module says what is wrong with it.
        return _declarations(file) if file else {}
    return {}


def description(room: str, name: str) -> str:
    """Return the docstring of a choice's file, without importing it. Raises UsageError as `declared` does."""
    place = place_of(room, name)
    file = foreign.source(place.partition(":")[0]) if place else _file(room, name)
    with suppress(OSError, SyntaxError, ValueError):
        return ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "" if file else ""
    return ""


def having(room: str, word: str) -> tuple[str, ...]:
    """List the room's own choices whose files declare a name as a function or as a constant with a true value."""
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
    return Path(__file__).parents[1] / room / f"{name}.py"


def module(room: str, name: str) -> ModuleType:
    """Import the file of one of the room's own choices. Raises UsageError with the nearest name if there is none."""
    return importlib.import_module(f"cnnperf.{room}.{_file(room, name).stem}")


def source_file(room: str, name: str) -> Path | None:
    """Return the file of a choice or of its module in another package; None if there is no file."""
    place = place_of(room, name)
    found = foreign_module(place.partition(":")[0]) if place else module(room, name)
    return Path(found.__file__) if found.__file__ else None


def find(room: str, name: str, *, folder: Path | None = None) -> Callable[..., Any]:
    """Return the verb of one choice, or what its place in another package names.

    folder: searched last for a module of another package; by default the one that a worker is given. What a suite names
    as `pkg.module:attribute` is imported, and returned only if it shows that it makes what the room needs, or if its
    package registers it for the room. Raises UsageError.
    """
    place = place_of(room, name)
    if place is None:
        verb: Callable[..., Any] = getattr(module(room, name), VERBS[room])
        return verb
    path, _, attribute = place.partition(":")
    if foreign.is_closed(path):
        words = f"{path} is a module of Python, or a program; move your code to a module of another name"
        raise UsageError(f"{shorten(name, 100)!r} was not called: {words}")
    try:
        found = foreign_module(path, folder)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (Exception, SystemExit) as error:  # Importing runs the user's code, which may raise anything.
        raise UsageError(f"cannot import {shorten(name, 100)!r} ({shorten(error)}); {_cure(place, error)}") from error
    if not callable(found):
        raise UsageError(f"{name!r} is not callable, got {type(found).__name__}; name a function or class")
    if not foreign.is_proven(room, found) and place not in (each.place for each in registered(room).values()):
        raise UsageError(f"{shorten(name, 100)!r} was not called: {foreign.lack(room)}")
    return found


def _cure(place: str, error: BaseException) -> str:
    """Return the cure for a place whose module cannot be imported, or has no such attribute."""
    path, _, attribute = place.partition(":")
    absent = error.name if isinstance(error, ModuleNotFoundError) else None
    if isinstance(error, AttributeError) and error.name in attribute.split("."):
        near = difflib.get_close_matches(error.name, dir(error.obj), n=1)
        return f"did you mean {near[0]!r}?" if near else "name a function or class of the module"
    if not absent:
        return "correct its module"
    if f"{path}.".startswith(f"{absent}."):
        return "the module is not installed: run pip install . in its project, or set PYTHONPATH=src"
    return f"{shorten(path, 60)} imports it: run pip install {shorten(absent, 60)}"


def make(room: str, name: str, *given: Any, **options: Any) -> Any:
    """Call the verb of a choice and return what it makes.

    Errors of another package's code become a UsageError, except cnnperf's own and those of a lack of memory. Raises
    UsageError too if that code returns something else than the room needs.
    """
    verb = find(room, name)
    if place_of(room, name) is None:
        return verb(*given, **options)
    try:
        found = verb(*given, **options)
    except (Exception, SystemExit) as error:
        if isinstance(error, CnnperfError) or is_out_of_memory(error):
            raise
        traceback.print_exception(error)
        raise UsageError(
            f"{shorten(name, 100)!r} failed ({type(error).__name__}: {shorten(error)}); correct its code or its options"
        ) from error
    if not foreign.is_made(room, found):
        got, needed = type(found).__name__, foreign.PROOFS[room].words
        raise UsageError(f"{shorten(name, 100)!r} returned {got}; it must return {needed}")
    return found


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
    """Return the options of a verb, its parameters without those `given` by the caller, as a pydantic model.

    The model forbids unknown fields. For a foreign verb (`pkg.module:callable`) only names are checked, not values;
    with `**kwargs` any name is valid.
    """
    from pydantic import ConfigDict, create_model  # Late: listing rooms needs no pydantic.

    is_foreign = not (verb.__module__ or "").startswith("cnnperf.")
    try:
        parameters = inspect.signature(verb, eval_str=not is_foreign).parameters.values()
    except (ValueError, TypeError) as error:
        name = getattr(verb, "__name__", type(verb).__name__)
        raise UsageError(f"{name!r} has no readable signature ({error}); name a Python function") from error
    fields: dict[str, Any] = {
        p.name: (Any if is_foreign else p.annotation, ... if p.default is p.empty else p.default)
        for p in parameters
        if p.name not in given and p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)
    }
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters)
    config = ConfigDict(extra="allow" if open_ended else "forbid", frozen=True, protected_namespaces=())
    return create_model("Options", __config__=config, **fields)
