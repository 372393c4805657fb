"""Preflight: errors are found before anything runs, missing data are fetched or replaced by synthetic images."""

from __future__ import annotations

import re
import socket
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from fake_nvml import Nvml
from forked import workers_forked
from in_process import Worker, workers_here

from cnnperf import registry
from cnnperf.bench import Settings
from cnnperf.devices import cuda
from cnnperf.devices._driver import VisibleGpu
from cnnperf.errors import (
    CnnperfError,
    CnnperfWarning,
    DataError,
    DeviceError,
    FaultsError,
    SuiteError,
    UsageError,
)
from cnnperf.ipc.messages import DataHandled, DataRequest, GaveUp, Message, Prepared, Received, Settle, SuiteRequest
from cnnperf.running import preflight
from cnnperf.running.preflight import ask, ask_data, prepare
from cnnperf.suite import parse
from cnnperf.task import Task
from cnnperf.training.recipe import OPTIMIZER_SETTINGS, Recipe
from cnnperf.workers.prepare import Preparation

TRAIN = {"steps": 4, "validation_images": 100, "batch_size": 50}


def request(**changes: object) -> SuiteRequest:
    """Return a request for one small cell; keys of the request itself may be changed too."""
    own = {key: changes.pop(key) for key in tuple(changes) if key in SuiteRequest.model_fields}
    document = {"datasets": ["mnist"], "models": ["lenet"], "train": TRAIN} | changes
    return SuiteRequest(suite=parse(document, where="x.toml", name="x"), where="x.toml", **own)


@pytest.fixture
def _here() -> Iterator[None]:
    """Run the worker in this process, except in tests of its lifetime."""
    with workers_here():
        yield


@pytest.fixture(scope="module")
def cache_without_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a cache for this module, in which the synthetic images are made once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def _no_data(monkeypatch: pytest.MonkeyPatch, cache_without_data: Path) -> None:
    """Hide every copy of the data on this machine."""
    monkeypatch.delenv("CNNPERF_DATA", raising=False)
    monkeypatch.setenv("CNNPERF_CACHE", str(cache_without_data))


@pytest.fixture
def silent_proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Redirect every download to a server that accepts the connection and sends nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        held: list[socket.socket] = []

        def accept() -> None:
            with suppress(OSError):  # The server is shut down.
                while True:
                    held.append(server.accept()[0])

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("https_proxy", address)
        monkeypatch.setenv("http_proxy", address)
        monkeypatch.setattr(urllib.request, "_opener", None)  # It has kept the proxies of its first download.
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
        for connection in held:
            connection.close()


@pytest.fixture
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Redirect every download to a port on which no server listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
    monkeypatch.setenv("https_proxy", address)
    monkeypatch.setenv("http_proxy", address)
    monkeypatch.setattr(urllib.request, "_opener", None)


def stands_in(prepared: Prepared, reason: str) -> None:
    """Check that the images are synthetic, of MNIST's shape, and that the warning gives the reason."""
    [ready] = prepared.tasks
    data = ready.task.data
    assert data is not None
    assert (data.name, data.shape, data.train_count) == ("synthetic", (1, 28, 28), 60_000)
    assert data.fallback is not None
    assert reason in data.fallback
    [warning] = prepared.warnings
    assert "mnist: running on SYNTHETIC images" in warning
    assert reason in warning
    assert "cnnperf data fetch mnist" in warning


@pytest.mark.usefixtures("_here", "_no_data", "_no_network")
def test_without_a_network_synthetic_images_stand_in_and_say_why() -> None:
    """Without a network synthetic images replace the data, and the task and the warning give the reason."""
    with pytest.warns(CnnperfWarning, match="SYNTHETIC"):
        stands_in(prepare(request()), "refused")


