"""Laws of a dataset, for whoever writes one. In a test file of yours:

from mvnas.testing.dataset import DatasetContract

class TestMine(DatasetContract):
    data = "mine.pets"  # as --data names it
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from mvnas.data import Data, load


class DatasetContract:
    """Images are squares with a target each, the splits are there, apart, and the same at every call."""

    data: str

    def test_images_are_squares_with_a_target_each(self) -> None:
        data = _load(self.data)
        for split in (data.train, data.val, data.test):
            assert split.images.dtype == np.uint8 and split.images.shape == (len(split), 3, data.side, data.side)
            assert split.targets.dtype in (np.int64, np.float32)
            if split is not data.test:
                assert len(split)
            if data.classes:
                known, found = {*range(len(data.classes))}, {*split.targets.tolist()}
                assert split.targets.ndim == 1 and (found <= known if split is data.test else found == known)

    def test_it_is_the_same_at_every_call(self, tmp_path: Path) -> None:
        first, again = _load(self.data), load(self.data, cache=tmp_path)
        assert first.fingerprint == again.fingerprint and first.classes == again.classes
        for one, other in ((first.train, again.train), (first.val, again.val), (first.test, again.test)):
            assert np.array_equal(one.targets, other.targets)

    def test_no_image_is_in_two_splits(self) -> None:
        data = _load(self.data)
        seen = {image.tobytes() for image in data.train.images}
        if len(seen) < len(data.train):
            pytest.skip("images repeat in training, and so may between the splits")
        for split in (data.val, data.test):
            its = {image.tobytes() for image in split.images}
            assert not its & seen
            seen |= its


@cache
def _load(data: str) -> Data:
    return load(data)
