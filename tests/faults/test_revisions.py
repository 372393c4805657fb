"""Faults in what `ab` compares: revisions, their repositories, and the worktrees of a killed comparison."""

from __future__ import annotations

import os
import random
import signal
import string
import sys
import time
from pathlib import Path

import psutil
import pytest
from faulty import COMMAND, assert_ended, assert_one_sentence, cnnperf, write_suite
from matrix import Trials
from processes import environment, started, until
from repositories import commit, git

HOLDER = """
import sys
from pathlib import Path
from cnnperf.regression.worktrees import worktree
with worktree(Path(sys.argv[1]), sys.argv[2]) as tree:
    print(tree, flush=True)
    sys.stdin.read()
"""
"""A program that has a worktree until its input ends."""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Make a repository with two commits and a suite."""
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "-q")
    write_suite(folder)
    commit(folder, "old")
    git(folder, "tag", "before")
    commit(folder, "new")
    return folder


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """Return an environment with a cache of its own, in which git's global settings allow every protocol."""
    (tmp_path / "gitconfig").write_text("[protocol]\n\tallow = always\n")
    return environment(CNNPERF_CACHE=str(tmp_path / "cache"), GIT_CONFIG_GLOBAL=str(tmp_path / "gitconfig"))


COMPARED = ("ab", "small.toml", "--baseline", "before", "--candidate", "main")
"""The words of a command that checks two revisions out and starts both, and then finds no network of theirs."""


def trees(repository: Path) -> list[str]:
    """Return the lines of git's list of worktrees."""
    return git(repository, "worktree", "list").splitlines()


def test_a_submodule_whose_address_is_a_command(repository: Path, tmp_path: Path, env: dict[str, str]) -> None:
    """A command in the address of a submodule does not run, even where git's settings allow it."""
    marker = tmp_path / "ran"
    (repository / ".gitmodules").write_text(f'[submodule "v"]\n\tpath = v\n\turl = "ext::touch {marker}"\n')
    git(repository, "add", ".gitmodules")
    git(repository, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},v")
    git(repository, "commit", "-q", "-m", "with a command")
    done = cnnperf(*COMPARED, cwd=repository, env=env)
    assert not marker.exists()
    assert_one_sentence(done, 2, "submodules cannot be checked out")
    assert len(trees(repository)) == 1


def test_programs_that_a_repository_names(repository: Path, tmp_path: Path, env: dict[str, str]) -> None:
    """Hooks, a file-system monitor and a command for updates of submodules do not run; both sides are started."""
    marker, program, inner = tmp_path / "ran", tmp_path / "program", tmp_path / "inner"
    program.write_text(f'#!/bin/sh\necho "$0 $@" >> {marker}\n')
    program.chmod(0o755)
    inner.mkdir()
    git(inner, "init", "-q")
    (inner / "file").write_text("")
    commit(inner, "inner")
    git(repository, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(inner), "v")
    commit(repository, "with a submodule")
    for hook in ("post-checkout", "post-index-change", "reference-transaction"):
        (repository / ".git" / "hooks" / hook).symlink_to(program)
    git(repository, "config", "submodule.v.update", f"!{program}")
    git(repository, "config", "core.fsmonitor", str(program))
    done = cnnperf(*COMPARED, cwd=repository, env=env)
    assert not marker.exists(), marker.read_text()
    assert_ended(done, 1)
    assert "comes from" in done.stderr


def test_a_repository_of_another_user(repository: Path, env: dict[str, str]) -> None:
    """A repository that git refuses for its owner is refused in one sentence that says so."""
    foreign = {**env, "GIT_TEST_ASSUME_DIFFERENT_OWNER": "1"}
    done = cnnperf(*COMPARED, cwd=repository, env=foreign)
    assert_one_sentence(done, 2, "belongs to another user", "safe.directory")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP])
def test_a_comparison_that_is_ended(repository: Path, env: dict[str, str], number: int) -> None:
    """After a comparison is killed or hung up, the next one leaves no worktree."""
    with started((COMMAND, *COMPARED), cwd=repository, env=env) as process:
        until(lambda: len(trees(repository)) == 3)
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        process.wait()
    for each in family:
        if each.is_running():
            each.kill()
    done = cnnperf(*COMPARED, cwd=repository, env=env, limit_s=280)
    assert_ended(done, 1)
    assert "comes from" in done.stderr
    assert len(trees(repository)) == 1
    assert [path.name for path in Path(env["CNNPERF_CACHE"], "revisions").iterdir()] == ["guard"]


