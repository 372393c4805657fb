"""The command that lists names, and describes one of them: `cnnperf list`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnnperf.cli.help import add_command, one_of
from cnnperf.errors import UsageError
from cnnperf.registry import VERBS

if TYPE_CHECKING:
    from cnnperf.ipc.messages import ChoiceDescribed

ROOMS = (*VERBS, "suites", "references")
"""Kinds of names."""
WITHOUT_OPTIONS = ("reports", "sinks", "claims")
"""Rooms whose choices have no options in a suite."""
BOUNDS = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "below"}
"""Words for the limits of a number in a JSON schema."""


def list_(
    room: Annotated[str, typer.Argument(metavar="KIND", help=f"One of {one_of(ROOMS)}.")],
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="A name of this kind, to be described; default: list all.")
    ] = None,
) -> None:
    """List all known names of one kind, one per line, or describe one of them.

    A name that a package adds is followed by its place and package. The description of a model, dataset, device,
    engine, stage or executor has its options, with their values and defaults; that of a model also the training
    settings that its file recommends for each dataset. A suite is printed as it is, of a reference run the folder.
    """
    from cnnperf.record import reference_runs
    from cnnperf.registry import names, registered, unknown, with_known
    from cnnperf.suite import shipped

    if room not in ROOMS:
        raise UsageError(with_known("cannot list", room, ROOMS))
    files = shipped() if room == "suites" else reference_runs() if room == "references" else {}
    known = tuple(files) or names(room)
    others = registered(room) if room in VERBS else {}
    if name is None:
        lines = (*known, *(f"{other}  {each.place}  ({each.package})" for other, each in others.items()))
        sys.stdout.writelines(f"{line}\n" for line in lines)
        return
    if name not in (*known, *others) and (room not in VERBS or ":" not in name):
        raise UsageError(unknown(room.removesuffix("s"), name, (*known, *others)))
    if room == "references":
        print(files[name])
    else:
        print(files[name].read_text(encoding="utf-8").rstrip("\n") if files else "\n".join(_described(room, name)))


def add_commands(app: typer.Typer) -> None:
    """Add the command of this file to the command line."""
    add_command(app, list_, "cnnperf list models", "cnnperf list models resnet", name="list")


def _described(room: str, name: str) -> Iterator[str]:
    """Yield the description in a choice's file, its options and its recipes."""
    from cnnperf.registry import description

    yield description(room, name)
    if room in WITHOUT_OPTIONS:
        return
    from cnnperf.ipc.messages import ChoiceDescribed, ChoiceRequest
    from cnnperf.running.preflight import ask

    found = ask(ChoiceRequest(room=room, name=name), ChoiceDescribed)
    yield ""
    yield "options:" if found.options else "no options"
    yield from (f"  {line}" for line in _options(found))
    if found.recipes:
        yield ""
        yield from _recipes(found.recipes)


def _options(found: ChoiceDescribed) -> Iterator[str]:
    """Yield a line per option: its name, default, values and meaning."""
    for name, schema in found.options.items():
        default = schema.get("default")
        given = " (required)" if name in found.required else f" = {_toml(default)}" if default is not None else ""
        meaning = f". {schema['description']}" if "description" in schema else ""
        yield f"{name}{given}: {_values(schema)}{meaning}"


def _recipes(recipes: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield the settings of each recipe, with all datasets for which it is recommended."""
    datasets: dict[str, list[str]] = {}
    for dataset, settings in recipes.items():
        lines = "\n".join(f"  {key} = {_toml(value)}" for key, value in settings.items())
        datasets.setdefault(lines, []).append(dataset)
    for lines, of in datasets.items():
        yield f"recipe for {', '.join(of)}:"
        yield lines or "  the defaults of the stage train"


def _toml(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _values(schema: Mapping[str, Any]) -> str:
    """Return the values that an option may have, from its JSON schema."""
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_values(each) for each in schema["anyOf"] if each.get("type") != "null"))
    if "enum" in schema or "const" in schema:
        return one_of(map(_toml, schema.get("enum", [schema.get("const")])))
    if schema.get("type") == "array":
        items = schema.get("prefixItems") or [schema.get("items", {})]
        count = f" of {len(items)}" if "prefixItems" in schema else ""
        return f"list{count}: {_values(items[0])}"
    words = {
        "integer": "whole number",
        "number": "number",
        "boolean": "true or false",
        "string": "text",
        "object": "table",
    }
    bounds = [f"{word} {schema[bound]:,}" for bound, word in BOUNDS.items() if bound in schema]
    anything = "name or table" if "$ref" in schema else "any value"
    return " ".join([words.get(schema.get("type", ""), anything), *bounds])
