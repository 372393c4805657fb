"""Networks of torchvision and timm as they come: each is trained, profiled, exported and run."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from benches import left_by
from passes import times

from cnnperf import registry
from cnnperf.bench import Bench
from cnnperf.datasets import Roots
from cnnperf.devices.cpu import Cpu
from cnnperf.errors import CnnperfError
from cnnperf.inference.exporting import Export
from cnnperf.profiling.settings import Profile
from cnnperf.record import Record
from cnnperf.stages.export import measure as export
from cnnperf.stages.infer import Infer
from cnnperf.stages.infer import measure as infer
from cnnperf.stages.profile import measure as profile
from cnnperf.stages.train import measure as train
from cnnperf.task import Choice
from cnnperf.training.recipe import Recipe
from cnnperf.workers.meta import try_model

pytest.importorskip("onnx")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.filterwarnings("default")]

SIDE = 32
"""Height and width of the images, unless a network needs larger ones."""
TORCHVISION = """
convnext_tiny densenet121 densenet161 densenet169 densenet201 efficientnet_b0 efficientnet_b1 efficientnet_b2
efficientnet_v2_s googlenet mnasnet0_5 mnasnet0_75 mnasnet1_0 mnasnet1_3 mobilenet_v2 mobilenet_v3_large
mobilenet_v3_small regnet_x_400mf regnet_x_800mf regnet_x_1_6gf regnet_y_400mf regnet_y_800mf regnet_y_1_6gf resnet18
resnet34 resnet50 resnext50_32x4d shufflenet_v2_x0_5 shufflenet_v2_x1_0 shufflenet_v2_x1_5
shufflenet_v2_x2_0 squeezenet1_0 squeezenet1_1 swin_t swin_v2_t vgg11 vit_b_32 alexnet inception_v3 maxvit_t
"""
TIMM = """
resnet10t resnet18d resnet26d seresnext26d_32x4d ecaresnext26t_32x4d gcresnext26ts regnetx_002 regnety_002 regnetz_005
skresnet18 efficientnet_b0 efficientnet_lite0 efficientnetv2_rw_t tinynet_e mobilenetv2_050 mobilenetv3_small_050
mobilenetv4_conv_small mnasnet_small fbnetc_100 spnasnet_100 ghostnet_050 hardcorenas_a lcnet_050 semnasnet_075
convnext_atto convnextv2_atto inception_next_atto dla46_c ese_vovnet19b_dw hrnet_w18_small repvgg_a0 rexnet_100
selecsls42b edgenext_xx_small fastvit_t8 repghostnet_050 mobileone_s0 repvit_m0_9 mobilevit_xxs mobilevitv2_050
poolformer_s12 caformer_s18 efficientvit_b0 starnet_s1 nfnet_l0 xception41 gernet_s coat_lite_tiny pvt_v2_b0
vit_tiny_patch16_224 deit_tiny_patch16_224 mixer_s32_224 resmlp_12_224 gmixer_24_224 cait_xxs24_224
xcit_nano_12_p16_224 swin_tiny_patch4_window7_224
"""
SIDES = {"alexnet": 64, "inception_v3": 128}
OF_FIXED_SIZE = ("vit_", "deit_", "mixer_", "resmlp_", "gmixer_", "cait_", "xcit_")
"""Beginnings of the names of networks that are built for images of one size, which is an option."""
OFTEN = ("googlenet", "regnet_y_400mf", "timm-mobilenetv3_small_050")
"""Networks that are not marked `long`."""


def cases() -> Iterator[Any]:
    """Yield every network as a suite names it."""
    for name in TORCHVISION.split():
        sized = {"image_size": SIDE} if name.startswith(OF_FIXED_SIZE) else {}
        choice = Choice.model_validate({"name": f"torchvision.models:{name}", **sized})
        yield case(choice, SIDES.get(name, SIDE), name)
    for name in TIMM.split():
        sized = {"img_size": SIDE} if name.startswith(OF_FIXED_SIZE) else {}
        choice = Choice.model_validate({"name": "timm:create_model", "model_name": name, **sized})
        yield case(choice, SIDE, f"timm-{name}")


def case(choice: Choice, side: int, name: str) -> Any:
    """Return the parameters of a network."""
    return pytest.param(choice, side, id=name, marks=() if name in OFTEN else pytest.mark.long)


@pytest.mark.usefixtures("quick_probes")
@pytest.mark.parametrize(("model", "side"), list(cases()))
def test_a_network_is_taken_as_it_comes(
    bench: Callable[..., Bench],
    trained: Callable[..., Record],
    tmp_path: Path,
    request: pytest.FixtureRequest,
    record_property: Callable[[str, object], None],
    model: Choice,
    side: int,
) -> None:
    """A network trains a step, is profiled, exported and run in ONNX Runtime; none is refused.

    The end of the test run prints how many ran, and why others were refused.
    """
    pytest.importorskip(model.name.partition(":")[0], reason=f"{model.name.partition('.')[0]} is not installed")
    load = registry.find("datasets", "synthetic")
    data = load(Roots(cache=tmp_path), None, shape=(3, side, side), train=16, test=8)
    first = bench(data=data)
    first = replace(
        first, task=first.task.model_copy(update={"cell": first.task.cell.model_copy(update={"model": model})})
    )
    refusal = refused(first, trained())
    record_property("ran" if refusal is None else "refused", f"{request.node.callspec.id}: {refusal}")
    gc.collect()
    assert refusal is None


def refused(first: Bench, record: Record) -> str | None:
    """Carry out every stage; return the sentence by which one refuses the network, None if none does."""
    model, shape = first.task.cell.model, first.dataset.train_images.shape[1:]
    try:
        if fault := try_model(model, shape, len(first.dataset.classes)).training_fault:
            return fault
        recipe = Recipe.resolve({}, {"batch_size": 4, "validation_images": 0, "steps": 1}, {})
        assert [m.values for m in train(first, recipe) if m.metric == "train.steps"] == [(1,)]
        settings = Profile.resolve({}, {"batch_sizes": (4,), "samples": 1, "trace_steps": 1}, {})
        assert any(m.metric == "profile.forward_seconds" for m in profile(replace(first, artifacts={}), settings))
        exported = replace(first, task=first.task.model_copy(update={"stage": "export"}), artifacts={})
        list(export(exported, Export(test_images=8)))
        needs = {"export": record.model_copy(update={"task": exported.task, "artifacts": left_by(exported)})}
        task = first.task.model_copy(update={"stage": "infer", "variant": {"engine": "onnxruntime"}})
        run = Infer(batch_sizes=(1, 2), samples=11, seconds=0.0, pairs=0, test_images=8)
        found = list(infer(replace(first, task=task, artifacts={}, needs=needs), run))
        assert [m.values for m in found if m.metric == "infer.parity"] == [(1,)]
    except CnnperfError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    ("package", "name", "options"),
    [
        ("torchvision.models", "resnet18", {}),
        ("torchvision.models", "densenet121", {}),
        *(
            ("timm", name, {})
            for name in ("resnet18", "efficientnet_b0", "mobilenetv3_large_100", "regnetx_002", "convnext_atto")
        ),
        ("timm", "vit_tiny_patch16_224", {"img_size": 64}),
    ],
)
def test_little_of_a_forward_pass_belongs_to_no_layer(
    monkeypatch: pytest.MonkeyPatch, package: str, name: str, options: dict[str, Any]
) -> None:
    """At most a tenth of a forward pass is unattributed."""
    monkeypatch.setattr(Cpu, "mark", lambda device: time.thread_time())
    pytest.importorskip(package, reason=f"{package} is not installed")
    build = getattr(import_module(package), name if package != "timm" else "create_model")
    network = build(*([name] if package == "timm" else []), num_classes=10, **options)
    found = times(network, torch.randn(16, 3, 64, 64))["forward"]
    assert found["(unattributed)"] <= 0.1 * sum(found.values())
