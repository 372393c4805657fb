"""The JSON schema of suite files, for editors that complete and check TOML."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from cnnperf import datasets, models, registry
from cnnperf.bench import settings_of
from cnnperf.suite import Suite

TABLES: Mapping[str, Collection[str]] = {"models": models.GIVEN, "datasets": datasets.GIVEN, "devices": ()}
"""Rooms whose choices a suite lists with their options, and the parameters that are no options."""
FOREIGN = r":|\.onnx$"
"""Names of choices of other packages, whose options are unknown, and of ONNX files."""


def suite_schema() -> dict[str, Any]:
    """Return the schema, with a section for each stage and a table for each choice with its options."""
    document = Suite.model_json_schema(mode="validation")
    properties, definitions = document["properties"], document.setdefault("$defs", {})
    del properties["sections"]
    for stage in registry.names("stages"):
        section = settings_of(stage).model_json_schema()
        definitions.update(section.pop("$defs", {}))
        properties[stage] = section
    # The sections of other stages are checked when their code is imported.
    document["patternProperties"] = {":": {"type": "object"}}
    properties.update({stage: {"type": "object"} for stage in registry.registered("stages")})
    sections = {stage: properties[stage] for stage in registry.names("stages")}
    for room, given in TABLES.items():
        known = {"type": "string", "examples": list(registry.names(room))}
        properties[room]["items"] = {"anyOf": [known, *_tables(room, given, sections if room == "models" else {})]}
    definitions["Choice"] = {"anyOf": [{"type": "string"}, {"type": "object", "required": ["name"]}]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **document}


def _tables(room: str, given: Collection[str], sections: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the tables of a room's choices, and that of those from elsewhere."""
    for name in registry.names(room):
        options = registry.options(registry.find(room, name), given).model_json_schema()
        yield {
            "type": "object",
            "properties": {"name": {"const": name}, **options.get("properties", {}), **sections},
            "required": ["name", *options.get("required", ())],
            "additionalProperties": False,
        }
    others = (f"^{name.replace('.', '[.]')}$" for name in registry.registered(room))
    elsewhere = {"type": "string", "pattern": "|".join((FOREIGN, *others))}
    yield {"type": "object", "properties": {"name": elsewhere, **sections}, "required": ["name"]}
