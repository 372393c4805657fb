"""Choices of other packages: their places, and the proof that one makes what a room needs before it is called.

A choice is named as `pkg.module:attribute`, or by an entry point that an installed package registers for the room.
Both are found without an import.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import cache, partial
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from cnnperf.errors import names_listed, shorten

FOLDER_OF_NETWORKS = "CNNPERF_NETWORKS"
"""Variable with the folder that a worker searches last, with its `src`, for code that a suite names as
`pkg.module:attribute`."""
NAME = re.compile(r"[A-Za-z_][\w.-]*(?<!\.onnx)")
"""Names of entry points that suites can use; that of an ONNX file is a model of its own kind."""


FORM_OF_PLACE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
"""The form of `pkg.module:attribute`."""


class Proof(NamedTuple):
    """How a callable shows, before it is called, that it makes what a room needs."""

    made: str = ""
    """Class of what it returns, as `module:name`; empty if what it returns shows nothing."""
    given: tuple[str, ...] = ()
    """Parameters that only cnnperf gives: the callable names one of them."""
    by_name: bool = False
    """Whether they are given by name; otherwise by position, and the first parameter is one of them."""

    @property
    def words(self) -> str:
        """The class that is made, in words."""
        return f"a {self.made.replace(':', '.')}"


PROOFS: Mapping[str, Proof] = {
    "models": Proof("torch.nn:Module", ("in_channels", "num_classes", "image_size"), by_name=True),
    "datasets": Proof("cnnperf.datasets:Dataset", ("roots",), by_name=True),
    "devices": Proof("cnnperf.devices:Device"),
    "engines": Proof("cnnperf.engines:Engine", ("source",)),
    "stages": Proof(given=("bench",)),
    "reports": Proof(given=("report", "comparison")),
}
"""The proof by room; a room that is not listed takes no code of other packages."""
BUILDERS = {("timm", "create_model")}
"""Functions that build networks without a sign of it, by package and name."""


class Registered(NamedTuple):
    """A choice that an installed package registers as an entry point."""

    place: str
    """Module and attribute, `pkg.module:attribute`."""
    package: str
    """Name and version of the package."""


def entry_points(room: str, verb: str, taken: Collection[str]) -> Mapping[str, Registered]:
    """Return the entry points of a room by the names that suites use, sorted.

    verb: the attribute of an entry point that names only a module. taken: names of other choices; an entry point with
    one of them, or with the name of another entry point, is listed by its place.
    """
    entries = _entries(room, verb, tuple(sys.path))
    counts = Counter(name for name, _ in entries)
    free = {name for name in counts if counts[name] == 1 and name not in taken and NAME.fullmatch(name)}
    return {name if name in free else entry.place: entry for name, entry in entries}


def disputed(room: str, verb: str, name: str) -> str | None:
    """Return the message for a name that entry points of a room have more than once; None for any other name."""
    found = [entry for each, entry in _entries(room, verb, tuple(sys.path)) if each == name]
    if len(found) < 2:
        return None
    listed = names_listed(f"{entry.place} ({entry.package})" for entry in found)
    return f"{shorten(name, 60)!r} is registered {len(found)} times; write the place of one: {listed}"


@cache
def _entries(room: str, verb: str, path: tuple[str, ...]) -> Sequence[tuple[str, Registered]]:
    from importlib import metadata  # Late: few commands ask for what is installed.

    if room not in PROOFS:
        return ()
    group, names, found = f"cnnperf.{room}", set(), set()
    for each in metadata.distributions():
        with suppress(Exception):  # The files of other packages may be damaged.
            if each.entry_points.select(group=group):
                names.add(each.metadata["Name"])
    for name in names:
        package = metadata.distribution(name)  # The one that Python imports, if several are on the module path.
        for entry in package.entry_points.select(group=group):
            place = entry.value.partition("[")[0].replace(" ", "")  # Without the extras that it needs.
            place = place if ":" in place else f"{place}:{verb}"
            if FORM_OF_PLACE.fullmatch(place):
                found.add((entry.name, Registered(place, f"{package.metadata['Name']} {package.version}")))
    return sorted(found)


def source(path: str) -> Path | None:
    """Return the Python file of a module without importing it or a package above it; None if there is none.

    A module that is in no other place is searched in the folder that workers search last.
    """
    module = sys.modules.get(path)
    origin = getattr(module, "__file__", None) if module else _origin(path)
    return Path(origin) if origin and origin.endswith(".py") else None


def _origin(path: str) -> str | None:
    parts = path.split(".")
    spec, folders = _spec(parts[0], None), None
    for count in range(2, len(parts) + 1):
        folders = spec.submodule_search_locations if spec else None
        spec = _spec(".".join(parts[:count]), folders) if folders else None
    return spec.origin if spec else None


def _spec(path: str, folders: Sequence[str] | None) -> ModuleSpec | None:
    for finder in sys.meta_path:
        with suppress(Exception):  # The finders of other packages may raise anything.
            if spec := finder.find_spec(path, folders):
                return spec
    if folders is None:
        with suppress(OSError):  # The working directory may have been deleted.
            return PathFinder.find_spec(path, _last(os.environ.get(FOLDER_OF_NETWORKS) or str(Path.cwd())))
    return None


def foreign_module(path: str, folder: Path | None = None) -> ModuleType:
    """Import a module of another package.

    folder: searched with its `src` after all other places; by default the one that a worker is given.
    """
    if last := str(folder) if folder else os.environ.get(FOLDER_OF_NETWORKS):
        sys.path += [place for place in _last(last) if place not in sys.path]
    return importlib.import_module(path)


def _last(folder: str) -> list[str]:
    """Return the places that are searched last, as sys.path has them."""
    return [folder, os.path.join(folder, "src")]  # noqa: PTH118


def is_closed(path: str) -> bool:
    """Return whether a module is one of Python's standard library, or a program, which its import would run."""
    parts = path.split(".")
    return parts[0] in sys.stdlib_module_names or parts[-1] == "__main__"


