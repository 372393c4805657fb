"""The page of all accuracy records, with their rules: `README.md` of the folder that contains them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path

from cnnperf.accuracy_record import LEVEL
from cnnperf.accuracy_record.folder import AccuracyRecord, records_below
from cnnperf.record import replacing
from cnnperf.units import MISSING, one_line

PAGE = "README.md"
RULES = f"""# Records

A record is a mean test accuracy that others can check: of one network, trained anew for each of several seeds, within
a budget, on a device. `cnnperf record SUITE` trains the seeds, tests the claim, writes the record's folder, and writes
this page. `cnnperf record verify FOLDER` checks a folder and trains some of its seeds again.

## Rules

- **Test images.** Each seed classifies all test images, as they are, once its training has ended. Nothing is chosen by
  them: no setting, no moment of the training, no seed. The accuracy with mirror images is stored beside this one and
  does not count.
- **Data.** The network sees the training images of the dataset, and what augmentation makes of them, and nothing else.
  Validation images are taken from them. Weights start at random, or are computed from the training images.
- **Clock.** A budget in seconds is the time of the training steps: choosing, augmenting and normalising the images,
  forward and backward pass, update. Not counted: the start of the process, loading of the images, building and
  initialising the network, the warm-up steps (at a learning rate of 0), validation, and the final test.
- **Seeds.** They are consecutive from the suite's first one, each in a process of its own. None is left out.
- **Claim.** The mean over the seeds is above a target (Student's t-test), or above the mean of the standing record,
  the one with the highest mean at the same dataset, budget and device (Welch's t-test); one-sided, p < {LEVEL:g}. The
  test is about the recipe on these test images and this machine. At a budget in seconds a slower machine takes fewer
  steps.

A folder contains `record.json` (claim, seeds, every accuracy, p, settings, versions, and the machine with its
instruction sets, cache sizes and frequency), `suite.toml`, the source of network, recipe and training in `source/`,
and `records.jsonl.gz`, from which `cnnperf report FOLDER` makes all tables again.
"""
NO_RECORD = "No record stands yet."
HEADS = (
    *("date", "record", "network", "test accuracy, %", "deviation", "mirrored, %", "seeds", "claim", "p"),
    *("processor or GPU", "threads", "torch", "cnnperf"),
)


def page_of(records: Mapping[Path, AccuracyRecord], root: Path) -> str:
    """Return the page: the rules, then a table for each dataset, budget and device. records: by folder below the root.

    Accuracies are means over seeds and, with their standard deviation, in percent.
    """
    parts = [RULES, *_tables(records, root)] if records else [RULES, f"## Table\n\n{NO_RECORD}\n"]
    return "\n".join(parts)


def write_page(root: Path) -> Path:
    """Write the page of the records below a folder, and return its path. Raises OSError, StoreError."""
    text = page_of(records_below(root), root)
    root.mkdir(parents=True, exist_ok=True)
    with replacing(root / PAGE) as file:
        file.write(text)
    return root / PAGE


def _tables(records: Mapping[Path, AccuracyRecord], root: Path) -> Iterator[str]:
    for kind, group in groupby(records.items(), key=lambda each: each[1].kind):
        lines = [HEADS, ["---"] * len(HEADS), *(_row(folder.relative_to(root), record) for folder, record in group)]
        table = "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
        yield f"## {kind}\n\n{table}\n"


def _row(folder: Path, record: AccuracyRecord) -> list[str]:
    task, machine, flip = record.task, record.machine, record.accuracies_flip
    return [
        f"{record.date[:4]}-{record.date[4:6]}-{record.date[6:]}",
        f"[{record.name.partition('-')[2]}]({folder.as_posix()}/)",
        str(task.cell.model),
        f"{100 * record.mean:.2f}",
        f"{100 * record.deviation:.2f}",
        f"{100 * sum(flip) / len(flip):.2f}" if flip else MISSING,
        str(len(record.seeds)),
        record.claim.words,
        f"{record.p:.2g}",
        one_line(machine.label(task.cell.device.name) or MISSING),
        str(task.threads),
        machine.packages.get("torch", MISSING),
        machine.commit or machine.packages.get("cnnperf", MISSING),
    ]
