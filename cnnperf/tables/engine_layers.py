"""Torch's layers beside an engine's kernels: one row per group of layers that the engine runs as one."""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from cnnperf.bench import trains
from cnnperf.engines import NETWORKS, UNMAPPED, WHOLE_NETWORK, baseline_of
from cnnperf.profiling.rows import UNATTRIBUTED
from cnnperf.record import Measurement, Record
from cnnperf.tables.facts import row_of
from cnnperf.tables.layer_row import LayerRow
from cnnperf.tables.repeats import Place, Repeats, disturbance, engine_of, first_key, placed, rivals


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerGroup:
    """Layers of torch whose work an engine's nodes do together."""

    layers: tuple[str, ...]
    """In torch's order; if no layer is involved, the module whose forward contains the work."""
    kinds: tuple[str, ...]
    """The layers' classes."""
    operators: tuple[str, ...]
    """The engine's; empty for layers that need no kernel."""
    is_layer: bool
    """Whether it holds a layer of torch; if not, torch's time for the work, if any, is in `(unattributed)`."""
    torch_s: float | None
    engine_s: float | None
    reorder_s: float | None

    @property
    def name(self) -> str:
        """Name the layers."""
        return "+".join(self.layers)

    @property
    def speedup(self) -> float | None:
        """Return torch's seconds over the engine's."""
        return self.torch_s / self.engine_s if self.torch_s is not None and self.engine_s else None


@dataclass(frozen=True, slots=True)
class Join:
    """One engine of a cell at one batch size, layer by layer beside torch."""

    run: str
    record: Record
    engine: str
    batch_size: int
    groups: tuple[LayerGroup, ...]
    mapped_share: float | None
    """Share of kernel time whose module is known; the rest is in `(unmapped)`."""

    @property
    def disturbed(self) -> str | None:
        """Say what disturbed the engine at this batch size, as `disturbance` has it."""
        return disturbance((self.record,), batch_size=self.batch_size)

    @property
    def layers_share(self) -> float | None:
        """Return the share of kernel time in groups that hold a layer; None without kernel time."""
        total = self.total("engine_s")
        of_layers = math.fsum(group.engine_s or 0.0 for group in self.groups if group.is_layer)
        return of_layers / total if total else None

    def total(self, column: str) -> float | None:
        """Return the sum of `torch_s`, `engine_s` or `reorder_s`; None if no group has it."""
        values = [value for group in self.groups if (value := getattr(group, column)) is not None]
        return math.fsum(values) if values else None


def joins(records: Mapping[str, Sequence[Record]]) -> Iterator[Join]:
    """Yield every engine whose kernels were timed, in the order of the records."""
    for run, of_run in records.items():
        inferred = [(record, engine) for record in of_run if (engine := engine_of(record.task))]
        trainings = {record.key for record in of_run if trains(record.task.stage)}
        of_torch = (record for record, engine in inferred if engine == baseline_of(NETWORKS))
        place_of = placed(of_run)
        torch = {_compared(record, trainings, place_of(record)): record for record in of_torch}
        for record, engine in inferred:
            beside = torch.get(_compared(record, trainings, place_of(record)))
            for share in record.find("infer.mapped_share"):
                size = int(share.tags["batch_size"])
                nodes = record.find("infer.node_time", batch_size=size)
                layers = beside.find("infer.node_time", batch_size=size) if beside else ()
                yield Join(run, record, engine, size, tuple(layer_groups(nodes, layers)), share.values[0])


def _compared(record: Record, trainings: Collection[str], place: Place) -> Hashable:
    """Return what the records of an engine and of torch beside it have in common."""
    return rivals(record.task, trainings, place), record.task.repeat, record.sitting


def rows(records: Mapping[str, Sequence[Record]]) -> Iterator[LayerRow]:
    """Yield a row of layers.csv for each group of each join."""
    for join in joins(records):
        total = join.total("engine_s")
        disturbed = join.disturbed
        for order, group in enumerate(join.groups):
            yield row_of(
                LayerRow,
                Repeats(join.run, (join.record,)),
                mode=join.record.task.stage,
                batch_size=join.batch_size,
                order=order,
                layer=group.name,
                type="+".join(group.kinds) or None,
                forward_s=group.torch_s,
                engine=join.engine,
                operators="+".join(group.operators) or None,
                engine_s=group.engine_s,
                engine_reorder_s=group.reorder_s,
                engine_speedup=group.speedup,
                engine_share=group.engine_s / total if group.engine_s is not None and total else None,
                mapped_share=join.mapped_share,
                disturbed=disturbed,
                task=join.record.key,
                first_key=first_key(join.record.task),
            )


def layer_groups(nodes: Iterable[Measurement], layers: Iterable[Measurement]) -> Iterator[LayerGroup]:
    """Yield groups that share no layer: nodes of the engine, and the layers of torch that they cover.

    layers: torch's, in order; empty if torch did not run, and then the leaves are found by name.
    """
    nodes, of_torch = list(nodes), {str(m.tags["layer"]): m for m in layers}
    names = list(of_torch) or leaves(part for node in nodes for part in _parts(node))
    order = {name: index for index, name in enumerate(names) if name != UNATTRIBUTED}
    groups: list[tuple[set[str], list[Measurement]]] = []
    for node in nodes:
        own = {part for part in _parts(node) if part in order} or {"+".join(_parts(node))}
        apart = [group for group in groups if not group[0] & own]
        together = [group for group in groups if group[0] & own]
        members = [member for group in together for member in group[1]]
        groups = [*apart, (own.union(*(group[0] for group in together)), [*members, node])]
    covered = set[str]().union(*(group[0] for group in groups))
    groups += [({name}, []) for name in of_torch if name not in covered]
    groups.sort(key=lambda group: min(_order_of(name, order) for name in group[0]))
    for found, members in groups:
        is_layer = any(name in order for name in found)
        yield _group(sorted(found, key=lambda name: _order_of(name, order)), members, of_torch, is_layer)


def leaves(names: Iterable[str]) -> list[str]:
    """Return the names of modules that contain no other named module."""
    known = dict.fromkeys(names)
    containers = {name.rpartition(".")[0] for name in known} | {WHOLE_NETWORK, UNMAPPED}
    return [name for name in known if name not in containers]


def _order_of(name: str, order: Mapping[str, int]) -> float:
    """Return the position of a layer; a module's own work follows the last layer in it, work of no layer comes last."""
    within = [index + 0.5 for layer, index in order.items() if layer.startswith(f"{name}.")]
    if within:
        return max(within)
    return order[name] if name in order and name != WHOLE_NETWORK else len(order)


def _parts(node: Measurement) -> list[str]:
    return str(node.tags["layer"]).split("+")


def _group(
    names: list[str], nodes: Sequence[Measurement], of_torch: Mapping[str, Measurement], is_layer: bool
) -> LayerGroup:
    known = [of_torch[name] for name in names if name in of_torch]
    reorders = [median(node.values) for node in nodes if node.tags.get("reorder")]
    return LayerGroup(
        layers=tuple(names),
        kinds=tuple(str(m.tags["operator"]) for m in known if m.tags["operator"]),
        is_layer=is_layer,
        operators=tuple(dict.fromkeys(str(node.tags["operator"]) for node in nodes)),
        torch_s=math.fsum(median(m.values) for m in known) if known else None,
        engine_s=math.fsum(median(node.values) for node in nodes) if nodes else None,
        reorder_s=math.fsum(reorders) if reorders else None,
    )
