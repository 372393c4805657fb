"""A record of accuracy that others can check: its claim and test, its folder, and the table of all."""

from pathlib import Path

RECORDS = Path("results/records")
"""Folder of all records, in the repository."""
SEEDS, SEEDS_AGAIN = 20, 5
"""Default number of seeds of a record, and of those that are trained again to verify one."""
LEVEL = 0.01
"""A claim holds if its p-value is below this level."""
