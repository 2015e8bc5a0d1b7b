"""From items to squares: side, splits, pixels, and the checks on the way."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from operator import index
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import UnidentifiedImageError

from mvnas.data._data import Data, Item, Source, Split
from mvnas.data._pixels import cropped, formats, largest, opened
from mvnas.errors import DataError, MvnasError, quoted

DECODER = 3  # part of the cache key: raise it when the pixels or the splits of an unchanged file change
SMALLEST, LARGEST, SAMPLED = 32, 320, 256
HELD_OUT = 0.2
TESTED, MOST_TESTED = 10, 5000  # one of so many training images is cut for a test, and of a large set so many
WORDS = {"train": "training", "val": "validation", "test": "test"}

Classes = tuple[str, ...] | None  # None where targets are numbers of any kind


def decode(dataset: Source, *, given: Container[str], seed: int, skip_broken: bool, folder: Path | None = None) -> Data:
    """All images of `dataset`, as arrays in memory or as the bytes of `train.images`, `val.images` and `test.images` in
    `folder`.

    `given` are the splits beside training that the source has; others are drawn from the training items by `seed`.
    The side is the median short side of a sample of the training images, between 32 and 320 pixels.
    """
    largest()  # a mistake there should not wait for the first image
    classes = None if dataset.classes is None else tuple(map(str, dataset.classes))
    side, masks = _plan(dataset, classes, given, seed, skip_broken)
    _check_space(folder, sum(int(mask.sum()) for mask in masks.values()) * 3 * side**2)
    broken: list[str] = []
    remarks: Counter[str] = Counter()
    splits = {}
    for split, mask in masks.items():
        origin = split if split in given else "train"
        kept = (item for item, keep in zip(_items(dataset, origin, classes), mask, strict=True) if keep)
        file = folder / f"{split}.images" if folder else None
        shape = (int(mask.sum()), 3, side, side)
        splits[split] = _gather(kept, shape, file, broken if skip_broken else None, remarks)
    if broken:
        _check_survivors(classes, splits, broken)
    notes = (
        *_cut(classes, masks, given),
        f"{_count(len(broken), 'broken image')} skipped" if broken else "",
        *(f"{_count(count, 'image')} {remark}" for remark, count in sorted(remarks.items())),
    )
    train, val, test = splits.values()
    return Data("", classes or (), train, val, test, "; ".join(filter(None, notes)), len(broken))


def _cut(classes: Classes, masks: dict[str, np.ndarray], given: Container[str]) -> Iterator[str]:
    """What is to be told of splits that were drawn from the training items."""
    whole = "them" if classes is None else "each class"
    if "val" not in given:
        yield f"no validation images given: {HELD_OUT:.0%} of {whole} held out"
    if "test" not in given:
        count, total = int(masks["test"].sum()), len(masks["test"])
        share = f"{1 / TESTED:.0%} of {whole}" if total <= TESTED * MOST_TESTED else f"{count:,} of them"
        yield "no test images given: " + (f"{share} held out" if count else "too few to hold any out")


def _plan(
    dataset: Source, classes: Classes, given: Container[str], seed: int, skip_broken: bool
) -> tuple[int, dict[str, np.ndarray]]:
    """Side in pixels, and for each split a mask of the items it takes: its own or the training items."""
    if classes is not None and len(classes) < 2:
        raise DataError(
            f"there must be at least two classes, but got {len(classes)} ({', '.join(classes) or 'none'}); "
            f"add images of another class{f' ({dataset.note})' if dataset.note else ''}"
        )
    targets, side = _survey(dataset, "train", classes, skip_broken)
    _check(classes, targets, "train")
    own = {split: _own(dataset, split, classes, targets, skip_broken) for split in ("val", "test") if split in given}
    left = np.ones(len(targets), bool)
    masks = {"train": left}
    for split, draw in (("val", _held_out), ("test", _tested)):
        if split in given:
            masks[split] = np.ones(len(own[split]), bool)
        else:
            masks[split] = draw(targets, left, classes, seed)
            left &= ~masks[split]
    return side, masks


def _own(dataset: Source, split: str, classes: Classes, training: np.ndarray, skip_broken: bool) -> np.ndarray:
    """Targets of a split that the source has. Raises: DataError if they cannot stand beside those of training."""
    targets, _ = _survey(dataset, split, classes, skip_broken)
    _check(classes, targets, split)
    if targets.shape[1:] != training.shape[1:]:
        raise DataError(
            f"targets must be of one shape, but training has {training.shape[1:]} and {WORDS[split]}"
            f" {targets.shape[1:]}; mend them"
        )
    return targets


def _items(dataset: Source, split: str, classes: Classes) -> Iterator[Item]:
    """The items of a split, each with a place to name in an error. Raises: DataError for whatever the source raises."""
    i = 0
    try:
        for i, (image, target, *place) in enumerate(dataset.items(split) or ()):
            spot = str(image) if isinstance(image, Path) else f"item {i} of {split}"
            yield Item(image, _numbers(target) if classes is None else index(target), *(place or (spot,)))
    except MvnasError:
        raise
    except Exception as error:
        raise DataError(
            f"items of {split} must be (image, label) or (image, label, place), but about item {i} "
            f"{type(dataset).__module__} says: "
            f"{_reason(error)}; mend it"
        ) from error


def _numbers(target: object) -> np.ndarray:
    """What is to be said of an image, where there are no classes: int64 or float32. Raises: TypeError, ValueError."""
    found = np.asarray(target)
    if found.dtype.kind not in "iuf":
        raise TypeError(f"a target must be a number or an array of numbers, but one is {quoted(target)}")
    found = found.astype(np.float32 if found.dtype.kind == "f" else np.int64)
    if not np.isfinite(found).all():
        raise ValueError("a target must be finite, but one is not")
    return found


def _stacked(targets: Sequence[Any]) -> np.ndarray:
    """Targets of images as one array: (N, ...)."""
    found = np.array(targets) if targets else np.empty(0, np.int64)
    return found.astype(np.float32 if found.dtype.kind == "f" else np.int64, copy=False)


def _survey(dataset: Source, split: str, classes: Classes, skip_broken: bool) -> tuple[np.ndarray, int]:
    """Targets of a split, (N, ...), and the side in pixels that suits a sample of its images."""
    targets: list[Any] = []
    sides: list[int] = []
    stride = 1
    for i, item in enumerate(_items(dataset, split, classes)):
        if classes is None and item.target.shape != (targets or [item.target])[0].shape:
            raise DataError(
                f"targets must be of one shape, but {item.place} has {item.target.shape} and the first of {split} "
                f"{targets[0].shape}; mend them"
            )
        if classes is not None and not 0 <= item.target < len(classes):
            raise DataError(
                f"a label must be in 0..{len(classes) - 1}, one a class, but {item.place} has {item.target}; "
                "mend the labels or the class names"
            )
        targets.append(item.target)
        if i % stride:
            continue
        try:
            with opened(item.image) as picture:
                sides.append(min(picture.size))
        except Exception as error:
            if not skip_broken:
                raise _broken(item, error) from error
        if len(sides) > SAMPLED:  # thin out, so that the sample stays spread over a split of any length
            sides, stride = sides[::2], 2 * stride
    side = int(median(sides)) if sides else SMALLEST
    return _stacked(targets), min(max(side, SMALLEST), LARGEST)


def _gather(
    items: Iterable[Item],
    shape: tuple[int, ...],
    file: Path | None,
    broken: list[str] | None,
    remarks: Counter[str],
) -> Split:
    """The decoded items, at most `shape[0]` of them; those that fail are told to `broken`, or raised.

    Raises: OSError if the file cannot be written.
    """
    targets: list[Any] = []

    def decoded() -> Iterator[np.ndarray]:
        for item in items:
            try:
                image = cropped(item.image, shape[-1], remarks)
            except Exception as error:  # Pillow's readers raise a dozen kinds
                if broken is None:
                    raise _broken(item, error) from error
                broken.append(item.place)
            else:
                targets.append(item.target)
                yield image

    if file is None:
        images = np.empty(shape, np.uint8)
        for i, image in enumerate(decoded()):
            images[i] = image
        return Split(images[: len(targets)], _stacked(targets))
    with file.open("wb") as stream:  # and not through a map, for which a full disk is the end of the process
        for image in decoded():
            stream.write(image.tobytes())
    kept = (len(targets), *shape[1:])
    images = np.memmap(file, np.uint8, "r", shape=kept) if targets else np.empty(kept, np.uint8)
    return Split(images, _stacked(targets))


def _broken(item: Item, error: Exception) -> DataError:
    if isinstance(error, UnidentifiedImageError):  # its own text holds the address of a buffer
        reason = f"it is none of {', '.join(formats())}"
    else:
        reason = _reason(error)
    return DataError(
        f"every image must decode, but {item.place} does not ({reason}); "
        "mend or remove it, or leave such images out with --skip-broken"
    )


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' * (count > 1)}"


def _held_out(targets: np.ndarray, free: np.ndarray, classes: Classes, seed: int) -> np.ndarray:
    """Mask of a validation split, bool (N,): a fifth, of each class if there are any, at least one image."""
    rng = np.random.default_rng(seed)
    held = np.zeros(len(targets), bool)
    if classes is None:
        if len(targets) < 2:
            raise DataError("there must be two images to be split, but there is one; add images")
        held[rng.permutation(len(targets))[: max(1, round(HELD_OUT * len(targets)))]] = True
        return held
    for label, name in enumerate(classes):
        members = rng.permutation(np.flatnonzero(targets == label))
        if len(members) < 2:
            raise DataError(f"each class must have two images to be split, but {name!r} has one; add images")
        held[members[: max(1, round(HELD_OUT * len(members)))]] = True
    return held


def _tested(targets: np.ndarray, free: np.ndarray, classes: Classes, seed: int) -> np.ndarray:
    """Mask of a test split of what is `free`, bool (N,): a tenth, of each class if there are any, and of large sets the
    share that makes 5,000; at least one image, but never the last.
    """
    rng = np.random.default_rng([seed, 1])  # another stream than that of validation images
    held = np.zeros(len(targets), bool)
    for of in [np.ones(len(targets), bool)] if classes is None else [targets == i for i in range(len(classes))]:
        wanted = min(of.sum() // TESTED, of.sum() * MOST_TESTED // len(targets))
        members = rng.permutation(np.flatnonzero(of & free))
        held[members[: min(max(1, wanted), len(members) - 1)]] = True
    return held


def _check(classes: Classes, targets: np.ndarray, split: str) -> None:
    """Raises: DataError if the split is empty, or a class is missing from it that must be there to train or choose."""
    told = WORDS[split]
    if not len(targets):
        raise DataError(f"the {told} split must hold images, but it is empty; add images to it")
    if classes is None or split == "test":
        return
    present = set(targets.tolist())
    missing = [repr(name) for i, name in enumerate(classes) if i not in present]
    if missing:
        raise DataError(
            f"every class must have {told} images, but {', '.join(missing)} has none; "
            f"add images to the {told} split or remove the class from both"
        )


def _check_survivors(classes: Classes, splits: dict[str, Split], broken: list[str]) -> None:
    """Raises: DataError if skipping broken images has emptied a split or a class; it names the first."""
    try:
        _check(classes, splits["train"].targets, "train")
        _check(classes, splits["val"].targets, "val")
    except DataError as error:
        total = len(broken) + sum(map(len, splits.values()))
        told, _, _ = str(error).partition("; ")
        raise DataError(
            f"{told}; mend them: {len(broken)} of {total} images are broken, the first: {broken[0]}"
        ) from error


def _check_space(folder: Path | None, needed: int) -> None:
    """Raises: DataError if the disk is too full; writing to a map of a full disk would end the process."""
    if folder and shutil.disk_usage(folder).free < needed:
        raise DataError(
            f"the decoded images need {needed / 1e9:.1f} GB of cache, but {folder.parent} has less left; "
            "free some space or set XDG_CACHE_HOME to another disk"
        )
