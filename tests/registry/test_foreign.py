"""Choices of other packages: found without an import, and called only if they show what they make."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from in_process import called

from cnnperf import registry
from cnnperf.errors import UsageError
from cnnperf.registry import foreign

HARMFUL = (
    "shutil:rmtree",
    "os:system",
    "os:remove",
    "subprocess:Popen",
    "builtins:exec",
    "torch.hub:load",
    "torch:save",
    "torch:os.system",
    "torch.serialization:shutil.rmtree",
)
"""Callables that no suite may call: some have options that a suite can give."""
NETWORKS = """
from __future__ import annotations

from functools import partial, wraps
from typing import TYPE_CHECKING, Any

from torch import nn as layers

if TYPE_CHECKING:
    from torch import nn


class Net(layers.Module):
    @classmethod
    def small(cls, width=8): return cls()

    def saved(self, path): ...


def plain(in_channels, num_classes): return Net()
def annotated(width: int = 8) -> Net: return Net()
def for_checkers(width: int = 8) -> nn.Module: return Net()
def anything(num_classes) -> Any: return Net()
def silent(path): ...
def a_number(num_classes) -> int: return 1
def nothing(num_classes) -> None: ...


class Factory:
    def __call__(self, num_classes): return Net()


def kept(function):
    @wraps(function)
    def inner(*given, **options): return function(*given, **options)
    return inner


wrapped, halved, factory, instance = kept(annotated), partial(annotated, 4), Factory(), Net()
small, saved = Net.small, Net.saved
"""
SHOWN = ("Net", "plain", "annotated", "for_checkers", "anything", "wrapped", "halved", "factory", "small")
NOT_SHOWN = ("silent", "a_number", "nothing", "Factory", "instance", "saved")
OTHERS = """
from zipapp import create_archive

from cnnperf.datasets import Dataset
from cnnperf.devices import Device
from cnnperf.devices.cpu import Cpu
from cnnperf.engines import Engine


class Session:
    def bind(self, images): ...
    def run(self, images): ...
    def synchronize(self): ...
    def values(self, images): ...
    def node_times(self, images, runs): ...


class Half:
    def bind(self, images): ...


def pictures(roots): ...
def photos(size=3) -> Dataset: ...
def paths(path): ...
def device() -> Device: ...
def cpu() -> Cpu: ...
def bare(): ...
def first(source, level=1): ...
def later(level, source): ...
def session(options) -> Session: ...
def half(options) -> Half: ...
def engine(options) -> Engine: ...
def stage(bench, settings): ...
def no_stage(settings): ...
def written(report, out) -> None: ...
def compared(comparison, out): ...
def other(out): ...
"""
MAKERS = """
def fails(roots): raise KeyError("flowers")
def counts(roots): return 3
def starves(roots): raise MemoryError
def ends(roots): raise SystemExit(0)
"""
IN_ROOMS = {
    "datasets": (("pictures", "photos"), ("paths", "bare", "cpu")),
    "devices": (("device", "cpu"), ("bare", "photos", "session")),
    "engines": (("first", "session", "engine"), ("later", "half", "paths", "create_archive")),
    "stages": (("stage",), ("no_stage", "bare")),
    "reports": (("written", "compared"), ("other", "stage")),
}


@contextmanager
def imported_anew(*packages: str) -> Iterator[None]:
    """Forget the modules of these packages at the end of the block."""
    try:
        yield
    finally:
        for name in [each for each in sys.modules if each.partition(".")[0] in packages]:
            del sys.modules[name]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Write the modules into a folder of the module path."""
    texts = {"strange_networks": NETWORKS, "strange_others": OTHERS, "strange_makers": MAKERS}
    for name, text in texts.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with imported_anew(*texts):
        yield tmp_path


@pytest.mark.parametrize("room", registry.VERBS)
@pytest.mark.parametrize("name", HARMFUL)
def test_what_shows_nothing_is_refused_before_it_is_called(room: str, name: str) -> None:
    """A callable of the standard library or of torch that makes nothing of a room is refused in every room."""
    with pytest.raises(UsageError, match="was not called"):
        registry.find(room, name)


@pytest.mark.parametrize("name", ["antigravity:Net", "idlelib.idle:Net", "__main__:Net", "pip.__main__:Net"])
def test_a_module_of_python_is_not_imported(name: str) -> None:
    """No module of Python's own, and no program, is imported for a suite: some open a browser or a window."""
    module = name.partition(":")[0]
    before = sys.modules.get(module)
    with pytest.raises(
        UsageError, match=rf"{name}' was not called: {module} is a module of Python, or a program; move your code"
    ):
        registry.find("models", name)
    assert sys.modules.get(module) is before


