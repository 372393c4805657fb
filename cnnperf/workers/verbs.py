"""Request loop of a process: each request on stdin is answered by the function of its kind."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from cnnperf.duet.turns import PartnerGoneError
from cnnperf.errors import in_words
from cnnperf.ipc.channel import Line
from cnnperf.ipc.messages import Failed, FromSide, ToSide, decode

Verbs = Mapping[type[ToSide], Callable[[Any], FromSide]]
"""Functions that answer requests, by kind."""


def serve(line: Line, verbs: Verbs) -> None:
    """Answer each request on stdin, if necessary with an error message, until the requests or the partner end."""
    for text in sys.stdin:
        try:
            request: Any = decode(text)
            line.say(verbs[type(request)](request))
        except PartnerGoneError:
            return  # The parent determines why the partner has ended.
        except Exception as fault:
            line.say(Failed(reason=in_words(fault)))
