"""Decoded images on disk: a folder each, complete or absent."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mvnas.datasets._data import Data, Split
from mvnas.errors import DataError


def cached(folder: Path, build: Callable[..., Data]) -> Data:
    """The data kept in `folder`, which `build(folder=...)` fills first where it is absent.

    It is filled under another name and renamed, so that a kill in between leaves nothing that is ever read.
    """
    if not folder.is_dir():
        part = _part(folder)
        try:
            _write(part, build(folder=part))
            os.replace(part, folder)
        except OSError:
            if not folder.is_dir():  # else another process was faster, with the same content
                raise
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return _read(folder)


def _part(folder: Path) -> Path:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise DataError(
            f"the image cache must be writable, but {error}; set XDG_CACHE_HOME to a folder of yours"
        ) from error


def _write(folder: Path, data: Data) -> None:
    """Completes `folder`, which holds the images, with all that is not an image."""
    about = {"classes": data.classes, "note": data.note, "skipped": data.skipped}
    (folder / "data.json").write_text(json.dumps(about))
    for split, part in (("train", data.train), ("val", data.val)):
        np.save(folder / f"{split}.labels.npy", part.labels)


def _read(folder: Path) -> Data:
    try:
        about = json.loads((folder / "data.json").read_text())
        splits = {}
        for split in ("train", "val"):
            labels = np.load(folder / f"{split}.labels.npy")
            images = np.load(folder / f"{split}.npy", mmap_mode="r")[: len(labels)]
            splits[split] = Split(images, labels)
        classes = tuple(about["classes"])
        return Data("", classes, train=splits["train"], val=splits["val"], note=about["note"], skipped=about["skipped"])
    except (OSError, EOFError, ValueError, KeyError) as error:
        raise DataError(f"the image cache {folder} is damaged ({error}); delete that folder") from error