def test_an_owner_that_is_killed_at_any_moment(repository: Path, env: dict[str, str], trials: Trials) -> None:
    """The worktree of an owner that is killed goes with the next one; that of a living owner stays."""
    holder = (sys.executable, "-c", HOLDER, repository, git(repository, "rev-parse", "HEAD"))
    with started(holder, env=env, stdin=-1) as living:
        assert living.stdout is not None
        tree = Path(living.stdout.readline().strip())

        def one(numbers: random.Random) -> None:
            with started(holder, env=env, stdin=-1) as killed:
                time.sleep(numbers.uniform(0.0, 1.5))
                killed.kill()
            with started(holder, env=env, stdin=-1) as after:
                out, err = after.communicate("", timeout=120)
            assert after.returncode == 0, err
            assert not Path(out.strip()).exists()
            # A git that outlives its killed parent may still add its worktree.
            assert len(trees(repository)) <= 3
            assert (tree / "mine.py").is_file()

        trials.run(one)
        with started(holder, env=env, stdin=-1) as last:
            last.communicate("", timeout=120)
        assert len(trees(repository)) == 2
        assert tree.is_dir()


BAD_PROJECTS = {
    "dependencies is a number": "[project]\ndependencies = 3",
    "dependencies is a text": '[project]\ndependencies = "torch"',
    "dependencies is a table": "[project.dependencies]\na = 1",
    "a dependency is a number": "[project]\ndependencies = [1]",
    "a dependency is an option of pip": '[project]\ndependencies = ["--index-url=http://127.0.0.1:9"]',
    "a dependency has a control character": '[project]\ndependencies = ["a @ file:///\\u0000"]',
    "a dependency is long": f'[project]\ndependencies = ["{"!" * 100_000}"]',
    "project is a text": 'project = "x"',
    "project is a list": "project = [[1]]",
    "requires-python is a number": "[project]\nrequires-python = 3",
    "requires-python is a list": '[project]\nrequires-python = [">=3.11"]',
    "requires-python is long": f'[project]\nrequires-python = "{"x" * 100_000}"',
    "a long number": f"a = {'9' * 5000}",
    "deep": f"a = {'[' * 5000}",
    "not TOML": "[project",
}


@pytest.mark.parametrize("text", BAD_PROJECTS.values(), ids=BAD_PROJECTS)
def test_a_project_of_wrong_types(repository: Path, env: dict[str, str], text: str) -> None:
    """A revision whose pyproject.toml has a value of a wrong type is refused, with the file's name."""
    (repository / "pyproject.toml").write_text(text)
    git(repository, "commit", "-q", "-a", "-m", "wrong")
    done = cnnperf("ab", "small.toml", "--baseline", "HEAD", "--candidate", "before", cwd=repository, env=env)
    assert_one_sentence(done, 2, "pyproject.toml")


def test_a_project_of_random_values(repository: Path, env: dict[str, str], trials: Trials) -> None:
    """A key of pyproject.toml with a random value ends in one sentence."""
    values = ("3", "-1.5", "true", "[]", "{}", '""', '[""]', "[[]]", "1979-05-27", '"\\u0007"', "{ a = [1] }", "nan")

    def one(numbers: random.Random) -> None:
        lines = [f"{key} = {numbers.choice(values)}" for key in ("name", "dependencies", "requires-python", "dynamic")]
        numbers.shuffle(lines)
        head = numbers.choice(["[project]", "[[project]]", "[project.dependencies]", ""])
        text = "\n".join([head, *lines[: numbers.randrange(5)]])
        file = repository / "pyproject.toml"
        file.write_bytes(text.encode() + bytes(numbers.choices(range(256), k=numbers.choice([0, 0, 0, 3]))))
        git(repository, "commit", "-q", "--allow-empty", "-a", "-m", "random")
        # The other side names no revision, so that the command ends before it measures.
        done = cnnperf("ab", "small.toml", "--baseline", "HEAD", "--candidate", "nothing", cwd=repository, env=env)
        assert_one_sentence(done, 2)

    trials.run(one)


NAMES = {
    "300 characters": "x" * 300,
    "100,000 characters": "x" * 100_000,
    "a path of 5,000 characters": "x/" * 2500,
    "a newline": "a\nb",
    "control characters": "\x1b[31m\r",
    "bytes that are no text": os.fsdecode(b"\xff\xfe"),
    "a user that there is not": "~nosuchuser/bin/python",
    "empty": "",
    "an option": "--all",
    "a path below a file": "mine.py/bin/python",
    "a range": "before..main",
}


@pytest.mark.parametrize("option", ["--baseline", "--candidate"])
@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_name_of_no_version(repository: Path, env: dict[str, str], option: str, name: str) -> None:
    """A name that is no path and no revision is refused, in either option."""
    done = cnnperf("ab", "small.toml", f"{option}={name}", cwd=repository, env=env)
    assert_one_sentence(done, 2, option)
    assert "\x1b" not in done.stderr


def test_random_names(repository: Path, env: dict[str, str], trials: Trials) -> None:
    """A name of random characters is refused in one sentence."""
    signs = string.punctuation.replace("-", "") + "\n\t\x07é￿abc"

    def one(numbers: random.Random) -> None:
        name = "".join(numbers.choices(signs, k=numbers.choice([3, 20, 300])))
        done = cnnperf("ab", "small.toml", f"--candidate={name}", cwd=repository, env=env)
        assert_one_sentence(done, 2)

    trials.run(one)
