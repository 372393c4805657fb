"""Faults in what surrounds the command: folders, users, streams, encodings, signals."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import stat
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from faulty import COMMAND, assert_ended, assert_one_sentence, catches, cnnperf, make_run, status_of, write_suite
from matrix import Trials
from processes import completed, environment, started, until

from cnnperf.record import FILE, read

IN_SHELL = 'command="$1"; shift; "$command" "$@" '
POWERLESS = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
"""Root without its powers: a user who owns the interpreter, but not the files of others."""
NAMELESS = (
    *("setpriv", "--reuid=12345", "--regid=12345", "--clear-groups"),
    *("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"),
)
"""A user without a name or a home folder, who may read the interpreter wherever it is."""
OTHER = 12345
"""Number of another user."""
as_root = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root and setpriv to be another user"
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with a suite and its run, and return it; nobody may change it."""
    folder = tmp_path_factory.mktemp("home")
    make_run(folder)
    return folder


def in_shell(redirection: str) -> Sequence[str]:
    """Return the words of a shell that redirects the command's streams."""
    return ("bash", "-c", IN_SHELL + redirection, "bash")


def given_away(folder: Path, mode: int = 0o755) -> Path:
    """Give a folder and all in it to another user."""
    for path in (folder, *folder.rglob("*")):
        os.chown(path, OTHER, OTHER)
    folder.chmod(mode)
    return folder


def records(run: Path) -> list[str]:
    """Return the ends of a run's tasks."""
    return [record.status for record in read(run)]


@as_root
def test_a_read_only_working_directory(tmp_path: Path, home: Path) -> None:
    """A run that would write below a folder of another user names the option for another folder."""
    folder = given_away(tmp_path)
    done = cnnperf("run", home / "small.toml", cwd=folder, within=POWERLESS)
    assert_one_sentence(done, 2, "results/", "Permission denied", "--out")


@as_root
@pytest.mark.parametrize("mode", [0o755, 0o700])
def test_a_read_only_run_folder(tmp_path: Path, home: Path, mode: int) -> None:
    """A run folder of another user is refused in one sentence, whether it is to be made or resumed."""
    theirs = tmp_path / "theirs"
    shutil.copytree(home / "run", theirs / "run")
    given_away(theirs, mode)
    for option, folder in (("--out", theirs / "new"), ("--resume", theirs / "run")):
        done = cnnperf("run", home / "small.toml", option, folder, within=POWERLESS)
        assert_one_sentence(done, 2, str(folder), "Permission denied")


@as_root
def test_tables_of_another_user_s_run(tmp_path: Path, home: Path) -> None:
    """A run that can only be read is reported; an output beside it cannot be written."""
    run = given_away(shutil.copytree(home / "run", tmp_path / "run"))
    for path in (run, *run.rglob("*")):
        path.chmod(0o755)
    done = cnnperf("report", run, within=POWERLESS)
    assert_ended(done, 0)
    assert "mlp" in done.stdout
    done = cnnperf("report", run, "--format", "html", "--out", run / "page.html", within=POWERLESS)
    assert_one_sentence(done, 2, "page.html", "Permission denied")


@as_root
def test_a_cold_cache_of_another_user(tmp_path: Path, home: Path) -> None:
    """A cache that cannot be written is named with the variable for another one."""
    env = environment(CNNPERF_CACHE=str(given_away(tmp_path)))
    done = cnnperf("run", home / "small.toml", "--dry-run", within=POWERLESS, env=env)
    assert_one_sentence(done, 2, "Permission denied", "CNNPERF_CACHE")


@as_root
def test_a_warm_cache_of_another_user(tmp_path: Path, home: Path) -> None:
    """A cache that holds the images and can only be read serves a run; one that cannot be read is named."""
    env = environment(CNNPERF_CACHE=str(tmp_path / "cache"))
    assert_ended(cnnperf("run", home / "small.toml", "--dry-run", env=env), 0)
    cache = given_away(tmp_path / "cache")
    for path in (cache, *cache.rglob("*")):
        path.chmod(stat.S_IMODE(path.stat().st_mode) & ~0o022)
    done = cnnperf("run", home / "small.toml", "--out", tmp_path / "run", within=POWERLESS, env=env)
    assert_ended(done, 0)
    assert records(tmp_path / "run") == ["ok"]
    cache.chmod(0o700)
    done = cnnperf("run", home / "small.toml", "--dry-run", within=POWERLESS, env=env)
    assert_one_sentence(done, 2, "Permission denied", "CNNPERF_CACHE")


