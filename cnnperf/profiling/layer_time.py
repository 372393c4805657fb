"""Seconds of every layer's forward and backward, in separate steps with hooks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Literal

from cnnperf.devices import Device
from cnnperf.profiling.hooks import Listener
from cnnperf.profiling.rows import LOSS, UNATTRIBUTED

Direction = Literal["forward", "backward"]


class LayerTimer(Listener):
    """Records time marks on the device's clock, read after the step."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._mark = device.mark
        self._entered: Any = None
        self._events: list[tuple[Direction, str, bool, Any, Any]] = []

    def hook_begins(self) -> None:
        """Stop the clock."""
        self._entered = self._mark()

    def forward_begins(self, layer: str) -> None:
        """Start the clock again."""
        self._events.append(("forward", layer, True, self._entered, self._mark()))

    def forward_ends(self, layer: str) -> None:
        """Start the clock again."""
        self._events.append(("forward", layer, False, self._entered, self._mark()))

    def backward_begins(self, layer: str) -> None:
        """Start the clock again."""
        self._events.append(("backward", layer, True, self._entered, self._mark()))

    def backward_ends(self, layer: str) -> None:
        """Start the clock again."""
        self._events.append(("backward", layer, False, self._entered, self._mark()))

    def read(self, forward_s: float, backward_s: float | None) -> Mapping[Direction, Mapping[str, float]]:
        """Return the seconds of each layer; `(unattributed)` is the rest of a pass, without the hooks' overhead.

        The device must be idle. `backward_s` is None without a backward.
        """
        elapsed = self._device.elapsed_s
        rest: dict[Direction, float] = {"forward": forward_s}
        if backward_s is not None:
            rest["backward"] = backward_s
        seconds: dict[Direction, dict[str, float]] = {direction: defaultdict(float) for direction in rest}
        inside: list[tuple[Direction, str]] = []
        since: Any = None
        for direction, layer, begins, entered, left in self._events:
            spent = 0.0
            if inside:  # The innermost layer, which alone has run since the last event.
                spent = elapsed(since, entered)
                of_direction, innermost = inside[-1]
                seconds[of_direction][innermost] += spent
            if begins:
                inside.append((direction, layer))
            else:
                inside.pop()
            since = left
            if layer != LOSS or direction == "backward":  # The loss follows the forward pass and is not part of it.
                rest[direction] -= spent + elapsed(entered, left)
        for direction, left_over in rest.items():
            seconds[direction][UNATTRIBUTED] = left_over
        return seconds
