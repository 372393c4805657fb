"""`cnnperf choose`: what it prints, in which format, and with which exit status."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from in_process import called

RUN = min((Path(__file__).parent.parent / "golden" / "smoke").iterdir())


def choose(*words: object, width: int = 200) -> subprocess.CompletedProcess[str]:
    """Run `cnnperf choose` on a stored run in this process."""
    return called("choose", RUN, *words, COLUMNS=str(width))


def test_the_chosen_one_comes_first_and_ends_in_0() -> None:
    """The chosen engine is the first line below the bounds; the answer and the notes follow."""
    done = choose("--max-latency", "100ms", "--batch", 1)
    assert (done.returncode, done.stderr) == (0, "")
    title, bounds, first, *_ = lines = done.stdout.splitlines()
    assert title.startswith("synthetic[shape=1×28×28,train=600,test=200] · data=synthetic · cpu")
    assert bounds == "bounds: latency ≤ 100 ms, batch 1"
    assert first.startswith("lenet[pool=max] onnxruntime batch 1  CHOSEN  ")
    assert "latency 34.6 µs [" in first
    assert any(line.startswith("lenet torch batch 1 ") and "BEATEN" in line for line in lines)
    assert (
        "lenet[pool=max] onnxruntime batch 1 satisfies every bound with its intervals, and beats 3 more" in done.stdout
    )
    assert "variation between processes is unknown" in done.stdout


def test_none_ends_in_1_and_names_the_nearest() -> None:
    """If none satisfies the bounds, the nearest and its miss are named and the exit status is 1."""
    done = choose("--min-accuracy", "0.9", "--batch", 8)
    assert (done.returncode, done.stderr) == (1, "")
    assert "none of 4 judged satisfies every bound with its intervals; nearest: " in done.stdout
    assert " points → exit 1" in done.stdout


def test_json_has_every_cell_and_the_answer() -> None:
    """The JSON document has the bounds in SI units, all cells with figures and margins, and the exit status."""
    done = choose("--max-latency", "100ms", "--max-size", "250KiB", "--json")
    document = json.loads(done.stdout)
    assert (done.returncode, document["exit_code"]) == (0, 0)
    assert document["bounds"] == {"latency_s": 0.1, "file_bytes": 256000}
    cells = document["cells"]
    assert [cell["state"] for cell in cells] == ["chosen", *["beaten"] * 3, *["misses"] * 4]
    assert (cells[0]["engine"], cells[0]["batch_size"]) == ("torch", 8)
    assert cells[0]["figures"]["latency_s"]["limit"] == 0.1
    assert cells[1]["beaten_by"]["images_per_s_ratio"] > 1
    assert all(cell["figures"]["file_bytes"]["miss"] > 0 for cell in cells[4:])
    assert document["summary"].endswith("→ exit 0")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "no bound is given; give one or more of --max-latency, --min-accuracy, --max-memory, --max-size"),
        (("--max-latency", "2"), "--max-latency: '2' is no duration; give a number with its unit, such as 2ms"),
        (("--min-accuracy", "70"), "--min-accuracy: '70' is no share of images; give 0.7 for 70 %"),
        (("--max-memory", "lots"), "--max-memory: 'lots' is no size; give a number with its unit, such as 50MB"),
        (("--max-size", "-1MB"), "--max-size: '-1MB' is no size; give a number with its unit, such as 50MB"),
        (("--max-latency", "1s", "--batch", "x"), "--batch: 'x' is no batch size; give a whole number from 1"),
        (("--max-latency", "1s", "--batch", "7"), "--batch: no engine was timed at 7; give one of 1, 8"),
        (("--max-latency", "1s", "--only", "vgg"), "--only: nothing matches 'vgg'; give a glob over these cells: "),
        (("--max-latency", "1s", "--by", "speed"), "--by: unknown column 'speed'"),
    ],
)
def test_a_bad_request_is_one_sentence_and_ends_in_2(words: tuple[str, ...], sentence: str) -> None:
    """A request that cannot be carried out ends in exit status 2 and one sentence that names the option."""
    done = choose(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"cnnperf: {sentence}")
    assert done.stderr.count("\n") == 1


def test_quiet_has_no_notes() -> None:
    """The answer is the last line of a quiet command; a document has its notes all the same."""
    done = choose("--max-latency", "100ms", "--quiet")
    assert done.stdout.splitlines()[-1].endswith("→ exit 0")
    assert json.loads(choose("--max-latency", "100ms", "--quiet", "--json").stdout)["notes"]