@pytest.mark.parametrize("name", ["torch\n:nn", "..:..", "torch:nn:Module", "torch:", "../x:y", "to\0rch:nn"])
def test_a_place_is_a_path_of_identifiers(name: str) -> None:
    """A place that is no path of identifiers is refused as written, in one line, before anything is imported."""
    with pytest.raises(UsageError, match=r"^'[^\n]*': write it as pkg.module:callable$"):
        registry.find("models", name)
    assert registry.unknown_in("models", name)


@pytest.mark.usefixtures("package")
def test_a_network_is_shown_by_bases_annotation_or_parameters() -> None:
    """Subclasses of nn.Module, functions annotated with one, or given the classes, are found; others are not."""
    for name in SHOWN:
        assert callable(registry.find("models", f"strange_networks:{name}")), name
    for name in NOT_SHOWN:
        with pytest.raises(
            UsageError, match=r"nothing shows that it returns a torch.nn.Module; name such a class, or a"
        ):
            registry.find("models", f"strange_networks:{name}")


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize("room", IN_ROOMS)
def test_each_room_has_its_own_proof(room: str) -> None:
    """A callable of each room is shown by the class that it returns, or by the parameter that cnnperf gives."""
    shown, others = IN_ROOMS[room]
    for name in shown:
        assert callable(registry.find(room, f"strange_others:{name}")), name
    for name in others:
        with pytest.raises(UsageError, match=f"'strange_others:{name}' was not called: nothing shows that it "):
            registry.find(room, f"strange_others:{name}")


