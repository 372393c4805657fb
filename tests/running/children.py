"""A stand-in for a claim's process: it reports, crashes, hangs or dies as the environment sets for the claim's name.

The script imports nothing of cnnperf, so that it starts at once; its lines have the format of `ipc.messages`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

READING = {
    "quantity": "q",
    "unit": "s",
    "figure": 1.0,
    "reading": 1.0,
    "source": "s",
    "bar": {"low": -0.1, "high": 0.1, "reason": "why"},
}

pipe = int(sys.argv[1])
request = json.loads(sys.stdin.read())
wanted = request["with"]


def say(**message: object) -> None:
    """Send a message to the parent."""
    os.write(pipe, json.dumps(message).encode() + b"\n")


def say_reading(reading: object) -> None:
    """Send a reading to the parent."""
    say(reading={"reading": reading})


behaviour = os.environ.get(f"PLANTED_{wanted.get('claim', '')}", "holds")
if request["do"] == "describe":
    time.sleep(600 if behaviour == "hangs" else 0)
    found = {"device": {"label": "a device", "facts": {"torch": "2"}}}
    say(**({"skip": {"reason": "there is none"}} if behaviour == "absent" else found))
    sys.exit()
print("last words", flush=True)
say(note={"text": "at work"})
say(note={"text": f"seconds {wanted['seconds']}"})
say_reading(READING)
if behaviour == "crashes":
    os.kill(os.getpid(), signal.SIGSEGV)
elif behaviour == "hangs":
    child = subprocess.Popen(["sleep", "600"], start_new_session=True)
    say(note={"text": f"child {child.pid}"})
    time.sleep(600)
elif behaviour == "skips":
    say(skip={"reason": "no such thing here"})
elif behaviour == "faults":
    say(error="it is not so")
elif behaviour == "fails":
    say_reading({**READING, "figure": 2.0})
elif behaviour == "doubts":
    say_reading({**READING, "interval": [-1.0, 1.0]})
say(end={})
