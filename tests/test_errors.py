"""The error messages of faults."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from cnnperf import registry
from cnnperf.bench import Settings
from cnnperf.errors import UsageError, first_error, in_words, is_out_of_memory, names_listed
from cnnperf.inference.settings import Infer
from cnnperf.onnx_file import first_line
from cnnperf.task import Choice
from cnnperf.training.recipe import Recipe
from cnnperf.workers.meta import try_model


@pytest.mark.parametrize(
    "fault",
    [
        MemoryError(),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 7.79 GiB"),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:119] DefaultCPUAllocator: can't allocate memory: you tried to"),
        RuntimeError("BFCArena::AllocateRawInternal Failed to allocate memory for requested buffer of size 4096"),
        RuntimeError("CUDA failure 2: out of memory ; GPU=0"),
        RuntimeError("std::bad_alloc"),
        ValueError("Unable to allocate 1.00 EiB for an array with shape (1152921504606846976,)"),
    ],
)
def test_a_lack_of_memory_is_known_in_every_library_s_words(fault: Exception) -> None:
    """Out-of-memory errors of every library are recognised, and their message begins with `out of memory: `."""
    assert is_out_of_memory(fault)
    assert in_words(fault).startswith("out of memory: ")


@pytest.mark.parametrize(
    "words",
    [
        "a shape does not fit",
        "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(...)`",
        "cuDNN error: CUDNN_STATUS_NOT_SUPPORTED",
        "CUDA error: an illegal memory access was encountered",
        "the tensor is allocated on cuda:0, and its weights on cuda:1",
    ],
)
def test_no_other_fault_is_taken_for_it(words: str) -> None:
    """Other errors of the same libraries do not count as lack of memory, even if they mention an allocation."""
    assert not is_out_of_memory(RuntimeError(words))


def test_a_long_text_of_others_does_not_hide_the_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long error text of other code is cut, so that the message is one line of at most 500 characters."""
    (tmp_path / "wordy.py").write_text(f"raise RuntimeError({'word ' * 200!r})")
    (tmp_path / "unbuilt.py").write_text(f"def build(num_classes, **_): raise RuntimeError({'word ' * 200!r})")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError, match=r"…\); correct its module$") as imported:
        registry.find("models", "wordy:build")
    with pytest.raises(UsageError, match=r"give options that fit .*…\)$") as built:
        try_model(Choice(name="unbuilt:build"), (1, 28, 28), 10)
    cut = first_line(RuntimeError("word " * 200 + "\nmore"))
    for text in (str(imported.value), str(built.value), cut):
        assert len(text) <= 500
        assert "\n" not in text


@pytest.mark.parametrize(
    ("kind", "given", "words"),
    [
        (Recipe, {"lr": "x"}, "lr: Input should be a valid number, got 'x'"),
        (Recipe, {"batch_size": 0}, "batch_size: must be at least 1, got 0"),
        (Recipe, {"batch_size": 2**21}, "batch_size: must be at most 1048576, got 2097152"),
        (Recipe, {"momentum": 1.0}, r"momentum: must be below 1, got 1\.0"),
        (Recipe, {"seconds": 0.0}, r"seconds: must be above 0, got 0\.0"),
        (Recipe, {"batch_size": 0, "lr": "x"}, "batch_size: .*, got 0 \\(and 1 more\\)"),
        (Infer, {"engines": [3]}, "engines.0: give a name, or a table with a name, got 3"),
        (Infer, {"engines": []}, "engines: Tuple should have at least 1 item after validation, not 0, got .*"),
    ],
)
def test_only_invalid_values_are_counted(kind: type[Settings], given: dict[str, object], words: str) -> None:
    """Further errors are counted only if another value is invalid."""
    with pytest.raises(ValidationError) as caught:
        kind.model_validate(given, strict=True)
    assert re.fullmatch(words, first_error(caught.value))


def test_a_list_of_names_is_cut_between_names() -> None:
    """Names that a limit does not hold are counted."""
    assert names_listed(["a", "b"]) == "a, b"
    assert names_listed(["mnist", "cifar10", "synthetic"], limit=20) == "mnist, cifar10, … and 1 more"
    assert names_listed(range(5000), limit=6) == "0, 1, … and 4,998 more"
