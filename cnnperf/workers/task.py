"""The child's side: a request as JSON on stdin, an answer on a pipe. Nothing above this file imports torch.

`--task` runs one task and writes its record to the file it was given; `--prepare` is preflight, `--data` fetches or
verifies datasets, `--schema` prints the suite's JSON schema.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime

from cnnperf import errors, registry
from cnnperf.bench import Bench
from cnnperf.datasets import open_arrays
from cnnperf.devices import Device
from cnnperf.errors import CnnperfError, DeviceError, in_words
from cnnperf.ipc.channel import Line
from cnnperf.machine.fingerprint import seen_here
from cnnperf.record import Measurement, Record, Status
from cnnperf.running.runner import Envelope
from cnnperf.workers import prepare as preparation


def run_task(envelope: Envelope, line: Line) -> Record:
    """Run one task to its end, whichever it is, and return its record."""
    task = envelope.task
    started, start = datetime.now(UTC), time.monotonic()
    measurements: list[Measurement] = []
    status: Status = "ok"
    error = None
    torch_name = "cpu"
    artifacts: dict[str, str] = {}
    try:
        device = registry.find("devices", task.cell.device.name)(**task.cell.device.options)
        torch_name = device.torch_name
        dataset = open_arrays(envelope.folder, task.data)
        needs = {record.task.stage: record for record in envelope.needs}
        bench = Bench(task, device, dataset, envelope.run, line.progress, artifacts, needs)
        measurements += chosen(task.stage, device)
        measure = registry.find("stages", task.stage)
        # One by one: what a stage had measured before it failed is kept.
        for measurement in measure(bench, registry.options(measure).model_validate(task.settings)):
            measurements.append(measurement)
    except DeviceError as fault:
        status, error = "skipped", str(fault)
    except Exception as fault:
        status, error = "failed", in_words(fault)
    threads = next((int(m.values[0]) for m in measurements if m.metric == f"{task.stage}.threads"), None)
    return Record(
        task=task,
        key=task.key,
        machine=seen_here(envelope.machine, torch_name).model_copy(update={"threads": threads}),
        started=started.isoformat(timespec="milliseconds"),
        duration_s=time.monotonic() - start,
        status=status,
        error=error,
        measurements=tuple(measurements),
        artifacts=artifacts,
    )


def chosen(stage: str, device: Device) -> Iterator[Measurement]:
    """Yield which device of its kind a stage had, and how that was told to compute; nothing on the CPU."""
    if device.numerics is not None:
        tags = {"label": device.label, **asdict(device.numerics)}
        yield Measurement(metric=f"{stage}.device_index", unit="count", better=None, values=(device.index,), tags=tags)


def main(mode: str, descriptor: int) -> None:
    """Answer the one request on stdin; an error that the user can correct is returned by name and in words."""
    line = Line(descriptor)
    sys.stdin.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    request = sys.stdin.read()
    if mode == "--task":
        envelope = Envelope.model_validate_json(request)
        envelope.answer.write_text(run_task(envelope, line).model_dump_json(by_alias=True), encoding="utf-8")
        return
    try:
        line.say(answer=preparation.ANSWERS[mode](request, line.say))
    except CnnperfError as fault:
        kind = next(kind for kind in type(fault).__mro__ if kind.__module__ == errors.__name__)
        line.say(error=kind.__name__, text=str(fault))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
