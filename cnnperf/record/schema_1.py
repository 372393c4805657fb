"""Records of schema 1, the first, converted to the current schema."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ConfigDict

from cnnperf.record.schema import PARITY, SCHEMA, Artifact, Measurement, single
from cnnperf.task import Frozen

_RENAMED = {"train.images_per_s": "train.total_images_per_s"}
"""Metrics that some versions of schema 1 recorded under another name."""
_REMARKS = frozenset(
    (
        *("n", "images", "calls", "pairs", "unsteady_pairs", "steady", "disturbed", "resolution_s"),
        *("weights", "order", "type", "inputs", "outputs", "dtype", "uncounted", "at", "bound", "at_batch_size"),
        *("interop_threads", "spinning", "waiting", "provider", "optimization", "input"),
        *("calibration_images", "cpu_flags", "label", "tf32", "cudnn_benchmark", "deterministic", "precision"),
    )
)
"""Remarks that schema 1 kept among the tags."""
_PLACE = frozenset(("step", "samples", "seconds", "epoch"))
"""Further tags that are remarks in a curve point, which has a `step`."""


class _Record1(Frozen):
    """The fields of a schema-1 record that differ from the current schema; other fields are passed on unchanged."""

    model_config = ConfigDict(extra="allow")

    task: Mapping[str, Any]
    error: str | None = None
    measurements: tuple[Measurement, ...] = ()
    artifacts: Mapping[str, str] = {}


def upgraded(document: Any) -> dict[str, Any]:
    """Convert a document of schema 1 to the current schema. Raises ValidationError if it is not a record."""
    old = _Record1.model_validate(document)
    measurements = [_upgraded_measurement(m) for m in old.measurements]
    return {
        **old.model_dump(by_alias=True, exclude={"measurements", "artifacts"}),
        "schema": SCHEMA,
        "measurements": (*measurements, *_upgraded_parity(old)),
        "artifacts": {kind: Artifact(path=path) for kind, path in old.artifacts.items()},
    }


def _upgraded_measurement(old: Measurement) -> Measurement:
    names = _REMARKS | _PLACE if "step" in old.tags else _REMARKS
    remarks = {name: value for name, value in old.tags.items() if name in names}
    tags = {name: value for name, value in old.tags.items() if name not in remarks}
    metric = _RENAMED.get(old.metric, old.metric)
    return Measurement(metric=metric, unit=old.unit, better=old.better, values=old.values, tags=tags, remarks=remarks)


def _upgraded_parity(old: _Record1) -> Iterator[Measurement]:
    """Yield the parity verdict, which schema 1 stores only as the text of the error."""
    if old.task.get("stage") != "infer":
        return
    error = old.error or ""
    has_failed = "parity failed" in error
    if has_failed or {"infer.error_to_float64", "infer.test_accuracy"} <= {m.metric for m in old.measurements}:
        tags = {key: value for m in old.measurements for key, value in m.tags.items() if key == "engine"}
        yield single(PARITY, "1", 0 if has_failed else 1, None, {"fault": error} if has_failed else {}, **tags)
