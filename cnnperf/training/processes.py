"""The processes that train one network together, as the training's loop uses them; usually there is one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from torch import Tensor, nn

from cnnperf.record import Measurement
from cnnperf.training.augment import WHOLE

Forward = Callable[[Tensor], Tensor]


class OneProcess:
    """The only process of a training.

    `distributed.FirstOfSeveral` replaces these methods by those that tell other processes what to do.
    """

    part = WHOLE
    """The part of each batch that this process takes."""

    def averaging(self, forward: Forward, model: nn.Module, has_idle: Callable[[], bool]) -> Forward:
        """Return the forward function of training steps; with several processes, its gradients are their mean.

        has_idle: tells whether a step leaves a parameter without a gradient; called once, with several processes.
        """
        return forward

    def begin(self) -> None:
        """Begin a training: a new step, and the batches from the first on."""

    def tell(self, rate: float) -> None:
        """Tell all processes that a step with this learning rate follows."""

    def told(self, rates: Iterable[float]) -> Iterable[float]:
        """Return the learning rates of the next steps, once all processes know them."""
        return rates

    def summed(self, losses: list[float], right: list[int]) -> tuple[list[float], list[int]]:
        """Return the mean losses and the numbers of correct predictions of the last steps' whole batches."""
        return losses, right

    def align(self, model: nn.Module) -> None:
        """Give all processes the weights and statistics of this one's model."""

    def end(self, step_times: Sequence[float]) -> Iterator[Measurement]:
        """End the training, and yield what is known only of several processes. step_times: seconds in this one."""
        yield from ()
