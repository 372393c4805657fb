"""The optimisation step: schedules, optimizers, precision, and muon's views of convolutions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from cnnperf import models
from cnnperf.task import Choice
from cnnperf.training.optimise import Step, Update, autocast, learning_rate, optimizers, trainable
from cnnperf.training.recipe import Recipe


def recipe(**settings: Any) -> Recipe:
    """Return a recipe with an arbitrary budget."""
    return Recipe(steps=1, **settings)


def network() -> nn.Sequential:
    """Return a small network with the same weights each time."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 6 * 6, 10))


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Return 16 images and labels, the same each time."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(16, 3, 8, 8, generator=generator), torch.randint(10, (16,), generator=generator)


@given(progress=st.floats(0, 1.5), schedule=st.sampled_from(["constant", "cosine", "one-cycle"]))
def test_learning_rate_is_a_share_of_the_peak(progress: float, schedule: str) -> None:
    """The learning rate is between 0 and 1 times its peak, also after the end."""
    assert 0 <= learning_rate(recipe(schedule=schedule), progress) <= 1


def test_schedules_have_their_shapes() -> None:
    """Constant stays, cosine halves in the middle, one-cycle rises in its warm-up and falls linearly to 0."""
    assert {learning_rate(recipe(schedule="constant"), p) for p in (0, 0.5, 1)} == {1.0}
    cosine = recipe(schedule="cosine")
    assert [learning_rate(cosine, p) for p in (0, 0.5, 1)] == pytest.approx([1, 0.5, 0])
    cycle = recipe(schedule="one-cycle", warmup=0.2)
    assert [learning_rate(cycle, p) for p in (0, 0.1, 0.2, 0.6, 1)] == pytest.approx([0.2, 0.6, 1, 0.5, 0])
    assert learning_rate(recipe(schedule="one-cycle", warmup=0), 0) == 1


@pytest.mark.parametrize(
    ("settings", "reference"),
    [
        ({"optimizer": "sgd", "momentum": 0}, lambda p: torch.optim.SGD(p, 0.1)),
        (
            {"optimizer": "nesterov", "weight_decay": 0.01},
            lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
        ),
        ({"optimizer": "adamw", "weight_decay": 0.01}, lambda p: torch.optim.AdamW(p, 0.1, weight_decay=0.01)),
    ],
    ids=["sgd", "nesterov", "adamw"],
)
def test_steps_are_those_of_torch(settings: dict[str, Any], reference: Any) -> None:
    """Three steps at half the peak rate give the weights of torch's plain optimizer."""
    ours, theirs = network(), network()
    images, labels = batch()
    step = Step(ours, ours, recipe(lr=0.2, **settings), "cpu")
    plain = reference(theirs.parameters())
    for _ in range(3):
        step(images, labels, 0.5)
        plain.zero_grad()
        F.cross_entropy(theirs(images), labels).backward()
        plain.step()
    for got, want in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(got, want, atol=1e-5)


def test_loss_and_logits_are_those_before_the_step() -> None:
    """Loss and logits are those of the weights before the step, with label smoothing in the loss."""
    model = network()
    images, labels = batch()
    logits = network()(images)
    loss, answered = Step(model, model, recipe(label_smoothing=0.1), "cpu")(images, labels, 1.0)
    assert loss.item() == pytest.approx(F.cross_entropy(logits, labels, label_smoothing=0.1).item())
    assert torch.equal(answered, logits)
    assert not answered.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())


def test_biases_may_have_a_rate_of_their_own() -> None:
    """With a bias rate of 0 biases and norms stay, and the other weights change."""
    model = network()
    before = [parameter.clone() for parameter in model.parameters()]
    Step(model, model, recipe(optimizer="sgd", lr=0.1, bias_lr=0.0), "cpu")(*batch(), 1.0)
    for parameter, old in zip(model.parameters(), before, strict=True):
        assert torch.equal(parameter, old) == (parameter.ndim == 1)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_muon_moves_convolutions_orthogonally(memory_format: torch.memory_format) -> None:
    """Muon changes a convolution by lr times a nearly orthogonal matrix, in either memory format."""
    model = network().to(memory_format=memory_format)
    before = model[0].weight.detach().clone()
    settings = recipe(optimizer="muon", muon_lr=0.5, muon_renormalise=False, muon_steps=5, lr=0.1)
    Step(model, model, settings, "cpu")(*batch(), 1.0)
    change = (model[0].weight.detach() - before).flatten(1) / 0.5
    # Five Newton–Schulz steps leave the singular values in about 0.7 … 1.2 (Jordan 2024).
    values = torch.linalg.svdvals(change)
    assert 0.5 < values.min() <= values.max() < 1.4


def test_muon_is_the_same_in_both_memory_formats() -> None:
    """A muon step gives the same weights in both memory formats."""
    settings = recipe(optimizer="muon", lr=0.1)
    weights = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        model = network().to(memory_format=memory_format)
        Step(model, model, settings, "cpu")(*batch(), 1.0)
        weights.append(model[0].weight.detach())
    assert torch.allclose(*weights, atol=1e-5)


