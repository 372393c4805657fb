"""What every test shares: real data only where it is, CUDA only where it is, a cache of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the project's options."""
    parser.addoption("--no-skip", action="append", default=[], metavar="MARK", help="a skipped test with it fails")
    parser.addoption("--update-golden", action="store_true", help="rewrite the golden files from what the code does now")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what this machine cannot run."""
    from importlib.util import find_spec

    lacking = {"realdata": "CNNPERF_DATA is not set"} if not os.environ.get("CNNPERF_DATA") else {}
    if any(item.get_closest_marker("cuda") for item in items) and find_spec("torch"):
        import torch

        lacking |= {} if torch.cuda.is_available() else {"cuda": "no CUDA device"}
    for item in items:
        for mark, reason in lacking.items():
            if item.get_closest_marker(mark):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Turn the skip of a test that may not be skipped here into a failure."""
    report = yield
    if report.skipped and any(map(item.get_closest_marker, item.config.getoption("--no-skip"))):
        report.outcome, report.longrepr = "failed", f"skipped, and --no-skip forbids it: {report.longrepr}"
    return report


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what tests cache out of the user's cache, in this process and in the workers it starts."""
    with pytest.MonkeyPatch.context() as patch:
        if "CNNPERF_CACHE" not in os.environ:
            patch.setenv("CNNPERF_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