@pytest.mark.usefixtures("_no_data", "silent_proxy")
def test_a_download_without_a_byte_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A download without a byte is given up, and synthetic images replace the data."""
    monkeypatch.setattr(preflight, "STALL_S", 1.0)
    with pytest.warns(CnnperfWarning, match="SYNTHETIC"), workers_forked():
        stands_in(prepare(request()), "no byte arrived for 1 s")


def test_a_worker_may_be_silent_but_while_bytes_are_due(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time limit on silence applies only while a download is incomplete; progress is passed on."""
    patiences: list[bool] = []
    words = [
        Received(dataset="mnist", done=1, total=2),
        Received(dataset="mnist", done=2, total=2),
        Received(dataset="cifar10", done=1, total=2),
        GaveUp(dataset="cifar10"),
        DataHandled(sentence="a sentence"),
    ]

    class Speaking(Worker):
        def messages(self, patience: Callable[[], float | None]) -> Iterator[Message]:
            for word in words:
                yield word
                patiences.append(patience() is not None)

    monkeypatch.setattr(preflight, "WorkerProcess", Speaking)
    heard: list[tuple[str, int, int]] = []
    asked = DataRequest(verb="fetch", dataset="mnist")
    assert ask_data(asked, lambda *word: heard.append(word)) == "a sentence"
    assert patiences == [True, False, True, False]
    assert heard == [("mnist", 1, 2), ("mnist", 2, 2), ("cifar10", 1, 2)]


@pytest.mark.usefixtures("_here", "_no_data", "_no_network")
def test_real_data_can_be_required() -> None:
    """With `require_real_data` synthetic images do not replace missing data."""
    with pytest.raises(DataError, match=r"real data is required but not available.*cnnperf data fetch mnist"):
        prepare(request(require_real_data=True))


@pytest.mark.usefixtures("_here", "_no_data", "_no_network")
def test_fetching_without_a_network_is_a_sentence() -> None:
    """`cnnperf data fetch` fails without a network, and does not make synthetic images."""
    with pytest.raises(DataError, match="mnist"):
        ask_data(DataRequest(verb="fetch", dataset="mnist"))


@pytest.mark.usefixtures("_here", "_no_data", "_no_network")
def test_without_download_the_plan_says_how_much_it_would_be() -> None:
    """A plan without download gives the bytes to download and an estimate for each task."""
    prepared = prepare(request(download=False, datasets=["mnist", "cifar10"], train={"epochs": 1}))
    assert prepared.downloads == {"mnist": 11_594_722, "cifar10": 170_498_071}
    assert [ready.folder for ready in prepared.tasks] == [None, None]
    assert all(ready.estimate_s > 0 for ready in prepared.tasks)


@pytest.mark.usefixtures("_here")
def test_settings_are_resolved_in_order() -> None:
    """The model's override precedes the suite's section, the section the model's recipe, the recipe the defaults."""
    models = ["lenet", {"name": "lenet", "pool": "max", "train": {"lr": 0.25, "seconds": 9}}]
    datasets = [{"name": "synthetic", "train": 600, "test": 200}]
    first, second = prepare(request(models=models, datasets=datasets)).tasks
    assert first.task.settings["lr"] == 0.01  # LeNet's recipe
    assert first.task.settings["steps"] == 4  # the section
    assert first.task.settings["label_smoothing"] == 0  # the default
    assert second.task.settings["lr"] == 0.25
    assert (second.task.settings["steps"], second.task.settings["seconds"]) == (None, 9)
    assert first.task.threads is not None
    assert first.folder is not None
    assert first.folder == second.folder
    assert first.weight_bytes == 83_126 * 4


@pytest.mark.usefixtures("_here")
def test_weights_are_counted_where_a_stage_leaves_them() -> None:
    """The weights count for the training and for the ONNX file; a profile and the engines write none."""
    stages = ["train", "profile", "export", "infer"]
    datasets = [{"name": "synthetic", "train": 600, "test": 200}]
    asked = request(models=["lenet"], datasets=datasets, stages=stages)
    sizes = [(ready.task.stage, ready.weight_bytes) for ready in prepare(asked).tasks]
    of_file = 83_126 * 4
    assert sizes == [("train", of_file), ("profile", 0), ("export", of_file), ("infer", 0), ("infer", 0)]


