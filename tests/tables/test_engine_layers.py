"""Torch's layers beside an engine's kernels: disjoint groups of layers that keep the sums of the times."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable
from functools import partial
from statistics import median

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from cnnperf.record import Measurement, Record
from cnnperf.reports._engine_layers import write
from cnnperf.reports._layer_charts import beside_torch
from cnnperf.tables.engine_layers import LayerGroup, joins, layer_groups, leaves
from cnnperf.tables.layers import layer_table


def node(layer: str, *seconds: float, operator: str = "Conv", **tags: bool) -> Measurement:
    """Return the times of one node, or of one torch layer."""
    return Measurement(
        metric="infer.node_time",
        unit="s",
        better="lower",
        values=seconds,
        tags={"engine": "any", "batch_size": 8, "layer": layer, "operator": operator, **tags},
    )


TORCH = (
    node("conv1", 3.0, operator="Conv2d"),
    node("bn1", 1.0, operator="BatchNorm2d"),
    node("act1", 1.0, 1.0, 7.0, operator="ReLU"),
    node("block.conv", 4.0, operator="Conv2d"),
    node("drop", 0.5, operator="Dropout"),
    node("(unattributed)", 0.25, operator=""),
)


def groups(*nodes: Measurement, of_torch: tuple[Measurement, ...] = TORCH) -> dict[str, LayerGroup]:
    """Return groups by name."""
    return {group.name: group for group in layer_groups(nodes, of_torch)}


def test_a_fused_node_stands_beside_all_that_it_covers() -> None:
    """A fused node is compared with the sum of the medians of the torch layers that it covers."""
    found = groups(node("bn1+conv1+act1", 2.0, 2.0, 9.0))["conv1+bn1+act1"]
    assert (found.torch_s, found.engine_s, found.speedup) == (5.0, 2.0, 2.5)
    assert (found.kinds, found.operators) == (("Conv2d", "BatchNorm2d", "ReLU"), ("Conv",))


def test_nodes_that_share_a_layer_are_one_group() -> None:
    """Nodes that share a layer are one group, with the time of layout reorders named."""
    found = groups(node("conv1", 0.5, operator="ReorderInput", reorder=True), node("conv1+act1", 2.0), node("bn1", 1.0))
    assert list(found)[:2] == ["conv1+act1", "bn1"]
    assert (found["conv1+act1"].engine_s, found["conv1+act1"].reorder_s) == (2.5, 0.5)
    assert found["conv1+act1"].operators == ("ReorderInput", "Conv")


def test_a_container_joins_nothing() -> None:
    """A container's own work is a group by itself and does not join the layers that it is fused with."""
    found = groups(node("block.conv+block", 2.0), node("block", 1.0, operator="Add"), node("conv1+(network)", 1.0))
    assert (found["block.conv"].engine_s, found["conv1"].engine_s) == (2.0, 1.0)
    assert (found["block"].engine_s, found["block"].torch_s) == (1.0, None)


def test_a_containers_own_work_stands_behind_its_last_layer() -> None:
    """A container's own work follows its last layer; work without a layer comes last."""
    found = groups(node("(network)", 1.0, operator="Mul"), node("block", 1.0, operator="Add"), node("conv1", 1.0))
    names = list(found)
    assert names[names.index("block.conv") : names.index("drop") + 1] == ["block.conv", "block", "drop"]
    assert set(names[-2:]) == {"(network)", "(unattributed)"}


def test_a_module_with_work_of_its_own_in_torch_is_a_layer_behind_those_inside() -> None:
    """A fused kernel is put beside a module's own work in torch too, behind the last layer inside the module."""
    own = (node("(network)", 0.1, operator="Net (own)"), node("block", 0.5, operator="Block (own)"))
    found = groups(node("block.conv+block", 2.0), node("(network)", 1.0, operator="Mul"), of_torch=(*own, *TORCH))
    assert (found["block.conv+block"].torch_s, found["block.conv+block"].engine_s) == (4.5, 2.0)
    assert (found["(network)"].torch_s, found["(network)"].engine_s) == (0.1, 1.0)
    assert list(found).index("block.conv+block") > list(found).index("act1")
    assert set(list(found)[-2:]) == {"(network)", "(unattributed)"}


