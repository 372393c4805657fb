"""Faults of code that a suite names: harmful functions, broken modules, and functions that return something else."""

from __future__ import annotations

from pathlib import Path

import pytest
from faulty import SUITE, assert_ended, assert_one_sentence, cnnperf, write_suite

LIMIT_S = 300.0
ROOMS = {
    "models": 'models = [{ name = "NAME", OPTIONS }]',
    "datasets": 'datasets = [{ name = "NAME", OPTIONS }]',
    "devices": 'devices = [{ name = "NAME", OPTIONS }]',
    "stages": 'stages = ["NAME"]',
    "infer": 'stages = ["train", "infer"]\ninfer = { engines = [{ name = "NAME", OPTIONS }] }',
}
"""The place of a name with options in a suite, by the word with which errors begin."""


def suite_with(folder: Path, room: str, name: str, options: str = "") -> Path:
    """Write a suite in which code of another package stands at a place."""
    line = ROOMS[room].replace("NAME", name).replace(", OPTIONS", f", {options}" * bool(options))
    others = [each for each in SUITE.splitlines() if not each.startswith(f"{room} =")]
    return write_suite(folder, "\n".join([line, *others]) + "\n")


@pytest.mark.parametrize("words", [("--dry-run",), ()])
@pytest.mark.parametrize("room", ROOMS)
def test_a_suite_that_deletes_a_folder(tmp_path: Path, room: str, words: tuple[str, ...]) -> None:
    """A function that deletes is refused before it is called, wherever the suite names it."""
    precious = tmp_path / "precious"
    precious.mkdir()
    suite = suite_with(tmp_path, room, "shutil:rmtree", f'path = "{precious}"')
    done = cnnperf("run", suite, *words, cwd=tmp_path, limit_s=LIMIT_S)
    assert_one_sentence(done, 2, f"{room}", "'shutil:rmtree' was not called: shutil is a module of Python")
    assert precious.is_dir()


def test_a_suite_that_runs_a_command(tmp_path: Path) -> None:
    """A function that runs a command of the shell is refused before it is called."""
    suite = suite_with(tmp_path, "models", "os:system", f'command = "touch {tmp_path}/ran"')
    done = cnnperf("run", suite, "--dry-run", cwd=tmp_path, limit_s=LIMIT_S)
    assert_one_sentence(done, 2, "models.0", "'os:system' was not called")
    assert not (tmp_path / "ran").exists()


def test_a_device_of_a_self_test_that_runs_a_command(tmp_path: Path) -> None:
    """A self-test refuses a device that is none before it is called."""
    done = cnnperf("selftest", "--device", "torch:os.getcwd", cwd=tmp_path, limit_s=LIMIT_S)
    assert_one_sentence(done, 2, "--device torch:os.getcwd: 'torch:os.getcwd' was not called", "nothing was measured")


@pytest.mark.parametrize("room", ROOMS)
def test_a_module_that_ends_its_process(tmp_path: Path, room: str) -> None:
    """A user's module that exits when it is imported is told in a sentence that names the place."""
    (tmp_path / "broken_module.py").write_text("import sys\nsys.exit(0)\n")
    done = cnnperf("run", suite_with(tmp_path, room, "broken_module:load"), cwd=tmp_path, limit_s=LIMIT_S)
    assert_one_sentence(done, 2, room, "cannot import 'broken_module:load' (0); correct its module")


@pytest.mark.parametrize("room", ROOMS)
def test_a_module_that_fails_when_it_is_imported(tmp_path: Path, room: str) -> None:
    """An exception during the import of a user's module is told in a sentence that names the place."""
    (tmp_path / "broken_module.py").write_text("raise KeyError('flowers')\n")
    done = cnnperf("run", suite_with(tmp_path, room, "broken_module:load"), cwd=tmp_path, limit_s=LIMIT_S)
    assert_one_sentence(done, 2, room, "cannot import 'broken_module:load' ('flowers')")


BROKEN = """
from cnnperf.datasets import Dataset
from cnnperf.devices import Device

def fails(roots) -> Dataset: raise KeyError("flowers")
def lists(roots) -> Dataset: return [1]
def absent() -> Device: return None
def odd() -> Device: raise ValueError("no device")
"""


@pytest.mark.parametrize(
    ("room", "name", "words"),
    [
        ("datasets", "fails", "'broken_code:fails' failed (KeyError: 'flowers')"),
        ("datasets", "lists", "'broken_code:lists' returned list; it must return a cnnperf.datasets.Dataset"),
        ("devices", "absent", "'broken_code:absent' returned NoneType; it must return a cnnperf.devices.Device"),
        ("devices", "odd", "'broken_code:odd' failed (ValueError: no device)"),
    ],
)
def test_code_that_fails_or_returns_something_else(tmp_path: Path, room: str, name: str, words: str) -> None:
    """A dataset or device of a user that fails, or is none, is told in a sentence that names the place."""
    (tmp_path / "broken_code.py").write_text(BROKEN)
    done = cnnperf("run", suite_with(tmp_path, room, f"broken_code:{name}"), cwd=tmp_path, limit_s=LIMIT_S)
    assert_one_sentence(done, 2, f"{room}.0", words)


def test_a_stage_that_yields_something_else(tmp_path: Path) -> None:
    """A task whose stage yields no measurement fails with a sentence that names the stage."""
    code = "from cnnperf.stages import Settings\n\ndef measure(bench, settings: Settings): yield 'x'\n"
    (tmp_path / "odd_stage.py").write_text(code)
    done = cnnperf("run", suite_with(tmp_path, "stages", "odd_stage:measure"), cwd=tmp_path, limit_s=LIMIT_S)
    assert_ended(done, 1)
    assert "'odd_stage:measure' yielded str; yield measurements, as cnnperf.record.single makes" in done.stderr
