"""Writing files whole or not at all, locks between processes, and one sentence for what a file system refuses.

All other modules write by these functions.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from mvnas.errors import FileError, MvnasError

try:
    import fcntl
except ImportError:  # not on Windows, where no lock is held: docs/platforms.md
    fcntl = None  # type: ignore[assignment]

PART = ".part"  # suffix of files that are being written
HELD = (errno.EAGAIN, errno.EACCES)  # errors of a lock that another process holds
ADVICE = {
    errno.ENOSPC: "free some space on its disk",
    errno.EDQUOT: "free some of your quota on its disk",
    errno.EFBIG: "allow larger files there",
    errno.EROFS: "name a place that is not read-only",
    errno.EACCES: "name a place that you may write to",
    errno.EPERM: "name a place that you may write to",
    errno.ENAMETOOLONG: "take a shorter name",
    errno.ENOTDIR: "name a place in a folder",
    errno.EIO: "see whether its disk is sound",
}
DEVICES = ("/dev", "/dev/fd", "/proc/self/fd")  # folders whose entries are devices or open files


@contextmanager
def writing(place: str | Path) -> Iterator[None]:
    """Turn an OSError of the code inside, which writes at `place`, into a FileError of one sentence.

    Raises:
        FileError: the code inside raised an OSError.
    """
    try:
        yield
    except OSError as error:
        raise refused(error, place) from error


def refused(error: OSError, place: str | Path, need: str = "writable") -> FileError:
    """The FileError for an OSError at `place`: what must hold, the system's reason, and what to do."""
    what = error.strerror or str(error).partition("\n")[0] or type(error).__name__
    advice = ADVICE.get(error.errno or 0, "name another place")
    return FileError(f"{place} must be {need}, but the system says: {what}; {advice}")


def make_folder(path: Path) -> Path:
    """Make the folder `path`, with its parents, unless it exists; returns `path`.

    Raises:
        FileError: it cannot be made.
    """
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


@contextmanager
def whole(path: Path, *, folder: bool = False) -> Iterator[Path]:
    """Write `path` atomically, by an empty hidden file (or `folder`) beside it that is renamed at the end.

    Nobody sees `path` half written, not even after a kill or a loss of power. Leftovers of dead processes are removed
    first, and parent folders are made. The mode follows the umask. A folder may replace only an empty one. Devices and
    pipes, such as /dev/stdout, are written directly.

    Raises:
        FileError: it cannot be written. Then nothing is left behind, and what was at `path` is unchanged.
    """
    with writing(path):
        if not folder and _is_device(path):
            yield path
            return
        make_folder(path.parent)
        with _part(path.parent, path.name[-200:], folder=folder) as part:
            yield part
            _finish(part)
            os.replace(part, path)
            _sync(path.parent)


@contextmanager
def work_folder(place: Path | None = None) -> Iterator[Path]:
    """A hidden folder inside `place`, or among temporary files, that is removed when the context ends.

    Leftovers of dead processes are removed first.

    Raises:
        FileError: it cannot be made.
    """
    place = place or _temporary()
    with ExitStack() as stack:
        with writing(place):
            part = stack.enter_context(_part(make_folder(place), "mvnas", folder=True))
        yield part


