"""A data set that tells how many of its images were read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from mvnas.data._data import Source
from mvnas.system.progress import Progress


class Told:
    """A source that reports each item that is taken; their number is known of lists, or from the second pass on."""

    def __init__(self, source: Source, tell: Progress) -> None:
        self.source, self.tell = source, tell
        self._totals: dict[str, int] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.source, name)

    def items(self, split: str) -> Iterable[tuple[Any, ...]] | None:
        items = self.source.items(split)
        if items is None:
            return None
        if isinstance(items, list | tuple):
            self._totals[split] = len(items)
        return self._taken(split, items)

    def _taken(self, split: str, items: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
        done = 0
        for done, item in enumerate(items, 1):
            yield item
            self.tell(f"reading {split} images", done, self._totals.get(split, 0))
        self._totals[split] = done
