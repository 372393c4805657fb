"""One task in a separate process; its record is written to the given file."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime

from cnnperf import registry
from cnnperf.bench import Bench, metrics_of, settings_of
from cnnperf.datasets import open_arrays
from cnnperf.devices import Device, others_on
from cnnperf.errors import DeviceError, StageError, in_words
from cnnperf.ipc.channel import Line, single_request
from cnnperf.ipc.messages import Answered, Noted, TaskRequest
from cnnperf.machine.disturbance import FOREIGN_PROCESSES
from cnnperf.machine.fingerprint import seen_here
from cnnperf.record import Artifact, Measurement, Record, Status, single


def run_task(request: TaskRequest, line: Line) -> Record:
    """Run one task to its end, successful or not, and return its record."""
    task = request.task
    started, start = datetime.now(UTC), time.monotonic()
    measurements: list[Measurement] = []
    status: Status = "ok"
    error = None
    torch_name, uuid, label = "cpu", None, None
    of_threads = f"{metrics_of(task.stage)}.threads"
    left: dict[str, str] = {}

    def noted(phase: str) -> None:
        line.say(Noted(text=phase))

    def made(status: Status, error: str | None) -> Record:
        threads = next((int(m.values[0]) for m in measurements if m.metric == of_threads), None)
        return Record(
            task=task,
            key=task.key,
            nonce=request.nonce,
            machine=seen_here(request.machine, torch_name, uuid, label).model_copy(update={"threads": threads}),
            started=started.isoformat(timespec="milliseconds"),
            duration_s=time.monotonic() - start,
            status=status,
            error=error,
            measurements=tuple(measurements),
            artifacts={
                kind: Artifact.of(request.run, path) for kind, path in left.items() if (request.run / path).exists()
            },
        )

    def abandon(error: str) -> None:
        hand_over(request, made("failed", error), line)
        os._exit(0)

    try:
        device = registry.make("devices", task.cell.device.name, **task.cell.device.options)
        torch_name, label = device.torch_name, device.label
        uuid = getattr(device, "uuid", None)  # Not all devices have one.
        dataset = open_arrays(request.folder, task.data)
        needs = {record.task.stage: record for record in request.needs}
        bench = Bench(task, device, dataset, request.run, line.progress, left, needs, phase=noted, abandon=abandon)
        others = others_on(task.cell.device.name, device)
        measurements += device_used(task.stage, device, others)
        measure = registry.find("stages", task.stage)
        settings = settings_of(task.stage).model_validate(task.settings)
        # One by one, so that measurements from before a failure are kept.
        for measurement in measure(bench, settings):
            if not isinstance(measurement, Measurement):
                got = type(measurement).__name__
                raise StageError(
                    f"{task.stage!r} yielded {got}; yield measurements, as cnnperf.record.single makes them"
                )
            measurements.append(measurement)
    except DeviceError as fault:
        status, error = "skipped", str(fault)
    except Exception as fault:
        status, error = "failed", in_words(fault)
    return made(status, error)


def hand_over(request: TaskRequest, record: Record, line: Line) -> None:
    """Write the record for the parent."""
    # Renamed when it is complete: this process may be killed at any moment.
    written = request.answer.with_suffix(".part")
    written.write_text(record.model_dump_json(by_alias=True), encoding="utf-8")
    written.replace(request.answer)
    line.say(Answered())


def device_used(stage: str, device: Device, others: Sequence[str] | None = None) -> Iterator[Measurement]:
    """Yield the index and numerical settings of a stage's GPU; nothing of a device that computes at once.

    others: the other processes that compute on the device; None if they are unknown.
    """
    if device.is_asynchronous:
        numerics = {} if device.numerics is None else asdict(device.numerics)
        foreign = {} if others is None else {FOREIGN_PROCESSES: len(others)}
        remarks = {"label": device.label, **numerics, **foreign}
        yield single(f"{stage}.device_index", "count", device.index, None, remarks)


def main(descriptor: int) -> None:
    """Run the single task on stdin."""
    line = Line(descriptor)
    request = single_request()
    assert isinstance(request, TaskRequest)
    hand_over(request, run_task(request, line), line)


if __name__ == "__main__":
    main(int(sys.argv[1]))
