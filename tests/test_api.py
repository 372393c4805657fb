"""The public names, and the wall that keeps torch below them."""

from __future__ import annotations

import sys

from processes import completed

import cnnperf

PUBLIC = [
    "Cell",
    "Choice",
    "CnnperfError",
    "CnnperfWarning",
    "Comparison",
    "Machine",
    "Measurement",
    "Provenance",
    "Record",
    "Suite",
    "Task",
    "Verdict",
    "compare",
    "curves",
    "layers",
    "load_suite",
    "plan",
    "rank",
    "read",
    "run",
]


def test_the_public_names_are_these() -> None:
    """Adding or removing one is a decision."""
    assert cnnperf.__all__ == PUBLIC
    assert dir(cnnperf) == PUBLIC
    for name in PUBLIC:
        assert getattr(cnnperf, name) is not None


def test_importing_cnnperf_imports_nothing_of_weight() -> None:
    """The package is lazy."""
    code = (
        "import sys, cnnperf; print([m for m in ('torch', 'pandas', 'scipy', 'numpy', 'pydantic') if m in sys.modules])"
    )
    assert completed(sys.executable, "-c", code).stdout == "[]\n"


def test_nothing_above_the_wall_imports_torch() -> None:
    """Every module of the package itself, and the rooms without networks, load without torch."""
    code = (
        "import importlib, pkgutil, sys, cnnperf\n"
        "for found in pkgutil.iter_modules(cnnperf.__path__, 'cnnperf.'):\n"
        "    if not found.name.endswith('__main__'): importlib.import_module(found.name)\n"
        "for package in ('cli', 'duet', 'ipc', 'machine', 'regression', 'running', 'tables', 'workers'):\n"
        "    walked = importlib.import_module(f'cnnperf.{package}')\n"
        "    for found in pkgutil.iter_modules(walked.__path__, f'{walked.__name__}.'):\n"
        "        if found.name != 'cnnperf.workers.subjects': importlib.import_module(found.name)\n"
        "for name in ('cpu', 'cuda'): importlib.import_module(f'cnnperf.devices.{name}')\n"
        "for name in ('mnist', 'cifar10', 'synthetic'): importlib.import_module(f'cnnperf.datasets.{name}')\n"
        "print([m for m in ('torch', 'torchvision') if m in sys.modules])"
    )
    done = completed(sys.executable, "-c", code)
    assert done.stdout == "[]\n", done.stderr
