"""Export and inference: an engine computes the same network as torch, or fails with the size of the difference."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from benches import left_by
from in_process import workers_here
from processes import completed
from pydantic import ValidationError

from cnnperf import models, registry
from cnnperf.bench import Bench
from cnnperf.devices import Numerics
from cnnperf.devices._driver import VisibleGpu
from cnnperf.devices.cuda import Cuda
from cnnperf.duet.schedule import Conditions
from cnnperf.engines import EngineSource, onnxruntime_int8
from cnnperf.engines.onnxruntime import load as load_onnxruntime
from cnnperf.errors import EngineError, StageError, UsageError
from cnnperf.inference.exporting import Export, file_facts, sources
from cnnperf.inference.pairs import measured
from cnnperf.inference.source import loaded, source_of
from cnnperf.ipc.messages import SuiteRequest, Taken
from cnnperf.models import resnet
from cnnperf.record import Measurement, Record
from cnnperf.running.preflight import prepare
from cnnperf.running.runner import Unwatched, execute
from cnnperf.sides import Both
from cnnperf.stages.export import measure as export
from cnnperf.stages.infer import COMMON_BATCH_SIZE, Infer
from cnnperf.stages.infer import measure as infer
from cnnperf.suite import parse
from cnnperf.tables.engine_row import EngineRow
from cnnperf.tables.layer_row import LayerRow
from cnnperf.tables.report import report_of
from cnnperf.task import DEFAULT_WAITING, Choice, Waiting
from cnnperf.timing.sampling import Sample

onnx = pytest.importorskip("onnx")

ENGINES = ("torch", "onnxruntime", "onnxruntime_int8")
QUICK = Infer(engines=ENGINES, batch_sizes=(1, 7, 64), samples=11, seconds=0.0, pairs=0)
Make = Callable[..., Bench]


def named(measurements: Iterable[Measurement], metric: str, **tags: Any) -> list[Measurement]:
    """Return the measurements of one metric with these tags."""
    return [m for m in measurements if m.metric == metric and tags.items() <= m.tags.items()]


@pytest.fixture
def exported(bench: Make, trained: Callable[..., Record]) -> Callable[..., Bench]:
    """Return a maker of benches of the infer stage, after the export of a network."""

    def make(engine: str = "onnxruntime", model: str = "convolutional") -> Bench:
        first = bench(model)
        list(export(first, Export()))
        record = trained().model_copy(update={"task": first.task, "artifacts": left_by(first)})
        task = first.task.model_copy(update={"stage": "infer", "variant": {"engine": engine}})
        return replace(first, task=task, artifacts={}, needs={"export": record})

    return make


def spoil(path: Path) -> None:
    """Change one weight of an exported network."""
    from onnx import numpy_helper

    model = onnx.load(path)
    weight = next(each for each in model.graph.initializer if each.name.endswith("weight"))
    values = numpy_helper.to_array(weight).copy()
    values.flat[0] += 1.0
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    onnx.save(model, path)


def test_an_export_is_checked_and_has_a_dynamic_batch(
    bench: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The export measures opset, IR, size and nodes, and the file has a dynamic batch."""
    monkeypatch.setenv("CNNPERF_CACHE", str(tmp_path / "cache"))  # What is found there was counted when it was made.
    made = bench()
    found = list(export(made, Export()))
    divided = {"onnx_data"}  # Of a file that cannot hold its weights, unlike this one.
    assert set(made.artifacts) | divided == set(registry.declared("stages", "export")["LEAVES"])
    file = made.run / made.artifacts["onnx"]
    assert onnx.load(file).graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert named(found, "export.file_bytes")[0].values == (file.stat().st_size,)
    assert {m.metric for m in found} >= {"export.opset", "export.ir_version", "export.nodes", "export.torch_nodes"}


