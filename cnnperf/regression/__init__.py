"""Whether a version of the code became slower or less accurate: rule, gate and verdicts."""
