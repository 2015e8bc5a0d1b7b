"""Labelled images to train on. One file a source; the file name is the name.

`load(source)` takes the name of a data set that needs no path (`digits`), the path of a folder or a parquet
file (its format is recognised), or the dotted name of a module of yours. Images are decoded once, to square
RGB of one side, and kept in a cache from which they are mapped, not read.

A source is a module with one class `Dataset`. The files of this folder are such modules, all but those that
begin with an underscore; so is yours, and this is all of it:

    class Dataset:
        classes = ("cat", "dog")                       # label i is classes[i]
        note = ""                                      # one line for the user, or nothing
        files = tuple(sorted(Path("pets").glob("*.jpg")))   # the cache is keyed by them; () for no cache

        def items(self, split):                        # "train" or "val"; the same order at every call
            if split == "train":
                return [(file, int(file.name.startswith("dog"))) for file in self.files]
            return None                                # no such split: mvnas holds out 20 % of "train"

An item is `(image, label)` or `(image, label, place)`. The image is a path, the bytes of an encoded image, or
a uint8 array (height, width) or (height, width, 3); the place names it in errors. `items` may be a generator.
An attribute `flip = False` says that mirrored images are other things, as digits are.
`Dataset` is made without arguments; the three formats here are made with the path.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType

from mvnas import trust
from mvnas.datasets._cache import cached
from mvnas.datasets._data import Data, Item, Source, Split
from mvnas.datasets._decode import DECODER, decode
from mvnas.errors import DataError, unknown

__all__ = ["Data", "Item", "Source", "Split", "load"]

FORMATS = frozenset({"cifar", "folder", "parquet"})
CIFAR_FILES = {"data_batch_1", "data_batch_1.bin", "train.bin", "batches.meta", "batches.meta.txt"}


def load(
    source: str, *, cache: Path | None = None, skip_broken: bool = False, seed: int = 0, foreign: bool = False
) -> Data:
    """The images of `source`, decoded, split and checked; equal at every call with equal arguments.

    `digits` is the data set, and `./digits` a path of that name. `cache` is
    `$XDG_CACHE_HOME/mvnas`, or `~/.cache/mvnas`. `seed` draws the validation split where the source has none. `foreign` says that a file
    named the source, such as a study: a module is then run only if it is trusted (`mvnas.trust`).

    >>> data = load("digits")
    >>> data.classes[:3], data.side, data.train.images.shape, data.train.images.dtype
    (('0', '1', '2'), 32, (1195, 3, 32, 32), dtype('uint8'))

    Raises: DataError if there is no such source, or if its images or labels cannot be trained on.
    """
    dataset, files = _open(source, foreign)
    holdout = seed if dataset.items("val") is None else None
    build = partial(decode, dataset, holdout=holdout, skip_broken=skip_broken)
    flip = getattr(dataset, "flip", True)
    if not files:
        return replace(build(), name=source, flip=flip)
    home = cache or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "mvnas"
    settings = [DECODER, type(dataset).__module__, holdout, skip_broken]
    return replace(cached(home / _key(settings, files), build), name=source, flip=flip)


def _open(source: str, foreign: bool = False) -> tuple[Source, tuple[Path, ...]]:
    """The data set that `source` names, and the files that its cached images depend on."""
    path = Path(source).expanduser()
    names = {module.name for module in iter_modules(__path__) if not module.name.startswith("_")}
    if source in names - FORMATS:
        dataset = import_module(f"{__name__}.{source}").Dataset()
    elif source and path.exists():
        dataset = import_module(f"{__name__}.{_recognise(path)}").Dataset(path)
    elif source in FORMATS:
        raise DataError(f"{source} images are read from a path, but got only the word {source!r}; give the path")
    elif not all(part.isidentifier() for part in source.split(".")):
        raise DataError(f"the data must exist, but there is no {source!r} in {Path.cwd()}; check the path")
    elif "." not in source:
        raise DataError(f"{unknown('dataset', source, names - FORMATS)}, any path, any dotted module")
    else:
        if foreign:
            trust.check(source)
        module = _own_module(source)
        dataset = module.Dataset()
        if not isinstance(dataset, Source):
            raise DataError(f"{source}.Dataset must have classes, note, files and items; see mvnas.datasets")
        code = [Path(module.__file__)] if module.__file__ and dataset.files else []
        return dataset, (*code, *dataset.files)
    return dataset, tuple(dataset.files)


def _own_module(name: str) -> ModuleType:
    """The user's module `name`, which defines a class `Dataset`."""
    try:
        module = trust.module(name, DataError)
    except ImportError as error:
        raise DataError(
            f"the data must be a path that exists or a module that imports, but {name!r} is no path in "
            f"{Path.cwd()} and its import says: {error}; check the spelling"
        ) from error
    if not hasattr(module, "Dataset"):
        raise DataError(f"the module {name} must define a class Dataset, but has none; see mvnas.datasets")
    return module


def _recognise(path: Path) -> str:
    """The format of the images at `path`, from file names alone."""
    if path.is_file():
        if path.suffix == ".parquet":
            return "parquet"
        raise DataError(f"the data must be a folder or a .parquet file, but {path} is neither; unpack it first")
    files = {entry.name for entry in path.iterdir() if entry.is_file()}
    if files & CIFAR_FILES or files >= {"train", "meta"}:
        return "cifar"
    if any(name.endswith(".parquet") for name in files) or any(path.glob("data/*.parquet")):
        return "parquet"
    return "folder"


def _key(settings: list[object], files: Iterable[Path]) -> str:
    """A name for the decoded images: equal settings and untouched files, equal name."""
    stamps: list[tuple[str, int, int]] = []
    for file in files:
        try:
            stat = file.stat()
            stamps.append((str(file.resolve()), stat.st_size, stat.st_mtime_ns))
        except OSError:  # a dangling link: the decoder will name it as a broken image
            stamps.append((str(file), -1, -1))
    return hashlib.sha256(json.dumps([settings, stamps]).encode()).hexdigest()[:20]
