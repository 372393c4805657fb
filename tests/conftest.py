"""Fixtures and options that all tests share: skips for absent data or CUDA, and a cache of the tests' own."""

from __future__ import annotations

import gc
import gzip
import os
import pickle
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from filelock import FileLock
from hypothesis import settings
from processes import interruptible

from cnnperf.record import COMPRESSED_FILE, FILE, Gpu, Machine, Measurement, Processor, Record, location
from cnnperf.roofline import MEMORY_PROBE
from cnnperf.task import Task

pytest_plugins = ("matrix",)

# The same examples each time, and no limit on the time that a busy machine takes over one.
settings.register_profile("reproducible", deadline=None, derandomize=True)
settings.load_profile("reproducible")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the project's options."""
    parser.addoption("--no-skip", action="append", default=[], metavar="MARK", help="a skipped test with it fails")
    parser.addoption(
        "--update-golden", action="store_true", help="rewrite the golden files from what the code does now"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Run benchmarks in one process, since a parallel test would disturb the measurement."""
    if config.getoption("benchmark_only"):
        config.option.numprocesses = 0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests that need real data, a browser or a CUDA device where it is absent."""
    from importlib.util import find_spec

    lacking = {"realdata": "CNNPERF_DATA is not set"} if not os.environ.get("CNNPERF_DATA") else {}
    if not (_chromium() and find_spec("playwright")):
        lacking["browser"] = "no Chromium, or no playwright to drive it"
    if any(item.get_closest_marker("cuda") for item in items) and find_spec("torch"):
        import torch

        lacking |= {} if torch.cuda.is_available() else {"cuda": "no CUDA device"}
    for item in items:
        for mark, reason in lacking.items():
            if item.get_closest_marker(mark):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Turn the skip of a test into a failure where `--no-skip` names one of its marks."""
    report = yield
    is_benchmark = "benchmark" in item.fixturenames  # These wait for --benchmark-only.
    if report.skipped and not is_benchmark and any(map(item.get_closest_marker, item.config.getoption("--no-skip"))):
        report.outcome, report.longrepr = "failed", f"skipped, and --no-skip forbids it: {report.longrepr}"
    return report


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print how many networks of other packages ran through all stages, and the reason of each that was refused."""
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    properties = [each for report in reports for each in report.user_properties]
    refused = [words for name, words in properties if name == "refused"]
    ran = sum(name == "ran" for name, _ in properties)
    if ran + len(refused):
        terminalreporter.write_line(f"{ran} of {ran + len(refused)} networks ran, {len(refused)} were refused")
    for words in refused:
        terminalreporter.write_line(f"refused {words}")


def _chromium() -> str | None:
    """Return the path of an installed Chromium or Chrome, if there is one."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="session")
def chromium() -> str:
    """Return the path of the browser's executable."""
    found = _chromium()
    assert found, "tests without one are skipped"
    return found


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the tests' cache out of the user's cache, in this process and in the workers that it starts.

    The processes of one run of the tests share it.
    """
    base = tmp_path_factory.getbasetemp()
    with pytest.MonkeyPatch.context() as patch:
        if "CNNPERF_CACHE" not in os.environ:
            patch.setenv("CNNPERF_CACHE", str((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cache"))
        yield


@pytest.fixture(scope="session", autouse=True)
def _one_thread_each() -> None:
    """Limit torch to one core: beside other test processes, spinning threads only cost time.

    A first gradient is computed before anything is exported: after an export it would start threads of autograd, and
    no copy of this process could compute one.
    """
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)
        torch.ones(1, requires_grad=True).sum().backward()


@pytest.fixture(scope="session", autouse=True)
def _unwatched_machine() -> Iterator[None]:
    """Let no run watch the machine first: other tests keep it busy, and each look takes a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cnnperf.running.runner.busy", lambda: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def _brief_collections() -> Iterator[None]:
    """Exclude imported objects from the garbage collection before each timing, which would take a third of a second."""
    switches = {name: getattr(gc, name) for name in ("isenabled", "enable", "disable")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cnnperf.timing.sampling.gc", SimpleNamespace(collect=_collect, **switches))
        yield


def _collect() -> None:
    gc.collect()
    if not gc.get_freeze_count():  # What is alive now is for the most part imported.
        gc.freeze()


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], Any]], Any]:
    """Return a function that makes something in a folder, once for all processes of a test run.

    It is meant for results that need real processes: a test process that finds the result unpickles it.
    """
    base = tmp_path_factory.getbasetemp()
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "once"

    def made(name: str, make: Callable[[Path], Any]) -> Any:
        folder, file = root / name, root / f"{name}.pickle"
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f"{name}.lock"):
            if not file.exists():
                file.write_bytes(pickle.dumps(make(folder)))
            return pickle.loads(file.read_bytes())

    return made


