"""The distribution: the wheel contains suites and reference runs; a workflow compares pull requests."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from processes import completed

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel of a copy that has one more reference run, with the backend that pyproject.toml names."""
    folder, tree = (tmp_path_factory.mktemp(name) for name in ("dist", "tree"))
    for name in ("cnnperf", "suites"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, tree)
    reference = tree / "results" / "reference" / "smoke"
    reference.mkdir(parents=True)
    records = min((ROOT / "tests" / "golden" / "smoke").glob("*/records.jsonl")).read_bytes()
    (reference / "records.jsonl.gz").write_bytes(gzip.compress(records))
    (reference / "leaderboard.csv").touch()
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder, tree]
    completed(*command, check=True)
    [file] = folder.glob("cnnperf-*.whl")
    return file


def test_the_wheel_carries_suites_and_reference_runs_and_no_tests(wheel: Path) -> None:
    """The wheel contains every suite and the records of reference runs, not their tables, and nothing else besides."""
    names = zipfile.ZipFile(wheel).namelist()
    for suite in (ROOT / "suites").glob("*.toml"):
        assert f"cnnperf/suites/{suite.name}" in names
    assert [name for name in names if name.startswith("cnnperf/reference/")] == [
        "cnnperf/reference/smoke/records.jsonl.gz"
    ]
    assert {"cnnperf/py.typed", "cnnperf/reports/_page/page.css"} <= set(names)
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"cnnperf"}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_installed_wheel_runs_smoke_in_a_fresh_folder(wheel: Path, tmp_path: Path) -> None:
    """After `pip install` of the wheel, `cnnperf run smoke` works without a checkout."""
    environment = tmp_path / "venv"
    venv.create(environment, with_pip=False)
    python = environment / "bin" / "python"
    site = next(environment.glob("lib/python*/site-packages"))
    # The dependencies, 6 GB of them, are those that the tests run with; cnnperf itself is only the wheel.
    [here] = {path for path in map(Path, sys.path) if (path / "torch").is_dir()}
    (site / "dependencies.pth").write_text(f"{here}\n")
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", wheel]
    completed(*install, env=os.environ | {"PIP_NO_INDEX": "1"}, check=True)
    variables = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    run = [environment / "bin" / "cnnperf", "run", "smoke"]
    done = completed(*run, limit_s=500, cwd=tmp_path, env=variables)
    assert done.returncode == 0, done.stderr
    assert "lenet" in done.stdout
    [leaderboard] = tmp_path.glob("results/smoke/*/leaderboard.csv")
    assert leaderboard.stat().st_size > 0
    reported = completed(environment / "bin" / "cnnperf", "report", "reference/smoke", cwd=tmp_path, env=variables)
    assert (reported.returncode, "lenet" in reported.stdout) == (0, True), reported.stderr
    where = completed(python, "-c", "import cnnperf; print(cnnperf.__file__)", cwd=tmp_path, env=variables)
    assert str(site) in where.stdout


def test_the_workflow_tries_other_systems() -> None:
    """Runners with macOS and Windows import the package and list models; macOS runs the smoke suite too."""
    job = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8").partition("  elsewhere:")[2]
    assert "os: [macos-latest, windows-latest]" in job
    assert re.findall(r"- run: (cnnperf \w+ \w+)$", job, re.MULTILINE) == ["cnnperf list models", "cnnperf run smoke"]
    assert re.search(r"cnnperf run smoke\n\s+if: runner\.os == 'macOS'", job)


def test_the_workflow_leaves_time_for_an_environment() -> None:
    """The time limits of the workflow's step and job leave at least five minutes beside the measuring time."""
    workflow = (ROOT / ".github" / "workflows" / "regression.yml").read_text(encoding="utf-8")
    job, step = map(int, re.findall(r"timeout-minutes: (\d+)", workflow))
    [minutes] = map(int, re.findall(r"--minutes ([1-9]\d*)", workflow))
    assert minutes + 5 < step < job
    assert minutes <= 10
