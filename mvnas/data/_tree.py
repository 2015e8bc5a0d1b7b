"""What lies in a folder of data: links are followed, cycles are not, and what is no data is passed over."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from mvnas.data._pixels import suffixes
from mvnas.data._splits import split_of
from mvnas.errors import DataError

OURS = (".weights", ".resting", ".longer", ".verified")  # ends of the folders that lie beside a study
MARKS = {"*card.json": "written by mvnas", "pyvenv.cfg": "a virtual environment"}  # files in folders that are no data
SYSTEM = (".", "__", "@", "$")  # how names begin that a system, a NAS or an archiver gives
TABLES = (".parquet", ".arrow")
CIFAR = frozenset({"data_batch_1", "data_batch_1.bin", "train.bin", "batches.meta", "batches.meta.txt"})
TOLD = 3  # names that a list spells out


def entries(folder: Path) -> list[Path]:
    """What lies in a folder, by name, without what a system put there. Raises: DataError if it cannot be read."""
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith(SYSTEM))
    except OSError as error:
        raise DataError(
            f"the folders of the data must be readable, but of {folder} the system says: {error.strerror}; mend its"
            " mode"
        ) from error


def subfolders(folder: Path) -> list[Path]:
    """Folders of data in a folder, links to such among them."""
    return [entry for entry in entries(folder) if _is_folder(entry) and not is_foreign(entry)]


def foreign(folder: Path) -> dict[Path, str]:
    """Folders in a folder that are never data, and why."""
    return {entry: why for entry in entries(folder) if _is_folder(entry) and (why := is_foreign(entry))}


def is_foreign(folder: Path) -> str:
    """Why a folder is never data, as mvnas's own are; empty if it may be."""
    if folder.name.endswith(OURS):
        return MARKS["*card.json"]
    return next((why for mark, why in MARKS.items() if any(folder.glob(mark))), "")


def files(folder: Path) -> Iterator[Path]:
    """All files under a folder, in linked folders too, each folder once; in no particular order."""
    seen: set[str] = set()
    waiting = [folder]
    while waiting:
        place = waiting.pop()
        real = os.path.realpath(place)
        if real in seen or (place != folder and _holds(real, os.path.realpath(place.parent))):
            continue
        seen.add(real)
        for entry in entries(place):
            if not _is_folder(entry):
                yield entry
            elif not is_foreign(entry):
                waiting.append(entry)


def is_image(file: Path) -> bool:
    """Whether a regular file has the name of an image; broken links count too, so that they are reported."""
    if file.suffix.lower() not in suffixes():
        return False
    try:
        return stat.S_ISREG(file.stat().st_mode)
    except OSError:
        return True


def is_data(file: Path) -> bool:
    """Whether a file is one that images are read from, by its name."""
    return file.suffix.lower() in TABLES or file.name in CIFAR or file.name == "meta" or is_image(file)


def has_data(folder: Path) -> bool:
    """Whether there are images somewhere under a folder."""
    return any(map(is_data, files(folder)))


def inside(folder: Path, *, split: bool = False) -> Path:
    """The folder that holds the data: further in, where all that is here is one folder of folders, if that is no split.

    In a `split` a folder that is called like one is no other, as in `train/train/`.
    """
    while not any(is_data(entry) for entry in entries(folder) if not _is_folder(entry)):
        full = [entry for entry in subfolders(folder) if has_data(entry)]
        if len(full) != 1 or is_class(full[0]) or (split_of(full[0].name) and not split):
            break
        folder = full[0]
    return folder


def listed(what: Iterable[str]) -> str:
    """Some names, and how many more there are."""
    names = list(what)
    more = f" and {len(names) - TOLD} more" if len(names) > TOLD else ""
    return ", ".join(names[:TOLD]) + more


def is_class(folder: Path) -> bool:
    """Whether a folder holds images and no folders of them."""
    return any(map(is_image, entries(folder))) and not any(map(has_data, subfolders(folder)))


def _is_folder(entry: Path) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _holds(folder: str, other: str) -> bool:
    """Whether `folder` is `other` or above it: a link to it leads around in a circle."""
    return os.path.commonpath((folder, other)) == folder
