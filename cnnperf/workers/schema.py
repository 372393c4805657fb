"""The JSON schema of suite files, for editors that complete and check TOML."""

from __future__ import annotations

from typing import Any

from cnnperf import registry
from cnnperf.suite import Suite


def suite_schema() -> dict[str, Any]:
    """Return the schema, with a section for each stage."""
    document = Suite.model_json_schema(mode="validation")
    properties, definitions = document["properties"], document.setdefault("$defs", {})
    del properties["sections"]
    for stage in registry.names("stages"):
        section = registry.options(registry.find("stages", stage)).model_json_schema()
        definitions.update(section.pop("$defs", {}))
        properties[stage] = section
    sections = {stage: properties[stage] for stage in registry.names("stages")}
    for room in ("models", "datasets", "devices"):
        known = {"type": "string", "examples": list(registry.names(room))}
        fields = {"name": known} | (sections if room == "models" else {})
        table = {"type": "object", "properties": fields, "required": ["name"]}
        properties[room]["items"] = {"anyOf": [known, table]}
    definitions["Choice"] = {"anyOf": [{"type": "string"}, {"type": "object", "required": ["name"]}]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **document}
