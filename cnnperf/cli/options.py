"""Options that several commands share, and the option in place of a library's argument in messages."""

from __future__ import annotations

import re
import tomllib
from typing import Annotated, Any, get_args

import typer

from cnnperf.cli.help import FLAG, one_of
from cnnperf.errors import UsageError
from cnnperf.registry import names
from cnnperf.sides import PAIRS
from cnnperf.task import DEFAULT_ALLOCATOR, DEFAULT_DATASET, DEFAULT_WAITING, Allocator, Waiting

DEVICES, WAITING_POLICIES, ALLOCATOR_POLICIES = (
    one_of(each) for each in (names("devices"), get_args(Waiting), get_args(Allocator))
)
"""The known names, as helps list them."""
EXECUTORS = one_of(names("executors"))
DatasetOption = Annotated[
    str | None,
    typer.Option(
        metavar="D",
        help=f"Dataset, a name from `cnnperf list datasets`; default: {DEFAULT_DATASET}, with --input or --classes "
        "generated images.",
    ),
]
InputOption = Annotated[
    str | None,
    typer.Option(
        "--input", metavar="CxHxW", help="Use generated images of this shape, such as 3x224x224; default: a dataset."
    ),
]
ClassesOption = Annotated[
    int | None,
    typer.Option(metavar="N", help="Use generated images of this number of classes; default: those of the dataset."),
]
OptionOption = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        metavar="NAME=VALUE",
        help="Option of the network, such as depth=32; repeat it for several. Default: the network's own.",
    ),
]
DeviceOption = Annotated[str, typer.Option(metavar="D", help=f"Device: {DEVICES}; cuda:1 is the second GPU.")]
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
AllowBusyOption = Annotated[
    bool,
    typer.Option(
        "--allow-busy",
        metavar=FLAG,
        help="Measure although other processes compute on the GPU; rows are then marked as disturbed.",
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
        "--dry-run",
        metavar=FLAG,
        help="Print the tasks with their estimated minutes and size of weights; measure nothing.",
    ),
]
PairsOption = Annotated[
    int,
    typer.Option(
        metavar="N", help="Maximum pairs of samples per replicate, an even number from {} to {}.".format(*PAIRS)
    ),
]

ARGUMENTS = (
    *("allocator", "baseline", "baseline_set", "batch", "batch_size", "by", "candidate", "candidate_set"),
    *(
        "condition",
        "data",
        "dataset",
        "device",
        "executor",
        "format",
        "max_latency",
        "max_memory",
        "max_size",
        "min_accuracy",
        "minutes",
    ),
    *("cell", "classes", "into", "seeds", "target"),
    *("allow_busy", "mode", "name", "occasion", "only", "out", "pairs", "repeats", "resume"),
    "parallel_devices",
    *("samples", "shard", "stages", "strict", "threads", "train", "waiting"),
)
"""Arguments that messages name, each the name of its option."""
OTHERS = {
    "batch_sizes": "--batch-size",
    "engines": "--engine",
    "model": "MODEL",
    "options": "--option",
    "shape": "--input",
    "table": "TABLE",
}
"""Further arguments that messages name, each with its name on the command line."""
_NAMED = re.compile(f"`({'|'.join((*ARGUMENTS, *OTHERS))})`")


def with_options(message: str) -> str:
    """Return a message with the option in place of each argument: --candidate-set for candidate_set."""
    return _NAMED.sub(lambda found: OTHERS.get(found[1], "--" + found[1].replace("_", "-")), message)


def shape_of(text: str | None) -> tuple[int, int, int] | None:
    """Return the shape of images that `--input` gives; None without one. Raises UsageError."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,6})x(\d{1,6})x(\d{1,6})", text.lower().replace("×", "x"))
    if not found:
        raise UsageError(f"--input: give channels, height and width such as 3x224x224, got {text}")
    channels, height, width = map(int, found.groups())
    return channels, height, width


def table_of(given: list[str] | None) -> dict[str, Any]:
    """Return the options that `--option` gives, with values read as in a suite. Raises UsageError."""
    table: dict[str, Any] = {}
    for each in given or ():
        name, is_given, text = each.partition("=")
        if not (is_given and name.isidentifier()) or name in table:
            raise UsageError(f"--option: give a name and a value such as depth=32, each name once, got {each}")
        table[name] = _value_of(text)
    return table


def _value_of(text: str) -> Any:
    """Return a value in the syntax of TOML; any other text is a string."""
    try:
        found = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    is_one = len(found) == 1 and isinstance(found["value"], str | int | float | list | dict)
    return found["value"] if is_one else text
