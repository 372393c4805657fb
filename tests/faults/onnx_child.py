"""Tries ONNX files, each in a fork with limits of memory and time; reads paths from stdin, answers a word each."""

from __future__ import annotations

import os
import resource
import signal
import sys
import traceback
from pathlib import Path

import numpy as np
import onnxruntime

from cnnperf.errors import UsageError
from cnnperf.onnx_file import check_fit

MEMORY = 2 * 2**30
"""Bytes of address space beyond those in use."""
LIMIT_S = 60
SHAPE, CLASSES = (1, 4, 4), 3


def tried(path: Path) -> str:
    """Check a file as preflight does, then run it; the runtime may refuse it in any way."""
    try:
        check_fit(path, SHAPE, CLASSES)
    except UsageError as error:
        is_sentence = len(str(error)) <= 500 and "\n" not in str(error)
        return "refused" if is_sentence else f"no sentence: {error}"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        session.run(None, {session.get_inputs()[0].name: np.zeros((2, *SHAPE), np.float32)})
    except Exception:  # The runtime's exceptions have no common base class.
        return "refused"
    return "ran"


def limited(path: Path) -> str:
    """Try a file in a fork, and say how it ended."""
    reader, writer = os.pipe()
    if not (child := os.fork()):
        signal.alarm(LIMIT_S)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
        try:
            word = tried(path)
        except BaseException:
            word = f"traceback: {traceback.format_exc()}"
        os.write(writer, word.replace("\n", " | ").encode()[:60_000])
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        word = pipe.read().decode()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return "hung" if status == -signal.SIGALRM else word or f"crashed with {status}"


if __name__ == "__main__":
    for line in sys.stdin:
        print(limited(Path(line.rstrip("\n"))), flush=True)