@pytest.mark.usefixtures("_here")
@pytest.mark.parametrize(
    ("model", "section"),
    [
        ({"name": "mlp", "train": {"optimizer": "muon"}}, {"optimizer": "sgd", "momentum": 0.0}),
        ({"name": "mlp", "train": {"optimizer": "nesterov"}}, {"optimizer": "sgd", "momentum": 0.0}),
        ({"name": "trashnet"}, {"optimizer": "adamw"}),
    ],
)
def test_a_profile_has_the_optimizer_of_its_training(model: dict[str, Any], section: dict[str, Any]) -> None:
    """A profile's rates, momentum and weight decay are those of its cell's training, whatever layers set them."""
    datasets = [{"name": "synthetic", "train": 600, "test": 200}]
    asked = request(models=[model], datasets=datasets, stages=["train", "profile"], train=TRAIN | section)
    train, profile = prepare(asked).tasks
    of_profile = Recipe.model_validate({"steps": 1, **profile.task.settings["train"]})
    assert {name: train.task.settings[name] for name in OPTIMIZER_SETTINGS} == {
        name: getattr(of_profile, name) for name in OPTIMIZER_SETTINGS
    }


@pytest.mark.usefixtures("_here")
def test_recipe_is_that_for_the_task_s_device() -> None:
    """The recipe of VGG has another memory format on CUDA than on the CPU, also where CUDA is absent."""
    datasets = [{"name": "synthetic", "train": 600, "test": 200}]
    tasks = prepare(request(models=["vgg"], datasets=datasets, devices=["cpu", "cuda"])).tasks
    assert [ready.task.settings["memory_format"] for ready in tasks] == ["contiguous", "channels_last"]


@pytest.mark.usefixtures("_here")
@pytest.mark.parametrize(
    ("device", "words"),
    [
        ({"index": -1}, r"devices\.0\.index: .* at least 0"),
        ({"indx": 1}, "cuda: unknown option 'indx'; did you mean 'index'"),
        ({"deterministic": True, "cudnn_benchmark": True}, r"devices\.0: cuda: deterministic excludes cudnn_benchmark"),
    ],
)
def test_what_a_device_cannot_be_told_is_refused(device: dict[str, Any], words: str) -> None:
    """Wrong options of a device are refused, also where the device is absent."""
    datasets = [{"name": "synthetic", "train": 600, "test": 200}]
    with pytest.raises(CnnperfError, match=words):
        prepare(request(datasets=datasets, devices=[{"name": "cuda", **device}]))


IMAGES = {"datasets": [{"name": "synthetic", "train": 600, "test": 200}]}
GPUS = (
    VisibleGpu("Imaginary 100", "00000000-0000-0000-0000-000000000000", (8, 0)),
    VisibleGpu("Imaginary 200", "ab" * 16, (9, 0)),
)


Running = Callable[..., None]


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> Running:
    """Return a function that puts processes on each of two fake GPUs, which have none."""

    def put(*processes: tuple[int, int]) -> None:
        monkeypatch.setitem(sys.modules, "pynvml", Nvml(*processes, uuids=[gpu.uuid for gpu in GPUS]))

    monkeypatch.setattr(cuda, "gpus", lambda: GPUS)
    put()
    return put


@pytest.mark.usefixtures("_here", "running")
def test_every_device_that_is_there_has_its_tasks() -> None:
    """`cuda:all` has the tasks of each device that the driver lists, and `only` may choose among these."""
    prepared = prepare(request(devices=["cuda:all"], **IMAGES))
    assert [ready.task.cell.device.options for ready in prepared.tasks] == [{"index": 0}, {"index": 1}]
    assert [ready.skip for ready in prepared.tasks] == [None, None]
    [second] = prepare(request(devices=["cuda:all"], only="cuda[index=1]", **IMAGES)).tasks
    assert second.task.cell.device.options == {"index": 1}
    with pytest.raises(UsageError, match=r"^`only`: nothing matches 'cpu'.*/cuda\[index=0\], "):
        prepare(request(devices=["cuda:all"], only="cpu", **IMAGES))


