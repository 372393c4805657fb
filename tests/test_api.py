"""The public names, and the modules that must not import torch."""

from __future__ import annotations

import pkgutil
import sys
from pathlib import Path

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
    "ab",
    "compare",
    "curves",
    "infer",
    "layers",
    "load_suite",
    "plan",
    "profile",
    "rank",
    "read",
    "run",
]


def test_the_public_names_are_these() -> None:
    """The package exports exactly the listed names."""
    assert cnnperf.__all__ == PUBLIC
    assert dir(cnnperf) == PUBLIC
    for name in PUBLIC:
        assert getattr(cnnperf, name) is not None


def test_importing_cnnperf_imports_nothing_of_weight() -> None:
    """Importing the package imports neither torch, pandas, scipy, numpy nor pydantic."""
    code = (
        "import sys, cnnperf; print([m for m in ('torch', 'pandas', 'scipy', 'numpy', 'pydantic') if m in sys.modules])"
    )
    assert completed(sys.executable, "-c", code).stdout == "[]\n"


def test_no_module_hides_a_public_name() -> None:
    """No module at the root has a public name: as soon as it is imported, it would replace the public object."""
    assert cnnperf.__file__
    inside = {path.stem for path in Path(cnnperf.__file__).parent.iterdir()}
    assert inside & set(PUBLIC) == set()


BELOW_THE_WALL = (
    *(f"cnnperf.{package}." for package in ("models", "training", "profiling")),
    *(f"cnnperf.stages.{name}" for name in ("train", "profile", "export")),
    *(f"cnnperf.inference.{name}" for name in ("exporting", "golden")),
    "cnnperf.workers.rank",
    "cnnperf.workers.subjects",
    "cnnperf.claims._torch_work",
)
"""Places whose import may import torch: packages, which end in a dot, and modules."""


def test_nothing_above_the_wall_imports_torch() -> None:
    """Every module that is not listed as using torch can be imported without torch."""
    packages = tuple(name for name in BELOW_THE_WALL if name.endswith("."))
    modules = [found.name for found in pkgutil.walk_packages(cnnperf.__path__, "cnnperf.")]
    above = [name for name in modules if name not in BELOW_THE_WALL and not name.startswith(packages)]
    code = (
        "import importlib, sys\n"
        f"for name in {[name for name in above if name != 'cnnperf.__main__']}:\n"
        "    importlib.import_module(name)\n"
        "    assert not {'torch', 'torchvision'} & set(sys.modules), name\n"
    )
    done = completed(sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr
    assert len(above) > len(modules) / 2
