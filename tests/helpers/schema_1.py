"""Records in the format of schema 1."""

from __future__ import annotations

import json
from typing import Any

from cnnperf.record import Record


def of_schema_1(found: Record) -> dict[str, Any]:
    """Return a record in the format of schema 1: remarks among the tags, artifacts as paths, and no nonce."""
    stored: dict[str, Any] = json.loads(found.model_dump_json(by_alias=True, exclude={"nonce"})) | {"schema": 1}
    for measured in stored["measurements"]:
        measured["tags"] |= measured.pop("remarks")
    stored["artifacts"] = {kind: artifact["path"] for kind, artifact in stored["artifacts"].items()}
    return stored