@pytest.mark.usefixtures("_here")
def test_a_gpu_that_others_use_is_refused_unless_allowed(running: Running) -> None:
    """Other processes on a GPU are an error that names them, or a warning if the request allows them."""
    words = r"Imaginary 200 is used by process 7, trainer \(process 8\)"
    running((7, 1), (8, 1))
    with pytest.raises(SuiteError, match=rf"^x\.toml: devices\.1: {words}; end them, or give `allow_busy` to"):
        prepare(request(devices=["cpu", "cuda:1"], **IMAGES))
    with pytest.warns(CnnperfWarning, match=rf"^cuda\[index=1\]: {words}, which disturbs all figures$"):
        prepared = prepare(request(devices=["cuda:1"], allow_busy=True, **IMAGES))
    assert [ready.skip for ready in prepared.tasks] == [None]
    assert prepare(request(devices=["cuda:1"], is_elsewhere=True, **IMAGES)).warnings == ()


@pytest.mark.usefixtures("_here", "running")
def test_an_unknown_use_of_a_gpu_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without nvidia-ml-py a warning says that other processes are unknown, and how to install it."""
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.warns(CnnperfWarning, match=r"NVML does not tell whether .* use Imaginary 100; pip install 'cnnperf\["):
        prepare(request(devices=["cuda"], **IMAGES))


@pytest.mark.usefixtures("_here")
def test_all_devices_where_there_is_none_are_skipped_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """`cuda:all` without a device leaves tasks that are skipped with the driver's reason."""

    def none() -> tuple[VisibleGpu, ...]:
        raise DeviceError("the driver sees none")

    monkeypatch.setattr(cuda, "gpus", none)
    [ready] = prepare(request(devices=["cuda:all"], **IMAGES)).tasks
    assert (str(ready.task.cell.device), ready.skip) == ("cuda", "the driver sees none")


@pytest.mark.usefixtures("_here", "running")
def test_a_training_is_skipped_without_a_gpu_for_each_process() -> None:
    """With two GPUs, a training by three processes is skipped, and so is one by two that begins at the second GPU."""
    models = [{"name": "lenet", "train": {"processes": number, "batch_size": 60}} for number in (2, 3)]
    tasks = prepare(request(models=models, devices=["cuda", {"name": "cuda", "index": 1}], **IMAGES)).tasks
    reasons = [ready.skip for ready in tasks]
    assert [reason and reason.partition(";")[0] for reason in reasons] == [
        None,
        *("there is no CUDA device 2",) * 3,
    ]


@pytest.mark.usefixtures("_here")
def test_quick_cuts_budgets_and_repeats() -> None:
    """`quick` cuts the budget to three seconds and the repeats to one."""
    datasets = [{"name": "synthetic", "train": 600, "test": 200}]
    [ready] = prepare(request(datasets=datasets, repeats=3, quick=True)).tasks
    assert ready.task.settings["seconds"] == 3
    assert ready.task.settings["steps"] is None


def test_a_worker_that_breaks_shows_its_last_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The error of a broken worker is one line with its last words, and names the log that has its traceback."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(
        CnnperfError, match=r"^the check of the request crashed \(exit status 1\): KeyError.*$"
    ) as caught:
        ask(Settle(), Prepared)
    assert "Traceback" in Path(str(caught.value).rpartition(" ")[2]).read_text(encoding="utf-8")


@pytest.mark.realdata
@pytest.mark.usefixtures("_here")
def test_real_data_is_found_and_named() -> None:
    """The source of real data is named as CNNPERF_DATA."""
    [ready] = prepare(request()).tasks
    assert ready.task.data is not None
    assert (ready.task.data.name, ready.task.data.fallback) == ("mnist", None)
    assert "CNNPERF_DATA" in ready.task.data.source
    assert ready.folder is not None
    assert (ready.folder / "train_images.npy").is_file()


class Reading(Settings):
    """Settings of a stage that reads the weights of the training, in two variants."""

    needs = ("weights",)

    def variants(self, device: str) -> tuple[dict[str, str], ...]:
        """Return two engines."""
        return {"engine": "one"}, {"engine": "two"}


