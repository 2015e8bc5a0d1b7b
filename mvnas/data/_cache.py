"""Decoded images on disk: a folder each, complete or absent."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mvnas.data._data import Data, Split
from mvnas.errors import DataError, FileError
from mvnas.system import disk


def cached(folder: Path, build: Callable[..., Data]) -> Data:
    """The data kept in `folder`, which `build(folder=...)` fills first where it is absent.

    It is filled under another name and renamed, so that a kill in between leaves nothing that is ever read, and what
    one left is removed.

    Raises: DataError if the place cannot be written, or what is there cannot be read.
    """
    try:
        with disk.writing(folder):
            absent = not folder.is_dir()
        if absent:
            _remove_parts(folder.parent)
            with disk.whole(folder, folder=True) as part:
                _write(part, build(folder=part))
    except FileError as error:
        if not _is_there(folder):  # else another process was faster, with the same content
            told, _, _ = str(error).partition("; ")
            raise DataError(
                f"the image cache {told}; set XDG_CACHE_HOME to a folder of yours on a disk with room"
            ) from error
    return _read(folder)


def _remove_parts(home: Path) -> None:
    """Remove what dead processes left of any images."""
    for part in home.glob(f".*{disk.PART}"):
        disk.remove_parts(home / part.name[1:].rsplit(".", 2)[0])


def _is_there(folder: Path) -> bool:
    try:
        return folder.is_dir()
    except OSError:
        return False


def _write(folder: Path, data: Data) -> None:
    """Completes `folder`, which holds the images, with all that is not an image."""
    about = {"classes": data.classes, "note": data.note, "skipped": data.skipped, "side": data.side}
    (folder / "data.json").write_text(json.dumps(about))
    for split, part in (("train", data.train), ("val", data.val), ("test", data.test)):
        np.save(folder / f"{split}.labels.npy", part.targets)


def _read(folder: Path) -> Data:
    try:
        about = json.loads((folder / "data.json").read_text())
        splits = {}
        for split in ("train", "val", "test"):
            targets = np.load(folder / f"{split}.labels.npy")
            shape = (len(targets), 3, about["side"], about["side"])
            file = folder / f"{split}.images"
            images = np.memmap(file, np.uint8, "r", shape=shape) if len(targets) else np.empty(shape, np.uint8)
            splits[split] = Split(images, targets)
        train, val, test = splits.values()
        return Data("", tuple(about["classes"]), train, val, test, about["note"], about["skipped"])
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"the image cache {folder} is damaged ({error}); delete that folder") from error
