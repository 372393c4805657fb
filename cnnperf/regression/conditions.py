"""The conditions of a measurement: which must be equal for a comparison, which for memory, and which may differ."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from cnnperf.machine.fingerprint import ALLOCATOR_VARIABLES
from cnnperf.record import Record


def required_facts(record: Record) -> dict[str, Any]:
    """Return what must be equal in two records, by name."""
    task = record.task
    data = task.data.model_dump(exclude={"source", "fallback"}) if task.data else {}
    return {
        **{f"{task.stage}.{key}": value for key, value in task.settings.items()},
        **{f"data.{key}": value for key, value in data.items()},
        "threads": task.threads,
        "waiting": task.waiting,
        "allocator": task.allocator,
    }


def capacity_facts(record: Record) -> dict[str, Any]:
    """Return what must be equal for memory to be compared; without the host's name, which is new in each container."""
    machine, device = record.machine, record.task.cell.device.name
    # In whole GiB, because kernels reserve slightly different amounts.
    facts = {**machine.model_dump(include={"cores", "governor"}), "memory": f"{machine.memory_bytes / 2**30:.0f} GiB"}
    facts |= {"cpu": machine.label("cpu"), "instruction_sets": machine.instruction_sets}
    if device != "cpu" and (gpu := machine.label(device)):
        facts["gpu"] = gpu
    if machine.platform:
        facts |= machine.platform.model_dump(include={"page_bytes", "transparent_hugepages"})
    if machine.environment is not None:
        allocator = {k: v for k, v in machine.environment.items() if k.startswith(ALLOCATOR_VARIABLES)}
        facts["allocator"] = " ".join(f"{name}={value}" for name, value in allocator.items()) or "default"
    return facts


def version_facts(record: Record) -> dict[str, Any]:
    """Return what may differ between the sides and is listed; facts that the record lacks are left out."""
    machine = record.machine
    told: dict[str, Any] = {}
    if machine.processor:
        told |= machine.processor.model_dump(include={"microcode", "hypervisor"})
    if machine.libraries:
        told |= machine.libraries.model_dump(include={"onednn", "mkl", "cpu_capability", "cudnn"})
        for name in ("openmp", "allocators"):
            told[name] = " + ".join(getattr(machine.libraries, name) or ())
    others = {k: v for k, v in (machine.environment or {}).items() if not k.startswith(ALLOCATOR_VARIABLES)}
    return {
        **machine.model_dump(include={"host", "os", "driver", "python", "commit"}),
        **machine.packages,
        **{name: value for name, value in (told | others).items() if value},
    }


def differing_facts(
    baseline: Sequence[Mapping[str, Any]], candidate: Sequence[Mapping[str, Any]], *, is_mixed: bool = False
) -> Iterator[str]:
    """Yield the facts that differ, with the values of both sides; records without a fact are ignored.

    is_mixed: a side may have several values of a fact, from different processes; the other must have the same set.
    """
    sides = baseline, candidate
    for key in dict.fromkeys(key for facts in (*baseline, *candidate) for key in facts):
        one, other = ([setting_word(facts[key]) for facts in side if key in facts] or ["none"] for side in sides)
        if set(one) != set(other) if is_mixed else len({*one, *other}) > 1:
            yield f"{key} ({listed(one)} against {listed(other)})"


def setting_word(value: Any) -> str:
    """Return the word for a value, as labels and differences have it."""
    return "none" if value is None else str(value)


def listed(values: Iterable[Any]) -> str:
    """Join the different values with `and`."""
    return " and ".join(dict.fromkeys(map(str, values)))
