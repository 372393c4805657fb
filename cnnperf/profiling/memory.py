"""Memory per layer: parameters, gradients, optimizer state, and tensors saved by autograd for backward."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor, UntypedStorage, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.optim import Optimizer

from cnnperf.devices import Device
from cnnperf.profiling.hooks import Listener
from cnnperf.profiling.layers import Structure, in_backward
from cnnperf.profiling.operators import tensors
from cnnperf.profiling.rows import UNATTRIBUTED


class SavedTensors(Listener):
    """Sums the bytes that autograd saves for backward, per layer.

    Each storage counts once, for the first layer that saved it; parameters and buffers do not count.
    """

    def __init__(self, model: nn.Module) -> None:
        self.bytes: dict[str, int] = defaultdict(int)
        self._inside = [UNATTRIBUTED]
        stays = [tensor.untyped_storage() for tensor in (*model.parameters(), *model.buffers())]
        # Storages instead of addresses: the address of a freed storage may be reused.
        self._known: dict[int, UntypedStorage] = {storage.data_ptr(): storage for storage in stays}

    def forward_begins(self, layer: str) -> None:
        """Assign the following tensors to this layer."""
        self._inside.append(layer)

    def forward_ends(self, layer: str) -> None:
        """Assign the following tensors to the enclosing layer again."""
        self._inside.pop()

    def recording(self) -> AbstractContextManager[Any]:
        """Return the context in which saved tensors are observed."""
        return saved_tensors_hooks(self._pack, lambda tensor: tensor)

    def _pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        # Tensors recomputed in backward are not kept since forward.
        if not in_backward() and storage.data_ptr() not in self._known:
            self._known[storage.data_ptr()] = storage
            self.bytes[self._inside[-1]] += storage.nbytes()
        return tensor


class Owners:
    """Map from parameters to layers: the first and innermost layer that has it, or none if no layer has it."""

    def __init__(self, model: nn.Module, structure: Structure) -> None:
        self.parameters: dict[str, list[nn.Parameter]] = defaultdict(list)
        whole = [each for each in (*structure.layers, *structure.never_called) if not each.calls_others]
        # Modules inside are called after the module around them.
        around = [each for each in reversed(structure.layers) if each.calls_others]
        layers = [(each.name, each.module) for each in (*whole, *around)]
        known: set[int] = set()
        for name, module in (*layers, (UNATTRIBUTED, model)):
            for parameter in module.parameters():
                if parameter.data_ptr() not in known:
                    known.add(parameter.data_ptr())
                    self.parameters[name].append(parameter)

    def gradient_bytes(self) -> Mapping[str, int]:
        """Return the bytes of the current gradients, by layer."""
        found: dict[str, int] = defaultdict(int)
        for name, parameters in self.parameters.items():
            for parameter in parameters:
                if parameter.grad is not None:
                    found[name] += parameter.grad.nbytes
        return found

    def state_bytes(self, optimizers: Iterable[Optimizer]) -> Mapping[str, int]:
        """Return the bytes of the optimizers' state by layer."""
        # Current addresses, because an earlier one may have been reused.
        owner = {p.data_ptr(): name for name, parameters in self.parameters.items() for p in parameters}
        found: dict[str, int] = defaultdict(int)
        for optimizer in optimizers:
            for parameter, state in optimizer.state.items():
                found[owner[parameter.data_ptr()]] += sum(tensor.nbytes for tensor in tensors(state))
        return found


class AllocatorPeak(Listener):
    """Tracks the allocator's peak between events, on devices whose allocator records one."""

    def __init__(self, device: Device) -> None:
        self._device = device
        device.reset_peak()
        self._start = device.used_bytes()
        self.bytes = 0
        self.layer = UNATTRIBUTED
        self._inside = [UNATTRIBUTED]

    def look(self) -> None:
        """Record the peak since the last event."""
        risen = self._device.peak_bytes()["peak_bytes"] - self._start
        if risen > self.bytes:
            self.bytes, self.layer = risen, self._inside[-1]
        self._device.reset_peak()

    def forward_begins(self, layer: str) -> None:
        """Record the peak."""
        self._begin(layer)

    def forward_ends(self, layer: str) -> None:
        """Record the peak."""
        self._end()

    def backward_begins(self, layer: str) -> None:
        """Record the peak."""
        self._begin(f"{layer} backward")

    def backward_ends(self, layer: str) -> None:
        """Record the peak."""
        self._end()

    def part_begins(self, part: str) -> None:
        """Record the peak."""
        self._begin(part)

    def part_ends(self, part: str) -> None:
        """Record the peak."""
        self._end()

    def _begin(self, name: str) -> None:
        self.look()
        self._inside.append(name)

    def _end(self) -> None:
        self.look()
        self._inside.pop()