def test_weights_beside_a_large_file_are_counted(
    exported: Callable[..., Bench], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file size includes external weights, in the export and in the engine."""
    monkeypatch.setenv("CNNPERF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("cnnperf.inference.exporting.EXTERNAL_BYTES", 0)
    made = exported()
    file = made.found("onnx")
    assert file is not None
    weights = file.with_name(f"{file.name}.data")
    assert made.found("onnx_data") == weights
    size = file.stat().st_size + weights.stat().st_size
    assert [m.values for m in file_facts(file) if m.metric == "export.file_bytes"] == [(size,)]
    found = infer(made, QUICK.model_copy(update={"batch_sizes": (1,)}))
    assert named(found, "infer.file_bytes")[0].values == (size,)


def test_the_same_network_is_exported_once(bench: Make) -> None:
    """A cached export is not repeated, and gives equal bytes and counts; another seed is exported."""
    first, second, other = bench(seed=3), bench(seed=3), bench(seed=4)
    counted = list(export(first, Export()))
    content = (first.run / first.artifacts["onnx"]).read_bytes()
    again = list(export(second, Export()))
    assert not named(again, "export.export_seconds")
    assert named(again, "export.torch_nodes") == named(counted, "export.torch_nodes") != []
    assert (second.run / second.artifacts["onnx"]).read_bytes() == content
    assert named(export(other, Export()), "export.export_seconds")


@pytest.mark.parametrize("suffix", [".onnx", ".json"])
def test_an_altered_file_in_the_cache_is_exported_anew(
    bench: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    """A cached file with a flipped bit, or with another number of operations, is not used."""
    monkeypatch.setenv("CNNPERF_CACHE", str(tmp_path / "cache"))
    first, second = bench(seed=3), bench(seed=3)
    counted = list(export(first, Export()))
    content = (first.run / first.artifacts["onnx"]).read_bytes()
    [cached] = (tmp_path / "cache" / "onnx").glob(f"*{suffix}")
    stored = cached.read_bytes()
    place = stored.index(b": ") + 2 if suffix == ".json" else len(stored) // 2
    cached.write_bytes(stored[:place] + bytes([stored[place] ^ 1]) + stored[place + 1 :])
    again = list(export(second, Export()))
    assert named(again, "export.export_seconds")
    assert named(again, "export.torch_nodes") == named(counted, "export.torch_nodes")
    assert (second.run / second.artifacts["onnx"]).read_bytes() == content
    assert cached.read_bytes() == stored


def test_a_network_s_blocks_decide_what_is_in_the_cache() -> None:
    """The sources of a network include the file of its blocks."""
    network = models.create(Choice(name="resnet"), (3, 32, 32), 10)
    found = {file.name for file in sources(resnet.build, *(type(module) for module in network.modules()))}
    assert found == {"resnet.py", "_blocks.py"}


def test_a_network_that_cannot_be_exported_is_one_sentence(bench: Make) -> None:
    """The error for control flow that depends on the data names the network in one sentence."""
    with pytest.raises(StageError, match="Branching cannot be exported to ONNX: ") as caught:
        list(export(bench("branching"), Export()))
    assert "\n" not in str(caught.value)


def test_a_truncated_file_is_one_sentence(tmp_path: Path, exported: Callable[..., Bench]) -> None:
    """The checker and the engine each refuse a truncated file in one sentence."""
    made = exported()
    file = made.found("onnx")
    assert file is not None
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(UsageError, match=r"model\.onnx: not a valid ONNX file \(\w+: .+\); export it again"):
        list(file_facts(file))
    with pytest.raises(StageError, match=r"model\.onnx: onnxruntime cannot load it"):
        list(infer(made, QUICK))


@pytest.mark.parametrize("engine", ["torch", "torch_compile", "onnxruntime", "onnxruntime_int8"])
def test_loading_imports_nothing_while_it_is_timed(
    exported: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    """The packages of engine and model are imported before the clock of loading starts.

    The image of the first call is made before the clock of that call starts.
    """
    made, course = exported(engine), list[str]()

    def import_before(choice: Choice, model: Choice) -> None:
        course.append(f"import {choice} {model}")

    def clock() -> float:
        course.append("clock")
        return 0.0

    def load_timed(source: EngineSource, choice: Choice) -> Any:
        course.append(f"load {choice}")
        return SimpleNamespace(run=run, batch=None, takes_pixels=False)

    def run(image: str) -> None:
        course.append(f"run {image}")
        raise EngineError("enough")

    def batch(count: int) -> str:
        course.append(f"batch of {count}")
        return "image"

    monkeypatch.setattr("cnnperf.stages.infer.Inputs", SimpleNamespace(of=lambda _: SimpleNamespace(batch=batch)))
    for name, stand_in in (("import_packages", import_before), ("perf_counter", clock), ("loaded", load_timed)):
        monkeypatch.setattr(f"cnnperf.stages.infer.{name}", stand_in)
    with pytest.raises(EngineError, match="enough"):
        list(infer(made, Infer(engines=(engine,))))
    loading = ["clock", f"load {engine}", "clock"]
    assert course == [f"import {engine} {made.task.cell.model}", *loading, "batch of 1", "clock", "run image"]


IMPORTS = """
import sys
from cnnperf import registry
import cnnperf.stages.infer, cnnperf.workers.paired_engine
from cnnperf.inference.source import import_packages
from cnnperf.task import Choice

def told():
    names = "onnxruntime", "onnxruntime.quantization", "torch", "torch._dynamo", "cnnperf.models.lenet"
    return [name for name in names if name in sys.modules]

for name in ("onnxruntime", "onnxruntime_int8"):
    registry.module("engines", name)
cnnperf.stages.infer.Infer(engines=["torch", "torch_compile", "onnxruntime"])
print(told())
for engine in ("onnxruntime", "onnxruntime_int8", "torch", "torch_compile"):
    import_packages(Choice(name=engine), Choice(name="lenet"))
    print(engine, told())
    if engine == "onnxruntime_int8":
        for name in [name for name in sys.modules if name.startswith("onnxruntime")]:
            del sys.modules[name]
"""


def test_each_engine_imports_its_own_packages() -> None:
    """`import_packages` imports an engine's packages and, for torch, the model's module before `load`.

    Neither the stage, nor the worker of a pair, nor the engines of ONNX Runtime import torch.
    """
    lines = completed(sys.executable, "-c", IMPORTS, check=True).stdout.splitlines()
    assert lines[:2] == ["[]", "onnxruntime ['onnxruntime']"]
    assert lines[2] == "onnxruntime_int8 ['onnxruntime', 'onnxruntime.quantization']"
    lenet = "'cnnperf.models.lenet']"
    assert lines[3] in (f"torch ['torch', {lenet}", f"torch ['torch', 'torch._dynamo', {lenet}")
    assert lines[4:] == [f"torch_compile ['torch', 'torch._dynamo', {lenet}"]


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_is_timed_and_held_to_torch(exported: Callable[..., Bench], engine: str) -> None:
    """Every batch size is timed, errors to float64 are small, and over 90 % of the classes agree with torch's."""
    found = list(infer(exported(engine), QUICK))
    for batch_size in QUICK.batch_sizes:
        (latency,) = named(found, "infer.latency", batch_size=batch_size, engine=engine)
        assert len(latency.values) >= 11
        assert min(latency.values) > 0
    for batch_size in (1, 2, 64):
        (error,) = named(found, "infer.error_to_float64", batch_size=batch_size)
        assert error.values[0] < (0.2 if engine.endswith("int8") else 1e-5)
        (furthest,) = named(found, "infer.max_error_to_float64", batch_size=batch_size)
        (difference,) = named(found, "infer.max_difference", batch_size=batch_size)
        (relative,) = named(found, "infer.relative_difference", batch_size=batch_size)
        if difference.values[0]:
            span = difference.values[0] / relative.values[0]
            assert furthest.values[0] == pytest.approx(span * error.values[0], rel=1e-6)
            assert abs(span - 1) > 0.01, "else the maximum could be the relative error itself"
    (agreement,) = named(found, "infer.top1_agreement")
    assert agreement.values[0] > 0.9
    assert agreement.remarks["n"] == 200


def test_fewer_test_images_are_classified_where_the_suite_says_so(exported: Callable[..., Bench]) -> None:
    """With 40 test images the accuracy has n = 40 and is marked as one of a subset."""
    found = list(infer(exported(), QUICK.model_copy(update={"test_images": 40})))
    assert named(found, "infer.test_accuracy")[0].remarks["n"] == 40
    assert named(found, "infer.test_accuracy")[0].remarks["images"] == "subset"


def test_layers_of_onnxruntime_are_those_of_torch(exported: Callable[..., Bench]) -> None:
    """At least 99 % of ONNX Runtime's kernel time belongs to modules of the network."""
    found = list(infer(exported(), QUICK))
    (share,) = named(found, "infer.mapped_share")
    assert share.values[0] >= 0.99
    columns = [c for kind in (LayerRow, EngineRow) for c in kind.columns() if c.name == "mapped_share"]
    assert [(c.unit, c.better) for c in columns] == 2 * [(share.unit, share.better)]
    nodes = named(found, "infer.node_time")
    assert all(len(node.values) == 20 for node in nodes)
    made = exported("torch")
    known = dict(loaded(source_of(made), Choice(name="torch")).model.named_modules())  # type: ignore[attr-defined]
    assert {part for node in nodes for part in str(node.tags["layer"]).split("+")} <= {*known, "(network)"}


def test_one_changed_weight_is_a_failed_parity_with_its_figures(exported: Callable[..., Bench]) -> None:
    """A changed weight fails parity; the error gives the batch size, and the measurements are kept."""
    made = exported()
    file = made.found("onnx")
    assert file is not None
    spoil(file)
    found: list[Measurement] = []
    with pytest.raises(StageError, match=r"onnxruntime: parity failed at batch size 1: its logits differ"):
        found.extend(infer(made, QUICK))
    (verdict,) = named(found, "infer.parity", engine="onnxruntime")
    assert verdict.values == (0,)
    assert str(verdict.remarks["fault"]).startswith("parity failed at batch size 1: its logits differ")
    assert named(found, "infer.error_to_float64", batch_size=64)[0].values[0] > 1e-4
    assert named(found, "infer.latency", batch_size=64)


def test_a_failed_parity_is_told_although_its_pairs_come_to_grief_too(exported: Callable[..., Bench]) -> None:
    """The error names the failed parity before the failure of the pairs."""
    made = exported()
    file = made.found("onnx")
    assert file is not None
    spoil(file)
    with pytest.raises(StageError, match=r"onnxruntime: parity failed at batch size 1: .*; in turns: \w+ \(\w+\): "):
        list(infer(made, QUICK.model_copy(update={"pairs": 1, "batch_sizes": (1,)})))


def test_output_that_is_not_finite_is_refused(exported: Callable[..., Bench]) -> None:
    """NaN in the output fails parity, and the measurements are kept."""
    from onnx import numpy_helper

    made = exported()
    file = made.found("onnx")
    assert file is not None
    model = onnx.load(file)
    weight = next(each for each in model.graph.initializer if each.name.endswith("weight"))
    weight.CopyFrom(numpy_helper.from_array(np.full(tuple(weight.dims), np.nan, np.float32), weight.name))
    onnx.save(model, file)
    found: list[Measurement] = []
    with pytest.raises(StageError, match="onnxruntime: parity failed: its output is not finite"):
        found.extend(infer(made, QUICK))
    assert named(found, "infer.parity")[0].values == (0,)
    assert named(found, "infer.latency", batch_size=64)


@pytest.mark.parametrize("engine", ["onnxruntime", "onnxruntime_int8"])
def test_a_file_of_a_fixed_batch_is_measured_at_that_batch(exported: Callable[..., Bench], engine: str) -> None:
    """Parity holds at the only batch size that the file takes; the settings and the engine refuse any other."""
    made = exported(engine)
    file = made.found("onnx")
    assert file is not None
    model = onnx.load(file)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    onnx.save(model, file)
    assert list(file_facts(file))
    found = list(infer(made, Infer(engines=ENGINES, samples=11, seconds=0.0, pairs=0).at_batch(4)))
    assert {m.tags["batch_size"] for m in named(found, "infer.latency")} == {4}
    assert [m.values for m in named(found, "infer.parity")] == [(1,)]
    with pytest.raises(UsageError, match=r"^batch_sizes: the file takes batches of 4 only; give 4 alone, or none$"):
        QUICK.at_batch(4)
    with pytest.raises(StageError, match="takes batches of 4 only, got 1; export it with a dynamic batch"):
        list(infer(made, QUICK))


def test_an_operator_that_the_runtime_lacks_is_one_sentence(exported: Callable[..., Bench]) -> None:
    """An operator of an unknown domain passes the checker and is refused by the engine in one sentence."""
    made = exported()
    file = made.found("onnx")
    assert file is not None
    model = onnx.load(file)
    model.opset_import.append(onnx.helper.make_opsetid("elsewhere", 1))
    node = next(each for each in model.graph.node if each.op_type == "Relu")
    node.op_type, node.domain = "Unheard", "elsewhere"
    onnx.save(model, file)
    with pytest.raises(StageError, match=r"onnxruntime cannot load it \(.*Unheard.*\); export it again") as caught:
        list(infer(made, QUICK))
    assert "\n" not in str(caught.value)


def test_a_network_that_cannot_be_quantised_is_one_sentence(exported: Callable[..., Bench]) -> None:
    """The error for weights of NaN names the file and says that it cannot be quantised."""
    from onnx import numpy_helper

    made = exported("onnxruntime_int8")
    file = made.found("onnx")
    assert file is not None
    model = onnx.load(file)
    weight = next(each for each in model.graph.initializer if each.name.endswith("weight"))
    weight.CopyFrom(numpy_helper.from_array(np.full(tuple(weight.dims), np.nan, np.float32), weight.name))
    onnx.save(model, file)
    with pytest.raises(StageError, match=r"model\.onnx: cannot be quantised \(\w+: .+\); leave onnxruntime_int8 out"):
        list(infer(made, QUICK))


def test_a_second_attempt_quantises_anew(exported: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine's own process always quantises; one of a pair loads the file that it left."""
    made, engine = exported("onnxruntime_int8"), Choice(name="onnxruntime_int8")
    quantised: list[Path] = []
    quantise = onnxruntime_int8.quantise

    def counted(onnx: Path, file: Path, *more: Any, **others: Any) -> None:
        quantised.append(file)
        quantise(onnx, file, *more, **others)

    monkeypatch.setattr(onnxruntime_int8, "quantise", counted)
    for reuses, times in ((False, 1), (False, 2), (True, 2)):
        loaded(source_of(made, reuses=reuses), engine)
        assert len(quantised) == times


def test_an_altered_quantised_file_is_refused(exported: Callable[..., Bench]) -> None:
    """A process of a pair does not load a quantised file that is not as the engine's own process left it."""
    made, engine = exported("onnxruntime_int8"), Choice(name="onnxruntime_int8")
    source = source_of(made, reuses=True)
    loaded(source, engine)
    file = source.folder / "model_int8.onnx"
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(StageError, match=f"{file}: its content has changed"):
        loaded(source, engine)
    file.write_bytes(content)
    file.with_suffix(".json").write_text("{")
    with pytest.raises(StageError, match=r"not the checksum of model_int8\.onnx"):
        loaded(source, engine)


def test_a_newer_opset_than_is_known_is_one_sentence(exported: Callable[..., Bench]) -> None:
    """The checker and the engine each refuse a newer opset in one sentence."""
    made = exported()
    file = made.found("onnx")
    assert file is not None
    model = onnx.load(file)
    model.opset_import[0].version = 999
    onnx.save(model, file)
    with pytest.raises(UsageError, match="has opset 999, the newest readable opset is"):
        list(file_facts(file))
    with pytest.raises(StageError, match=r"onnxruntime cannot load it \(.*999") as caught:
        list(infer(made, QUICK))
    assert "\n" not in str(caught.value)


def test_an_operator_that_onnx_lacks_is_one_sentence(bench: Make) -> None:
    """The export names an operator that ONNX lacks, in one sentence."""
    with pytest.raises(StageError, match=r"cannot be exported to ONNX: .*bessel") as caught:
        list(export(bench("unheard"), Export()))
    assert "\n" not in str(caught.value)


def test_a_provider_that_is_not_there_is_not_replaced_by_another(exported: Callable[..., Bench]) -> None:
    """An onnxruntime that was built without CUDA refuses a CUDA device."""
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this build has CUDA")
    gpu = Cuda(VisibleGpu("Imaginary", "0", (8, 0)), 0, Numerics())
    source = replace(source_of(exported()), device=gpu)
    with pytest.raises(EngineError, match=r"onnxruntime [\d.]+ has no CUDAExecutionProvider; install"):
        load_onnxruntime(source)


def test_options_of_an_engine_reach_it(exported: Callable[..., Bench]) -> None:
    """The engine records its level of optimisation and its way of waiting."""
    choice = {"name": "onnxruntime", "optimization": "disabled"}
    settings = Infer.model_validate({**QUICK.model_dump(), "engines": ["torch", choice], "batch_sizes": [2]})
    (of_torch, variant) = settings.variants("cpu")
    assert (of_torch["engine"], variant["engine"]) == ("torch", "onnxruntime[optimization=disabled]")
    made = exported(str(variant["engine"]))
    (facts,) = named(infer(made, settings), "infer.threads")
    assert (facts.remarks["optimization"], facts.remarks["waiting"]) == ("disabled", DEFAULT_WAITING)


@pytest.mark.parametrize(
    ("waiting", "spins"), [("spin", ("1", None)), ("brief", ("1", "50")), ("passive", ("0", None))]
)
def test_onnxruntime_waits_as_the_task_says(exported: Callable[..., Bench], waiting: Waiting, spins: Any) -> None:
    """ONNX Runtime's thread pools get the spinning options of the task's way of waiting."""
    session = load_onnxruntime(replace(source_of(exported()), waiting=waiting))
    for pool, (entry, value) in product(
        ("intra", "inter"), zip(("allow_spinning", "spin_duration_us"), spins, strict=True)
    ):
        key = f"session.{pool}_op.{entry}"
        if value is None:
            with pytest.raises(RuntimeError, match=key):
                session._options.get_session_config_entry(key)
        else:
            assert session._options.get_session_config_entry(key) == value
    assert session.facts["waiting"] == waiting


def test_an_onnxruntime_that_cannot_wait_briefly_says_passive(
    exported: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An onnxruntime too old for brief spinning waits passively, and records it."""
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "__version__", "1.25.1")
    session = load_onnxruntime(replace(source_of(exported()), waiting="brief"))
    assert session.facts["waiting"] == "passive"
    assert session._options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


@pytest.mark.parametrize(
    ("engine", "words"),
    [
        ("onnxruntim", r"unknown engine 'onnxruntim'; did you mean 'onnxruntime'"),
        ({"name": "onnxruntime", "optimisation": "all"}, r"unknown option 'optimisation'; did you mean 'optimization'"),
        ({"name": "onnxruntime", "optimization": "some"}, r"onnxruntime\.optimization: Input should be"),
        (
            {"name": "onnxruntime_int8", "calibration_images": 0},
            r"onnxruntime_int8\.calibration_images: must be at least 1",
        ),
        ({"optimization": "all"}, "give a name, or a table with a name"),
    ],
)
def test_an_engine_that_cannot_be_as_written_is_refused(engine: Any, words: str) -> None:
    """`Infer` refuses an unknown engine and wrong options."""
    with pytest.raises(ValidationError, match=words):
        Infer.model_validate({"engines": ["torch", engine]})


def test_an_engine_that_is_not_installed_names_the_extra(
    exported: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error for a missing engine contains the command that installs it."""
    made = exported()
    monkeypatch.setattr("cnnperf.onnx_file.find_spec", lambda name: None)
    with pytest.raises(EngineError, match=r"pip install 'cnnperf\[onnx\]'"):
        list(infer(made, QUICK))


def test_torch_tells_the_seconds_of_its_layers(exported: Callable[..., Bench]) -> None:
    """Torch measures the seconds of its layers, as ONNX Runtime those of its kernels."""
    found = list(infer(exported("torch"), QUICK))
    nodes = {m.tags["layer"]: m for m in named(found, "infer.node_time", engine="torch", batch_size=64)}
    assert [node.tags["operator"] for node in nodes.values()][:3] == ["Conv2d", "BatchNorm2d", "ReLU"]
    assert all(len(node.values) == 20 for node in nodes.values())


def test_auto_doubles_the_batch_and_parity_is_held_at_the_largest(
    exported: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`auto` times powers of two, records the bound, and parity includes the largest batch."""
    monkeypatch.setattr("cnnperf.inference.throughput.RISE", 0.0)
    monkeypatch.setattr("cnnperf.inference.throughput.LARGEST", 128)
    found = list(infer(exported(), QUICK.model_copy(update={"batch_sizes": "auto"})))
    sizes = [m.tags["batch_size"] for m in named(found, "infer.latency")]
    assert sizes == [2**i for i in range(len(sizes))]
    assert sizes[-1] > COMMON_BATCH_SIZE, "else the next tells nothing"
    assert [m.tags["batch_size"] for m in named(found, "infer.error_to_float64")] == [1, 2, sizes[-1]]
    (largest,) = named(found, "infer.largest_batch_size")
    assert (largest.values, largest.remarks["bound"]) == ((128,), "limit of 128")
    timed = {m.tags["batch_size"] for m in named(found, "infer.node_time")}
    assert timed == {1, COMMON_BATCH_SIZE}, "else no batch size is common to engines whose searches end apart"


THREADS = "infer.threads"
SUITE = {
    "datasets": [{"name": "synthetic", "shape": [1, 28, 28], "train": 600, "test": 200}],
    "models": ["lenet"],
    "stages": ["train", "export", "infer"],
    "threads": 1,
    "train": {"steps": 4, "validation_images": 100, "batch_size": 50},
    "infer": {"batch_sizes": [8], "samples": 11, "seconds": 0.0, "pairs": 1},
}


def test_a_run_compares_engines_in_pairs_of_processes(tmp_path: Path) -> None:
    """Each pair of processes gives one ratio of times, and the accuracy of torch is the same in both records."""
    with workers_here():
        tasks = prepare(SuiteRequest(suite=parse(SUITE, where="x.toml", name="x"), where="x.toml")).tasks
        train, out = execute(tasks[:2], tmp_path, Unwatched())
    [of_torch] = execute(tasks[2:3], tmp_path, Unwatched())
    with workers_here():
        [of_runtime] = execute(tasks[3:], tmp_path, Unwatched())
    for record in (train, out, of_torch, of_runtime):
        assert record.status == "ok", record.error
    threads, others = (
        [m.values[0], m.remarks["interop_threads"]] for r in (of_torch, of_runtime) for m in r.find(THREADS)
    )
    assert threads == others == [1, 1]
    assert of_torch.task.needs == (train.key,)
    assert of_runtime.task.needs == (train.key, out.key)
    (speedup,) = of_runtime.find("infer.speedup", engine="onnxruntime", batch_size=8)
    assert len(speedup.values) == 1
    one, other = (
        of_runtime.find("infer.pair_seconds", batch_size=8, pair=0, side=side)[0].values
        for side in ("baseline", "candidate")
    )
    assert len(one) == len(other) == speedup.remarks["pairs"]
    assert speedup.values[0] == pytest.approx(np.exp(np.median(np.log(np.divide(one, other)))))
    assert not of_torch.find("infer.speedup")
    assert of_torch.find("infer.test_accuracy")[0].values == of_runtime.find("infer.torch_test_accuracy")[0].values
    (row,) = engine_rows(of_runtime, tmp_path)
    assert row["parity"] == "ok"


@pytest.mark.parametrize("unsteady", [0, 2])
def test_a_speed_up_says_how_many_of_its_pairs_were_never_steady(unsteady: int) -> None:
    """A speed-up has the number of pairs with an unsteady side, unless all were steady."""
    sample = Sample(wall_s=0.02, cpu_s=0.02, switches=0, waited_s=None)
    calm = Taken(samples=(sample,) * 12, warmup=(), steady=True, blocked_s=0.0, blocked_cpu_s=0.0)
    restless = calm.model_copy(update={"steady": False})
    taken = [Both(calm, restless)] * unsteady + [Both(calm, calm)]
    *seconds, speedup = measured(taken, Conditions(calls=2, call_s=0.01, pairs=12, warmup=3), {"engine": "other"})
    assert speedup.remarks.get("unsteady_pairs", 0) == unsteady
    assert ("unsteady_pairs" in speedup.remarks) == bool(unsteady)
    assert {m.values for m in seconds} == {(0.01,) * 12}
    assert len(seconds) == 2 * len(taken)


def engine_rows(record: Record, run: Path) -> list[Any]:
    """Return the rows of an engine's record in the table of its run."""
    table = report_of([run]).table("engines")
    assert table
    return [row for row in table.rows if row["engine"] == record.task.variant["engine"]]
