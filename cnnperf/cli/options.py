"""Options that several commands share, and the option in place of a library's argument in messages."""

from __future__ import annotations

import re
from typing import Annotated, get_args

import typer

from cnnperf.cli.help import FLAG, one_of
from cnnperf.registry import names
from cnnperf.sides import PAIRS
from cnnperf.task import DEFAULT_ALLOCATOR, DEFAULT_WAITING, Allocator, Waiting

DEVICES, WAITING_POLICIES, ALLOCATOR_POLICIES = (
    one_of(each) for each in (names("devices"), get_args(Waiting), get_args(Allocator))
)
"""The known names, as helps list them."""
DeviceOption = Annotated[str, typer.Option(metavar="D", help=f"Device: {DEVICES}.")]
WaitingOption = Annotated[
    str | None,
    typer.Option(metavar="W", help=f"How threads wait for work: {WAITING_POLICIES}; default: {DEFAULT_WAITING}."),
]
AllocatorOption = Annotated[
    str | None,
    typer.Option(
        metavar="A", help=f"Whether freed memory is kept: {ALLOCATOR_POLICIES}; default: {DEFAULT_ALLOCATOR}."
    ),
]
QuietOption = Annotated[
    bool,
    typer.Option("--quiet", metavar=FLAG, help="Print results, warnings and errors only, no progress."),
]
JsonOption = Annotated[
    bool, typer.Option("--json", metavar=FLAG, help="Print the result as one JSON document on stdout.")
]
DryRunOption = Annotated[
    bool,
    typer.Option(
        "--dry-run", metavar=FLAG, help="Print the tasks with their estimated minutes and size of weights; run nothing."
    ),
]
PairsOption = Annotated[
    int,
    typer.Option(
        metavar="N", help="Maximum pairs of samples per replicate, an even number from {} to {}.".format(*PAIRS)
    ),
]

ARGUMENTS = (
    *("allocator", "baseline", "baseline_set", "batch", "batch_size", "by", "candidate", "candidate_set", "condition"),
    *("data", "dataset", "device", "format", "max_latency", "max_memory", "max_size", "min_accuracy", "minutes"),
    *("mode", "occasion", "only", "out", "pairs", "repeats", "resume"),
    *("samples", "shard", "stages", "threads", "train", "waiting"),
)
"""Arguments that messages name, each the name of its option."""
OTHERS = {"batch_sizes": "--batch-size", "engines": "--engine", "model": "MODEL", "table": "TABLE"}
"""Further arguments that messages name, each with its name on the command line."""
_NAMED = re.compile(f"`({'|'.join((*ARGUMENTS, *OTHERS))})`")


def with_options(message: str) -> str:
    """Return a message with the option in place of each argument: --candidate-set for candidate_set."""
    return _NAMED.sub(lambda found: OTHERS.get(found[1], "--" + found[1].replace("_", "-")), message)