@pytest.fixture
def quick_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the roofline probes of this process short."""
    from cnnperf.profiling import probes

    monkeypatch.setattr(probes, "SQUARES", (64,))
    monkeypatch.setattr(probes, "CONVOLUTIONS", ((3, 2, 4, 8),))
    monkeypatch.setattr(probes, "COPIES", {MEMORY_PROBE: 2**16})
    monkeypatch.setattr(probes, "PROBE_S", 0.0)


PRINTING = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "PY_COLORS", "TTY_COMPATIBLE", "TTY_INTERACTIVE")
"""Variables of a shell, or of whoever runs the tests, that change what is printed."""


@pytest.fixture(scope="session", autouse=True)
def _plain_start() -> Iterator[None]:
    """Make the tests and their child processes independent of print settings in the shell and of an ignored SIGINT."""
    with pytest.MonkeyPatch.context() as patch, interruptible():
        for name in PRINTING:
            patch.delenv(name, raising=False)
        patch.setenv("TERM", "xterm-256color")
        yield


@pytest.fixture(scope="session")
def trained() -> Callable[..., Record]:
    """Return a function that makes the record of a training."""
    return _trained


def _trained(
    model: str | dict[str, Any] = "lenet",
    *,
    accuracy: float = 0.5,
    n: int = 1000,
    step_s: Iterable[float] = (0.02, 0.01, 0.04),
    measured: Iterable[Measurement] = (),
    status: str = "ok",
    error: str | None = None,
    dataset: str | dict[str, Any] = "cifar10",
    data: Mapping[str, Any] = {},
    device: str = "cpu",
    host: str = "box",
    repeat: int = 0,
    **settings: Any,
) -> Record:
    provenance = {"name": "cifar10", "source": "a folder", "sha256": "ab" * 32, "train_count": 50_000}
    shape = {"test_count": 10_000, "shape": (3, 32, 32), "num_classes": 10}
    task = Task.model_validate(
        {
            "cell": {"dataset": dataset, "model": model, "device": device},
            "stage": "train",
            "repeat": repeat,
            "seed": 7 + repeat,
            "threads": 2,
            "timeout_s": 60.0,
            "settings": {"seconds": 60.0, "batch_size": 128} | settings,
            "data": provenance | shape | data,
        }
    )
    tested = {"n": n, "images": "all" if n == 10_000 else "subset"}
    found = (
        Measurement(metric="train.step_time", unit="s", better="lower", values=tuple(step_s)),
        Measurement(metric="train.total_images_per_s", unit="images/s", better="higher", values=(1.0,)),
        Measurement(metric="train.test_accuracy", unit="fraction", better="higher", values=(accuracy,), remarks=tested),
        *measured,
    )
    return Record(
        task=task,
        key=task.key,
        machine=Machine(
            host=host,
            os="Linux",
            cpu="Some Processor @ 2 GHz",
            cores=2,
            memory_bytes=2**34,
            python="3.11.4",
            packages={"torch": "2.9.0", "cnnperf": "0.1.0"},
        ),
        started="2025-01-02T03:04:05Z",
        duration_s=100.0,
        status=status,
        error=error,
        measurements=found if status == "ok" else (),
    )


AMD, GIB = Processor(family="25", model="17", stepping="1", instruction_sets=("avx2", "avx512f")), 2**30
A100 = Gpu(name="NVIDIA A100", capability="8.0", memory_bytes=40 * GIB)
UNLIKE_HARDWARE: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "family": ("cpu", {"processor": AMD}, {"processor": AMD.model_copy(update={"family": "26"})}),
    "stepping": ("cpu", {"processor": AMD}, {"processor": AMD.model_copy(update={"stepping": "2"})}),
    "instruction sets": (
        "cpu",
        {"processor": AMD},
        {"processor": AMD.model_copy(update={"instruction_sets": ("avx2",)})},
    ),
    "processor of a version that did not ask": ("cpu", {"processor": AMD}, {}),
    "GPU's name": ("cuda", {"accelerator": A100}, {"accelerator": A100.model_copy(update={"name": "NVIDIA H100"})}),
    "GPU's memory": (
        "cuda",
        {"accelerator": A100},
        {"accelerator": A100.model_copy(update={"memory_bytes": 80 * GIB})},
    ),
    "capability": ("cuda", {"accelerator": A100}, {"accelerator": A100.model_copy(update={"capability": "8.6"})}),
    "profile": ("cuda", {"accelerator": A100}, {"accelerator": A100.model_copy(update={"mig": "1g.5gb"})}),
}
"""Facts that differ between two machines of the same names: the device, and facts of either machine."""


@pytest.fixture(params=UNLIKE_HARDWARE.values(), ids=list(UNLIKE_HARDWARE))
def unlike_hardware(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Return a device, and the hardware of two machines whose results on that device must not be compared."""
    found: tuple[str, dict[str, Any], dict[str, Any]] = request.param
    return found