def test_known_libraries_are_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network of torchvision is found, and so is timm's function, which says nowhere what it returns."""
    assert registry.find("models", "torchvision.models:resnet18")
    factory = tmp_path / "timm" / "models"
    factory.mkdir(parents=True)
    (tmp_path / "timm" / "__init__.py").write_text("from timm.models._factory import create_model, other_model\n")
    (factory / "__init__.py").write_text("")
    (factory / "_factory.py").write_text(
        "def create_model(model_name, **kwargs): ...\nother_model = lambda path: ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with imported_anew("timm"):
        assert registry.find("models", "timm:create_model")
        with pytest.raises(UsageError, match="'timm:other_model' was not called"):
            registry.find("models", "timm:other_model")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Install two packages whose modules fail when they are imported, and return the folder."""
    entries = {
        "flowery": "[cnnperf.datasets]\nflowers = flowery.data:load [images]\nmnist = flowery.data:digits\n"
        "twice = flowery.data:one\n[cnnperf.models]\nbloom = flowery.nets\n"
        "[cnnperf.claims]\nhalf = flowery.data:half\n",
        "thorny": "[cnnperf.datasets]\ntwice = thorny:other\nphotos.onnx = thorny:photos\n",
    }
    for name, text in entries.items():
        information = tmp_path / f"{name}-1.2.dist-info"
        information.mkdir()
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        (information / "entry_points.txt").write_text(text)
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('imported')\n")
    (tmp_path / "flowery" / "data.py").write_text("MIRRORED = True\nraise RuntimeError('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with imported_anew(*entries):
        yield tmp_path


@pytest.mark.usefixtures("installed")
def test_entry_points_are_listed_without_an_import() -> None:
    """Entry points are known by name; one whose name is taken, doubled or no name is known by its place."""
    assert {name: each.place for name, each in registry.registered("datasets").items()} == {
        "flowers": "flowery.data:load",
        "flowery.data:digits": "flowery.data:digits",
        "flowery.data:one": "flowery.data:one",
        "thorny:other": "thorny:other",
        "thorny:photos": "thorny:photos",
    }
    assert registry.registered("models")["bloom"] == ("flowery.nets:build", "flowery 1.2")
    assert registry.registered("claims") == {}
    assert registry.unknown_in("datasets", "flowers") is None
    assert "did you mean 'flowers'" in (registry.unknown_in("datasets", "flower") or "")
    assert not {"flowery", "thorny"} & set(sys.modules)


def test_a_name_that_two_packages_register_is_said(installed: Path) -> None:
    """A name of two entry points leads to the places to write in its stead; damaged packages hinder nothing."""
    damaged = installed / "withered-1.dist-info"
    damaged.mkdir()
    (damaged / "METADATA").write_text("Name: withered\n")
    (damaged / "entry_points.txt").write_text("[cnnperf.datasets]\nno equals sign\n")
    foreign._entries.cache_clear()
    words = (
        "'twice' is registered 2 times; write the place of one: flowery.data:one (flowery 1.2), thorny:other "
        "(thorny 1.2)"
    )
    assert registry.unknown_in("datasets", "twice") == words
    with pytest.raises(UsageError, match="'twice' is registered 2 times"):
        registry.find("datasets", "twice")


@pytest.mark.usefixtures("installed")
def test_list_says_where_a_choice_comes_from() -> None:
    """`cnnperf list` prints the names that ship as before, and each other with its place and package."""
    lines = called("list", "datasets").stdout.splitlines()
    assert lines[: len(registry.names("datasets"))] == list(registry.names("datasets"))
    assert "flowers  flowery.data:load  (flowery 1.2)" in lines
    assert called("list", "models").stdout.splitlines()[-1] == "bloom  flowery.nets:build  (flowery 1.2)"


def test_a_registered_choice_needs_no_proof(installed: Path) -> None:
    """A package vouches for what it registers, by name or by place; what else is in its module shows what it makes."""
    (installed / "flowery" / "__init__.py").write_text("")
    (installed / "flowery" / "data.py").write_text("def load(size): ...\ndigits = removed = load\n")
    assert registry.find("datasets", "flowers")
    assert registry.find("datasets", "flowery.data:digits")
    with pytest.raises(UsageError, match=r"'flowery.data:removed' was not called"):
        registry.find("datasets", "flowery.data:removed")


@pytest.mark.usefixtures("installed")
def test_declarations_are_read_without_an_import() -> None:
    """Constants of a module of another package are read from its file; without a file there are none."""
    assert registry.declared("datasets", "flowers") == {"MIRRORED": True}
    assert registry.declared("datasets", "flowery.data:anything") == {"MIRRORED": True}
    for path in ("flowery.absent", "flowery.data.deeper", "nowhere", "math", "sys"):
        assert registry.declared("datasets", f"{path}:load") == {}, path
    assert "flowery" not in sys.modules


def test_the_working_directory_is_searched_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module in no other place is found in the folder that workers search last, else where the command runs."""
    (tmp_path / "json.py").write_text("")
    (tmp_path / "found_last.py").write_text("")
    monkeypatch.delenv(foreign.FOLDER_OF_NETWORKS, raising=False)
    monkeypatch.chdir(tmp_path)
    assert foreign.source("found_last") == tmp_path / "found_last.py"
    assert foreign.source("json") != tmp_path / "json.py"
    (tmp_path / "other").mkdir()
    monkeypatch.chdir("other")
    monkeypatch.setenv(foreign.FOLDER_OF_NETWORKS, str(tmp_path / "other"))
    assert foreign.source("found_last") is None


@pytest.mark.usefixtures("package")
def test_what_a_callable_makes_is_checked() -> None:
    """An error of another package's code, and a result of the wrong kind, each become a sentence with the name."""
    with pytest.raises(UsageError, match=r"'strange_makers:fails' failed \(KeyError: 'flowers'\); correct its code or"):
        registry.make("datasets", "strange_makers:fails", None)
    with pytest.raises(
        UsageError, match=r"'strange_makers:counts' returned int; it must return a cnnperf.datasets.Data"
    ):
        registry.make("datasets", "strange_makers:counts", None)
    with pytest.raises(MemoryError):
        registry.make("datasets", "strange_makers:starves", None)
    with pytest.raises(UsageError, match=r"'strange_makers:ends' failed \(SystemExit: 0\); correct its code or"):
        registry.make("datasets", "strange_makers:ends", None)


def test_code_that_ends_the_process_is_a_sentence(package: Path) -> None:
    """A module that exits when it is imported, or when a name is looked up in it, is told as one that fails."""
    (package / "strange_makers.py").write_text("def __getattr__(name): raise SystemExit(name)")
    with pytest.raises(UsageError, match=r"cannot import 'strange_makers:net' \(net\); correct its module$"):
        registry.find("models", "strange_makers:net")
    (package / "strange_networks.py").write_text("import sys\nsys.exit('bye')")
    with pytest.raises(UsageError, match=r"cannot import 'strange_networks:net' \(bye\); correct its module$"):
        registry.find("models", "strange_networks:net")
