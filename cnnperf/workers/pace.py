"""The pace of a network on this machine, for estimates: a training step and a forward pass at two numbers of images."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter

from cnnperf.bench import Pace
from cnnperf.datasets import Roots
from cnnperf.devices import Device
from cnnperf.machine.disturbance import Disturbance, read_counters
from cnnperf.machine.fingerprint import fingerprint
from cnnperf.record.folder import replacing
from cnnperf.task import Choice
from cnnperf.training.recipe import Recipe
from cnnperf.workers.meta import TriedModel

FEW, MOST = 2, 32
"""Numbers of images; batch norm needs two."""
STEP_FLOPS_PER_CORE = 5e10
"""Arithmetic of a step of more than two images; a core takes about a second for it."""
COPIES = 5
"""Memory of a training as a multiple of its weights: gradients, the optimizer's state, and some of the activations."""
REPEATED_S = 0.2
"""Time for which a call is repeated, since the least of several is less disturbed."""


@dataclass(frozen=True, slots=True)
class PaceProbe:
    """A network whose pace is asked for, on a device, for images of C×H×W."""

    choice: Choice
    shape: tuple[int, int, int]
    num_classes: int
    device: Device
    threads: int
    recipe: Recipe
    """The training whose steps are taken."""
    tried: TriedModel

    def known(self) -> Pace | None:
        """Return the pace in the cache; None if it was not measured on this machine."""
        with suppress(OSError, ValueError):
            return Pace.model_validate_json(self._file().read_bytes())
        return None

    def measured(self) -> Pace | None:
        """Measure the pace, and keep it in the cache if the machine was quiet.

        Returns None if the network fails or may not fit into memory.
        """
        before = read_counters()
        try:
            left = self.device.available_bytes()
            if left is not None and COPIES * self.tried.weight_bytes > left:
                return None
            found = self._measured()
        except Exception:  # A network may fail in any way; its task says how.
            return None
        if Disturbance.since(before).words:
            return found
        file = self._file()
        with suppress(OSError):  # Without a cache the pace is measured again.
            file.parent.mkdir(parents=True, exist_ok=True)
            with replacing(file) as stream:
                stream.write(found.model_dump_json())
        return found

    def _file(self) -> Path:
        machine = fingerprint()
        on = machine.host, machine.cpu, machine.cores, machine.packages.get("torch"), self.device.label, self.threads
        facts = str(self.choice), self.shape, self.num_classes, self.recipe, self.tried, on
        name = hashlib.sha256(repr(facts).encode()).hexdigest()
        return Roots.from_environment().cache / "paces" / f"{name}.json"

    def _measured(self) -> Pace:
        import torch

        from cnnperf.training.optimise import autocast
        from cnnperf.training.setup import Network

        self.device.ready_torch()
        place, before = self.device.torch_name, torch.get_num_threads()
        order = torch.channels_last if self.recipe.memory_format == "channels_last" else torch.contiguous_format
        torch.set_num_threads(self.threads)
        try:
            network = Network.create(self.choice, self.shape, self.num_classes, self.recipe, place)
            step = network.step(self.recipe, place)
            step_s, forward_s = {}, {}
            for count in dict.fromkeys((FEW, self._most())):
                images = torch.rand(count, *self.shape, device=place).to(memory_format=order)
                labels = torch.zeros(count, dtype=torch.int64, device=place)

                def forward(images: torch.Tensor = images) -> None:
                    with torch.inference_mode(), autocast(self.recipe, place):
                        network.forward(images)

                network.model.train()
                step_s[count] = self._least_s(partial(step, images, labels, 0.0))
                network.model.eval()
                forward_s[count] = self._least_s(forward)
        finally:
            torch.set_num_threads(before)
        return Pace(step_s=step_s, forward_s=forward_s)

    def _most(self) -> int:
        if self.device.is_asynchronous:
            return MOST
        flops = 3 * max(1, self.tried.flops)
        return max(FEW, min(MOST, int(self.threads * STEP_FLOPS_PER_CORE // flops)))

    def _least_s(self, call: Callable[[], object]) -> float:
        """Return the least seconds of a call, without the first, which allocates and compiles."""
        call()
        self.device.synchronize()
        times: list[float] = []
        while sum(times) < REPEATED_S:
            start = perf_counter()
            call()
            self.device.synchronize()
            times.append(perf_counter() - start)
        return min(times)
