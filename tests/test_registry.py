"""The rooms: names without imports, the verb behind a name, and the options it takes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

import pytest
from pydantic import ValidationError

from cnnperf import registry
from cnnperf.errors import UsageError


def build(in_channels: int, *, depth: Literal[20, 32] = 20, wide: bool = False) -> None:
    """Serve as a verb of the package."""


build.__module__ = "cnnperf.models.imagined"


def test_names_are_the_stems_without_the_underscored() -> None:
    """A room's names are the stems of its files, without those that begin with an underscore."""
    assert {"lenet", "resnet", "trashnet"} <= set(registry.names("models"))
    assert not any(name.startswith("_") for room in registry.VERBS for name in registry.names(room))


@pytest.mark.parametrize("room", registry.VERBS)
def test_every_file_of_a_room_has_its_verb(room: str) -> None:
    """Each name that a room lists leads to a callable verb."""
    for name in registry.names(room):
        assert callable(registry.find(room, name))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnt", "unknown model 'resnt'; did you mean 'resnet'\\? \\(known: .*lenet"),
        ("nowhere_at_all:Net", "cannot import 'nowhere_at_all:Net'.*run pip install .*PYTHONPATH=src"),
        (
            "pydantic:Qqqq",
            "cannot import 'pydantic:Qqqq'.*'Qqqq'\\); name a function or class of the module$",
        ),
        ("pydantic:BaseModal", "cannot import 'pydantic:BaseModal'.*; did you mean 'BaseModel'\\?$"),
        (":", "':': write it as pkg.module:callable"),
        (".foo:bar", "'.foo:bar': write it as pkg.module:callable"),
        ("numpy:pi", "'numpy:pi' is not callable, got float"),
    ],
)
def test_what_is_not_there_is_said(name: str, words: str) -> None:
    """An unknown name, or one that cannot be imported or called, is refused with a message."""
    with pytest.raises(UsageError, match=words):
        registry.find("models", name)


def test_a_file_is_read_for_what_it_declares(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Literals and functions are read from a file without running it; computed values are left out."""
    monkeypatch.setattr(registry, "__file__", str(tmp_path / "registry" / "__init__.py"))
    (tmp_path / "engines").mkdir()
    (tmp_path / "engines" / "imagined.py").write_text(
        "import nowhere_at_all\nNEEDS: tuple[str, ...] = ('export',)\nIS_FAST = True\nIS_SLOW = False\n"
        "COMPUTED = 2 * nowhere_at_all.TWO\nfor _ in (): INNER = 1\ndef load(source): LOCAL = 1\n"
    )
    declared = registry.declared("engines", "imagined")
    assert declared == {"NEEDS": ("export",), "IS_FAST": True, "IS_SLOW": False, "load": True}
    words = ("NEEDS", "IS_FAST", "load", "IS_SLOW", "COMPUTED", "nothing")
    assert [bool(registry.having("engines", word)) for word in words] == [True, True, True, False, False, False]
    with pytest.raises(UsageError, match="unknown engine 'imagine'; did you mean 'imagined'"):
        registry.declared("engines", "imagine")


def test_a_foreign_name_is_imported() -> None:
    """An importable callable, named as `module:callable`, can be used as a model."""
    from torch.nn.modules.linear import Identity

    assert registry.find("models", "torch.nn:modules.linear.Identity") is Identity


def test_a_project_s_src_is_searched_like_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package in the working directory, or in its `src`, need not be installed."""
    for place, name in ((tmp_path, "in_the_folder"), (tmp_path / "src", "in_its_src")):
        (place / name).mkdir(parents=True)
        (place / name / "networks.py").write_text("def build(num_classes): ...\n")
    monkeypatch.setenv(registry.FOLDER_OF_NETWORKS, str(tmp_path))
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("in_the_folder", "in_its_src"):
        assert registry.find("models", f"{name}.networks:build").__module__ == f"{name}.networks"


def test_options_are_the_parameters_less_those_given() -> None:
    """Options are the verb's other parameters; their names and values are checked by the signature."""
    options = registry.options(build, given=("in_channels",))
    assert options.model_validate({"depth": 32}).model_fields_set == {"depth"}
    for wrong in ({"depth": 21}, {"width": 1}, {"wide": "no"}, {"in_channels": 1}):
        with pytest.raises(ValidationError):
            options.model_validate(wrong, strict=True)


def test_a_verb_without_a_signature_is_a_sentence() -> None:
    """A verb without a readable signature is refused with a message."""
    with pytest.raises(UsageError, match="'dict' has no readable signature"):
        registry.options(dict)


def test_a_foreign_verb_takes_what_its_signature_names() -> None:
    """A foreign verb's option names are checked, and values are passed on; with `**kwargs` any name is accepted."""

    def closed(depth, width=1): ...  # type: ignore[no-untyped-def]
    def opened(**rest): ...  # type: ignore[no-untyped-def]

    assert registry.options(closed).model_validate({"depth": "any"})
    with pytest.raises(ValidationError):
        registry.options(closed).model_validate({"depth": 1, "dept": 2})
    assert registry.options(opened).model_validate({"whatever": 1})
