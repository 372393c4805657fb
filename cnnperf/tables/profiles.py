"""From records to the table of profiled networks: one row per run, cell and batch size."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cnnperf.bench import metrics_of
from cnnperf.profiling.rows import OPTIMIZER
from cnnperf.profiling.settings import compiles, flattened
from cnnperf.record import Record
from cnnperf.tables.facts import GROUP, fact, reduced, row_of
from cnnperf.tables.layers import PROFILE_METRICS, LayerProfile, profiles, steps_of
from cnnperf.tables.repeats import Repeats
from cnnperf.tables.table import Row, Table, column, row_type


@row_type
class ProfileRow(Row):
    """A network that was profiled, or whose profile did not end well."""

    dataset: str = fact()
    data: str | None = fact()
    data_fallback: str | None = fact()
    data_sha256: str | None = fact()
    model: str = fact(shown=0)
    device: str = fact()
    status: str = fact(shown=2)
    reason: str | None = fact()
    disturbed: str | None = fact()
    repeat: int = fact()
    repeats: int | None = reduced(
        lambda r: len(r.ok) or None, unit="count", meaning="1 where it ended well: a row is one repeat", source="status"
    )
    budget: str | None = column(
        default=None, meaning="what was profiled: `training steps of 32 images`", source="(tag mode), (tag batch_size)"
    )
    mode: str | None = column(
        default=None, meaning="`train`: training steps; `infer`: forward passes", source="(tag mode)"
    )
    batch_size: int | None = column(default=None, unit="count", meaning="images in a step", source="(tag batch_size)")
    weights: str | None = column(
        default=None, shown=4, meaning="`trained`, or `fresh` as built", source="(remark weights)"
    )
    parameters: int | None = column(
        "params",
        default=None,
        unit="count",
        better="lower",
        shown=4,
        meaning="parameters of the network",
        source="profile.parameters",
    )
    macs: int | None = column(
        "forward MACs",
        default=None,
        unit="count",
        better="lower",
        shown=1,
        meaning="multiply-accumulates of a forward pass, sum of `forward_macs` over the rows of layers.csv",
        source="profile.forward_macs",
    )
    step_s: float | None = column(
        "step",
        default=None,
        unit="s",
        better="lower",
        shown=0,
        meaning="time of a step without hooks, from its batch to the end of the update (`infer`: of the forward pass), "
        "median over samples: of one step each on the CPU, on a GPU the mean of a lap of steps",
        source="profile.step_seconds",
        doubts=("disturbed",),
    )
    forward_s: float | None = column(
        "forward",
        default=None,
        unit="s",
        better="lower",
        shown=2,
        meaning="sum of `forward_s` over the rows of layers.csv, `(loss)` and `(unattributed)` included",
        source="profile.forward_seconds",
        doubts=("disturbed",),
    )
    backward_s: float | None = column(
        "backward",
        default=None,
        unit="s",
        better="lower",
        shown=2,
        meaning="sum of `backward_s` over the rows of layers.csv, `(loss)` and `(unattributed)` included",
        source="profile.backward_seconds",
        doubts=("disturbed",),
    )
    optimizer_s: float | None = column(
        "optimizer",
        default=None,
        unit="s",
        better="lower",
        shown=5,
        meaning="time of the optimizer in a step without hooks, median over samples",
        source="profile.seconds",
        doubts=("disturbed",),
    )
    saved_bytes: int | None = column(
        "saved",
        default=None,
        unit="bytes",
        better="lower",
        shown=3,
        meaning="bytes that autograd keeps for backward, sum over the rows of layers.csv",
        source="profile.saved_bytes",
    )
    peak_above_start_bytes: int | None = column(
        "peak above start",
        default=None,
        unit="bytes",
        better="lower",
        shown=2,
        meaning="peak of torch's allocations in one step with hooks above its start",
        source="profile.peak_above_start_bytes",
    )
    process_peak_above_start_bytes: int | None = column(
        default=None,
        unit="bytes",
        better="lower",
        meaning="peak of the process in one step without hooks above its start, while freed memory is returned; what "
        "libraries below torch allocate is in it; empty on CUDA, where the system cannot measure it, and under "
        "allocator `system`",
        source="profile.process_peak_above_start_bytes",
    )
    peak_at: str | None = column(
        "peak at", default=None, shown=3, meaning="layer and direction that reached the peak", source="(remark at)"
    )
    mfu: float | None = column(
        "MFU",
        default=None,
        unit="1",
        in_percent=True,
        better="higher",
        shown=1,
        meaning="counted FLOPs of all rows of layers.csv, forward and backward, over `peak_flops_per_s` × `step_s`: "
        "mostly below 1; above 1 a step is faster than the fastest probe",
        source="profile.forward_macs, profile.backward_macs, profile.step_seconds, profile.probe_flops_per_s",
        within=("run",),
        doubts=("disturbed",),
    )
    overhead: float | None = column(
        "overhead of hooks",
        default=None,
        unit="1",
        in_percent=True,
        shown=6,
        meaning="seconds of a step with hooks over those of the step without hooks before it, less 1; median over "
        "these pairs (on a GPU, of laps of steps): mostly above 0; below 0 within the noise, above 1 where hooks more "
        "than double a step",
        source="profile.step_seconds, profile.instrumented_step_seconds",
        doubts=("disturbed",),
    )
    peak_flops_per_s: float | None = column(
        default=None,
        unit="FLOP/s",
        meaning="highest speed of any sample of a product or convolution in the profile's precision; of all profiles "
        "of the run with its machine, device, precision, threads, `waiting` and `allocator`, which are held against "
        "one peak",
        source="profile.probe_flops_per_s",
    )
    peak_probe: str | None = column(
        default=None, meaning="product or convolution that reached it", source="(tag probe)"
    )
    peak_bytes_per_s: float | None = column(
        default=None,
        unit="bytes/s",
        meaning="bytes read plus bytes written over the seconds of a copy of 256 MiB, fastest sample of the same "
        "profiles",
        source="profile.probe_bytes_per_s",
    )
    threads: int | None = fact()
    waiting: str | None = fact()
    allocator: str | None = fact()
    host: str = fact()
    cpu: str = fact()
    cpu_model: str | None = fact()
    instruction_sets: str | None = fact()
    device_label: str | None = fact()
    torch: str | None = fact()
    cnnperf: str | None = fact()
    commit: str | None = fact()
    run: str = fact()

    task: str
    """Key of the task that measured it."""
    asked: Mapping[str, Any]
    """The settings of its task, those of the profiled training as `train.lr`."""
    compiles: bool
    """Whether the profiled training compiles its network, which the profile does not."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """The settings of its task, in which rows of one label may differ."""
        return self.asked

    @property
    def row_label(self) -> str:
        """Words that distinguish it from the other rows of its group."""
        return self.model + (f" batch {self.batch_size}" if self.batch_size else "")


PROFILE_NOTES = (
    "step: median over steps without hooks; forward and backward: sums of the layers' medians.",
    "peak above start: memory that the step allocates through torch; libraries below torch may allocate more "
    "(profiles.csv); saved: tensors that autograd keeps for backward.",
    "MFU: counted FLOPs (2 × MACs, forward and backward) ÷ what the machine's best probe would do in a step.",
)
"""Meaning of the table's numbers."""


