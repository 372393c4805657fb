"""Evaluation: exact for any number of images, without side effects, and paced by its cost."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from cnnperf.devices.cpu import acquire
from cnnperf.errors import StageError
from cnnperf.training.evaluate import PLANNED_SHARE, Evaluator, affordable, ladder, pace, separate_random_numbers
from cnnperf.training.images import DeviceImages, Normalize
from cnnperf.training.optimise import autocast
from cnnperf.training.recipe import Recipe

COUNT = 23
PIXELS = np.random.default_rng(0).integers(0, 256, (COUNT, 1, 4, 4), dtype=np.uint8)
LABELS = np.random.default_rng(1).integers(0, 10, COUNT)


def network() -> nn.Sequential:
    """Return a network whose output depends on its mode, with the same weights each time."""
    torch.manual_seed(0)
    return nn.Sequential(nn.BatchNorm2d(1), nn.Dropout(0.5), nn.Flatten(), nn.Linear(16, 10))


def evaluator(model: nn.Module) -> tuple[Evaluator, DeviceImages]:
    """Return an evaluator with batches of 8, and images to evaluate."""
    images = DeviceImages.load(PIXELS, LABELS, "cpu")
    normalize = Normalize("unit", (0,), (1,), images)
    return Evaluator(model, model, acquire(), normalize, 8, autocast(Recipe(steps=1), "cpu")), images


@pytest.mark.parametrize("count", [1, 3, 8, 20, 23])
def test_outcome_is_that_of_one_large_batch(count: int) -> None:
    """Evaluation in batches equals that in one batch; padding of the last batch counts no image twice."""
    model = network()
    evaluate, images = evaluator(model)
    indices = torch.arange(COUNT)[-count:]
    outcome = evaluate(images, indices)
    with torch.no_grad():
        logits = model.eval()(torch.from_numpy(PIXELS).float() / 255)[indices]
    labels = torch.from_numpy(LABELS)[indices]
    assert torch.equal(outcome.labels, labels)
    assert torch.equal(outcome.predictions, logits.argmax(1))
    assert torch.allclose(outcome.probabilities, logits.softmax(1).amax(1), atol=1e-6)
    assert outcome.loss == pytest.approx(nn.functional.cross_entropy(logits, labels).item(), rel=1e-5)
    assert outcome.accuracy == pytest.approx((logits.argmax(1) == labels).float().mean().item())
    assert len(outcome) == count


def test_it_leaves_no_trace() -> None:
    """An evaluation restores each module's mode, weights, statistics and random numbers."""
    model = network()
    model[0].eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.random.get_rng_state()
    evaluate, images = evaluator(model)
    evaluate(images, torch.arange(COUNT))
    assert [module.training for module in model] == [False, True, True, True]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(state, torch.random.get_rng_state())


def test_modes_come_back_after_an_error() -> None:
    """An evaluation that fails restores the modes."""
    model = network()
    model[3] = nn.Linear(5, 5)
    evaluate, images = evaluator(model)
    with pytest.raises(RuntimeError):
        evaluate(images, torch.arange(COUNT))
    assert model.training
    assert model[1].training


def test_random_numbers_drawn_in_evaluation_are_not_missed_in_training() -> None:
    """A network that draws random numbers in evaluation leaves torch's random state unchanged."""
    model = network()
    model.append(nn.Identity())
    model[4].register_forward_hook(lambda module, inputs, output: output + 0 * torch.rand(1))
    state = torch.random.get_rng_state()
    evaluate, images = evaluator(model)
    evaluate(images, torch.arange(COUNT))
    assert torch.equal(state, torch.random.get_rng_state())


def test_random_numbers_of_the_device_that_is_named_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The random state is kept for the device's kind and index."""
    monkeypatch.setattr(torch.random, "fork_rng", lambda devices, device_type: (devices, device_type))
    assert separate_random_numbers("cuda:1") == ([1], "cuda")
    assert separate_random_numbers("cpu") == ([], "cuda")


def test_loss_that_is_not_finite_is_an_error() -> None:
    """A loss of NaN in evaluation is an error."""
    model = network()
    with torch.no_grad():
        model[3].bias.fill_(float("nan"))
    evaluate, images = evaluator(model)
    with pytest.raises(StageError, match="loss in evaluation is nan"):
        evaluate(images, torch.arange(COUNT))