@pytest.fixture
def reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register a stage `reading`."""

    def measure(bench: object, settings: Reading) -> None:
        """Measure nothing."""

    names, find, declared = registry.names, registry.find, registry.declared
    monkeypatch.setattr(registry, "names", lambda room: (*names(room), "reading") if room == "stages" else names(room))
    monkeypatch.setattr(registry, "find", lambda room, name: measure if name == "reading" else find(room, name))
    monkeypatch.setattr(registry, "declared", lambda room, name: {} if name == "reading" else declared(room, name))
    monkeypatch.setitem(measure.__annotations__, "settings", Reading)
    monkeypatch.setattr(measure, "__module__", "cnnperf.stages.reading")


DATA = {"name": "synthetic", "shape": [1, 28, 28], "train": 600, "test": 200}


@pytest.mark.usefixtures("reading")
def test_a_stage_reads_the_first_repeat_in_each_of_its_variants() -> None:
    """Each variant needs the first training; a changed training changes the keys of the tasks that need it."""

    def tasks(**changes: object) -> list[Task]:
        asked = request(datasets=[DATA], stages=["train", "reading"], repeats=2, **changes)
        return [ready.task for ready in Preparation(asked, lambda _: None).answer().tasks]

    planned = tasks()
    assert [task.repeat for task in planned] == [0] * 3 + [1] * 3
    first, second, *readers = sorted(planned, key=lambda task: task.stage != "train")
    assert [task.variant for task in readers] == [{"engine": "one"}, {"engine": "two"}] * 2
    assert all(task.needs == (first.key,) for task in readers)
    assert first.needs == second.needs == ()
    assert readers[1].label.endswith("reading two")
    assert len({task.key for task in readers}) == 4
    assert not {task.key for task in readers} & {task.key for task in tasks(train=TRAIN | {"steps": 5})}


@pytest.mark.usefixtures("reading")
def test_a_stage_without_what_it_needs_is_refused() -> None:
    """The error names the stage, the stage that it needs, and their order."""
    asked = request(datasets=[DATA], stages=["reading", "train"])
    with pytest.raises(SuiteError, match="'reading' reads a file that 'train' writes; name 'train' before 'reading'"):
        Preparation(asked, lambda _: None).answer()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"infer": {"engines": ["torhc"]}}, r"infer: unknown engine 'torhc'; did you mean 'torch'"),
        ({"infer": {"pairs": -1}}, r"infer\.pairs: "),
        (
            {"infer": {"batch_sizes": 4}},
            r"infer\.batch_sizes: give whole numbers from 1 to 65,536 in a list, or 'auto' alone",
        ),
        ({"infer": {"batch_sizes": [0]}}, r"infer\.batch_sizes: give whole numbers from 1 to 65,536, or 'auto' alone"),
        ({"infer": {"samples": 3}}, r"infer\.samples: "),
        ({"models": ["lenet", {"name": "lenet", "pol": "max"}]}, r"models\.1: .*'pol'; did you mean 'pool'"),
        ({"datasets": ["mnist", {"name": "synthetic", "trian": 9}]}, r"datasets\.1: .*'trian'; did you mean 'train'"),
    ],
)
def test_what_needs_no_images_is_told_before_any_are_fetched(
    changes: dict[str, object], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Errors in any task that need no images are found before images are fetched."""
    monkeypatch.setattr("cnnperf.workers.images.Finder.find", lambda *_: pytest.fail("images were asked for"))
    with pytest.raises(SuiteError, match=words):
        Preparation(request(stages=["train", "export", "infer"], **changes), lambda _: None).answer()


def test_more_test_images_than_the_export_leaves_are_refused() -> None:
    """More test images than the export wrote are refused, except for torch, which computes its own logits."""

    def ask_for(**infer: object) -> Prepared:
        asked = request(datasets=[DATA], stages=["export", "infer"], export={"test_images": 200}, infer=infer)
        return Preparation(asked, lambda _: None).answer()

    words = r"x\.toml: infer: test_images 300 is more than the 200 of \[export\], which gives the logits; lower it, or"
    with pytest.raises(SuiteError, match=words):
        ask_for(test_images=300)
    assert ask_for(test_images=300, engines=["torch"]).tasks[-1].task.settings["test_images"] == 300
    assert ask_for(test_images=200).tasks[-1].task.settings["test_images"] == 200
    assert ask_for().tasks, "a default yields: it is at most what there is"