def is_proven(room: str, found: Callable[..., Any]) -> bool:
    """Return whether a callable shows that it makes what a room needs; the callable is not called.

    A class, or the class of a class method, shows it by its bases; a function by the annotation of what it returns,
    else by the parameters that it names.
    """
    try:
        return room in PROOFS and _is_proven(PROOFS[room], found)
    except Exception:  # Objects of other packages may raise anything when they are looked at.
        return False


def _is_proven(proof: Proof, found: Callable[..., Any]) -> bool:
    function: Any = inspect.unwrap(found.func if isinstance(found, partial) else found)
    module = str(getattr(function, "__module__", ""))
    if is_closed(module):  # Any module passes on what it imports.
        return False
    owner = function if inspect.isclass(function) else getattr(function, "__self__", None)
    if inspect.isclass(owner):
        return _makes(proof, owner)
    returned = evaluated(getattr(function, "__annotations__", {}).get("return", Any), function)
    if proof.made and returned is None:
        return False
    if proof.made and inspect.isclass(returned) and returned is not Any:
        return _makes(proof, returned)
    if isinstance(returned, str) and returned.rpartition(".")[2] == proof.made.partition(":")[2]:
        return True
    if inspect.isbuiltin(function):  # The parameters of `exec`, too, have names.
        return False
    if (module.partition(".")[0], getattr(function, "__name__", "")) in BUILDERS:
        return True
    names = list(inspect.signature(found).parameters)
    return any(name in proof.given for name in (names if proof.by_name else names[:1]))


def lack(room: str) -> str:
    """Return what a callable that shows nothing lacks, and the cure, in words."""
    if room not in PROOFS:
        return f"{room} of other packages are not known; name one that ships"
    proof = PROOFS[room]
    ways: list[str] = []
    if proof.made:
        ways.append(f"annotated with -> {proof.made.partition(':')[2]}")
    if proof.given:
        ways.append(f"with {'a' if proof.by_name else 'the first'} parameter {' or '.join(proof.given)}")
    shown = f"that it returns {proof.words}" if proof.made else f"that it is made for {room}"
    return f"nothing shows {shown}; name {'such a class, or ' * bool(proof.made)}a function {' or '.join(ways)}"


def is_made(room: str, found: object) -> bool:
    """Return whether an object is what the verb of a room returns; any is where the verb returns nothing known."""
    return not PROOFS[room].made or _makes(PROOFS[room], type(found))


def _makes(proof: Proof, kind: type) -> bool:
    """Return whether objects of a class are what the proof needs: by its bases, or by the methods of a protocol."""
    path, _, name = proof.made.partition(":")
    # A subclass of a class of torch exists only where torch is imported.
    module = importlib.import_module(path) if path.startswith("cnnperf.") else sys.modules.get(path)
    made = getattr(module, name, None)
    if made is None:
        return False
    if not getattr(made, "_is_protocol", False):
        return issubclass(kind, made)
    methods = [each for each, value in vars(made).items() if inspect.isfunction(value) and not each.startswith("_")]
    return kind is made or all(callable(getattr(kind, each, None)) for each in methods)


def evaluated(annotation: Any, function: Callable[..., Any]) -> Any:
    """Return what an annotation of a function means; its text if its names are imported for type checkers only."""
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, dict(getattr(function, "__globals__", {})))
    except Exception:  # The text is code of the function's module.
        return annotation
