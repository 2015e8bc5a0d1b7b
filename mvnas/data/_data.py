"""What a data set is: before decoding (`Source`, `Item`) and after it (`Data`, `Split`)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

SAMPLED = 1024
SIDED = re.compile(r"^(\d+|[^\W\d_])$|(?<![a-z])(left|right)(?![a-z])", re.IGNORECASE)


class Item(NamedTuple):
    """An image as its source holds it, a path, encoded bytes, or a uint8 array (H, W[, 3]), and what is to be said of
    it.

    `target` is the number of a class, or where the source has no classes a number or an array of numbers.
    """

    image: Path | bytes | np.ndarray
    target: Any
    place: str = ""


@runtime_checkable
class Source(Protocol):
    """What every class `Dataset` offers; the docstring of `mvnas.data` explains it by example."""

    classes: Sequence[str] | None
    note: str
    files: Sequence[Path]

    def items(self, split: str) -> Iterable[tuple[Any, ...]] | None:
        """The items of `split` ("train", "val" or "test") in an order that never changes; None: no such split."""


@dataclass(frozen=True, eq=False)
class Split:
    """Images, uint8 (N, 3, side, side) in RGB, possibly a read-only map of a file, and what is to be said of each.

    `targets` are (N,) or (N, ...): numbers of classes, int64, or where the data has no classes int64 or float32.
    """

    images: np.ndarray
    targets: np.ndarray

    def __len__(self) -> int:
        return len(self.targets)

    def parts(self) -> Iterator[bytes]:
        """What tells a split from another: all targets, and the middle row of up to 1,024 images spread evenly."""
        yield self.targets.tobytes()
        step = -(-len(self.images) // SAMPLED) or 1
        yield self.images[::step, :, self.images.shape[-1] // 2].tobytes()

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits that change with any target, the sizes or the look of the images."""
        return hashlib.sha256(b"".join((repr(self.images.shape).encode(), *self.parts()))).hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class Data:
    """A data set ready for training: every class, if it has `classes`, has images in `train` and `val`.

    A search trains on `train` and chooses by `val`; `test` is for judging what was chosen, at the end, and may be empty
    where there are too few images.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    val: Split
    test: Split
    note: str = ""
    skipped: int = 0
    flip: bool = True  # whether a mirrored image is still of its class

    @property
    def side(self) -> int:
        """Height and width of every image, in pixels."""
        return int(self.train.images.shape[-1])

    @property
    def sided(self) -> str:
        """A class whose mirrored images may be of another, by its name (a number, a letter, a side); or empty."""
        return next((name for name in self.classes if SIDED.search(name)), "")

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits that change with the classes, and of what scores come from, `train` and `val`, with any target,
        the sizes or the look of the images; `test` has its own.
        """
        told = repr((self.classes, self.train.images.shape, self.val.images.shape)).encode()
        return hashlib.sha256(b"".join((told, *self.train.parts(), *self.val.parts()))).hexdigest()[:16]
