"""The GPUs that the driver lists, the one that CUDA's variables choose, and the one that torch computes on."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_nvml import Nvml

from cnnperf.errors import CnnperfWarning
from cnnperf.machine import gpus as _gpus
from cnnperf.machine.program import answer
from cnnperf.record import Gpu

GIB = 2**30
A100 = Gpu(
    name="NVIDIA A100-SXM4-40GB",
    uuid="GPU-aaaa0000",
    index=0,
    pci_bus_id="00000000:07:00.0",
    capability="8.0",
    memory_bytes=40 * GIB,
)
A100_TWIN = A100.model_copy(update={"uuid": "GPU-aaaa1111", "index": 1, "pci_bus_id": "00000000:0B:00.0"})
H100 = Gpu(name="NVIDIA H100", uuid="GPU-bbbb0000", index=1, capability="9.0", memory_bytes=80 * GIB)
SLICES = tuple(
    A100.model_copy(update={"uuid": f"MIG-{uuid}", "mig": mig, "board": A100.uuid})
    for uuid, mig in (("cccc0000", "3g.20gb"), ("cccc1111", "1g.5gb"))
)
APART = {"uuid": None, "index": None, "pci_bus_id": None, "board": None}

Smi = Callable[..., None]


@pytest.fixture
def smi(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Smi]:
    """Return a function that writes a fake nvidia-smi with given answers to a query and to `-L`."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    _gpus.installed.cache_clear()

    def make(query: str, listing: str = "", status: int = 0) -> None:
        (tmp_path / "query").write_text(query)
        (tmp_path / "listing").write_text(listing)
        script = tmp_path / "nvidia-smi"
        fields = ",".join(_gpus.FIELDS)
        script.write_text(
            f'#!/bin/sh\ncase "$1 $2" in\n"-L ") cat {tmp_path}/listing;;\n'
            f'"--query-gpu={fields} --format=csv,noheader,nounits") cat {tmp_path}/query;;\n'
            f"*) exit 9;;\nesac\nexit {status}\n"
        )
        script.chmod(0o755)

    yield make
    _gpus.installed.cache_clear()


def test_all_gpus_are_listed_with_what_tells_them_apart(smi: Smi) -> None:
    """Each GPU of the driver's answer is listed, and figures that the driver lacks are absent."""
    smi(
        "0, GPU-aaaa0000, NVIDIA A100-SXM4-40GB, 550.54.14, 40960, 8.0, Disabled, 00000000:07:00.0\n"
        "1, GPU-dddd0000, Tesla M60, 550.54.14, [N/A], 5.2, [N/A], 00000000:0B:00.0\n"
    )
    gpus, driver = _gpus.installed()
    assert driver == "550.54.14"
    assert gpus[0] == A100
    assert gpus[1] == Gpu(
        name="Tesla M60", uuid="GPU-dddd0000", index=1, capability="5.2", pci_bus_id="00000000:0B:00.0"
    )


def test_a_divided_gpu_is_listed_by_its_instances(smi: Smi) -> None:
    """A divided GPU is listed by its MIG instances only."""
    smi(
        "0, GPU-aaaa0000, NVIDIA A100-SXM4-40GB, 550.54.14, 40960, 8.0, Enabled, 00000000:07:00.0\n",
        "GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-aaaa0000)\n"
        "  MIG 3g.20gb     Device  0: (UUID: MIG-cccc0000)\n"
        "  MIG 1g.5gb      Device  1: (UUID: MIG-cccc1111)\n",
    )
    assert _gpus.installed()[0] == SLICES


def test_power_limit_and_clocks_are_those_of_nvml(smi: Smi, monkeypatch: pytest.MonkeyPatch) -> None:
    """Limit and clocks are in W and Hz, an instance has those of its GPU, and what NVML does not tell is absent."""
    monkeypatch.setitem(sys.modules, "pynvml", Nvml(uuids=["aaaa0000"]))
    facts = {"power_limit_w": 350.5, "max_sm_clock_hz": 1.98e9, "max_memory_clock_hz": 2.619e9, "sm_clock_hz": 1.5e9}
    row = "0, GPU-aaaa0000, NVIDIA A100-SXM4-40GB, 550.54.14, 40960, 8.0, {}, 00000000:07:00.0\n"
    other = "1, GPU-dddd0000, Tesla M60, 550.54.14, [N/A], 5.2, [N/A], 00000000:0B:00.0\n"
    smi(row.format("Disabled") + other)
    known, unknown = _gpus.installed()[0]
    assert known == A100.model_copy(update=facts)
    assert (unknown.power_limit_w, unknown.max_sm_clock_hz) == (None, None)
    _gpus.installed.cache_clear()
    smi(
        row.format("Enabled"),
        "GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-aaaa0000)\n  MIG 3g.20gb     Device  0: (UUID: MIG-cccc0000)\n",
    )
    assert _gpus.installed()[0] == (SLICES[0].model_copy(update=facts),)


@pytest.mark.parametrize(("query", "status"), [("No devices were found\n", 0), ("Failed to initialize NVML\n", 12)])
def test_a_driver_that_answers_nothing_lists_nothing(smi: Smi, query: str, status: int) -> None:
    """If the driver finds no devices or fails, no GPU is listed."""
    smi(query, status=status)
    assert _gpus.installed() == ((), None)


