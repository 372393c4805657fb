"""Where the records of a run are: its folder, its file, and the runs that come with cnnperf, which have names."""

from __future__ import annotations

from pathlib import Path

from cnnperf.errors import StoreError, names_listed

FILE = "records.jsonl"
COMPRESSED_FILE = "records.jsonl.gz"
"""The same file, compressed by gzip: read where the other is absent, and never written."""
REFERENCE = "reference"
"""First part of the names of the runs that come with cnnperf."""


def reference_runs() -> dict[str, Path]:
    """Return the folders of the runs that come with cnnperf, by name: `reference/cifar`."""
    package = Path(__file__).parents[1]
    installed = package / REFERENCE
    folder = installed if installed.is_dir() else package.parent / "results" / REFERENCE
    return {f"{REFERENCE}/{file.parent.name}": file.parent for file in sorted(folder.glob(f"*/{COMPRESSED_FILE}"))}


def located(run: str | Path) -> Path:
    """Return the folder of a run, given by its path, by that of its file of records, or by the name of a reference run.

    Raises StoreError for a name that no reference run has. Another path that does not exist is returned as it is.
    """
    path = Path(run)
    try:
        if path.exists():
            return path.parent if path.name in (FILE, COMPRESSED_FILE) and path.is_file() else path
    except OSError:  # Opening the records says why.
        return path
    if len(path.parts) != 2 or path.parts[0] != REFERENCE:
        return path
    known = reference_runs()
    if path.as_posix() in known:
        return known[path.as_posix()]
    names = names_listed(known) or "none here; they are in results/reference of cnnperf's repository"
    raise StoreError(f"{path}: neither a folder nor a run that comes with cnnperf (known: {names})")


def stored_file(run: Path) -> Path:
    """Return the file of a run's records: the compressed one if only that is there."""
    path, compressed = run / FILE, run / COMPRESSED_FILE
    try:
        is_alone = compressed.is_file() and not path.exists()
    except OSError:  # Opening the records says why.
        is_alone = False
    return compressed if is_alone else path
