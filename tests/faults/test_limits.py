"""Faults of small limits and of large or odd input."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from faulty import LONGEST, SUITE, assert_ended, assert_one_sentence, cnnperf, make_run, write_suite
from processes import environment
from test_surroundings import NAMELESS, as_root, records

from cnnperf.record import FILE


def limited(option: str, value: int) -> tuple[str, ...]:
    """Return the words of a shell that sets a limit of its processes, then runs the command."""
    return ("bash", "-c", f"ulimit {option} {value}; " + 'exec "$@"', "bash")


@pytest.mark.parametrize("files", [6, 8, 10, 12, 16, 32])
def test_few_open_files(tmp_path: Path, files: int) -> None:
    """With few descriptors a run succeeds, or says in one sentence that there are too few."""
    run = tmp_path / "run"
    done = cnnperf("run", write_suite(tmp_path), "--out", run, within=limited("-n", files))
    if done.returncode:
        assert done.returncode in (1, 2)
        assert_one_sentence(done, done.returncode)
    else:
        assert records(run) == ["ok"]


@as_root
@pytest.mark.parametrize("processes", [1, 2, 3, 4, 6, 8])
def test_few_processes(tmp_path: Path, processes: int) -> None:
    """With few processes and threads a run succeeds, or says in one sentence that there are too few."""
    tmp_path.chmod(0o777)
    within = (*NAMELESS, *limited("-u", processes))
    done = cnnperf("run", write_suite(tmp_path), "--out", tmp_path / "run", within=within)
    if done.returncode:
        assert_one_sentence(done, done.returncode)
    else:
        assert records(tmp_path / "run") == ["ok"]


@pytest.mark.parametrize("kibibytes", [1_000_000, 2_000_000])
def test_little_address_space(tmp_path: Path, kibibytes: int) -> None:
    """Where torch cannot be loaded, one sentence says so."""
    done = cnnperf("run", write_suite(tmp_path), "--out", tmp_path / "run", within=limited("-v", kibibytes))
    assert_one_sentence(done, 2)


@pytest.mark.parametrize("kibibytes", [0, 4, 64, 1024])
def test_small_files(tmp_path: Path, kibibytes: int) -> None:
    """A limit on the size of files ends a run like a full disk; what was recorded is kept, and the run is resumed."""
    suite, run = write_suite(tmp_path), tmp_path / "run"
    cnnperf("run", suite, "--dry-run")
    done = cnnperf("run", suite, "--out", run, "--repeats", "3", within=limited("-f", kibibytes))
    assert_ended(done, 0, 1, 2)
    if done.returncode:
        assert done.stderr.strip()
    kept = records(run) if (run / FILE).exists() and (run / FILE).stat().st_size else []
    assert_ended(cnnperf("run", suite, "--resume" if kept else "--out", run, "--repeats", "3"), 0)
    assert records(run) == ["ok"] * 3


@contextmanager
def small_disk(folder: Path, kibibytes: int) -> Iterator[Path]:
    """Mount a small file system in memory, and unmount it at the end."""
    folder.mkdir()
    words = ("mount", "-t", "tmpfs", "-o", f"size={kibibytes}k", "none", str(folder))
    if os.geteuid() != 0 or subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip("a file system cannot be mounted")
    try:
        yield folder
    finally:
        subprocess.run(("umount", str(folder)), check=True)


@pytest.mark.parametrize("kibibytes", [16, 200, 900])
def test_a_disk_that_fills_in_mid_run(tmp_path: Path, kibibytes: int) -> None:
    """A full disk is said in one sentence; what was recorded is kept, and the run is resumed elsewhere."""
    suite = write_suite(tmp_path)
    with small_disk(tmp_path / "disk", kibibytes) as disk:
        done = cnnperf("run", suite, "--out", disk / "run", "--repeats", "6")
        assert_ended(done, 1, 2)
        shutil.copytree(disk / "run", tmp_path / "run")
    whole = (tmp_path / "run" / FILE).read_bytes().count(b"\n") if (tmp_path / "run" / FILE).exists() else 0
    resumed = cnnperf("run", suite, "--resume" if whole else "--out", tmp_path / "run", "--repeats", "6")
    assert_ended(resumed, 0)
    assert records(tmp_path / "run") == ["ok"] * 6


def test_a_full_cache(tmp_path: Path) -> None:
    """A cache on a full disk is named with the variable for another one."""
    with small_disk(tmp_path / "disk", 16) as disk:
        done = cnnperf("run", write_suite(tmp_path), "--dry-run", env=environment(CNNPERF_CACHE=str(disk)))
    assert_one_sentence(done, 2, "No space left on device", "CNNPERF_CACHE")


def test_a_folder_for_temporary_files_that_is_full(tmp_path: Path) -> None:
    """Another folder for temporary files is used; one that becomes full is named in one sentence."""
    text = write_suite(tmp_path).read_text(encoding="utf-8")
    many = ", ".join(f'{{ name = "mlp", train = {{ steps = {number} }} }}' for number in range(1, 101))
    large = write_suite(tmp_path, text.replace('"mlp"', many))
    words = ("run", large, "--dry-run", "--only", "*steps=77*")
    with small_disk(tmp_path / "disk", 4) as disk:
        env = environment(TMPDIR=str(disk))
        assert_one_sentence(cnnperf(*words, env=env), 1, str(disk), "No space left on device")
        with suppress(OSError):
            (disk / "filler").write_bytes(bytes(100_000))
        assert_ended(cnnperf(*words, env=env), 0)


def test_a_folder_for_temporary_files_that_is_read_only(tmp_path: Path) -> None:
    """Another folder for temporary files is used."""
    with small_disk(tmp_path / "disk", 100) as disk:
        subprocess.run(("mount", "-o", "remount,ro", str(disk)), check=True)
        suite = write_suite(tmp_path)
        assert_ended(cnnperf("run", suite, "--dry-run", env=environment(TMPDIR=str(disk))), 0)


def test_a_system_without_proc(tmp_path: Path) -> None:
    """Without /proc, by which the machine is described, nothing is measured, and one sentence says so."""
    without = ("unshare", "--mount", "bash", "-c", 'mount -t tmpfs none /proc && exec "$@"', "bash")
    if os.geteuid() != 0 or subprocess.run((*without, "true"), capture_output=True, check=False).returncode:
        pytest.skip("/proc cannot be hidden")
    suite = write_suite(tmp_path)
    for words in (("--out", tmp_path / "run"), ()):
        done = cnnperf("run", suite, *words, within=without, cwd=tmp_path)
        assert_one_sentence(done, 2, "/proc/", "mount it")


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 2**40)


ODD: dict[str, Callable[[Path], object]] = {
    "a folder": Path.mkdir,
    "a FIFO": _fifo,
    "an endless file": lambda path: path.symlink_to("/dev/zero"),
    "a link to nothing": lambda path: path.symlink_to("none"),
    "a link to itself": lambda path: path.symlink_to(path),
    "binary garbage": lambda path: path.write_bytes(bytes(range(256)) * 100),
    "a NUL byte": lambda path: path.write_text('models = ["mlp\0"]', encoding="utf-8"),
    "an escaped NUL byte": lambda path: path.write_text(SUITE + 'name = "a\\u0000b"\n', encoding="utf-8"),
    "deep arrays": lambda path: path.write_text("models = " + "[" * 100_000, encoding="utf-8"),
    "deep tables": lambda path: path.write_text(".".join("a" * 50_000) + " = 1", encoding="utf-8"),
    "a deep key": lambda path: path.write_text(SUITE + "x = " + "{a=" * 900 + "1" + "}" * 900, encoding="utf-8"),
    "a file of terabytes": _sparse,
    "a huge number": lambda path: path.write_text(SUITE + "seed = " + "9" * 100_000, encoding="utf-8"),
    "a long name": lambda path: path.write_text(SUITE.replace("mlp", "m" * 1_000_000), encoding="utf-8"),
    "a long import": lambda path: path.write_text(SUITE.replace("mlp", "a:" + "m" * 100_000), encoding="utf-8"),
    "a long key": lambda path: path.write_text("k" * 1_000_000 + " = 1\n" + SUITE, encoding="utf-8"),
    "a long option": lambda path: path.write_text(
        SUITE.replace('"mlp"', "{name='mlp', " + "o" * 10_000 + "=1}"), encoding="utf-8"
    ),
    "a long value": lambda path: path.write_text(
        SUITE.replace('"mlp"', "{name='mlp', hidden='" + "v" * 10_000 + "'}"), encoding="utf-8"
    ),
    "a long setting": lambda path: path.write_text(SUITE + f"[train.{'s' * 10_000}]\n", encoding="utf-8"),
    "ten thousand models": lambda path: path.write_text(
        SUITE.replace('"mlp"', ",".join(f"{{name='mlp',hidden=[{n + 1}]}}" for n in range(10_000)) + ",'mlp','mlp'"),
        encoding="utf-8",
    ),
}
"""Suite files that are no suite: how to make one."""


@pytest.mark.parametrize("what", ODD)
def test_a_suite_file_that_is_no_suite(tmp_path: Path, what: str) -> None:
    """An odd file is refused in one sentence, at once."""
    path = tmp_path / "odd.toml"
    ODD[what](path)
    done = cnnperf("run", path, "--dry-run")
    assert_one_sentence(done, 2, "odd.toml")
    assert done.stderr.count("\n") == 1, done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("run", "x" * 100_000),
        ("run", "quickstart", "--dry-run", "--only", "x" * 100_000),
        ("run", "quickstart", "--dry-run", "--stages", "x" * 100_000),
        ("run", "quickstart", "--dry-run", "--device", "x" * 100_000),
        ("run", "quickstart", "--dry-run", "--data", "x" * 100_000),
        ("run", "quickstart", "--dry-run", "--out", "x" * 100_000),
        ("run", "quickstart", "--dry-run", "--resume", "x" * 100_000),
        ("report", "x" * 100_000),
        ("report", "x/" * 2_000),
        ("report", ".", "--format", "x" * 100_000),
        ("list", "x" * 100_000),
        ("profile", "x" * 100_000),
        ("infer", "x" * 100_000),
        ("data", "verify", "x" * 100_000),
    ],
    ids=lambda words: " ".join(words)[:40],
)
def test_a_long_word(tmp_path: Path, words: tuple[str, ...]) -> None:
    """A word of the command line that is too long is refused in one sentence."""
    assert_one_sentence(cnnperf(*words, cwd=tmp_path), 2)


def test_a_long_name_of_a_column(tmp_path: Path) -> None:
    """The message names the nearest columns, cut at the limit."""
    done = cnnperf("report", make_run(tmp_path), "--by", "x" * 100_000)
    assert_one_sentence(done, 2, "unknown column")
    assert len(done.stderr) <= LONGEST + 1
