"""The loop of a process that is asked again and again: each request on stdin is answered by the verb of its kind."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from cnnperf.duet.turns import PartnerGoneError
from cnnperf.errors import in_words
from cnnperf.ipc.channel import Line
from cnnperf.ipc.messages import Failed, FromSide, ToSide, decode

Verbs = Mapping[type[ToSide], Callable[[Any], FromSide]]
"""What answers a request, by the kind of request."""


def serve(line: Line, verbs: Verbs) -> None:
    """Answer each request on stdin, with an error in words if need be, until the requests or the partner end."""
    for text in sys.stdin:
        try:
            request: Any = decode(text)
            line.say(verbs[type(request)](request))
        except PartnerGoneError:
            return  # Why it is gone is the parent's to find out.
        except Exception as fault:
            line.say(Failed(reason=in_words(fault)))
