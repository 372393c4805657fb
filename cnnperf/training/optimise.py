"""One optimisation step with the recipe's optimizers, learning rate and precision."""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from cnnperf.training.muon import Muon

if TYPE_CHECKING:
    from collections.abc import Callable

    from cnnperf.training.recipe import Recipe

ONE_CYCLE_START = 0.2
"""Initial learning rate of one-cycle, as a share of the peak."""
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Step:
    """Forward, backward and update, for one batch after another."""

    def __init__(self, forward: Callable[[Tensor], Tensor], model: nn.Module, recipe: Recipe, device: str) -> None:
        """forward: the model, or its compiled form."""
        self._forward = forward
        self._smoothing = recipe.label_smoothing
        self._autocast = autocast(recipe, device)
        self._parameters = trainable(model)
        self._update = Update(optimizers(self._parameters, recipe), recipe, device)
        groups = [group for optimizer in self._update.optimizers for group in optimizer.param_groups]
        self._groups = [(group, group["lr"]) for group in groups]

    def __call__(self, images: Tensor, labels: Tensor, factor: float) -> tuple[Tensor, Tensor]:
        """Take a step at `factor` times the peak learning rates.

        Returns the loss and the logits (N×classes) from before the step, on the device.
        """
        for group, peak in self._groups:
            group["lr"] = peak * factor
        with self._autocast:
            logits = self._forward(images)
        logits = logits.float()
        loss = F.cross_entropy(logits, labels, label_smoothing=self._smoothing)
        self._update.backward(loss)
        self._update.step()
        for parameter in self._parameters:
            parameter.grad = None
        return loss.detach(), logits.detach()


class Update:
    """Run backward and the optimizers' steps; in fp16 gradients are scaled to keep small ones."""

    def __init__(self, optimizers: list[Optimizer], recipe: Recipe, device: str) -> None:
        self.optimizers = optimizers
        self._scaler = torch.amp.GradScaler(torch.device(device).type) if recipe.precision == "fp16" else None

    def backward(self, loss: Tensor) -> None:
        """Compute the gradients."""
        scaled = self._scaler.scale(loss) if self._scaler else loss
        scaled.backward()  # type: ignore[no-untyped-call]

    def step(self) -> None:
        """Update the parameters; in fp16, skip an optimizer if a gradient is not finite."""
        if self._scaler is None:
            for optimizer in self.optimizers:
                optimizer.step()
            return
        for optimizer in self.optimizers:
            self._scaler.step(optimizer)
        self._scaler.update()


def autocast(recipe: Recipe, device: str) -> Any:
    """Return the autocast context of the network; for fp32 a context that does nothing."""
    if recipe.precision == "fp32":
        return nullcontext()
    return torch.autocast(torch.device(device).type, DTYPES[recipe.precision])


def learning_rate(recipe: Recipe, progress: float) -> float:
    """Return the learning rate as a share of its peak, for the used share `progress` of the budget.

    Torch's own schedulers require the number of steps, which is unknown for a budget in seconds.
    """
    if recipe.schedule == "constant":
        return 1.0
    if recipe.schedule == "cosine":
        return (1 + math.cos(math.pi * min(progress, 1.0))) / 2
    if progress < recipe.warmup:
        return ONE_CYCLE_START + (1 - ONE_CYCLE_START) * progress / recipe.warmup
    return max(0.0, (1 - progress) / (1 - recipe.warmup))


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that are not frozen."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def optimizers(parameters: list[nn.Parameter], recipe: Recipe) -> list[Optimizer]:
    """Return the optimizers, each with its part of the parameters.

    SGD and AdamW are fused: on the CPU this takes a third of the time of torch's default. Muon updates the matrices,
    convolutions included, except the classifier's (the last), as its author advises.
    """
    if recipe.optimizer == "adamw":
        return [AdamW(_groups(parameters, recipe), weight_decay=recipe.weight_decay, fused=True)]
    if recipe.optimizer != "muon":
        return [_sgd(parameters, recipe, nesterov=recipe.optimizer == "nesterov")]
    matrices = [parameter for parameter in parameters if parameter.ndim > 1][:-1]
    chosen = set(map(id, matrices))
    rest = [parameter for parameter in parameters if id(parameter) not in chosen]
    sgd = _sgd(rest, recipe, nesterov=recipe.momentum > 0)
    if not matrices:
        return [sgd]
    muon = Muon(
        matrices,
        lr=recipe.muon_lr,
        momentum=recipe.muon_momentum,
        weight_decay=recipe.weight_decay,
        steps=recipe.muon_steps,
        renormalise=recipe.muon_renormalise,
    )
    return [muon, sgd]


def _sgd(parameters: list[nn.Parameter], recipe: Recipe, *, nesterov: bool) -> SGD:
    return SGD(
        _groups(parameters, recipe),
        momentum=recipe.momentum,
        nesterov=nesterov,
        weight_decay=recipe.weight_decay,
        fused=True,
    )


def _groups(parameters: list[nn.Parameter], recipe: Recipe) -> list[dict[str, Any]]:
    # Each group costs a separate kernel launch, which slows small networks.
    if recipe.bias_lr == recipe.lr:
        return [{"params": parameters, "lr": recipe.lr}]
    weights = [parameter for parameter in parameters if parameter.ndim > 1]
    biases = [parameter for parameter in parameters if parameter.ndim <= 1]
    groups: list[dict[str, Any]] = [{"params": weights, "lr": recipe.lr}, {"params": biases, "lr": recipe.bias_lr}]
    return [group for group in groups if group["params"]]