@as_root
def test_a_user_without_a_name(tmp_path: Path, home: Path) -> None:
    """Without a name and HOME the message names the variables to set; with a cache the command works."""
    tmp_path.chmod(0o777)
    env = environment()
    without = {name: value for name, value in env.items() if name not in ("HOME", "CNNPERF_CACHE")}
    suite = home / "small.toml"
    assert_one_sentence(cnnperf("run", suite, "--dry-run", within=NAMELESS, env=without), 2, "HOME", "CNNPERF_CACHE")
    given = {**without, "CNNPERF_CACHE": str(tmp_path / "cache")}
    done = cnnperf("run", suite, "--out", tmp_path / "run", within=NAMELESS, env=given)
    assert_ended(done, 0)
    assert records(tmp_path / "run") == ["ok"]


@pytest.mark.parametrize("place", ["/dev/null/home", "~no-such-user"])
def test_a_cache_in_a_home_folder_that_does_not_exist(home: Path, place: str) -> None:
    """The cache folder is named with the variable for another one."""
    env = {**environment(HOME=place), "CNNPERF_CACHE": "~/cache" if place.startswith("/") else place}
    assert_one_sentence(cnnperf("run", home / "small.toml", "--dry-run", env=env), 2, "CNNPERF_CACHE")


@pytest.mark.parametrize(
    "variables",
    [
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1"},
    ],
    ids=["c", "ascii", "latin-1"],
)
def test_an_encoding_that_lacks_characters(tmp_path: Path, home: Path, variables: dict[str, str]) -> None:
    """A run and all reports succeed; what the terminal lacks is replaced, and files are UTF-8."""
    env = environment(**variables)
    pipes = {"encoding": "latin-1"}
    run = tmp_path / "run"
    done = cnnperf("run", home / "small.toml", "--out", run, env=env, **pipes)
    assert_ended(done, 0)
    assert "+ 1/1" in done.stderr
    assert "×" in (run / "leaderboard.csv").read_text(encoding="utf-8")
    for form in ("console", "csv", "markdown", "json", "html"):
        done = cnnperf("report", run, "--format", form, env=env, **pipes)
        assert_ended(done, 0)
        assert "mlp" in done.stdout
    page = tmp_path / "page.html"
    assert_ended(cnnperf("report", run, "--format", "html", "--out", page, env=env, **pipes), 0)
    assert "×" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("redirection", [">/dev/full", ">&-"])
@pytest.mark.parametrize("words", [("--help",), ("list", "models"), ("report", "run"), ("schema",)])
def test_output_that_cannot_be_written(home: Path, redirection: str, words: tuple[str, ...]) -> None:
    """The exit status is 1, with a sentence on stdout."""
    done = cnnperf(*words, cwd=home, within=in_shell(redirection))
    assert_one_sentence(done, 1, "stdout: cannot be written")


@pytest.mark.parametrize("redirection", [">/dev/full", ">&-", "<&- >&- 2>&-", "2>/dev/full", "2>&-"])
def test_a_run_whose_streams_are_lost(tmp_path: Path, home: Path, redirection: str) -> None:
    """The measurement runs and is recorded, and its tables are written; only a lost leaderboard is a failure."""
    run = tmp_path / "run"
    done = cnnperf("run", home / "small.toml", "--out", run, within=in_shell(redirection))
    assert_ended(done, 0 if ">" not in redirection.replace("2>", "") else 1)
    assert records(run) == ["ok"]
    assert (run / "leaderboard.csv").is_file()


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full"])
def test_an_error_that_cannot_be_said(tmp_path: Path, redirection: str) -> None:
    """The exit status is that of the error."""
    assert_ended(cnnperf("report", tmp_path, within=in_shell(redirection)), 2)


@pytest.mark.parametrize("words", [("list", "models"), ("report", "run", "--format", "html"), ("report", "run")])
def test_a_reader_that_has_gone(home: Path, words: tuple[str, ...]) -> None:
    """The exit status is that of SIGPIPE, without a message."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = cnnperf(*words, cwd=home, stdout=writer)
    finally:
        os.close(writer)
    assert_ended(done, 141)
    assert done.stderr == ""


def test_a_run_piped_into_head(tmp_path: Path, home: Path) -> None:
    """Records are on disk before the reader's end is noticed."""
    run = tmp_path / "run"
    done = cnnperf("run", home / "small.toml", "--out", run, within=in_shell("| true; exit ${PIPESTATUS[0]}"))
    assert_ended(done, 141)
    assert records(run) == ["ok"]
    assert (run / "leaderboard.csv").is_file()