def test_it_keeps_account_of_its_time() -> None:
    """The evaluator sums its seconds, and the cost of an image is that of the last evaluation."""
    evaluate, images = evaluator(network())
    evaluate(images, torch.arange(COUNT))
    first = evaluate.seconds
    evaluate(images, torch.arange(COUNT))
    assert evaluate.seconds == pytest.approx(first + COUNT * evaluate.image_s)


def test_ladder_ends_at_the_floor() -> None:
    """The ladder is all images, 5000 and 2000, or all images alone below 2000."""
    assert ladder(10_000) == (10_000, 5000, 2000)
    assert ladder(5000) == (5000, 2000)
    assert ladder(1500) == (1500,)


@pytest.mark.parametrize(("seconds", "images"), [(10, 10_000), (9.9, 5000), (4.9, 2000), (0.1, 2000), (-1, 2000)])
def test_as_many_images_as_can_be_afforded(seconds: float, images: int) -> None:
    """`affordable` returns the highest rung within the time, or the lowest rung."""
    assert affordable(10_000, 0.001, seconds) == images


@given(
    count=st.integers(1, 60_000),
    image_s=st.floats(1e-7, 1.0),
    training_s=st.floats(1e-3, 1e5),
    most=st.sampled_from([20, 50]),
)
def test_validation_is_paced_by_its_cost(count: int, image_s: float, training_s: float, most: int) -> None:
    """All evaluations stay within their share, unless a single one on the fewest images exceeds it."""
    images, points = pace(count, image_s, training_s, most)
    assert images in ladder(count)
    assert 1 <= points <= most
    if points > 1:
        assert points * images * image_s <= PLANNED_SHARE * training_s * (1 + 1e-9)
    else:
        assert images == ladder(count)[-1]


def test_flip_takes_the_mean_of_an_image_and_its_mirror_image() -> None:
    """With flip the logits of an image and its mirror image are averaged; the plain evaluation is unchanged."""
    model = network()
    evaluate, images = evaluator(model)
    pixels = torch.from_numpy(PIXELS).float() / 255
    with torch.no_grad():
        plain, mirrored = (model.eval()(x) for x in (pixels, pixels.flip(-1)))
    model.train()
    flipped = evaluate(images, torch.arange(COUNT), flip=True)
    labels = torch.from_numpy(LABELS)
    assert flipped.loss == pytest.approx(nn.functional.cross_entropy((plain + mirrored) / 2, labels).item(), rel=1e-5)
    assert evaluate(images, torch.arange(COUNT)).loss == pytest.approx(
        nn.functional.cross_entropy(plain, labels).item()
    )


def test_another_normalisation_is_of_that_evaluation_alone() -> None:
    """Another normalisation applies to one evaluation and not to the next."""
    model = network()
    evaluate, images = evaluator(model)
    labels = torch.from_numpy(LABELS)
    pixels = torch.from_numpy(PIXELS).float() / 255
    with torch.no_grad():
        losses = [nn.functional.cross_entropy(model.eval()(x), labels).item() for x in (2 * pixels - 1, pixels)]
    half = Normalize("half", (0,), (1,), images)
    assert evaluate(images, torch.arange(COUNT), normalize=half).loss == pytest.approx(losses[0], rel=1e-5)
    assert evaluate(images, torch.arange(COUNT)).loss == pytest.approx(losses[1], rel=1e-5)


def test_looking_again_is_done_in_training_mode_and_leaves_no_trace() -> None:
    """`again` uses the batch's statistics, and restores statistics, random numbers and modes."""
    model = network()
    model[1].p = 0.0
    evaluate, _ = evaluator(model)
    images = torch.from_numpy(PIXELS).float() / 255
    normal = nn.functional.batch_norm(images, None, None, training=True)
    labels = model[3](normal.flatten(1)).argmax(1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert evaluate.again(images, labels) == COUNT
    assert not torch.equal(model.eval()(images).argmax(1), labels)
    model.train()
    model[1].p = 0.5
    state = torch.random.get_rng_state()
    evaluate.again(images, labels)
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(module.training for module in model)
    assert evaluate.seconds > 0
    assert evaluate.image_s == 0
