"""Limits of control groups, read from small trees in the kernel's layout of either version."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from cnnperf.machine.cgroup import Groups

Tree = Callable[[dict[str, str]], Path]


def cpu(root: Path) -> Groups:
    """Return the groups of the CPU controller."""
    return Groups(root / "proc", root / "sys", "cpu")


def memory(root: Path) -> Groups:
    """Return the groups of the memory controller."""
    return Groups(root / "proc", root / "sys", "memory")


def test_version_2_is_limited_by_the_tightest_group_around(tree: Tree) -> None:
    """The limit is the tightest of a group's own and its parents'; a root group without files has none."""
    root = tree(
        {
            "proc/self/cgroup": "0::/slice/job\n",
            "sys/fs/cgroup/cgroup.controllers": "cpuset cpu memory\n",
            "sys/fs/cgroup/slice/cpu.max": "150000 100000\n",
            "sys/fs/cgroup/slice/cpu.stat": "usage_usec 9\nnr_periods 10\nnr_throttled 3\nthrottled_usec 7\n",
            "sys/fs/cgroup/slice/memory.max": "max\n",
            "sys/fs/cgroup/slice/job/cpu.max": "max 100000\n",
            "sys/fs/cgroup/slice/job/cpu.stat": "usage_usec 9\nnr_periods 0\nnr_throttled 0\nthrottled_usec 0\n",
            "sys/fs/cgroup/slice/job/memory.max": "1073741824\n",
        }
    )
    assert cpu(root).cpus() == 1.5
    assert cpu(root).throttled() == (3, 10)
    assert cpu(root).throttled_s() == pytest.approx(7e-6)
    assert memory(root).memory_bytes() == 2**30


def test_version_1_has_a_tree_for_each_controller(tree: Tree) -> None:
    """Version 1 has its own file names, -1 for no quota, and a number near 2^63 for no memory limit."""
    files = {
        "proc/self/cgroup": "4:memory:/job\n3:cpuset:/\n1:cpu,cpuacct:/job\n0::/\n",
        "sys/fs/cgroup/cpu/job/cpu.cfs_quota_us": "50000\n",
        "sys/fs/cgroup/cpu/job/cpu.cfs_period_us": "100000\n",
        "sys/fs/cgroup/cpu/job/cpu.stat": "nr_periods 4\nnr_throttled 1\nthrottled_time 5\n",
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
        "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
    }
    root = tree(files)
    assert cpu(root).cpus() == 0.5
    assert cpu(root).throttled() == (1, 4)
    assert cpu(root).throttled_s() == pytest.approx(5e-9)
    assert memory(root).memory_bytes() == math.inf


def test_a_container_sees_its_own_group_as_the_root(tree: Tree) -> None:
    """If the path of a container's group lies outside the mount, the limits of the mounted root apply."""
    root = tree(
        {
            "proc/self/cgroup": "0::/../../docker/abc\n",
            "sys/fs/cgroup/cgroup.controllers": "cpu\n",
            "sys/fs/cgroup/cpu.max": "200000 100000\n",
        }
    )
    assert cpu(root).cpus() == 2


def test_a_controller_out_of_sight_is_no_missing_limit(tree: Tree) -> None:
    """A controller that is not visible raises an error, since a group outside may set a limit."""
    root = tree({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cgroup.controllers": "cpuset\n"})
    with pytest.raises(FileNotFoundError):
        cpu(root)


def test_throttling_that_is_not_counted_is_absent(tree: Tree) -> None:
    """A root group without counters of throttling raises a LookupError for them."""
    root = tree(
        {
            "proc/self/cgroup": "0::/\n",
            "sys/fs/cgroup/cgroup.controllers": "cpu\n",
            "sys/fs/cgroup/cpu.stat": "usage_usec 9\n",
        }
    )
    assert cpu(root).cpus() == math.inf
    for count in (cpu(root).throttled, cpu(root).throttled_s):
        with pytest.raises(LookupError):
            count()


def test_what_is_left_of_memory_is_that_of_the_tightest_group(tree: Tree) -> None:
    """The memory left is that of the tightest group: file caches count as free, and it is never below 0."""
    left = {
        "proc/self/cgroup": "0::/slice/job\n",
        "sys/fs/cgroup/cgroup.controllers": "memory\n",
        "sys/fs/cgroup/slice/memory.max": "1000\n",
        "sys/fs/cgroup/slice/memory.current": "900\n",
        "sys/fs/cgroup/slice/memory.stat": "anon 700\ninactive_file 150\n",
        "sys/fs/cgroup/slice/job/memory.max": "max\n",
        "sys/fs/cgroup/slice/job/memory.current": "800\n",
    }
    assert memory(tree(left)).memory_left_bytes() == 250
    assert memory(tree(left | {"sys/fs/cgroup/slice/memory.current": "1200\n"})).memory_left_bytes() == 0
    assert memory(tree(left | {"sys/fs/cgroup/slice/memory.max": "max\n"})).memory_left_bytes() == math.inf


def test_what_is_left_of_memory_under_version_1(tree: Tree) -> None:
    """Under version 1, the memory left is limit less usage, and a number near 2^63 is no limit."""
    root = tree(
        {
            "proc/self/cgroup": "4:memory:/job\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            "sys/fs/cgroup/memory/job/memory.limit_in_bytes": "1000\n",
            "sys/fs/cgroup/memory/job/memory.usage_in_bytes": "400\n",
        }
    )
    assert memory(root).memory_left_bytes() == 600
