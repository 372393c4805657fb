"""Networks. One file per model; `build(in_channels, num_classes, image_size, *, …)` returns an initialised Module."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cnnperf import registry
from cnnperf.errors import StageError, UsageError, shorten
from cnnperf.onnx_file import first_line
from cnnperf.task import Choice

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor, nn

GIVEN = ("in_channels", "num_classes", "image_size")
"""Parameters that `create` passes from the dataset; all others are options."""
LOGITS = "logits"
"""Name of the logits among named outputs."""


def create(choice: Choice, shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """Build the model of a choice for images of C×H×W and the given number of classes.

    A foreign callable receives those of in_channels, num_classes and image_size (H, W) that its signature names, and
    num_classes also if it takes `**kwargs` (as torchvision's do). Raises UsageError if the result is not an nn.Module.
    """
    from torch import nn

    if choice.is_onnx:
        raise UsageError(
            f"{choice.name}: an ONNX file is not a torch module; use the stages export and infer with an ONNX engine"
        )
    build = registry.find("models", choice.name)
    parameters = inspect.signature(build).parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    offered = {"in_channels": shape[0], "num_classes": num_classes, "image_size": shape[1:]}
    given = {key: value for key, value in offered.items() if key in parameters}
    if open_ended:
        given["num_classes"] = num_classes
    model = build(**(given | choice.options))
    if not isinstance(model, nn.Module):
        raise UsageError(f"{choice.name!r} returned {type(model).__name__}; a model must be an nn.Module")
    return model


def load_weights(model: nn.Module, path: Path) -> None:
    """Load the weights of a file, a state dict, into a network of the CPU; nothing in the file is executed.

    Raises StageError if the file is damaged or its weights are those of another network.
    """
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # A damaged file has many exceptions: of the archive, its entries and the unpickler.
        raise StageError(f"{path}: not a file of weights ({first_line(error)}); train the network again") from error
    try:
        model.load_state_dict(state)
    except (RuntimeError, TypeError) as error:
        first = shorten(str(error).partition("\n")[2] or error)
        raise StageError(
            f"{path}: does not fit the network {type(model).__name__} ({first}); train it again"
        ) from error


def named_outputs(output: Any) -> Mapping[str, Any]:
    """Return the outputs of a network by name: of a named tuple, or of a dict with `logits`; empty for any other."""
    if isinstance(output, tuple) and hasattr(output, "_asdict"):
        return dict(output._asdict())
    return output if isinstance(output, Mapping) and LOGITS in output else {}


def logits(output: Any) -> Tensor:
    """Return the logits of a network's output: the tensor itself, the output named `logits`, or the first tensor.

    Raises UsageError if there is no tensor.
    """
    from torch import Tensor
    from torch.utils._pytree import tree_leaves

    if isinstance(output, Tensor):
        return output
    leaves = tree_leaves([named_outputs(output).get(LOGITS), output])
    found = next((leaf for leaf in leaves if isinstance(leaf, Tensor)), None)
    if found is None:
        raise UsageError(f"the network returned {type(output).__name__} without a tensor; return the logits first")
    return found


def recipe(choice: Choice, dataset: str, device: str) -> dict[str, Any]:
    """Return the training settings that the model's file recommends for a dataset; empty for a foreign model.

    The file's `recipe` also receives the device's name and those model options that its signature names.
    """
    if choice.name not in registry.names("models"):
        return {}
    recommend = registry.module("models", choice.name).recipe
    named, offered = inspect.signature(recommend).parameters, {"device": device, **choice.options}
    settings: dict[str, Any] = recommend(dataset, **{key: value for key, value in offered.items() if key in named})
    return settings


def initialise_of(choice: Choice) -> Callable[[nn.Module, Tensor], None] | None:
    """Return `initialise(model, images)` of a model's file, which draws weights from data; None if it is missing.

    Foreign modules are ignored, because their function of that name may have another purpose.
    """
    if choice.name not in registry.names("models"):
        return None
    found: Callable[[nn.Module, Tensor], None] | None = getattr(
        registry.module("models", choice.name), "initialise", None
    )
    return found
