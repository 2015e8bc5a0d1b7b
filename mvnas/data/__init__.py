"""Images to train on, and what is to be said of each. One file a source; the file name is the name.

`load(source)` takes the name of a data set that needs no path (`digits`), the path of a folder or a table
file (its format is recognised), or the dotted name of a module of yours. Images are decoded once, to square
sRGB of one side, and kept in a cache from which they are mapped, not read.

A folder holds one of these, or one folder of these:

- a sub-folder of images for each class. Folders whose names speak of a split (`train`, `Training`, `seg_train`,
  `training_set`; `val`, `valid`, `dev`, `eval`; `test`, `Testing` ...) hold such sub-folders each. One split is
  trained on, one validates, `val` before `dev` before `eval`, and one is for the test.
- tables, .parquet or the .arrow files of `save_to_disk`, at any depth, their splits by the names of files or
  folders. The image is a struct of bytes and path, bytes, or a path beside the file; the label an integer with
  or without class names, or a text. `label` before others, and of others the one with the most classes.
- the files of CIFAR-10 or CIFAR-100, whose test set is for the test.

A search trains on one split and chooses by validation images. Test images are not looked at before its end. Without
validation images 20 % of each class are held out of training for them, without test images another 10 %, but not more
than 5,000 in all (or one of each class); of numbers as targets, so much of all images.

Formats are JPEG, PNG, WebP, BMP, GIF, PPM, TIFF, AVIF, and HEIC with `pip install 'mvnas[heic]'`.
Pictures are turned upright and converted to sRGB by their colour profiles, of several frames the first is
taken, and transparent parts become white. More than 8 bits a channel are refused, where Pillow does not convert
them itself, and so are more than 120 million pixels, or as many as MVNAS_MAX_PIXELS says.
`Data.note` tells what was taken, what was left out and why. Folders that mvnas wrote are never read.

A source is a module with one class `Dataset`. The files of this folder are such modules, all but those that
begin with an underscore; so is yours, and this is all of it:

    class Dataset:
        classes = ("cat", "dog")                       # label i is classes[i]
        note = ""                                      # one line for the user, or nothing
        files = tuple(sorted(Path("pets").glob("*.jpg")))   # the cache is keyed by them; () for no cache

        def items(self, split):                        # "train", "val" or "test"; the same order at every call
            if split == "train":
                return [(file, int(file.name.startswith("dog"))) for file in self.files]
            return None                                # no such split: mvnas holds out a part of "train"

An item is `(image, label)` or `(image, label, place)`. The image is a path, the bytes of an encoded image, or
a uint8 array (height, width) or (height, width, 3); the place names it in errors. `items` may be a generator.
With `classes = None` there are no classes, and in place of labels items have numbers, or arrays of numbers of one
shape, of which `mvnas.tasks` tells what they are for. A `Dataset` that gives test images gives none for a word that
names no split: one that gives the same for all words but "train" has no test.
An attribute `flip = False` says that mirrored images are other things, as digits are.
`Dataset` is made without arguments; the three formats here are made with the path.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType

from mvnas.data._cache import cached
from mvnas.data._data import Data, Item, Source, Split
from mvnas.data._decode import DECODER, decode
from mvnas.data._marks import data_marks as data_marks
from mvnas.data._told import Told
from mvnas.data._tree import CIFAR, TABLES, entries, files, inside, is_image
from mvnas.errors import DataError, unknown
from mvnas.system import plugins, trust
from mvnas.system.disk import cache_home
from mvnas.system.progress import Progress

__all__ = ["Data", "Item", "Source", "Split", "load"]

NO_SPLIT = "no split"  # a word that names none
FORMATS = frozenset({"cifar", "folder", "parquet"})


def load(
    source: str,
    *,
    cache: Path | None = None,
    skip_broken: bool = False,
    seed: int = 0,
    flip: bool | None = None,
    tell: Progress | None = None,
    foreign: bool = False,
) -> Data:
    """The images of `source`, decoded, split and checked; equal at every call with equal arguments.

    `digits` is the data set, and `./digits` a path of that name. `cache` is
    `$XDG_CACHE_HOME/mvnas`, or `~/.cache/mvnas`. `seed` draws the splits that the source lacks.
    `tell` is called with what is read, how many images of it, and of how many, 0 if that is not known; not where a
    cache has them. `flip` says whether training may mirror the images; None: as the source says, and most do not say
    no. `foreign` says that a file named the source, such as a study: a module is then run only if it is trusted
    (`mvnas.system.trust`).

    >>> data = load("digits")
    >>> data.classes[:3], data.side, data.train.images.shape, data.train.images.dtype
    (('0', '1', '2'), 32, (1079, 3, 32, 32), dtype('uint8'))
    >>> len(data.val), len(data.test)
    (602, 116)

    Raises: DataError if there is no such source, or if its images or labels cannot be trained on.
    """
    dataset, depends = _open(source, foreign)
    given = _given(dataset)
    told = Told(dataset, tell) if tell else dataset
    build = partial(decode, told, given=given, seed=seed, skip_broken=skip_broken)
    if depends:
        home = cache or cache_home()
        classes = dataset.classes and list(map(str, dataset.classes))
        settings = [DECODER, type(dataset).__module__, classes, given, None if len(given) == 2 else seed, skip_broken]
        data = cached(home / _key(settings, depends), build)
    else:
        data = build()
    hidden = f"the folder ./{source} is another: --data ./{source}" if _is_beside(source) else ""
    note = "; ".join(filter(None, (dataset.note, data.note, hidden)))
    return replace(data, name=source, note=note, flip=getattr(dataset, "flip", True) if flip is None else flip)


def _names() -> set[str]:
    """Data sets that need no path."""
    return {*plugins.names(__name__)} - FORMATS


def _is_beside(source: str) -> bool:
    """Whether a name that was taken is that of a path here too."""
    return source in _names() and Path(source).exists()


def _open(source: str, foreign: bool = False) -> tuple[Source, tuple[Path, ...]]:
    """The data set that `source` names, and the files that its cached images depend on."""
    names = _names()
    if source in names:
        dataset = import_module(f"{__name__}.{source}").Dataset()
    elif source and _exists(path := Path(source).expanduser()):
        dataset = _dataset(path)
    elif source in FORMATS:
        raise DataError(f"{source} images are read from a path, but got only the word {source!r}; give the path")
    elif not all(part.isidentifier() for part in source.split(".")):
        raise DataError(f"the data must exist, but there is no {source[:100]!r} in {Path.cwd()}; check the path")
    elif "." not in source:
        raise DataError(f"{unknown('dataset', source, names)}, any path, any dotted module")
    else:
        if foreign:
            trust.check(source)
        module = _own_module(source)
        dataset = module.Dataset()
        if not isinstance(dataset, Source):
            raise DataError(f"{source}.Dataset must have classes, note, files and items; see mvnas.data")
        code = [Path(module.__file__)] if module.__file__ and dataset.files else []
        return dataset, (*code, *dataset.files)
    return dataset, tuple(dataset.files)


def _given(dataset: Source) -> list[str]:
    """The splits beside training that a source has."""
    ours = type(dataset).__module__.startswith(f"{__name__}.")
    has_test = dataset.items("test") is not None if ours else _knows_test(dataset)
    return [split for split, has in (("val", dataset.items("val") is not None), ("test", has_test)) if has]


def _knows_test(dataset: Source) -> bool:
    """Whether a source of the user's has test images; one that never heard of them may raise, or answer to any word."""
    return _gives(dataset, "test") and not _gives(dataset, NO_SPLIT)


