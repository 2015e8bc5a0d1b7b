"""Laws of what a process takes of a machine: no more cores than it was given, and as many threads as its user says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mvnas.engines import Images, engine
from mvnas.measuring.clock import core_groups, pinned
from mvnas.system.machine import THREADS, affinity, cores, threads

MOUNT = "30 20 0:26 {top} {mount} rw,nosuid - {kind} cgroup rw{options}\n"


def system(root: Path, groups: str, mounts: str, files: dict[str, str]) -> Path:
    """A folder with a system's files."""
    for place, text in {"proc/self/cgroup": groups, "proc/self/mountinfo": mounts, **files}.items():
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).write_text(text)
    return root


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of 64 cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)
    monkeypatch.delenv(THREADS, raising=False)


V2 = MOUNT.format(top="/", mount="/sys/fs/cgroup", kind="cgroup2", options="")
V1 = MOUNT.format(top="/", mount="/sys/fs/cgroup/cpu,cpuacct", kind="cgroup", options=",cpu,cpuacct")
INSIDE = MOUNT.format(top="/docker/ab", mount="/sys/fs/cgroup/cpu", kind="cgroup", options=",cpu")
OTHER = MOUNT.format(top="/", mount="/sys/fs/cgroup/memory", kind="cgroup", options=",memory")


@pytest.mark.parametrize(
    ("groups", "mounts", "files", "found"),
    [
        ("0::/\n", V2, {"sys/fs/cgroup/cpu.max": "400000 100000\n"}, 4),
        ("0::/a/b\n", V2, {"sys/fs/cgroup/a/b/cpu.max": "max 100000\n"}, 64),
        (
            "0::/a/b\n",
            V2,
            {"sys/fs/cgroup/a/cpu.max": "250000 100000\n", "sys/fs/cgroup/a/b/cpu.max": "max 100000\n"},
            2,
        ),
        ("0::/\n", V2, {"sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),
        ("0::/\n", V2, {}, 64),
        (
            "3:cpu,cpuacct:/job\n2:memory:/\n",
            V1 + OTHER,
            {
                "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us": "800000\n",
                "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us": "100000\n",
            },
            8,
        ),
        (
            "3:cpu:/docker/ab\n",
            INSIDE,
            {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "300000", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"},
            3,
        ),
        (
            "3:cpu:/\n",
            V1,
            {
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
            },
            64,
        ),
        (
            "3:cpu:/\n0::/\n",
            V1 + V2,
            {
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "600000",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
            },
            6,
        ),
    ],
)
def test_cores_are_those_that_control_groups_give_time_for(
    groups: str, mounts: str, files: dict[str, str], found: int, many: None, tmp_path: Path
) -> None:
    assert cores(system(tmp_path, groups, mounts, files)) == found


def test_cores_are_no_more_than_those_of_the_affinity_and_need_no_files(
    many: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cores(tmp_path) == 64
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5}, raising=False)
    assert cores(system(tmp_path, "0::/\n", V2, {"sys/fs/cgroup/cpu.max": "400000 100000\n"})) == 2
    assert affinity() == (3, 5)


def test_threads_are_a_share_of_the_cores_or_what_the_user_says(many: None, monkeypatch: pytest.MonkeyPatch) -> None:
    each = cores()
    assert [threads(), threads(3), threads(1000)] == [each, max(1, each // 3), 1]
    for said, wanted in (("5", 5), ("7,2", 7), ("0", each), ("all", each)):
        monkeypatch.setenv(THREADS, said)
        assert threads() == wanted
    monkeypatch.setenv(THREADS, "5")
    assert [worker.threads for worker in engine("processes", Images("digits"), workers=2)._workers] == [5, 5]


def test_where_pinning_is_refused_timings_are_made_without(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int, where: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setaffinity", refuse, raising=False)
    assert core_groups(2) == [()]
    with pinned((0,)) as nothing:
        assert nothing is None
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: refuse(pid, None), raising=False)
    assert core_groups(1) == [()] and affinity() == () and cores() >= 1


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system pins no processes")
def test_pinning_ends_as_it_began() -> None:
    before = os.sched_getaffinity(0)
    with pinned((min(before),)):
        assert os.sched_getaffinity(0) == {min(before)}
    assert os.sched_getaffinity(0) == before
