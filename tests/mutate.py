"""Mutation testing: change one random place of the package at a time, and check whether the package's tests fail.

`tox -e mutation` draws 300 places of cnnperf/{regression,tables,timing,training,inference} and every change that
Cosmic Ray knows for them, puts one after the other into a copy of the tree, and runs the tests that mirror the package.
A run can be broken off and resumed: what was found is kept in the folder, a SQLite file that `cr-report` reads too.
A tree that has changed since is another run: give another folder, or remove the old one.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from cosmic_ray.commands.init import init
from cosmic_ray.mutating import mutate_and_test
from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import MutationSpec, TestOutcome, WorkerOutcome, WorkItem, WorkResult

ROOT = Path(__file__).parents[1]
TESTS = {
    "regression": ("tests/regression",),
    "tables": ("tests/tables",),
    "timing": ("tests/timing",),
    "training": ("tests/training", "tests/stages/test_train.py"),
    "inference": ("tests/inference", "tests/stages/test_infer.py"),
}
"""The packages that are changed, and the tests that mirror them; those of two packages include a stage's tests."""
LIMIT_S = 1200.0
"""Time limit of a package's tests; a change that exceeds it counts as noticed. A busy machine needs a part of it."""
SOUND = "sound"
"""Name of the file that exists once the tests have passed without a change."""
WITHOUT_MEANING = ("ReplaceBinaryOperator_BitOr_",)
"""Operators that are not applied. `|` stands in annotations, which nothing evaluates, and between mappings, where any
other operator is a TypeError, which any test notices."""
CHECK_OF_ITS_OWN = re.compile(r"\b(frozen|kw_only|slots|strict)=$")
"""Text before a `True` that makes the code check itself; correct code behaves the same without it."""


def main() -> int:
    """Resume a run or begin a new one; print the changes that no test noticed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--folder", type=Path, default=ROOT / ".tox" / "mutants", help="folder of the copy and of the results"
    )
    parser.add_argument("--seed", type=int, help="seed of the draw (default: random; printed)")
    parser.add_argument("--count", type=int, default=300, help="number of changes to draw")
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="time limit in minutes; a later call resumes"
    )
    parser.add_argument(
        "--at-least", type=float, default=0.85, help="exit status 1 if a smaller share of changes is noticed"
    )
    given = parser.parse_args()
    given.folder = given.folder.resolve()
    end = time.monotonic() + 60 * given.minutes
    given.folder.mkdir(parents=True, exist_ok=True)
    with use_db(str(given.folder / "mutants.sqlite"), WorkDB.Mode.create) as found:
        tree = given.folder / "tree"
        if not found.num_work_items:
            copied(tree)
            seed = random.SystemRandom().randrange(2**32) if given.seed is None else given.seed
            os.chdir(tree)
            print(f"drawn: {drawn(found, seed, given.count)} changes with --seed {seed}", flush=True)
        os.chdir(tree)
        if not (given.folder / SOUND).exists():
            if broken := [package for package in TESTS if not passes(package)]:
                print(f"without any change the tests of {', '.join(broken)} fail; nothing was changed")
                return 2
            (given.folder / SOUND).touch()
        pending = sorted(found.pending_work_items, key=lambda item: item.job_id)
        for number, item in enumerate(pending, start=1):
            if time.monotonic() > end:
                break
            begun = time.monotonic()
            result = tested(item)
            found.set_result(item.job_id, result)
            seconds = time.monotonic() - begun
            print(f"{number}/{len(pending)} {outcome(result)} in {seconds:.0f} s: {named(item)}", flush=True)
        return told(found, given.at_least)


def copied(tree: Path) -> None:
    """Copy the files that git tracks, so that no change touches the tree itself."""
    shutil.rmtree(tree, ignore_errors=True)
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name)


def drawn(found: WorkDB, seed: int, count: int) -> int:
    """Draw changes at random from all possible ones, keep them in the database, and return their number."""
    paths = sorted(path for package in TESTS for path in Path("cnnperf", package).rglob("*.py"))
    with use_db("sqlite-all.tmp", WorkDB.Mode.create) as possible:
        init(paths, possible, {})
        specs = [item.mutations[0] for item in possible.work_items if has_meaning(item.mutations[0])]
    Path("sqlite-all.tmp").unlink()
    specs.sort(key=lambda spec: (str(spec.module_path), spec.start_pos, spec.operator_name, spec.occurrence))
    chosen = random.Random(seed).sample(specs, min(count, len(specs)))
    print(f"possible: {len(specs)} changes in {len(paths)} files", flush=True)
    found.add_work_items(WorkItem.single(f"{number:05}", spec) for number, spec in enumerate(chosen))
    return len(chosen)


def has_meaning(spec: MutationSpec) -> bool:
    """Tell whether a change can alter the behaviour of correct code."""
    operator, (row, place) = spec.operator_name.partition("/")[2], spec.start_pos
    before = spec.module_path.read_text(encoding="utf-8").splitlines()[row - 1][:place]
    is_check = operator == "ReplaceTrueWithFalse" and CHECK_OF_ITS_OWN.search(before)
    return not (is_check or operator.startswith(WITHOUT_MEANING))


def passes(package: str) -> bool:
    """Tell whether a package's tests pass without a change."""
    begun = time.monotonic()
    words = [str(word) for word in command(Path("cnnperf", package, "__init__.py"))]
    try:
        done = subprocess.run(words, capture_output=True, timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        print(f"{package}: its tests take longer than {LIMIT_S:g} s", flush=True)
        return False
    print(f"{package}: its tests take {time.monotonic() - begun:.0f} s", flush=True)
    return done.returncode == 0


def tested(item: WorkItem) -> WorkResult:
    """Apply a change, run the tests and undo the change."""
    [spec] = item.mutations
    return mutate_and_test(item.mutations, " ".join(map(str, command(spec.module_path))), LIMIT_S)


def command(module: Path) -> Iterator[object]:
    """Yield the words of the command that runs a module's tests, its own test file first, until one fails."""
    os.environ["PYTHONPATH"] = str(Path.cwd())  # The copy, wherever the package is installed from.
    package = module.parts[1]
    own = Path("tests", package, f"test_{module.stem}.py")
    yield from (sys.executable, "-m", "pytest", "-x", "-q", "-n", 0, "-p", "no:cacheprovider", "--timeout", 120)
    yield from (own,) if own.exists() else ()
    yield from TESTS[package]


def outcome(result: WorkResult) -> str:
    """Return the outcome of a change in one word."""
    if result.worker_outcome != WorkerOutcome.NORMAL:
        return "impossible"
    return "survived" if result.test_outcome == TestOutcome.SURVIVED else "noticed"


def named(item: WorkItem) -> str:
    """Return the place and the operator of a change."""
    [spec] = item.mutations
    return f"{spec.module_path}:{spec.start_pos[0]} {spec.operator_name} {spec.occurrence}"


def told(found: WorkDB, at_least: float) -> int:
    """Print the surviving changes and the share of noticed ones; return the exit status."""
    completed = sorted(found.completed_work_items, key=lambda each: each[0].job_id)
    count = Counter(outcome(result) for _, result in completed)
    for item, result in completed:
        if outcome(result) == "survived":
            print(f"\n{named(item)}\n{result.diff}")
    of = count["noticed"] + count["survived"]
    if not of:
        return 3
    share = count["noticed"] / of
    left = found.num_work_items - len(completed)
    print(f"\n{count['noticed']} of {of} noticed ({100 * share:.1f} %); {count['impossible']} impossible, {left} to go")
    return 3 if left else int(share < at_least)


if __name__ == "__main__":
    sys.exit(main())
