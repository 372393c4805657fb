"""The claim about the imports of an ONNX Runtime task."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from stand_ins import verdicts

from cnnperf.claims import Context, torch_free
from cnnperf.claims._stages import Made
from cnnperf.claims.torch_free import check, imported
from cnnperf.errors import StageError

LOG = "import time:       300 |        400 |   cnnperf.registry\nimport time:       300 |        400 | {}\n"


def test_it_holds(context: Callable[..., Context], engines: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """The import log of the ONNX Runtime task has no torch module, and that of the training has over 100."""
    monkeypatch.setattr(torch_free, "ran", lambda *_: engines)
    of_runtime, of_training = check(context())
    assert verdicts([of_runtime, of_training]) == ["held", "held"]
    assert of_training.figure > 100


def test_it_fails_for_one_import(
    context: Callable[..., Context], engines: Made, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One import of a part of torch fails the claim."""
    (tmp_path / "log").write_text(LOG.format("torch._C"))
    monkeypatch.setattr(torch_free, "ran", lambda *_: engines)
    monkeypatch.setattr(Made, "log", lambda *_: tmp_path / "log")
    assert verdicts(check(context())) == ["failed", "held"]


@pytest.mark.parametrize(("name", "count"), [("torch", 1), ("torchvision.io", 1), ("torchless", 0), ("numpy.torch", 0)])
def test_modules_are_told_by_their_package(tmp_path: Path, name: str, count: int) -> None:
    """Modules count as torch by the name of their package, not by a name that contains `torch`."""
    (tmp_path / "log").write_text(LOG.format(name))
    assert imported(tmp_path / "log") == count


def test_a_log_without_imports_is_no_proof(tmp_path: Path) -> None:
    """A log without any import is an error, since it would show no torch either."""
    (tmp_path / "log").write_text("nothing\n")
    with pytest.raises(StageError, match="logged no imports"):
        imported(tmp_path / "log")
