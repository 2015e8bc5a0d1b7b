"""The handwritten digits that come with scikit-learn: small enough to try everything, too easy to compare."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from mvnas.data import Item


class Dataset:
    """1,797 grey digits of 8x8 pixels, split in one fixed way: of each class the last third validates, and the first
    tenth of the others is for the test.

    The file is ordered by writer, so most validation and test digits are by hands that the training has not seen.
    """

    classes = tuple("0123456789")
    note = "demo data: the 8x8 digits of scikit-learn, upsampled to 32x32; not a benchmark"
    files: tuple[Path, ...] = ()
    flip = False

    def __init__(self) -> None:
        images, labels = load_digits(return_X_y=True)
        grey = np.round(images * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8)
        splits = np.full(len(labels), "train", dtype="<U5")
        for label in range(10):
            members = np.flatnonzero(labels == label)
            others = 2 * len(members) // 3
            splits[members[others:]] = "val"
            splits[members[: others // 10]] = "test"
        self._items: dict[str, list[Item]] = {"train": [], "val": [], "test": []}
        for image, label, split in zip(grey, labels, splits, strict=True):
            self._items[split].append(Item(image, label))

    def items(self, split: str) -> list[Item]:
        return self._items[split]