@pytest.mark.usefixtures("_here")
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "models.0: some.onnx: the stage 'train' cannot load an ONNX file; remove it from the stages"),
        ({"stages": ["infer"]}, "models.0: some.onnx: the engine 'torch' cannot load an ONNX file; remove it from the"),
        (
            {"stages": ["export"], "models": [{"name": "some.onnx", "depth": 3}]},
            "an ONNX file has no options, got depth",
        ),
        ({"stages": ["export"]}, "models.0: some.onnx: no such file; give the path of an ONNX file"),
    ],
)
def test_an_onnx_file_that_cannot_be_carried_out_is_refused(changes: dict[str, object], words: str) -> None:
    """The error for an unusable ONNX file names its place in the suite."""
    with pytest.raises(SuiteError, match=words):
        prepare(request(**{"datasets": ["synthetic"], "models": ["some.onnx"], **changes}))


@pytest.mark.parametrize("stage", ["profile", "train"])
def test_a_network_that_returns_a_tuple_can_be_profiled_and_not_trained(
    stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The profile takes the first tensor of a tuple as the logits; the training refuses the network."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "helpers")
    asked = request(datasets=[DATA], models=["tiny_networks:paired"], stages=[stage])
    preparation = Preparation(asked, lambda _: None)
    if stage == "profile":
        [ready] = preparation.answer().tasks
        assert ready.task.settings["mode"] == "train"
    else:
        with pytest.raises(SuiteError, match=r"models\.0: .*returns more than its logits \(a tuple of 2\).*'train'"):
            preparation.answer()


def answer_to(*models: object, **changes: object) -> Prepared:
    """Prepare networks on small images."""
    return Preparation(request(datasets=[DATA], models=list(models), **changes), lambda _: None).answer()


def test_auxiliary_heads_are_said_not_to_be_trained() -> None:
    """A network that returns a named tuple in training is trained by its logits, with one warning for all its tasks."""
    prepared = answer_to("tiny_networks:with_auxiliary", stages=["train", "profile", "export"], repeats=2)
    assert len(prepared.tasks) == 6
    assert prepared.warnings == (
        "tiny_networks:with_auxiliary returns Outputs in training mode: its logits are trained, its auxiliary heads "
        "are not (auxiliary)",
    )
    assert answer_to("tiny_networks:with_auxiliary", stages=["export"]).warnings == ()


@pytest.mark.parametrize("stage", ["train", "profile"])
def test_a_network_that_fails_in_training_mode_is_refused_by_the_stages_that_train(stage: str) -> None:
    """A network that fails in training mode is refused before the run by stages that take steps, by no other."""
    with pytest.raises(SuiteError, match=r"models\.0: .*not in training mode; .*\(ValueError: expected larger"):
        answer_to("tiny_networks:untrainable", stages=[stage])
    assert answer_to("tiny_networks:untrainable", stages=["profile"], profile={"mode": "infer"}).tasks
    assert answer_to("tiny_networks:untrainable", stages=["export"]).tasks


def test_all_bad_models_are_named_at_once() -> None:
    """Every model that cannot be imported or has invalid options is named, then every one that cannot be built."""
    good, absent, misspelt = "lenet", "nowhere_at_all:net", {"name": "resnet", "depht": 20}
    with pytest.raises(FaultsError) as caught:
        answer_to(good, absent, misspelt, {"name": "resnet", "depth": 21})
    first, second, third = str(caught.value).splitlines()
    assert first.startswith("x.toml: models.1: cannot import 'nowhere_at_all:net'")
    assert "models.2: resnet: unknown option 'depht'" in second
    assert third.startswith("x.toml: models.3.depth: ")
    with pytest.raises(FaultsError) as caught:
        answer_to("tiny_networks:paired", good, "tiny_networks:silent")
    first, second = str(caught.value).splitlines()
    assert first.startswith("x.toml: models.0: 'tiny_networks:paired' returns more than its logits")
    assert second.startswith("x.toml: models.2: the network returned NoneType without a tensor")


def test_an_option_that_a_network_needs_is_named() -> None:
    """The error for a missing option names it and shows where it is given."""
    words = 'models.0: torch.nn:ReflectionPad2d needs padding; write { name = "torch.nn:ReflectionPad2d", padding = … }'
    with pytest.raises(SuiteError, match=re.escape(words)):
        answer_to("torch.nn:ReflectionPad2d")
