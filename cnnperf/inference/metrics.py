"""Names of the metrics by which an engine is judged, as the task `infer` measures them and tables and verdicts read."""

from __future__ import annotations

ACCURACY_DROP = "infer.accuracy_drop"
"""Torch's accuracy minus the engine's: a difference between fractions, recorded with unit 1, often 0 or negative."""
RIGHT_IN_TORCH_ONLY = "infer.right_in_torch_only"
RIGHT_IN_ENGINE_ONLY = "infer.right_in_engine_only"
"""Numbers of test images that only one side classified correctly."""
DISAGREEMENTS = "infer.class_disagreements"
"""Images that an exact engine puts into another class although torch's logits are no tie; others have no such count."""
SPEEDUP = "infer.speedup"
"""Baseline's time divided by the engine's, one value per pair of processes."""
UNCHECKED = "without_parity"
"""Remark beside the threads of an engine: the reason why its output has no reference to be compared with."""
