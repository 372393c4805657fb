"""The commands for the images: `cnnperf data fetch` and `cnnperf data verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cnnperf.cli.help import add_command

DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="DIR",
        help="Folder of images in torchvision's layout (MNIST/raw, cifar-10-batches-py), searched before "
        "$CNNPERF_DATA and the cache, and never written to.",
    ),
]
DatasetsArgument = Annotated[
    list[str],
    typer.Argument(metavar="DATASET…", help="Names from `cnnperf list datasets`, of datasets that have files."),
]


def fetch(
    datasets: DatasetsArgument,
    data: DataOption = None,
) -> None:
    """Download datasets into the cache folder unless their files exist, and verify them."""
    _print_answer("fetch", datasets, data)


def verify(
    datasets: DatasetsArgument,
    data: DataOption = None,
) -> None:
    """Compare every file of the datasets with its checksum; nothing is downloaded."""
    _print_answer("verify", datasets, data)


def add_commands(app: typer.Typer) -> None:
    """Add the commands of this file to the command line."""
    group = typer.Typer(help="Download datasets of real images, or verify existing files.", no_args_is_help=True)
    add_command(group, fetch, "cnnperf data fetch mnist cifar10")
    add_command(group, verify, "cnnperf data verify mnist --data /datasets")
    app.add_typer(group, name="data")


def _print_answer(verb: str, datasets: list[str], data: Path | None) -> None:
    from cnnperf.cli.screen import View, stderr
    from cnnperf.ipc.messages import DataRequest
    from cnnperf.running.preflight import ask_data

    with View(stderr()).shown() as screen:
        for dataset in datasets:
            print(ask_data(DataRequest(verb=verb, dataset=dataset, data=data), screen.downloading))