def test_paths_that_are_not_utf_8(tmp_path: Path, home: Path) -> None:
    """A folder whose name is not UTF-8 serves as working directory, suite, data, run folder, and for reports."""
    odd = tmp_path / os.fsdecode(b"a\xffb")
    odd.mkdir()
    suite = write_suite(odd)
    assert_ended(cnnperf("run", "small.toml", "--out", "run", "--data", odd, cwd=odd), 0)
    assert records(odd / "run") == ["ok"]
    assert_ended(cnnperf("run", suite, "--resume", odd / "run"), 0)
    assert r"a\udcffb" in (odd / "run" / "tasks.csv").read_text(encoding="utf-8")
    for form in ("console", "csv", "markdown", "json", "html"):
        assert_ended(cnnperf("report", odd / "run", "--format", form), 0)
        assert_ended(cnnperf("report", odd / "run", "--format", form, "--out", odd / f"file.{form}"), 0)
    assert_one_sentence(cnnperf("run", odd / "none.toml"), 2, r"a\udcffb")


def test_warnings_as_errors(tmp_path: Path, home: Path) -> None:
    """A warning stays a sentence, in the command and in its workers."""
    env = environment(PYTHONWARNINGS="error")
    run = tmp_path / "run"
    assert_ended(cnnperf("run", home / "small.toml", "--out", run, env=env), 0)
    with (run / FILE).open("ab") as file:
        file.write(b'{"schema":')
    done = cnnperf("report", run, env=env)
    assert_ended(done, 0)
    assert "cnnperf: warning: " in done.stderr


def test_a_folder_for_temporary_files_that_does_not_exist(tmp_path: Path, home: Path) -> None:
    """Another folder for temporary files is used."""
    for place in (tmp_path / "none", Path("/dev/null")):
        assert_ended(cnnperf("run", home / "small.toml", "--dry-run", env=environment(TMPDIR=str(place))), 0)


def test_an_interrupt_at_a_random_moment(tmp_path: Path, home: Path, trials: Trials) -> None:
    """SIGINT, SIGTERM or SIGHUP ends a run with exit status 130; its records are valid."""

    def one(numbers: random.Random) -> None:
        run = tmp_path / f"run-{numbers.random()}"
        command = (COMMAND, "run", home / "small.toml", "--out", run, "--repeats", "3")
        with started(command) as process:
            until(lambda: process.poll() is not None or catches(process.pid, signal.SIGTERM))
            with suppress(Exception):
                process.wait(numbers.uniform(0.0, 20.0))
            process.send_signal(numbers.choice((signal.SIGINT, signal.SIGTERM, signal.SIGHUP)))
            out, err = process.communicate()
        assert process.returncode in (0, 130), err
        assert "Traceback" not in out + err, err
        assert "Exception ignored" not in err, err
        if (run / FILE).exists():
            assert set(records(run)) == {"ok"}

    trials.run(one)


LATE = """
import os, signal, sys
import cnnperf.cli as cli
import cnnperf.cli.app as app

number = int(sys.argv[1])
app.main = lambda: signal.signal(number, signal.default_int_handler)
cli.end_streams = lambda status: os.kill(os.getpid(), number) or status
cli.main()
"""
"""A command that gets a signal when it has nothing left to do but to flush its output."""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_when_the_result_is_known(number: signal.Signals) -> None:
    """The exit status is that of the result, and no traceback is shown."""
    done = completed(sys.executable, "-c", LATE, int(number))
    assert (done.returncode, done.stderr) == (0, "")


def test_a_run_that_is_suspended(tmp_path: Path, home: Path) -> None:
    """SIGTSTP and SIGCONT change nothing but the time."""
    run = tmp_path / "run"
    with started((COMMAND, "run", home / "small.toml", "--out", run)) as process:
        until(lambda: process.poll() is not None or catches(process.pid, signal.SIGTERM))
        for _ in range(3):
            os.killpg(process.pid, signal.SIGSTOP)
            until(lambda: _state(process.pid) == "T")
            os.killpg(process.pid, signal.SIGCONT)
            with suppress(Exception):
                process.wait(1.0)
        _, err = process.communicate()
    assert process.returncode == 0, err
    assert records(run) == ["ok"]


def _state(pid: int) -> str | None:
    found = re.search(r"State:\s*(\w)", status_of(pid))
    return found and found[1]
