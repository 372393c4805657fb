"""Networks that misbehave towards the process that started theirs; on the meta device they all work."""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import cache

from broken import Trap
from torch import nn

PROGRESS = json.dumps({"progress": {"numbers": {"step": 1}}})
Build = Callable[[int, int, tuple[int, int]], nn.Module]


def pipe() -> int:
    """Return the descriptor of the pipe to the parent, which is the last word of the worker's command."""
    return int(sys.argv[-1])


def say(text: str | bytes) -> None:
    """Write a line into the pipe to the parent."""
    os.write(pipe(), _line(text))


def _line(text: str | bytes) -> bytes:
    return (text.encode() if isinstance(text, str) else text) + b"\n"


def _network(trap: Callable[[], object]) -> Build:
    once = cache(trap)

    def build(in_channels: int, num_classes: int, image_size: tuple[int, int]) -> nn.Module:
        return Trap(in_channels, num_classes, image_size, lambda: once() and None)

    return build


def _thread(work: Callable[[], object], *, daemon: bool) -> None:
    threading.Thread(target=work, daemon=daemon).start()


def _on(work: Callable[[], object]) -> Callable[[], object]:
    def endless() -> None:
        while True:
            work()

    return endless


def _progress() -> None:
    say(PROGRESS)


def _progress_on() -> None:
    """Say progress without end, also after the worker has closed its own descriptor of the pipe."""
    own = os.dup(pipe())
    _thread(_on(lambda: (os.write(own, _line(PROGRESS)), time.sleep(0.001))), daemon=False)


def _sleeper(**options: object) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], **options)  # type: ignore[call-overload]
    print(f"child {child.pid}", flush=True)


def _daemonize() -> None:
    """Leave a process in a session of its own, whose parent has ended."""
    code = (
        "import os, sys, time\n"
        "if os.fork(): os._exit(0)\n"
        "os.setsid()\n"
        "print('child', os.getpid(), flush=True)\n"
        "time.sleep(600)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def _flood_without_lines() -> None:
    _thread(_on(lambda: os.write(pipe(), b"x" * 60_000)), daemon=True)
    time.sleep(600)


def _close_pipe_and_hang() -> None:
    os.close(pipe())
    time.sleep(600)


def _forever(*_: object) -> nn.Module:
    while True:
        time.sleep(1)


def _raise_long() -> None:
    raise ValueError("long" * 5_000_000)


hangs_at_exit = _network(lambda: atexit.register(time.sleep, 600))
keeps_a_thread = _network(lambda: _thread(lambda: time.sleep(600), daemon=False))
progresses_on = _network(_progress_on)
closes_its_pipe = _network(_close_pipe_and_hang)
says_garbage = _network(lambda: say("Segmentation fault"))
says_a_number = _network(lambda: say("17"))
says_an_unknown_message = _network(lambda: say('{"greeting": {"text": "hello"}}'))
says_a_foreign_message = _network(lambda: say('{"bound": {}}'))
says_deep_json = _network(lambda: say("[" * 100_000))
says_a_long_line = _network(lambda: say(b"x" * 3_000_000))
floods = _network(lambda: (_thread(_on(_progress), daemon=True), time.sleep(600)))
floods_without_lines = _network(_flood_without_lines)
floods_and_ends = _network(lambda: _thread(_on(_progress), daemon=True))
exits_with_zero = _network(lambda: os._exit(0))
calls_sys_exit = _network(sys.exit)
is_never_built: Build = _forever
leaves_a_daemon = _network(_daemonize)
leaves_a_session = _network(lambda: _sleeper(start_new_session=True))
leaves_a_daemon_and_hangs = _network(lambda: (_daemonize(), print("hangs", flush=True), time.sleep(600)))
hangs = _network(lambda: (print("hangs", flush=True), time.sleep(600)))
prints_a_lot = _network(lambda: [print("x" * 999_999) for _ in range(200)] + [print("last words", flush=True)])
raises_a_long_error = _network(_raise_long)


def _fail_in_rank_1() -> None:
    from torch import distributed

    if distributed.is_initialized() and distributed.get_rank():
        raise RuntimeError("not in rank 1")


def _hang_in_rank_0() -> None:
    from torch import distributed

    if distributed.is_initialized():
        if distributed.get_rank():
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(600)


def hanging_in_rank_0(in_channels: int, num_classes: int, image_size: tuple[int, int]) -> nn.Module:
    """Build a network that hangs in the first process of a training, and kills any other."""
    return Trap(in_channels, num_classes, image_size, _hang_in_rank_0)


def failing_in_rank_1(in_channels: int, num_classes: int, image_size: tuple[int, int]) -> nn.Module:
    """Build a network that works in the first process of a training alone."""
    return Trap(in_channels, num_classes, image_size, _fail_in_rank_1)
