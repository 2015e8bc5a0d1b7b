"""The files beside a study: weights of its frontier, and checkpoints of candidates that rest."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvnas.ops import State
from mvnas.record import NAME, key_of
from mvnas.space import Picks

if TYPE_CHECKING:
    from mvnas.training import Checkpoint


class StudyFiles:
    """Files of the study at `place`: beside its own, or here if it is in a database elsewhere.

    `setup` is how it began, as it was written: checkpoints of a study that began in another way are not taken for its own.
    """

    def __init__(self, place: str, setup: Mapping[str, Any]) -> None:
        path = Path(NAME if "://" in place else place)
        self.folder, self._stem = path.parent, path.stem
        self._began_as = json.dumps(setup, sort_keys=True)

    def subfolder(self, kind: str) -> Path:
        """Where files of one kind lie: `s.KIND` beside `s.db`."""
        return self.folder / f"{self._stem}.{kind}"

    def weights(self, number: int) -> Path:
        """File of a candidate's trained weights."""
        return self.subfolder("weights") / f"{number}.safetensors"

    def save_weights(self, number: int, state: State) -> None:
        """Keep a candidate's weights."""
        save_whole(state, self.weights(number))

    def keep_weights(self, numbers: Iterable[int]) -> None:
        """Remove the weights of all other candidates."""
        kept = {self.weights(number) for number in numbers}
        for path in self.subfolder("weights").glob("*.safetensors"):
            if path not in kept:
                path.unlink(missing_ok=True)

    def _checkpoint(self, picks: Picks, rung: int) -> Path:
        """File of where a candidate rests at a rung, named by what was trained and how."""
        name = sha256(repr((key_of(picks), rung, self._began_as)).encode()).hexdigest()[:16]
        return self.subfolder("resting") / f"{name}.pt"

    def save_checkpoint(self, picks: Picks, rung: int, checkpoint: Checkpoint) -> None:
        """Keep where a candidate rests."""
        with _whole(self._checkpoint(picks, rung)) as part:
            checkpoint.save(part)

    def checkpoint(self, picks: Picks, rung: int) -> Checkpoint | None:
        """Where a candidate rests at a rung; None if that was not kept, or another machine has it."""
        from mvnas.training import Checkpoint

        path = self._checkpoint(picks, rung)
        return Checkpoint.load(path) if path.exists() else None

    def keep_checkpoints(self, rests: Iterable[tuple[Picks, int]]) -> None:
        """Remove all checkpoints but those of these candidates at these rungs."""
        kept = {self._checkpoint(*rest) for rest in rests}
        for path in self.subfolder("resting").glob("*"):
            if path.with_suffix(".pt") not in kept:
                path.unlink(missing_ok=True)


def save_whole(state: State, path: Path) -> None:
    """Write weights to a file, whole or not at all."""
    from safetensors.torch import save_file

    with _whole(path) as part:
        save_file(state, part)


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A file to write, that becomes `path` once it is all there."""
    path.parent.mkdir(exist_ok=True)
    part = path.with_suffix(".part")
    yield part
    part.replace(path)
