"""What of this machine a process may use: its cores, as affinity and control groups leave them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")
THREADS = "OMP_NUM_THREADS"  # what a user says of threads


def cores(root: Path = ROOT) -> int:
    """How many cores this process may use: those of its affinity, and no more than its control groups give it time for.

    `root` is where the system's files are.
    """
    return max(1, min([len(affinity()) or os.cpu_count() or 1, *(int(quota) for quota in _quotas(root))]))


def threads(processes: int = 1) -> int:
    """How many threads each of some processes that work at a time is to have: as the user says, else a share of the cores."""
    told = os.environ.get(THREADS, "").partition(",")[0].strip()  # of nested loops the first level
    if told.isdecimal() and int(told) > 0:
        return int(told)
    return max(1, cores() // processes)


def affinity() -> tuple[int, ...]:
    """The cores that this process may run on; empty where the system does not say."""
    try:
        return tuple(sorted(os.sched_getaffinity(0)))
    except (AttributeError, OSError):  # not on macOS and Windows; refused in some containers
        return ()


def pin(where: tuple[int, ...]) -> bool:
    """Keep this process on some cores; False if the system does not allow it."""
    try:
        os.sched_setaffinity(0, where)
    except (AttributeError, OSError):
        return False
    return True


def _quotas(root: Path) -> Iterator[float]:
    """Cores' worth of time that each control group of this process has, the groups above it included."""
    for mount, below, version in _groups(root):
        for folder in (mount / below, *(mount / below).parents):
            if version == 2:
                quota, _, period = _line(folder / "cpu.max").partition(" ")
            else:
                quota, period = _line(folder / "cpu.cfs_quota_us"), _line(folder / "cpu.cfs_period_us")
            if quota.isdecimal() and period.isdecimal() and int(period):  # not "max", not -1
                yield int(quota) / int(period)
            if folder == mount:
                break


def _groups(root: Path) -> Iterator[tuple[Path, str, int]]:
    """Where the control groups that bound processor time are mounted, this process's path below, and their version."""
    paths = {}
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0" or "cpu" in controllers.split(","):
            paths[2 if number == "0" else 1] = path
    for line in _text(root / "proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        kind, options = after.split(" ")[0], after.rpartition(" ")[2].split(",")
        version = 2 if kind == "cgroup2" else 1
        if version in paths and (kind == "cgroup2" or (kind == "cgroup" and "cpu" in options)):
            top, mount = before.split(" ")[3:5]
            path = paths[version]
            inside = path if top == "/" else path.removeprefix(top) if f"{path}/".startswith(f"{top}/") else "/"
            yield root / mount.lstrip("/"), inside.lstrip("/"), version


def _line(path: Path) -> str:
    return _text(path).strip()


def _text(path: Path) -> str:
    """A file of the system's; empty where there is none."""
    try:
        return path.read_text()
    except OSError:
        return ""
