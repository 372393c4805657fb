"""The reference part of `suites/README.md`: every key of a suite, from its JSON schema and from the rooms."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from doc_table import table

from cnnperf import datasets, engines, executors, models, registry
from cnnperf.workers.schema import suite_schema

GIVEN = {
    "models": models.GIVEN,
    "datasets": datasets.GIVEN,
    "devices": (),
    "engines": engines.GIVEN,
    "executors": executors.GIVEN,
}
"""Arguments of each room's verb that cnnperf gives, and no suite."""
LARGEST = 1e6
ORDER = ("train", "profile", "export", "infer")
"""The stages in the order in which people meet them; any other comes after them."""


def text() -> str:
    """Return the text of the whole reference part."""
    document = suite_schema()
    stages = registry.names("stages")
    top = {name: schema for name, schema in document["properties"].items() if name not in stages}
    blocks = ["### Keys of a suite", _keys(top, document["required"])]
    for stage in sorted(stages, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name)):
        section = document["properties"][stage]
        blocks += [
            f"### `[{stage}]`",
            section["description"],
            _keys(section["properties"], section.get("required", ())),
        ]
    blocks += ["### Options of models, datasets, devices, engines and executors", _options()]
    return "\n\n".join(blocks)


def _keys(properties: Mapping[str, Any], required: Any) -> str:
    rows = (
        (f"`{name}`", _values(schema), "(required)" if name in required else _default(schema), schema["description"])
        for name, schema in properties.items()
    )
    return table(("key", "values", "default", "meaning"), rows)


def _default(schema: Mapping[str, Any]) -> str:
    default = schema.get("default")
    if default in (None, [], {}):
        return "–"
    if isinstance(default, dict):
        default = default["name"]
    if isinstance(default, list):
        default = [each["name"] if isinstance(each, dict) else each for each in default]
    return f"`{json.dumps(default)}`"


def _values(schema: Mapping[str, Any]) -> str:
    """Return the description of the values that a key takes."""
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_values(each) for each in schema["anyOf"] if each.get("type") != "null"))
    if "$ref" in schema:
        return "name or table"
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{json.dumps(value)}`" for value in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        return _array(schema)
    words = {"integer": "whole number", "number": "number", "boolean": "`true`, `false`", "object": "table"}
    kind = "name" if "examples" in schema else words.get(schema.get("type", ""), "text")
    return " ".join([kind, *_bounds(schema)])


def _array(schema: Mapping[str, Any]) -> str:
    if "prefixItems" in schema:
        return f"list of {len(schema['prefixItems'])}: {_values(schema['prefixItems'][0])}"
    return f"list: {_values(schema['items'])}"


def _bounds(schema: Mapping[str, Any]) -> Iterator[str]:
    words = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "below"}
    for bound, word in words.items():
        # Bounds that only keep a number storable need no mention.
        if bound in schema and abs(schema[bound]) < LARGEST:
            yield f"{word} {schema[bound]:,}"


def _options() -> str:
    rows = []
    for room, given in GIVEN.items():
        for name in registry.names(room):
            schema = registry.options(registry.find(room, name), given).model_json_schema()
            for option, of in schema.get("properties", {}).items():
                if option not in given:
                    rows.append((room.removesuffix("s"), f"`{name}`", f"`{option}`", _values(of), _default(of)))
    return table(("room", "name", "option", "values", "default"), rows)
