"""The estimates of a dry run beside the seconds of the run: ResNet-18 and ViT-B of torchvision on 3×224×224 images.

python tests/bench/estimates.py [FACTOR]: one row per task and one per network. The exit status is 1 if the estimate
of the tasks of a network is wrong by more than the factor, by default 2. Takes about a quarter of an hour on two cores,
which must have nothing else to do.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from cnnperf.record import read

SUITE = """
datasets = [{ name = "synthetic", shape = [3, 224, 224], num_classes = 1000, train = 64, test = 64 }]
models = ["torchvision.models:resnet18", "torchvision.models:vit_b_16"]
stages = ["train", "profile", "export", "infer"]
[train]
steps = 10
batch_size = 8
validation_images = 0
[profile]
batch_sizes = [4]
samples = 4
[infer]
batch_sizes = [1, 4]
samples = 11
pairs = 2
"""


def main(factor: float) -> int:
    """Plan and run the suite with an empty cache, and compare the two task by task."""
    with tempfile.TemporaryDirectory() as folder:
        suite, run = Path(folder) / "estimates.toml", Path(folder) / "run"
        suite.write_text(SUITE, encoding="utf-8")
        environment = os.environ | {"CNNPERF_CACHE": str(Path(folder) / "cache")}
        command = [sys.executable, "-m", "cnnperf", "run", str(suite)]
        planned = subprocess.run(
            [*command, "--dry-run", "--json"], env=environment, stdout=subprocess.PIPE, text=True, check=True
        )
        subprocess.run([*command, "--out", str(run)], env=environment, check=True)
        estimates = {task["task"]: task["estimate_s"] for task in json.loads(planned.stdout)["tasks"]}
        sums: dict[str, tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))
        for record in read(run):
            estimate_s = estimates[record.task.label]
            _show(record.task.label, estimate_s, record.duration_s)
            total = sums[str(record.task.cell.model)]
            sums[str(record.task.cell.model)] = total[0] + estimate_s, total[1] + record.duration_s
        for model, figures in sums.items():
            _show(model, *figures)
    return int(any(max(low / high, high / low) > factor for low, high in sums.values()))


def _show(name: str, estimate_s: float, seconds: float) -> None:
    print(f"{name}\testimate {estimate_s:.0f} s\ttook {seconds:.0f} s\tratio {estimate_s / seconds:.2f}", flush=True)


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else 2.0))
