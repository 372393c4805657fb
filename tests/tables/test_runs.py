"""The tables of runs and of tasks: a row per machine of a run, and a row per task."""

from __future__ import annotations

from collections.abc import Callable

from cnnperf.record import Gpu, Libraries, Platform, Processor, Record, single
from cnnperf.tables.runs import run_table, task_table

Trained = Callable[..., Record]


def test_a_run_says_when_where_and_how_it_ended(trained: Trained) -> None:
    """A run's row has its first start, last end, host, and the number of tasks by status."""
    later = trained("nin", status="failed", error="no").model_copy(update={"started": "2025-01-02T03:10:00.250+00:00"})
    (row,) = run_table({"suite/run": (trained(), later, trained("vgg", status="skipped", error="no"))}).rows
    assert (row["tasks"], row["ok"], row["failed"], row["timeout"], row["skipped"]) == (3, 1, 1, 0, 1)
    assert (row["started"], row["ended"]) == ("2025-01-02T03:04:05Z", "2025-01-02T03:11:40.250+00:00")
    assert row["task_s"] == 300.0
    assert row["suite"] is None
    assert row["host"] == "box"


def test_a_run_says_of_which_suite_it_is(trained: Trained) -> None:
    """A run's row names all suites of its tasks, whatever its folder."""
    records = [
        r.model_copy(update={"task": r.task.model_copy(update={"suite": suite})})
        for r, suite in ((trained(), "cifar"), (trained("nin"), "mine"), (trained("vgg"), "cifar"))
    ]
    (row,) = run_table({"anywhere": records}).rows
    assert row["suite"] == "cifar, mine"


def test_another_machine_has_a_row_of_its_own(trained: Trained) -> None:
    """A run on two machines has one row for each."""
    records = (trained(), trained("nin", host="other"), trained("vgg"))
    assert [(row["host"], row["tasks"]) for row in run_table({"suite/run": records}).rows] == [("box", 2), ("other", 1)]


def test_a_run_says_all_that_is_known_of_its_machine(trained: Trained, on: Trained) -> None:
    """One row has the facts of the machine and of all its processes."""
    processor = Processor(
        family="25",
        model="17",
        microcode="0x1",
        cache_bytes={"L1d": 2**15, "L2": 2**20},
        smt=False,
        numa_nodes=1,
        frequency_hz=2.6e9,
    )
    machine = {"processor": processor, "platform": Platform(libc="glibc 2.36", page_bytes=4096)}
    variables = ({"OMP_NUM_THREADS": "2"}, {"MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "2"})
    torch = Libraries(openmp=("torch/lib/libgomp.so.1",), onednn="3.7.1")
    gpu = Gpu(name="NVIDIA A100", uuid="GPU-1", memory_bytes=40 * 2**30)
    records = (
        on(trained(), **machine),
        on(trained("nin"), **machine, environment=variables[0], libraries=torch, accelerator=gpu),
        on(trained("vgg"), **machine, environment=variables[1], libraries=Libraries(openmp=())),
    )
    (row,) = run_table({"suite/run": records}).rows
    expected = {
        "cpu_model": "Some Processor @ 2 GHz, family 25 model 17",
        "microcode": "0x1",
        "l1d_bytes": 2**15,
        "l1i_bytes": None,
        "l2_bytes": 2**20,
        "smt": "off",
        "numa_nodes": 1,
        "frequency_hz": 2.6e9,
        "libc": "glibc 2.36",
        "page_bytes": 4096,
        "gpu_uuid": "GPU-1",
        "gpu_memory_bytes": 40 * 2**30,
        "openmp": "torch/lib/libgomp.so.1",
        "onednn": "3.7.1",
        "environment": "OMP_NUM_THREADS=2; MALLOC_ARENA_MAX=1 OMP_NUM_THREADS=2",
    }
    assert {name: row[name] for name in expected} == expected


def test_a_task_names_its_gpu(trained: Trained, on: Trained) -> None:
    """A task on a GPU has the UUID of that GPU, and a task on the CPU has none, although the machine has a GPU."""
    gpu = Gpu(name="NVIDIA A100", uuid="GPU-1", power_limit_w=400.0, sm_clock_hz=1.4e9)
    records = [on(trained(device=device), accelerator=gpu) for device in ("cuda", "cpu")]
    assert [row["gpu_uuid"] for row in task_table({"suite/run": records}).rows] == ["GPU-1", None]
    (row, *_) = run_table({"suite/run": records}).rows
    assert (row["gpu_power_limit_w"], row["gpu_sm_clock_hz"], row["gpu_memory_clock_hz"]) == (400.0, 1.4e9, None)


def test_a_task_names_the_cores_to_which_it_was_bound(trained: Trained, on: Trained) -> None:
    """A task beside which others ran has its cores as the kernel lists them; any other has none."""
    records = [on(trained(), bound_cores=(0, 1, 2, 8)), trained()]
    assert [row["bound_cores"] for row in task_table({"suite/run": records}).rows] == ["0-2,8", None]


def test_a_run_of_a_version_that_did_not_ask_has_empty_cells(trained: Trained) -> None:
    """Facts that an older record lacks are None."""
    (row,) = run_table({"suite/run": (trained(),)}).rows
    asked = ("cpu_model", "instruction_sets", "smt", "l2_bytes", "nominal_hz", "kernel", "gpu_uuid", "onednn")
    assert {row[name] for name in (*asked, "environment")} == {None}


def test_processors_of_one_name_have_each_a_row(trained: Trained, on: Trained) -> None:
    """Processors of one name and unlike models have a row each."""
    records = [on(trained(name), processor=Processor(model=model)) for name, model in (("nin", "17"), ("vgg", "1"))]
    assert [row["tasks"] for row in run_table({"suite/run": records}).rows] == [1, 1]


def test_a_task_says_what_disturbed_it(trained: Trained) -> None:
    """A task's row names each disturbed metric with its batch size; an undisturbed task has None."""
    disturbed = {"disturbed": "the load was 9.0 on 2 cores"}
    latency = single("infer.latency", "s", 0.1, "lower", disturbed, batch_size=8)
    rows = task_table(
        {"suite/run": (trained(measured=[latency]), trained("nin", status="timeout", error="60\ns"))}
    ).rows
    assert rows[0]["disturbed"] == "infer.latency at batch 8: the load was 9.0 on 2 cores"
    assert rows[0]["reason"] is None
    assert (rows[1]["disturbed"], rows[1]["status"], rows[1]["reason"]) == (None, "timeout", "60 s")
