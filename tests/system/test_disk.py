"""Laws of writing: whole or not at all, one sentence where it cannot be, locks in files of their own."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mvnas.errors import FileError, StudyError
from mvnas.system import disk


def busy() -> StudyError:
    return StudyError("busy")


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    with disk.whole(path) as part:
        part.write_text("all")
        assert not path.exists() and part.parent == path.parent
    assert path.read_text() == "all" and os.listdir(path.parent) == ["a.txt"]
    with pytest.raises(ZeroDivisionError), disk.whole(path) as part:
        _ = part.write_text("half") / 0
    assert path.read_text() == "all" and os.listdir(path.parent) == ["a.txt"]


def test_a_folder_appears_whole_and_takes_the_place_of_no_other(tmp_path: Path) -> None:
    path = tmp_path / "package"
    with disk.whole(path, folder=True) as part:
        (part / "data").write_text("1")
    assert (path / "data").read_text() == "1"
    with pytest.raises(FileError, match="package must be writable"), disk.whole(path, folder=True) as part:
        (part / "data").write_text("2")
    assert (path / "data").read_text() == "1" and os.listdir(tmp_path) == ["package"]


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_modes_follow_the_umask(mask: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        with disk.whole(tmp_path / "a") as part:
            part.unlink()
            os.close(os.open(part, os.O_WRONLY | os.O_CREAT, 0o600))  # as a library may
        assert (tmp_path / "a").stat().st_mode & 0o777 == 0o666 & ~mask
    finally:
        os.umask(before)


def test_parts_that_a_kill_left_are_removed_and_those_in_the_making_are_not(tmp_path: Path) -> None:
    path = tmp_path / "a[1].txt"
    code = f"""
import os
from pathlib import Path
from mvnas.system import disk
with disk.whole(Path({str(path)!r})) as part:
    part.write_text("half")
    os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", code], check=False)
    assert len(os.listdir(tmp_path)) == 1
    with disk.whole(path) as first:
        assert os.listdir(tmp_path) == [first.name]
        with disk.whole(path) as second:
            assert first.exists() and second.exists()
    assert os.listdir(tmp_path) == [path.name]


def test_a_complete_file_or_folder_takes_the_place_of_what_is_there(tmp_path: Path) -> None:
    for text in ("old", "new"):
        with disk.work_folder(tmp_path / "out") as work:
            (work / "a").write_text(text)
            (work / "package").mkdir(mode=0o700)
            (work / "package" / text).write_text(text)
            (work / "package" / text).chmod(0o600)
            assert work.stat().st_mode & 0o777 == 0o700
            for name in ("a", "package"):
                disk.put(work / name, tmp_path / "out" / name)
    out, mask = tmp_path / "out", os.umask(0)
    os.umask(mask)
    assert (out / "a").read_text() == "new" and os.listdir(out / "package") == ["new"]
    assert (out / "package").stat().st_mode & 0o777 == 0o777 & ~mask
    assert (out / "package" / "new").stat().st_mode & 0o777 == 0o666 & ~mask
    assert sorted(os.listdir(out)) == ["a", "package"]
    with disk.work_folder(out) as work:
        (work / "a").touch()
        with pytest.raises(FileError, match="package must be writable"):
            disk.put(work / "a", out / "package")
    assert sorted(os.listdir(out)) == ["a", "package"]


def test_work_folders_that_a_kill_left_are_removed_and_those_in_use_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = """
import os
from mvnas.system import disk
with disk.work_folder() as work:
    (work / "half").touch()
    os.kill(os.getpid(), 9)
"""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    subprocess.run([sys.executable, "-c", code], check=False, env=os.environ | {"TMPDIR": str(tmp_path)})
    assert len(os.listdir(tmp_path)) == 1
    with disk.work_folder() as first, disk.work_folder() as second:
        assert sorted(os.listdir(tmp_path)) == sorted((first.name, second.name))
    assert os.listdir(tmp_path) == []


def test_without_a_temporary_folder_the_advice_is_to_name_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp', '/var/tmp']")

    monkeypatch.setattr("tempfile.gettempdir", none)
    with pytest.raises(FileError, match="set TMPDIR to a folder of yours"), disk.work_folder():
        pass


def test_a_pipe_is_written_as_it_is(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    disk.write_text(tmp_path / "pipe", "text")
    assert os.read(reader, 9) == b"text" and (tmp_path / "pipe").is_fifo()
    os.close(reader)


@pytest.mark.parametrize(
    ("name", "told"),
    [("file/a", "file must be writable"), ("folder", "folder must be writable"), ("x" * 300, "take a shorter name")],
)
def test_what_cannot_be_written_is_one_sentence_with_its_place(name: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "x").touch()
    with pytest.raises(FileError, match=told) as raised:
        disk.write_text(tmp_path / name, "text")
    assert "\n" not in str(raised.value)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's /dev/full")
def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    with (
        pytest.raises(FileError, match="free some space"),
        disk.whole(tmp_path / "a"),
        open("/dev/full", "wb", 0) as full,
    ):
        full.write(b"x")
    assert os.listdir(tmp_path) == []


def test_a_lock_is_a_file_of_its_own_that_goes_with_it(tmp_path: Path) -> None:
    path = tmp_path / "s.lock"
    with disk.locked(path, busy):
        with pytest.raises(StudyError, match="busy"), disk.locked(path, busy):
            pass
        assert path.exists()
    assert not path.exists()


def test_one_at_a_time_holds_a_lock_that_many_want(tmp_path: Path) -> None:
    path, inside, most = tmp_path / "s.lock", [0], [0]

    def work() -> None:
        for _ in range(200):
            try:
                with disk.locked(path, busy):
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                    inside[0] -= 1
            except StudyError:
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]


def test_a_lock_follows_no_link_and_truncates_nothing(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "s.lock").symlink_to("mine.txt")
    with pytest.raises(FileError, match="must be writable"), disk.locked(tmp_path / "s.lock", busy):
        pass
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_a_file_system_without_locks_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(file: int, how: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    told = "No locks available; name a place on a local disk"
    with pytest.raises(FileError, match=told), disk.locked(tmp_path / "s.lock", busy):
        pass
    disk.write_text(tmp_path / "a", "files are written without")
    assert (tmp_path / "a").exists()


def test_folders_of_the_user_without_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(Path, "home", no_home)
    assert disk.cache_home() == tmp_path / "mvnas"
    assert (tmp_path / "mvnas").stat().st_mode & 0o777 == 0o700
    (tmp_path / "mvnas").rmdir()
    (tmp_path / "mvnas").symlink_to("elsewhere")
    with pytest.raises(FileError):
        disk.private_folder()