def put(part: Path, path: Path) -> None:
    """Move a complete file or folder to `path` on the same disk and replace what is there; the mode follows the umask.

    An existing folder is missing for the moment between two renames.

    Raises:
        FileError: it cannot be moved there.
    """
    with writing(path):
        _finish(part)
        if part.is_dir() and path.is_dir() and not path.is_symlink():
            with _part(path.parent, path.name[-200:], folder=True) as old:
                os.replace(path, old)
                os.replace(part, path)
        else:
            os.replace(part, path)
        _sync(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all.

    Raises:
        FileError: it cannot be written.
    """
    with whole(path) as part:
        part.write_text(text, encoding="utf-8")


@contextmanager
def _part(place: Path, name: str, *, folder: bool) -> Iterator[Path]:
    """A hidden file or folder in `place`, locked while in use, and removed at the end unless it was renamed.

    Leftovers of dead processes are removed first.
    """
    remove_parts(place / name)
    while True:
        part = place / f".{name}.{secrets.token_hex(4)}{PART}"
        if folder:
            part.mkdir(mode=0o700)
        else:
            part.touch(exist_ok=False)
        with suppress(FileNotFoundError):
            lock = _hold(part)
            if part.exists():
                break
            if lock is not None:
                os.close(lock)  # another process took it for a dead one's, in the moment before it was held
    try:
        yield part
    finally:
        remove(part)
        if lock is not None:
            os.close(lock)


def _finish(part: Path) -> None:
    """Set the mode of a file, or of a folder and all its contents, and wait until it is on the disk."""
    for path in (part, *part.rglob("*")) if part.is_dir() else (part,):
        if not path.is_symlink():
            _set_mode(path)
            _sync(path)


def _is_device(path: Path) -> bool:
    """Whether a path is a device, a pipe or an open file of this process."""
    return str(path.absolute().parent) in DEVICES or (path.exists() and not path.is_file() and not path.is_dir())


def _temporary() -> Path:
    """Where temporary folders are made."""
    try:
        return Path(tempfile.gettempdir())
    except OSError:
        raise FileError(
            "a folder for temporary files must be writable and have space, but none of the usual ones is; "
            "set TMPDIR to a folder of yours"
        ) from None


def remove_parts(path: Path) -> None:
    """Remove unfinished files of `path` that dead processes left; those of living ones are locked."""
    if not fcntl:
        return
    for part in _listed(path.parent, f".{_literal(path.name[-200:])}.????????{PART}"):
        with suppress(OSError):
            lock = _hold(part)
            if lock is not None:
                remove(part)
                os.close(lock)


def remove(path: Path) -> None:
    """Remove a file, a link or a folder with its contents; nothing happens where that is impossible."""
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def locked(path: Path, busy: Callable[[], MvnasError]) -> Iterator[None]:
    """Hold an exclusive lock by a lock file at `path`, which is removed at the end; links are not followed.

    The lock file is never the protected file itself: macOS and NFS do not keep kinds of locks apart, so our lock would
    block those that SQLite takes on its own file.

    Raises:
        FileError: the file cannot be made, or its file system has no locks.
        MvnasError: the error that `busy` returns, if another process holds the lock.
    """
    if not fcntl:
        yield
        return
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
    while True:
        with writing(path):
            lock = os.open(path, flags, 0o666)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            if error.errno in HELD:
                raise busy() from None
            raise FileError(
                f"{path.parent} must be on a file system with locks, but the system says: {error.strerror}; name a"
                " place on a local disk"
            ) from None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock), path.lstat()):
                break
        os.close(lock)  # who held it before has just removed its file
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        os.close(lock)


def cache_home() -> Path:
    """The folder of this user's caches, which may not exist yet.

    It is `$XDG_CACHE_HOME/mvnas`, else `~/.cache/mvnas`, else a private folder among temporary files.
    """
    named = os.environ.get("XDG_CACHE_HOME")
    if named:
        return Path(named).expanduser() / "mvnas"
    try:
        home = Path.home()  # an error where there is neither HOME nor an entry for the user
        if home.is_dir():
            return home / ".cache" / "mvnas"
    except RuntimeError:
        pass
    return private_folder()


def private_folder() -> Path:
    """A folder that only this user may write to, for locks: in `$XDG_RUNTIME_DIR`, else among temporary files.

    Raises:
        FileError: it cannot be made, or another user made it.
    """
    named = os.environ.get("XDG_RUNTIME_DIR")
    user = os.getuid() if hasattr(os, "getuid") else "user"
    path = Path(named) / "mvnas" if named and Path(named).is_dir() else _temporary() / f"mvnas-{user}"
    with writing(path):
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or (hasattr(os, "getuid") and found.st_uid != os.getuid()):
        raise FileError(
            f"{path} must be a folder of yours, but is another user's; set XDG_RUNTIME_DIR to a folder of yours"
        )
    return path


def _hold(path: Path) -> int | None:
    """A file descriptor that holds a lock on `path`; None if another process holds it or there are no locks."""
    if not fcntl:
        return None
    lock = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return None
    return lock


def _set_mode(path: Path) -> None:
    """Set the mode that the umask gives to new files: some libraries make files for their owner alone."""
    mask = os.umask(0o077)
    os.umask(mask)
    with suppress(OSError):
        path.chmod((0o777 if path.is_dir() else 0o666) & ~mask)


def _sync(path: Path) -> None:
    """Wait until a file, or the entries of a folder, are on the disk, where the file system can say so."""
    if path.is_dir() and os.name == "nt":
        return
    place = os.open(path, os.O_RDONLY)
    try:
        os.fsync(place)
    except OSError as error:
        if error.errno in (errno.EIO, errno.ENOSPC, errno.EDQUOT):
            raise
    finally:
        os.close(place)


def _listed(folder: Path, pattern: str) -> list[Path]:
    """Entries of a folder that match a pattern; none if it cannot be read."""
    with suppress(OSError):
        return list(folder.glob(pattern))
    return []


def _literal(name: str) -> str:
    """A glob pattern that matches one name only."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)