def _gives(dataset: Source, split: str) -> bool:
    """Whether a source answers to a word with images."""
    try:
        items = dataset.items(split)
        return items is not None and any(True for _ in items)
    except Exception:  # no such key, no such folder: a source is anybody's
        return False


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name too long, or in a folder that is closed
        return False


def _dataset(path: Path) -> Source:
    """The images at a path."""
    if path.is_dir():
        place = inside(path)
        made: Source = import_module(f"{__name__}.{_recognise(place)}").Dataset(place)
        if place != path:
            made.note = "; ".join(filter(None, (f"read from {place}", made.note)))
        return made
    if path.suffix.lower() not in TABLES:
        raise DataError(
            f"the data must be a folder or a file ending in {' or '.join(TABLES)}, but {path} is neither; unpack it"
            " first"
        )
    made = import_module(f"{__name__}.parquet").Dataset(path)
    return made


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
        raise DataError(f"the module {name} must define a class Dataset, but has none; see mvnas.data")
    return module


def _recognise(folder: Path) -> str:
    """The format of the images in a folder, from file names alone."""
    here = {entry.name for entry in entries(folder) if not entry.is_dir()}
    if here & CIFAR or here >= {"train", "meta"}:
        return "cifar"
    near = (folder, folder / "data") if (folder / "data").is_dir() else (folder,)
    if any(entry.suffix.lower() in TABLES for place in near for entry in entries(place)):
        return "parquet"
    tables = False
    for file in files(folder):
        if is_image(file):
            return "folder"
        tables = tables or file.suffix.lower() in TABLES
    return "parquet" if tables else "folder"


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