def test_muon_keeps_the_norm_of_filters() -> None:
    """At a rate of 0 muon renormalises each convolution to √out_channels."""
    model = network()
    Step(model, model, recipe(optimizer="muon"), "cpu")(*batch(), 0.0)
    assert model[0].weight.norm().item() == pytest.approx(2.0, rel=1e-4)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_beside_muon_the_other_parameters_have_nesterov_s_momentum(momentum: float) -> None:
    """Under muon, SGD updates the other parameters with Nesterov's momentum, or plainly where momentum is 0."""
    _, sgd = optimizers(list(network().parameters()), recipe(optimizer="muon", momentum=momentum))
    assert {(group["nesterov"], group["momentum"]) for group in sgd.param_groups} == {(momentum > 0, momentum)}


@pytest.mark.parametrize("momentum", [0.0, 0.6])
def test_muon_steps_are_those_of_its_author(momentum: float) -> None:
    """Two muon steps equal those computed in the test as Jordan (2024) describes them."""
    model = network()
    expected = model[0].weight.detach().clone().flatten(1)
    gradients: list[torch.Tensor] = []
    model[0].weight.register_hook(lambda gradient: gradients.append(gradient.clone().flatten(1)))
    step = Step(model, model, recipe(optimizer="muon", muon_lr=0.3, muon_momentum=momentum, lr=0.5), "cpu")
    images, labels = batch()
    for part in (slice(8), slice(8, 16)):
        step(images[part], labels[part], 1.0)
    sum_of_gradients = torch.zeros_like(expected)
    for gradient in gradients:
        expected = expected * 2.0 / expected.norm()
        sum_of_gradients = momentum * sum_of_gradients + gradient
        expected = expected - 0.3 * orthogonalised(gradient + momentum * sum_of_gradients)
    assert torch.allclose(model[0].weight.detach().flatten(1), expected, atol=1e-5)


def orthogonalised(matrix: torch.Tensor) -> torch.Tensor:
    """Return the matrix after three Newton–Schulz iterations with Jordan's coefficients, in float64."""
    x = (matrix / matrix.norm()).double()
    for _ in range(3):
        gram = x @ x.T
        x = 3.4445 * x - 4.775 * gram @ x + 2.0315 * gram @ gram @ x
    return x.float()


@pytest.mark.parametrize("name", ["resnet", "trashnet"])
def test_muon_trains_what_starts_at_zero(name: str) -> None:
    """Muon trains convolutions that start at zero and so have no norm to restore, and all values stay finite."""
    torch.manual_seed(0)
    model = models.create(Choice.model_validate({"name": name, "batch_norm": False}), (3, 8, 8), 10)
    zeros = [parameter for parameter in model.parameters() if parameter.ndim == 4 and not parameter.any()]
    step = Step(model, model, recipe(optimizer="muon", muon_lr=0.01, lr=0.01), "cpu")
    losses = [step(*batch(), 1.0)[0] for _ in range(3)]
    assert zeros
    assert torch.stack(losses).isfinite().all()
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert all(parameter.any() for parameter in zeros)


def test_muon_takes_matrices_but_the_classifier_s() -> None:
    """Muon gets all matrices except the classifier's, and a network of a single matrix is trained by SGD."""
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    muon, sgd = optimizers(trainable(model), recipe(optimizer="muon"))
    assert [matrix.shape for matrix in muon.param_groups[0]["params"]] == [(4, 3)]
    assert sum(len(group["params"]) for group in sgd.param_groups) == 3
    assert len(optimizers(trainable(nn.Linear(3, 2)), recipe(optimizer="muon"))) == 1


@pytest.mark.parametrize("optimizer", ["sgd", "nesterov", "adamw", "muon"])
def test_frozen_parameters_stay(optimizer: str) -> None:
    """No optimizer changes frozen parameters."""
    model = nn.Sequential(nn.Conv2d(3, 3, 1).requires_grad_(False), *network())
    before = model[0].weight.clone()
    Step(model, model, recipe(optimizer=optimizer, weight_decay=0.1), "cpu")(*batch(), 1.0)
    assert torch.equal(model[0].weight, before)


def test_bf16_runs_the_network_in_bf16_and_the_loss_in_fp32() -> None:
    """In bf16 the outputs of layers are bfloat16, weights and loss float32."""
    model = network()
    seen: list[torch.dtype] = []
    model[3].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    loss, _ = Step(model, model, recipe(precision="bf16"), "cpu")(*batch(), 1.0)
    assert seen == [torch.bfloat16]
    assert loss.dtype == model[0].weight.dtype == torch.float32


def test_precision_goes_by_the_kind_of_a_device_that_has_an_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """Autocast and the gradient scaler get the kind of the device without its index."""
    half = recipe(precision="fp16")
    monkeypatch.setattr(torch, "autocast", lambda *given: given)
    monkeypatch.setattr(torch.amp, "GradScaler", lambda kind: kind)
    assert autocast(half, "cuda:1") == ("cuda", torch.float16)
    assert Update([], half, "cuda:1")._scaler == "cuda"


@pytest.mark.cuda
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("optimizer", ["nesterov", "adamw"])
def test_every_precision_lowers_the_loss_on_cuda(precision: str, optimizer: str) -> None:
    """Each precision lowers the loss on CUDA, fp16 with scaled gradients."""
    model = network().cuda()
    images, labels = (part.cuda() for part in batch())
    step = Step(model, model, recipe(precision=precision, optimizer=optimizer, lr=0.01), "cuda")
    losses = [step(images, labels, 1.0)[0].item() for _ in range(20)]
    assert losses[-1] < losses[0] / 2
