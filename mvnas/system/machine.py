"""How many processor cores and threads this process may use, by its affinity and its control groups."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")
THREADS = "OMP_NUM_THREADS"  # the variable by which users set threads


def cores(root: Path = ROOT) -> int:
    """Number of cores that this process may use: its affinity, bounded by the quotas of its control groups.

    `root` is the root of the file system, for tests.
    """
    return max(1, min([len(affinity()) or os.cpu_count() or 1, *(int(quota) for quota in _quotas(root))]))


def threads(processes: int = 1) -> int:
    """Threads for each of `processes` that run at once: as OMP_NUM_THREADS says, else an equal share of the cores."""
    asked = os.environ.get(THREADS, "").partition(",")[0].strip()  # of nested loops the first level
    if asked.isdecimal() and int(asked) > 0:
        return int(asked)
    return max(1, cores() // processes)


def affinity() -> tuple[int, ...]:
    """Numbers of the cores that this process may run on; empty where the system does not say."""
    try:
        return tuple(sorted(os.sched_getaffinity(0)))
    except (AttributeError, OSError):  # not on macOS and Windows; refused in some containers
        return ()


def pin(where: tuple[int, ...]) -> bool:
    """Bind this process to some cores; False if the system does not allow it."""
    try:
        os.sched_setaffinity(0, where)
    except (AttributeError, OSError):
        return False
    return True


def _quotas(root: Path) -> Iterator[float]:
    """Quota of processor time, in cores, of each control group of this process and of the groups above."""
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
    """Mount point of each hierarchy of control groups, this process's path in it, and its version (1 or 2)."""
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
    """Contents of a system file; empty if it cannot be read."""
    try:
        return path.read_text()
    except OSError:
        return ""