def profile_notes(rows: Iterable[ProfileRow]) -> tuple[str, ...]:
    """Return the notes on the rows of profiles, in which the networks are named that their training compiles."""
    compiled = dict.fromkeys(row.model for row in rows if row.compiles)
    eager = f"eager: the training of {', '.join(compiled)} compiles the network, the profile does not."
    return *PROFILE_NOTES, *([eager] if compiled else [])


def profile_table(records: Mapping[str, Sequence[Record]]) -> Table[ProfileRow]:
    """Return a row for each profile, and for each that did not end well."""
    rows = [_of_profile(profile) for profile in profiles(records)]
    for run, of_run in records.items():
        ended = [r for r in of_run if metrics_of(r.task.stage) == PROFILE_METRICS]
        failed = [r for r in ended if r.status not in ("ok", "disturbed")]
        rows += [row_of(ProfileRow, Repeats(run, (r,)), **_task(r)) for r in failed]
    return Table("profiles", ProfileRow.columns(), tuple(rows), GROUP)


def _of_profile(profile: LayerProfile) -> ProfileRow:
    mode, batch_size = profile.tags["mode"], profile.tags["batch_size"]
    roofline = profile.roofline
    return row_of(
        ProfileRow,
        Repeats(profile.run, (profile.record,)),
        budget=steps_of(mode, batch_size),
        mode=mode,
        batch_size=batch_size,
        disturbed=profile.disturbed,
        weights=profile.remark("parameters", "weights"),
        parameters=_whole(profile.one("parameters")),
        macs=profile.total("forward_macs"),
        step_s=profile.one("step_seconds"),
        forward_s=profile.total("forward_s"),
        backward_s=profile.total("backward_s"),
        optimizer_s=next((row.seconds for row in profile.rows if row.layer == OPTIMIZER), None),
        saved_bytes=profile.total("saved_bytes"),
        peak_above_start_bytes=_whole(profile.one("peak_above_start_bytes")),
        process_peak_above_start_bytes=_whole(profile.one("process_peak_above_start_bytes")),
        peak_at=profile.remark("peak_above_start_bytes", "at"),
        mfu=profile.mfu,
        overhead=profile.overhead,
        peak_flops_per_s=roofline.flops_per_s,
        peak_probe=roofline.probe,
        peak_bytes_per_s=roofline.bytes_per_s,
        **_task(profile.record),
    )


def _task(record: Record) -> dict[str, Any]:
    """Return the fields of a row that are no columns."""
    settings = record.task.settings
    return {"task": record.key, "asked": flattened(settings), "compiles": compiles(settings)}


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)
