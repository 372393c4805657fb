"""The description of a processor as Linux reports it, on x86 and on ARM; unreported values are absent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from cnnperf.machine import processor
from cnnperf.record import Processor

Tree = Callable[[Mapping[str, str]], Path]

CPUINFO = """processor	: 0
vendor_id	: AuthenticAMD
cpu family	: 25
model		: 17
model name	: AMD EPYC
stepping	: 1
microcode	: 0x1000065
flags		: fpu sse4_2 fma hypervisor avx avx2 avx512f avx512_bf16 avx512_vnni avx_vnni amx_int8 rdpid
"""
ARM = """processor	: 0
Features	: fp asimd bf16 i8mm sve
CPU implementer	: 0x41
CPU architecture: 8
CPU variant	: 0x3
CPU part	: 0xd0c
CPU revision	: 1
"""
CPU = "sys/devices/system/cpu"
X86_TREE = {
    "proc/cpuinfo": f"{CPUINFO}\n{CPUINFO.replace('processor	: 0', 'processor	: 1')}",
    f"{CPU}/smt/active": "1\n",
    f"{CPU}/cpu0/cpufreq/base_frequency": "2600000\n",
    **{
        f"{CPU}/cpu0/cache/index{index}/{name}": f"{value}\n"
        for index, values in enumerate((("1", "Data", "32K"), ("1", "Instruction", "64K"), ("3", "Unified", "16M")))
        for name, value in zip(("level", "type", "size"), values, strict=True)
    },
    "sys/devices/system/node/node0/cpulist": "0\n",
    "sys/devices/system/node/node1/cpulist": "1\n",
    "sys/devices/system/node/possible": "0-1\n",
    "sys/hypervisor/type": "xen\n",
}


@pytest.fixture(autouse=True)
def _untold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide this machine's own processor from psutil and lscpu."""
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: None)
    monkeypatch.setattr(psutil, "cpu_freq", lambda: None)
    monkeypatch.setattr(processor, "_lscpu", dict)


def described(root: Path) -> Processor:
    """Return the description of a tree's processor."""
    return processor.describe_processor(root / "proc", root / "sys")


def test_an_x86_processor_is_described(monkeypatch: pytest.MonkeyPatch, tree: Tree) -> None:
    """An x86 processor has its model, instruction sets, caches, cores, frequencies, hypervisor and NUMA nodes."""
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: None if logical else 2)
    monkeypatch.setattr(psutil, "cpu_freq", lambda: SimpleNamespace(current=2596.0, min=0.0, max=0.0))
    found = described(tree(X86_TREE))
    assert found == Processor(
        vendor="AuthenticAMD",
        family="25",
        model="17",
        stepping="1",
        microcode="0x1000065",
        instruction_sets=(
            *("sse4_2", "fma", "avx", "avx2", "avx512f"),
            *("avx512_bf16", "avx512_vnni", "avx_vnni", "amx_int8"),
        ),
        cache_bytes={"L1d": 2**15, "L1i": 2**16, "L3": 2**24},
        physical_cores=2,
        smt=True,
        nominal_hz=2.6e9,
        frequency_hz=2.596e9,
        virtual=True,
        hypervisor="xen",
        numa_nodes=2,
    )
    assert found.identity == "family 25 model 17 stepping 1"


def test_an_arm_processor_is_described_by_its_part_and_features(tree: Tree) -> None:
    """An ARM processor is described by part number and features; different cores, as in big.LITTLE, are both listed."""
    little = ARM.replace("processor	: 0", "processor	: 1").replace("0xd0c", "0xd05")
    one, two = (described(tree({"proc/cpuinfo": text})) for text in (ARM, f"{ARM}\n{little}"))
    assert one.identity == "model 0xd0c stepping r3p1"
    assert one.instruction_sets == ("fp", "asimd", "bf16", "i8mm", "sve")
    assert (one.vendor, one.virtual, two.model) == ("0x41", None, "0xd0c+0xd05")


def test_what_the_system_does_not_tell_is_absent(tree: Tree) -> None:
    """Without any files, every field of the description is absent."""
    assert described(tree({})) == Processor()


def test_a_frequency_that_psutil_cannot_tell_is_absent(monkeypatch: pytest.MonkeyPatch, tree: Tree) -> None:
    """The frequency is absent if psutil raises an error or returns zero."""

    def raises() -> None:
        raise NotImplementedError("can't find current frequency file")

    for tell in (raises, lambda: SimpleNamespace(current=0.0)):
        monkeypatch.setattr(psutil, "cpu_freq", tell)
        assert described(tree({})).frequency_hz is None


@pytest.mark.parametrize(
    ("files", "nominal_hz"),
    [
        ({f"{CPU}/cpu0/acpi_cppc/nominal_freq": "2450\n"}, 2.45e9),
        ({"proc/cpuinfo": "model name	: Intel(R) Xeon(R) CPU @ 2.20GHz\n"}, 2.2e9),
        ({f"{CPU}/cpu0/acpi_cppc/nominal_freq": "0\n"}, None),
    ],
)
def test_the_nominal_frequency_has_several_sources(tree: Tree, files: dict[str, str], nominal_hz: float | None) -> None:
    """The nominal frequency comes from ACPI or from the processor's name, and ACPI's zero counts as absent."""
    assert described(tree(files)).nominal_hz == nominal_hz


def test_the_hypervisor_s_vendor_is_lscpu_s(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """The vendor is read from lscpu in the C locale, and is absent without lscpu."""
    monkeypatch.undo()
    monkeypatch.setenv("PATH", str(tmp_path))
    processor._lscpu.cache_clear()
    request.addfinalizer(processor._lscpu.cache_clear)
    assert processor._lscpu() == {}
    script = tmp_path / "lscpu"
    script.write_text('#!/bin/sh\necho "Architecture: x86_64"; echo "Hypervisor vendor:   $LC_ALL-KVM"\n')
    script.chmod(0o755)
    processor._lscpu.cache_clear()
    assert processor._lscpu()["Hypervisor vendor"] == "C-KVM"