@pytest.mark.parametrize(
    "row", ["x, GPU-1, T4, 550, 1, 7.5, Disabled, 0", f"{'9' * 5000}, GPU-1, T4, 550, 1, 7.5, Disabled, 0"]
)
def test_a_line_without_an_index_is_no_gpu(smi: Smi, row: str) -> None:
    """A line whose index is no number is a message; a memory that is none is absent."""
    smi(f"{row}\n0, GPU-2, Tesla T4, 550.54.14, much, 7.5, Disabled, 0\n")
    [gpu] = _gpus.installed()[0]
    assert (gpu.uuid, gpu.memory_bytes) == ("GPU-2", None)


def test_a_driver_that_hangs_lists_nothing(smi: Smi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """If nvidia-smi does not answer, a warning says so and no GPU is listed."""
    smi("")
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nexec sleep 600\n")
    monkeypatch.setattr(_gpus, "answer", lambda *command: answer(*command, limit_s=0.2))
    with pytest.warns(CnnperfWarning, match=r"^nvidia-smi did not answer within 0\.2 s, so GPUs are not described$"):
        assert _gpus.installed() == ((), None)


CHOSEN: dict[str, tuple[tuple[Gpu, ...], dict[str, str], int, Gpu | None]] = {
    "the only one": ((A100,), {}, 0, A100),
    "none is there": ((), {}, 0, None),
    "by UUID": ((A100, H100), {"CUDA_VISIBLE_DEVICES": "GPU-bbbb0000"}, 0, H100),
    "by the UUID's beginning": ((A100, H100), {"CUDA_VISIBLE_DEVICES": "GPU-bb, GPU-aa"}, 1, A100),
    "by index in the bus's order": (
        (A100, H100),
        {"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"},
        0,
        H100,
    ),
    "a number of unlike ones": ((A100, H100), {"CUDA_VISIBLE_DEVICES": "1"}, 0, None),
    "the fastest of unlike ones": ((A100, H100), {}, 0, None),
    "one of two that are alike": ((A100, A100_TWIN), {}, 1, A100.model_copy(update=APART)),
    "hidden": ((A100,), {"CUDA_VISIBLE_DEVICES": ""}, 0, None),
    "hidden by a number": ((A100,), {"CUDA_VISIBLE_DEVICES": "-1"}, 0, None),
    "a number that there is not": ((A100,), {"CUDA_VISIBLE_DEVICES": "3"}, 0, None),
    "beyond the list": ((A100, A100_TWIN), {"CUDA_VISIBLE_DEVICES": "0"}, 1, None),
    "an instance": (SLICES, {"CUDA_VISIBLE_DEVICES": "MIG-cccc1111"}, 0, SLICES[1]),
    "unlike instances of one GPU": (SLICES, {"CUDA_VISIBLE_DEVICES": "GPU-aaaa0000"}, 0, None),
}


@pytest.mark.parametrize(("gpus", "environment", "index", "expected"), CHOSEN.values(), ids=CHOSEN)
def test_the_variables_of_cuda_choose_the_gpu(
    gpus: tuple[Gpu, ...], environment: dict[str, str], index: int, expected: Gpu | None
) -> None:
    """CUDA's variables choose the GPU; if they leave open which of unlike GPUs it is, there is none."""
    assert _gpus.chosen_gpu(gpus, environment, index) == expected


def properties(name: str, uuid: str, **changes: Any) -> SimpleNamespace:
    """Return torch's properties of a GPU, by default those of an H100."""
    facts = {"major": 9, "minor": 0, "total_memory": 79 * GIB, "multi_processor_count": 132}
    return SimpleNamespace(name=name, uuid=uuid, **(facts | changes))


def test_torch_s_gpu_is_found_in_the_driver_s_list_by_its_uuid() -> None:
    """Torch's GPU keeps the memory and the label of the driver's list."""
    found = _gpus.used((A100, H100), properties("NVIDIA H100", "bbbb0000"))
    assert found == H100.model_copy(update={"usable_bytes": 79 * GIB, "multiprocessors": 132})
    assert found.label == H100.label == "NVIDIA H100, 80 GiB, compute capability 9.0"


@pytest.mark.parametrize("uuid", ["cccc0000", "aaaa0000"])
def test_an_instance_is_found_by_its_uuid_or_that_of_its_gpu(uuid: str) -> None:
    """A MIG instance is found by its own UUID or by its GPU's, since CUDA's versions differ in which they give."""
    found = _gpus.used(SLICES, properties("NVIDIA A100-SXM4-40GB MIG 3g.20gb", uuid, major=8))
    assert (found.uuid, found.mig) == ("MIG-cccc0000", "3g.20gb")
    assert found.label == "NVIDIA A100-SXM4-40GB, 40 GiB, compute capability 8.0, MIG 3g.20gb"


def test_torch_alone_tells_of_a_gpu_that_is_in_no_list() -> None:
    """Without nvidia-smi, the GPU is described by torch, with the memory that torch may use."""
    whole = _gpus.used((), properties("NVIDIA H100", "bbbb0000"))
    part = _gpus.used((), properties("NVIDIA H100 MIG 1g.10gb", "bbbb0000", total_memory=10 * GIB))
    assert (whole.uuid, whole.label) == ("GPU-bbbb0000", "NVIDIA H100, 79 GiB, compute capability 9.0")
    assert (part.uuid, part.label) == (None, "NVIDIA H100, 10 GiB, compute capability 9.0, MIG 1g.10gb")
