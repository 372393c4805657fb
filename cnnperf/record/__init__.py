"""Records: the result of one task, and the JSON-lines file that stores results."""

from __future__ import annotations

from cnnperf.record.folder import (
    DAMAGED_FILE,
    append,
    keep,
    kept,
    kept_file,
    lock,
    read,
    read_locked,
    read_runs,
    repair,
    replacing,
    run_folders,
)
from cnnperf.record.line import line_of, sealed
from cnnperf.record.location import COMPRESSED_FILE, FILE, located, reference_runs
from cnnperf.record.schema import (
    PARITY,
    SCHEMA,
    Artifact,
    Finite,
    Gpu,
    Libraries,
    Machine,
    Measurement,
    Platform,
    Processor,
    Record,
    Status,
    single,
)

__all__ = [
    "COMPRESSED_FILE",
    "DAMAGED_FILE",
    "FILE",
    "PARITY",
    "SCHEMA",
    "Artifact",
    "Finite",
    "Gpu",
    "Libraries",
    "Machine",
    "Measurement",
    "Platform",
    "Processor",
    "Record",
    "Status",
    "append",
    "keep",
    "kept",
    "kept_file",
    "line_of",
    "located",
    "lock",
    "read",
    "read_locked",
    "read_runs",
    "reference_runs",
    "repair",
    "replacing",
    "run_folders",
    "sealed",
    "single",
]
