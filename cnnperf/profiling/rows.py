"""Names of the rows of a profile that belong to no layer."""

LOSS, DATA, OPTIMIZER, UNATTRIBUTED = "(loss)", "(data)", "(optimizer)", "(unattributed)"
"""`(unattributed)` is torch's time and memory between its layers."""
