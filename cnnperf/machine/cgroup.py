"""CPU and memory limits of this process's control group and its ancestors."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

UNLIMITED_BYTES = 2**62
"""Version 1 represents "no limit" by a number near 2**63."""
THROTTLED_TIMES = {"throttled_usec": 1e-6, "throttled_time": 1e-9}
"""Names in cpu.stat of versions 2 and 1, with their units in seconds."""


class Groups:
    """The groups of this process, innermost first, under either version of control groups.

    A container sees its own group as the root; folders that the kernel reports but that do not exist are ignored.
    Raises OSError or ValueError if a file cannot be read.
    """

    def __init__(self, proc: Path, sys: Path, controller: str) -> None:
        root = sys / "fs/cgroup"
        self._version = 2 if (root / "cgroup.controllers").is_file() else 1
        mount = root if self._version == 2 else root / controller
        offered = _read(root / "cgroup.controllers", controller).split()
        if controller not in offered or not mount.is_dir():
            raise FileNotFoundError(f"{mount}: no controller {controller}")
        inner = mount / self._path((proc / "self/cgroup").read_text(), controller).strip("/")
        self._folders = [inner, *self._up(inner, mount)]

    def cpus(self) -> float:
        """Return the CPU quota in cores; infinite if there is no limit."""
        quotas: list[float] = []
        for folder in self._folders:
            if self._version == 2:
                words = _read(folder / "cpu.max", "max 100000").split()
            else:
                words = [_read(folder / "cpu.cfs_quota_us", "-1"), _read(folder / "cpu.cfs_period_us", "100000")]
            quota, period = (math.inf if word in ("max", "-1") else int(word) for word in words)
            quotas.append(quota / period)
        return min(quotas)

    def usable_of(self, cores: int) -> int:
        """Return how many of these cores the quota permits, rounded up to whole cores."""
        quota = self.cpus()
        return cores if math.isinf(quota) else min(cores, math.ceil(quota))

    def throttled(self) -> tuple[int, int]:
        """Return the number of throttled periods and of all periods; raises LookupError if they are not counted."""
        counts = []
        for folder in self._folders:
            stat = dict(line.split() for line in _read(folder / "cpu.stat", "").splitlines())
            if "nr_throttled" in stat:
                counts.append((int(stat["nr_throttled"]), int(stat["nr_periods"])))
        if not counts:
            raise LookupError("nr_throttled")
        return max(counts)

    def throttled_s(self) -> float:
        """Return the throttled time of all groups, summed; raises LookupError if it is not counted.

        Each group counts only the effect of its own quota, so only the sum covers them all.
        """
        counts = []
        for folder in self._folders:
            stat = dict(line.split() for line in _read(folder / "cpu.stat", "").splitlines())
            counts += [int(stat[name]) * unit_s for name, unit_s in THROTTLED_TIMES.items() if name in stat]
        if not counts:
            raise LookupError("throttled time")
        return sum(counts)

    def memory_bytes(self) -> float:
        """Return the memory limit in bytes; infinite if there is no limit."""
        name = "memory.max" if self._version == 2 else "memory.limit_in_bytes"
        words = [_read(folder / name, "max") for folder in self._folders]
        limits = [math.inf if word == "max" else int(word) for word in words]
        return min(math.inf if limit > UNLIMITED_BYTES else limit for limit in limits)

    def memory_left_bytes(self) -> float:
        """Return the remaining memory in bytes; infinite if there is no limit.

        Cached files count as used although the kernel can drop them, so they are subtracted.
        """
        limit, usage = (
            ("memory.max", "memory.current")
            if self._version == 2
            else ("memory.limit_in_bytes", "memory.usage_in_bytes")
        )
        left = [math.inf]
        for folder in self._folders:
            word = _read(folder / limit, "max")
            if word != "max" and int(word) <= UNLIMITED_BYTES:
                stat = dict(line.split() for line in _read(folder / "memory.stat", "").splitlines())
                left.append(int(word) - int(_read(folder / usage, "0")) + int(stat.get("inactive_file", 0)))
        return max(0.0, min(left))

    def _path(self, memberships: str, controller: str) -> str:
        for line in memberships.splitlines():
            number, controllers, path = line.split(":", 2)
            if number == "0" if self._version == 2 else controller in controllers.split(","):
                return path
        raise ValueError(f"no group of {controller}")

    @staticmethod
    def _up(inner: Path, mount: Path) -> Iterator[Path]:
        while inner != mount:
            inner = inner.parent
            yield inner


def _read(path: Path, absent: str) -> str:
    """Return a file's text; the root group has no limit files, because it has no limits."""
    return path.read_text().strip() if path.exists() else absent
