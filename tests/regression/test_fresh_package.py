"""The gate of another project: the lines of the page on the gate, as they stand, on a package that is made here."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from processes import completed, environment
from repositories import git

PAGE = (Path(__file__).parents[2] / "cnnperf/regression/README.md").read_text(encoding="utf-8")
SECTION = PAGE.partition("## A gate in your project\n")[2]
PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "mypackage"
version = "1"
dependencies = ["torch"]
"""
NETWORKS = """
import torch
from torch import Tensor, nn

PASSES = {passes}


class Repeated(nn.Module):
    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(in_channels, 4, 3, padding=1)
        self.repeated = nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(4, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        features = torch.relu(self.first(images))
        total = sum(self.repeated(features) for _ in range(PASSES)) / PASSES
        return self.head(total.mean((2, 3)))


def build(in_channels: int, num_classes: int) -> nn.Module:
    return Repeated(in_channels, num_classes)
"""
PASSES = {"base": 25, "no-op": 25, "slower": 27}
"""Equal work, done this many times, of each commit: the last one's is 8 % more, with the same outputs."""


def block(language: str) -> str:
    """Return the page's code block in a language."""
    [found] = re.findall(rf"^```{language}\n(.*?)^```$", SECTION, flags=re.DOTALL | re.MULTILINE)
    return str(found)


def package(folder: Path, where: str) -> None:
    """Make a repository whose `origin/main` is the first commit; `where` is the folder of the package."""
    git(folder, "init", "-q", "-b", "main")
    (folder / where / "mypackage").mkdir(parents=True)
    (folder / where / "mypackage/__init__.py").touch()
    (folder / "pyproject.toml").write_text(PROJECT)
    (folder / "ci.toml").write_text(block("toml"))
    commit(folder, where, "base")
    git(folder.parent, "init", "-q", "--bare", "origin.git")
    git(folder, "remote", "add", "origin", str(folder.parent / "origin.git"))
    git(folder, "push", "-q", "origin", "main")


def commit(folder: Path, where: str, name: str) -> None:
    """Commit the package with the work of that name."""
    (folder / where / "mypackage/networks.py").write_text(f"# {name}\n{NETWORKS.format(passes=PASSES[name])}")
    git(folder, "add", "pyproject.toml", "ci.toml", f"{where}/mypackage")
    git(folder, "commit", "-q", "-m", name)


def gate(folder: Path, **variables: str) -> tuple[subprocess.CompletedProcess[str], str]:
    """Run the page's command in a shell, and return how it ended and its summary."""
    [line] = re.findall(r"- run: (cnnperf ab .*)", block("yaml"))
    # With fewer pairs of samples a replicate takes less time; beside other tests, more.
    command = line.replace(" >>", " --pairs 12 --minutes 20 >>")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    summary, cache = folder.parent / "summary.md", folder.parent / "cache"
    summary.unlink(missing_ok=True)
    env = environment(GITHUB_STEP_SUMMARY=str(summary), PATH=path, CNNPERF_CACHE=str(cache), **variables)
    done = completed("sh", "-c", command, cwd=folder, env=env, limit_s=1500)
    return done, summary.read_text()


def installed(folder: Path, site: Path) -> dict[str, str]:
    """Install the package into a folder, as `pip install .` does, and return the variables by which it is found."""
    words = ("pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target", site, folder)
    completed(sys.executable, "-m", *words, check=True)
    return {"PYTHONPATH": os.pathsep.join([str(site), environment()["PYTHONPATH"]])}


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(4000)
@pytest.mark.parametrize(
    ("where", "is_installed", "names"), [(".", True, ("slower",)), ("src", False, ("no-op", "slower"))]
)
def test_the_lines_of_the_page_on_a_fresh_package(
    tmp_path: Path, where: str, names: tuple[str, ...], *, is_installed: bool
) -> None:
    """A commit that changes nothing is not called worse, one that does 8 % more work is, installed or not."""
    folder = tmp_path / "repository"
    folder.mkdir()
    package(folder, where)
    variables = installed(folder, tmp_path / "site-packages") if is_installed else {}
    for name in names:
        commit(folder, where, name)
        done, summary = gate(folder, **variables)
        first, *_ = summary.splitlines()
        if name == "slower":
            assert done.returncode == 1, (summary, done.stderr)
            assert re.search(r"\b[12] worse", first), first
        else:
            assert done.returncode in (0, 3), (summary, done.stderr)
        assert not re.search("error|missing|better", first), first
    assert git(folder, "status", "--short", "--untracked-files=no") == ""