def test_a_layer_that_needs_no_kernel_has_no_seconds() -> None:
    """A layer without a kernel has torch's seconds and none of the engine's."""
    found = groups(node("conv1+bn1", 2.0))
    assert (found["drop"].torch_s, found["drop"].engine_s, found["drop"].operators) == (0.5, None, ())
    assert found["(unattributed)"].speedup is None


def test_without_torch_names_tell_the_leaves() -> None:
    """Without torch a name that precedes another's dot is a container."""
    assert leaves(["block.conv", "block", "(network)", "conv1"]) == ["block.conv", "conv1"]
    found = groups(node("block.conv+block", 2.0), node("block+conv1", 1.0), of_torch=())
    assert list(found) == ["block.conv", "conv1"]
    assert found["conv1"].torch_s is None


LAYERS = st.lists(st.sampled_from(["conv1", "bn1", "act1", "block.conv", "drop", "block", "(network)"]), min_size=1)
SECONDS = st.floats(1e-9, 1e3)


@given(st.lists(st.tuples(LAYERS, SECONDS), max_size=12))
def test_sums_are_what_they_were(drawn: list[tuple[list[str], float]]) -> None:
    """The groups keep the sums of torch's and the engine's times, and no layer is in two groups."""
    nodes = [node("+".join(dict.fromkeys(layers)), seconds) for layers, seconds in drawn]
    found = list(layer_groups(nodes, TORCH))
    of_torch = [group.torch_s for group in found if group.torch_s is not None]
    of_engine = [group.engine_s for group in found if group.engine_s is not None]
    assert math.isclose(math.fsum(of_torch), math.fsum(median(m.values) for m in TORCH))
    assert math.isclose(math.fsum(of_engine), math.fsum(seconds for _, seconds in drawn), abs_tol=1e-12)
    names = [name for group in found for name in group.layers if name in ("conv1", "bn1", "act1", "block.conv")]
    assert len(names) == len(set(names))


def test_the_networks_own_work_is_no_layers(trained: Callable[..., Record]) -> None:
    """A module's own work is no layer, and the printed share of layers excludes it."""
    inferred = partial(engine_of, trained())
    nodes = (node("block.conv", 5.0), node("(network)", 3.0, operator="MatMul"), node("block", 2.0, operator="Add"))
    for of_torch in ((inferred("torch", *TORCH),), ()):
        (join,) = joins({"suite/run": (*of_torch, inferred("onnxruntime", *nodes, SHARE))})
        assert [g.name for g in join.groups if not g.is_layer and g.engine_s] == ["block", "(network)"]
        printed = io.StringIO()
        write(join, Console(file=printed, width=200))
        assert "50.0 % of kernel time belongs to a layer; layout" in printed.getvalue()
        assert "no layer: a module's own work" in printed.getvalue()


def test_layers_that_torch_lacks_at_this_batch_size_are_said(trained: Callable[..., Record]) -> None:
    """A note tells that torch's layers were not timed at the engine's batch size."""
    inferred = partial(engine_of, trained())
    larger = [m.model_copy(update={"tags": m.tags | {"batch_size": 16}}) for m in TORCH]
    said = []
    for measured in (larger, TORCH):
        runtime = inferred("onnxruntime", node("conv1", 2.0), SHARE)
        (join,) = joins({"suite/run": (inferred("torch", *measured), runtime)})
        printed = io.StringIO()
        write(join, Console(file=printed, width=200))
        said.append("torch's layers were not timed at batches of 8, so no row has a speed-up." in printed.getvalue())
    assert said == [True, False]


