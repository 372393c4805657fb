"""Preflight's search for a dataset's images: the real ones, or synthetic substitutes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnnperf import datasets
from cnnperf.datasets import Dataset, DownloadError, Roots
from cnnperf.errors import DataError
from cnnperf.ipc.messages import GaveUp, Message, Received, SuiteRequest
from cnnperf.task import Choice, Provenance

Say = Callable[[Message], None]
"""Sends one message to the parent."""


@dataclass(frozen=True, slots=True)
class FoundImages:
    """Preflight's facts of a dataset: its shape and its location."""

    provenance: Provenance | None
    shape: tuple[int, int, int]
    num_classes: int
    train_count: int
    test_count: int
    folder: Path | None
    """Folder of the arrays; None if the data is missing and may not be downloaded now."""
    download_bytes: int = 0


class Finder:
    """Finds the images of a suite's datasets; `warnings` lists the substituted ones."""

    def __init__(self, request: SuiteRequest, say: Say) -> None:
        self.warnings: list[str] = []
        self._request = request
        self._say = say
        self._roots = Roots.from_environment(request.data)
        self._roots.ordered()  # A named folder that does not exist is an error, even if the suite does not read it.

    def find(self, choice: Choice, options: Mapping[str, Any]) -> FoundImages:
        """Return the facts of a dataset, after downloading it if necessary. Raises DataError."""
        if not self._request.download:
            there = datasets.available(choice.name, self._roots)
            if there.download_bytes:
                source = datasets.files_of(choice.name)
                counts = source.train_count, source.test_count
                return FoundImages(None, source.shape, len(source.classes), *counts, None, there.download_bytes)
        dataset = self._load(choice, options)
        found = dataset.provenance
        return FoundImages(found, found.shape, found.num_classes, found.train_count, found.test_count, dataset.folder)

    def _load(self, choice: Choice, options: Mapping[str, Any]) -> Dataset:
        """Load the images, or, if they are unavailable and the suite permits it, synthetic ones of the same shape."""
        try:
            if reason := self._request.given_up.get(choice.name):
                raise DownloadError(f"{choice.name}: cannot be downloaded: {reason}", reason)
            dataset = datasets.load_named(choice.name, self._roots, announcing(self._say), options)
        except DownloadError as error:
            if not datasets.has_files(choice.name):
                raise
            self._say(GaveUp(dataset=choice.name))
            cure = f"download it (cnnperf data fetch {choice.name}) or give its folder with `data`"
            if self._request.suite.require_real_data:
                raise DataError(
                    f"{choice.name}: real data is required but not available: {error.reason}; {cure}"
                ) from error
            self.warnings.append(f"{choice.name}: running on SYNTHETIC images instead: {error.reason}; {cure}")
            dataset = datasets.substitute(self._roots, choice.name, error.reason)
        return dataset


def announcing(say: Say) -> datasets.Progress:
    """Return the function that sends a download's progress to the parent."""
    return lambda name, done, total: say(Received(dataset=name, done=done, total=total))
