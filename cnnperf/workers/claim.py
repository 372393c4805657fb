"""The child's side of a self-test: describes the device, or tests one claim and sends each reading at once.

Only `main` imports torch.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from cnnperf import registry
from cnnperf.claims import Context, NotApplicable
from cnnperf.errors import CnnperfError, DeviceError, in_words
from cnnperf.ipc.channel import Line, single_request
from cnnperf.ipc.messages import (
    ClaimEnded,
    ClaimRequest,
    ClaimSkipped,
    DeviceFound,
    DeviceRequest,
    Failed,
    Noted,
    ReadingTaken,
    ToClaim,
)


def describe(request: DeviceRequest, line: Line) -> None:
    """Send the device's label and torch's description of itself, or the reason why there is no such device."""
    try:
        device = registry.make("devices", request.device)
    except CnnperfError as fault:  # No such device here, or code of another package that is none.
        line.say(ClaimSkipped(reason=str(fault)))
        return
    line.say(DeviceFound(label=device.label, facts=facts()))


def facts() -> dict[str, Any]:
    """Return torch's description of its build and settings."""
    import torch

    return {
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "config": torch.__config__.show(),
        "parallel": torch.__config__.parallel_info(),
    }


def put_to_the_test(request: ClaimRequest, line: Line) -> None:
    """Run a claim and send its outcome."""
    acquire = partial(registry.make, "devices", request.device)
    context = Context(
        request.device,
        acquire,
        request.scratch,
        request.seconds,
        request.threads,
        lambda text: line.say(Noted(text=text)),
    )
    try:
        for reading in registry.find("claims", request.claim)(context):
            line.say(ReadingTaken(reading=reading))
    except (NotApplicable, DeviceError) as reason:
        line.say(ClaimSkipped(reason=str(reason)))
    except CnnperfError as fault:
        traceback.print_exception(fault)
        line.say(Failed(reason=str(fault)))
    except Exception as fault:
        line.say(Failed(reason=in_words(fault)))
    line.say(ClaimEnded())


ANSWERS: Mapping[type[ToClaim], Callable[[Any, Line], None]] = {DeviceRequest: describe, ClaimRequest: put_to_the_test}
"""Functions that answer requests, by kind."""


def main(descriptor: int) -> None:
    """Answer the single request on stdin."""
    line = Line(descriptor)
    request: Any = single_request()
    ANSWERS[type(request)](request, line)


if __name__ == "__main__":
    main(int(sys.argv[1]))
