"""The room of engines: abilities that are read from an engine's file without importing it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from processes import completed

from cnnperf import registry
from cnnperf.bench import stages_leaving
from cnnperf.engines import FILES, NETWORKS, abilities, baseline, baseline_of, usual
from cnnperf.errors import UsageError
from cnnperf.task import Choice

NETWORK, FILE = Choice(name="lenet"), Choice(name="some.onnx")


def test_there_is_one_baseline_of_each_kind() -> None:
    """One engine is the baseline of networks, and one that loads ONNX files is the baseline of files."""
    baselines = [abilities(name).baseline_of for name in registry.names("engines")]
    assert sorted(filter(None, baselines)) == sorted((NETWORKS, FILES))
    assert (baseline(NETWORK), baseline(FILE)) == (baseline_of(NETWORKS), baseline_of(FILES))
    assert not abilities(baseline(NETWORK)).loads
    assert abilities(baseline(FILE)).loads == "onnx"


@pytest.mark.parametrize("name", registry.names("engines"))
def test_what_an_engine_loads_some_stage_leaves(name: str) -> None:
    """Each artifact that an engine loads is written by some stage."""
    loads = abilities(name).loads
    assert not loads or stages_leaving(loads)
    assert abilities(name).packages, "its version is recorded"


def test_the_usual_engines_begin_with_the_baseline_and_need_not_compile() -> None:
    """The default engines begin with the baseline and do not compile; for a file, they are those that load one."""
    assert usual(NETWORK)[0] == baseline(NETWORK)
    assert set(usual(NETWORK)) == {name for name in registry.names("engines") if not abilities(name).compile_s}
    assert usual(FILE)[0] == baseline(FILE)
    assert set(usual(FILE)) == {name for name in usual(NETWORK) if abilities(name).loads}


def test_an_engine_that_is_not_there_is_a_sentence() -> None:
    """An unknown engine is refused, and the message names the nearest one."""
    with pytest.raises(UsageError, match="unknown engine 'torhc'; did you mean 'torch'"):
        abilities("torhc")


def test_an_ability_is_told_without_importing_the_engine(tmp_path: Path) -> None:
    """The abilities of all engines are read without importing an engine or torch."""
    script = tmp_path / "asking.py"
    script.write_text(
        "import sys\nfrom cnnperf import engines, registry\n"
        "print(*map(engines.abilities, registry.names('engines')))\n"
        "print(sorted(name for name in sys.modules if name == 'torch' or name.startswith('cnnperf.engines.')))\n"
    )
    assert completed(sys.executable, script, check=True).stdout.splitlines()[-1] == "[]"