def test_torch_is_named_only_where_it_ran(trained: Callable[..., Record]) -> None:
    """The printed table names torch and the speed-up only where torch ran."""
    printed = []
    for model, others in (("lenet", (engine_of(trained(), "torch", *TORCH),)), ("some.onnx", ())):
        runtime = engine_of(trained(model), "onnxruntime", node("conv1", 2.0), SHARE)
        (join,) = joins({"suite/run": (*others, runtime)})
        out = io.StringIO()
        write(join, Console(file=out, width=200))
        printed.append(out.getvalue())
    assert "torch beside onnxruntime" in printed[0]
    assert "speed-up" in printed[0]
    assert "some.onnx · cifar10 · batches of 8 · onnxruntime\n" in printed[1]
    assert not {"torch", "speed-up"} & set(re.findall(r"[\w-]+", printed[1]))


def test_a_plot_names_torch_only_where_it_ran(trained: Callable[..., Record]) -> None:
    """The plot's description names torch only where torch ran; otherwise each layer has one bar."""
    runtime = engine_of(trained(), "onnxruntime", node("conv1", 2.0), SHARE)
    for others, words in (((engine_of(trained(), "torch", *TORCH),), "torch and in the engine"), ((), "layers in the")):
        table = layer_table({"suite/run": (*others, runtime)})
        chart = beside_torch("plot", "Layers", table, table.rows)
        assert words in chart.description
        assert ("torch" in chart.description) == bool(others)
        assert ("forward_s" in chart.spec["transform"][0]["fold"]) == bool(others)


SHARE = Measurement(
    metric="infer.mapped_share", unit="fraction", better=None, values=(0.995,), tags={"engine": "x", "batch_size": 8}
)


def engine_of(training: Record, engine: str, *measured: Measurement) -> Record:
    """Make the record of an engine that reads a training."""
    changes = {"stage": "infer", "variant": {"engine": engine}, "needs": (training.key,)}
    task = training.task.model_copy(update=changes)
    return training.model_copy(update={"task": task, "key": task.key, "measurements": measured})


def test_an_engine_stands_beside_torch_of_its_own_training(trained: Callable[..., Record]) -> None:
    """An engine's layers are compared with torch's layers of the same training."""
    trainings = [trained(seconds=None, steps=steps) for steps in (100, 200)]
    of_torch = [
        engine_of(training, "torch", *(node(m.tags["layer"], factor * m.values[0]) for m in TORCH))
        for training, factor in zip(trainings, (1, 10), strict=True)
    ]
    engines = [engine_of(training, "onnxruntime", node("conv1", 2.0), SHARE) for training in trainings]
    found = joins({"suite/run": (*trainings, *of_torch, *engines)})
    assert [join.groups[0].torch_s for join in found] == [3.0, 30.0]


def test_an_engine_does_not_stand_beside_torch_of_another_sitting(trained: Callable[..., Record]) -> None:
    """An engine's layers have no seconds of torch that were measured in another sitting."""
    inferred = partial(engine_of, trained())
    engine = inferred("onnxruntime", node("conv1", 2.0), SHARE)
    for sittings, seconds in ((("a", "a"), 3.0), (("a", "b"), None)):
        both = zip((inferred("torch", *TORCH), engine), sittings, strict=True)
        records = [record.model_copy(update={"sitting": sitting}) for record, sitting in both]
        (join,) = joins({"suite/run": records})
        assert (join.groups[0].engine_s, join.groups[0].torch_s) == (2.0, seconds)


def test_rows_stand_in_the_table_of_layers(trained: Callable[..., Record]) -> None:
    """The table of layers has a row per group, with torch's seconds and the mapped share."""
    inferred = partial(engine_of, trained())
    records = {"suite/run": (inferred("torch", *TORCH), inferred("onnxruntime", node("conv1+bn1+act1", 2.0), SHARE))}
    (join,) = joins(records)
    assert (join.total("torch_s"), join.total("engine_s"), join.mapped_share) == (9.75, 2.0, 0.995)
    rows = layer_table(records).rows
    assert [row["layer"] for row in rows] == ["conv1+bn1+act1", "block.conv", "drop", "(unattributed)"]
    assert (rows[0]["engine"], rows[0]["forward_s"], rows[0]["engine_speedup"]) == ("onnxruntime", 5.0, 2.5)
    assert (rows[0]["engine_share"], rows[1]["engine_share"], rows[0]["mapped_share"]) == (1.0, None, 0.995)
