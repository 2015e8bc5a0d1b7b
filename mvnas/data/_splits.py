"""Names of splits: which part of a data set a folder or a file holds, by the words of its name."""

from __future__ import annotations

import re
from typing import NamedTuple

WORDS = {  # what a split is called, the likeliest first; of several of one kind, the first of this order is taken
    "train": ("train", "training", "trainval"),
    "val": ("val", "valid", "validation", "validate", "dev", "development", "eval", "evaluation", "holdout"),
    "test": ("test", "testing"),
}
PURPOSES = {"train": "train", "val": "validate", "test": "test"}  # what a split is for, as a verb
FILLERS = frozenset({"", "data", "dataset", "folder", "image", "images", "img", "imgs", "set", "split", "splits"})
_KINDS = {word: kind for kind, words in WORDS.items() for word in words}
_RANKS = {word: rank for rank, word in enumerate(_KINDS)}


class Named(NamedTuple):
    """A split by its name: its kind, its index among synonyms, and the words that splits of one set share."""

    kind: str
    rank: int
    beside: tuple[str, ...]


def split_of(name: str) -> Named | None:
    """The split that a name speaks of in one of its words; None if of none, or of several.

    >>> split_of("seg_train"), split_of("TestingSet2")
    (Named(kind='train', rank=0, beside=('seg',)), Named(kind='test', rank=13, beside=()))
    >>> split_of("valley"), split_of("train_or_test")
    (None, None)
    """
    words = [_bare(word.lower()) for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\d_A-Z]+", name)]
    told = [word for word in words if word in _KINDS]
    if len({_KINDS[word] for word in told}) != 1:
        return None
    return Named(_KINDS[told[0]], _RANKS[told[0]], tuple(word for word in words if word not in {*_KINDS, *FILLERS}))


def _bare(word: str) -> str:
    """A word without the filler that is written together with it, as in `trainset`."""
    return re.sub(r"(?<=.)(set|data|images|imgs)$", "", word)