@pytest.fixture(scope="session")
def on() -> Callable[..., Record]:
    """Return a function that adds facts about the machine to a record."""

    def moved(record: Record, **facts: Any) -> Record:
        return record.model_copy(update={"machine": record.machine.model_copy(update=facts)})

    return moved


@pytest.fixture
def profiled(trained: Callable[..., Record]) -> Record:
    """Return the record of a profile of two layers."""

    def m(quantity: str, unit: str, *values: float, layer: str | None = None, **remarks: str | int) -> Measurement:
        tags: dict[str, str | int] = {"batch_size": 32, "mode": "train"}
        tags |= {} if layer is None else {"layer": layer}
        metric = f"profile.{quantity}"
        return Measurement(metric=metric, unit=unit, better=None, values=values, tags=tags, remarks=remarks)

    def probe(quantity: str, unit: str, *values: float, name: str) -> Measurement:
        metric = f"profile.probe_{quantity}"
        return Measurement(metric=metric, unit=unit, better=None, values=values, tags={"probe": name})

    measured = (
        probe("flops_per_s", "FLOP/s", 9e9, 1e10, name="matmul"),
        probe("bytes_per_s", "bytes/s", 1e9, name=MEMORY_PROBE),
        m("parameters", "count", 80, weights="trained"),
        m("calls", "count", 1, layer="block.conv", order=0, type="Conv2d", outputs="32×8×14×14", dtype="float32"),
        m("calls", "count", 1, layer="block.relu", order=1, type="ReLU", outputs="32×8×14×14", dtype="float32"),
        m("forward_seconds", "s", 0.003, 0.001, 0.002, layer="block.conv"),
        m("forward_seconds", "s", 0.0005, layer="block.relu"),
        m("forward_seconds", "s", 0.0001, layer="(unattributed)"),
        m("backward_seconds", "s", 0.004, layer="block.conv"),
        m("seconds", "s", 0.0002, layer="(data)"),
        m("forward_macs", "count", 5_000_000, layer="block.conv"),
        m("forward_moved_bytes", "bytes", 100_000, layer="block.conv"),
        m("forward_moved_bytes", "bytes", 100_000, layer="block.relu", uncounted="relu"),
        m("saved_bytes", "bytes", 4096, layer="block.relu"),
        m("step_seconds", "s", 0.007, calls=1, disturbed="the load was 9.0 on 2 cores"),
        m("instrumented_step_seconds", "s", 0.0077),
        m("peak_above_start_bytes", "bytes", 8192, at="block.relu backward"),
    )
    base = trained()
    task = base.task.model_copy(update={"stage": "profile"})
    return base.model_copy(update={"task": task, "key": task.key, "measurements": measured})


@pytest.fixture
def tree(tmp_path: Path) -> Callable[[Mapping[str, str]], Path]:
    """Return a function that writes small files into a new folder."""

    def make(files: Mapping[str, str]) -> Path:
        root = tmp_path / f"tree-{len(list(tmp_path.iterdir()))}"
        root.mkdir()
        for name, text in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        return root

    return make


@pytest.fixture
def as_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, str], str]:
    """Return a function that makes a copy of a run's records one that comes with cnnperf, and returns its name."""
    package = tmp_path / "installed" / "cnnperf"
    monkeypatch.setattr(location, "__file__", str(package / "record" / "location.py"))

    def make(run: Path, name: str) -> str:
        folder = package / location.REFERENCE / name
        folder.mkdir(parents=True)
        (folder / COMPRESSED_FILE).write_bytes(gzip.compress((run / FILE).read_bytes()))
        return f"{location.REFERENCE}/{name}"

    return make
