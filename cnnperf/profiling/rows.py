"""Names in a profile that its readers know too: of the rows that belong to no layer, and of the trace."""

from __future__ import annotations

from cnnperf.task import Scalar

LOSS, DATA, OPTIMIZER, UNATTRIBUTED = "(loss)", "(data)", "(optimizer)", "(unattributed)"
"""`(unattributed)` is torch's time and memory between its layers."""


def trace_name(batch_size: Scalar | None) -> str:
    """Return the name of the file with the trace of the steps of one batch size."""
    return f"batch-{batch_size}.pt.trace.json.gz"
