"""The files beside a study: weights of its frontier, and checkpoints of candidates that rest.

Each is on the disk before the record of it, and holds a checksum: what is cut, empty, altered or another's counts as
missing.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvnas.ops import State
from mvnas.spaces.rows import Picks
from mvnas.strategies import key_of
from mvnas.studies.place import NAME, file_of, masked
from mvnas.system import disk

if TYPE_CHECKING:
    from mvnas.training import Checkpoint

SUM = "sha256"  # of a file of weights, among its metadata
LARGEST = 100 << 20  # bytes of a header of safetensors, by its format
WEIGHTS = re.compile(r"\d+\.safetensors")  # what is ours in a folder of ours
RESTING = re.compile(r"[0-9a-f]{16}\.pt")
DIGEST = sha256().digest_size  # bytes at the end of a checkpoint


class StudyFiles:
    """Files of the study at `place`: beside its own, or here if it is in a database elsewhere.

    `setup` is how it began, as it was written: checkpoints of a study that began in another way are not taken for its
    own.
    """

    def __init__(self, place: str, setup: Mapping[str, Any]) -> None:
        path = file_of(place)
        if path is None:  # drivers of several databases may run in one folder
            self.folder, self._stem = Path(), f"{NAME}-{sha256(_address(place).encode()).hexdigest()[:8]}"
        else:
            path = path.resolve() if path.is_symlink() else path
            stems = {".db": path.stem, "": f"{path.name}.study"}  # s, s.db and s.sqlite may lie side by side
            self.folder, self._stem = path.parent, stems.get(path.suffix, path.name)
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
        _remove(path for path in _ours(self.subfolder("weights"), WEIGHTS) if path not in kept)

    def _checkpoint(self, picks: Picks, rung: int) -> Path:
        """File of where a candidate rests at a rung, named by what was trained and how."""
        name = sha256(repr((key_of(picks), rung, self._began_as)).encode()).hexdigest()[:16]
        return self.subfolder("resting") / f"{name}.pt"

    def save_checkpoint(self, picks: Picks, rung: int, checkpoint: Checkpoint) -> None:
        """Keep where a candidate rests."""
        path = self._checkpoint(picks, rung)
        with disk.whole(path) as part:
            checkpoint.save(part)
            with part.open("r+b") as file:
                digest = _digest(path, file.read())
                file.write(digest)

    def checkpoint(self, picks: Picks, rung: int) -> Checkpoint | None:
        """Where a candidate rests at a rung; None if that was not kept whole, or another machine has it."""
        from mvnas.training import Checkpoint

        path = self._checkpoint(picks, rung)
        with suppress(Exception):  # whatever is wrong with it, the candidate begins anew
            told = path.read_bytes()
            if told[-DIGEST:] == _digest(path, memoryview(told)[:-DIGEST]):
                return Checkpoint.load(io.BytesIO(told[:-DIGEST]))
        return None

    def keep_checkpoints(self, rests: Iterable[tuple[Picks, int]]) -> None:
        """Remove all checkpoints but those of these candidates at these rungs."""
        kept = {self._checkpoint(*rest) for rest in rests}
        _remove(path for path in _ours(self.subfolder("resting"), RESTING) if path not in kept)


def save_whole(state: State, path: Path) -> None:
    """Write weights to a file, whole or not at all, with a checksum of them among its metadata."""
    from safetensors.torch import save

    told = save(state)
    size = int.from_bytes(told[:8], "little")
    head, data = json.loads(told[8 : 8 + size]), memoryview(told)[8 + size :]
    head["__metadata__"] = {SUM: _sum_of(head, data)}
    text = json.dumps(head, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at whole words
    with disk.whole(path) as part, part.open("wb") as file:
        file.writelines((len(text).to_bytes(8, "little"), text, data))


def intact(path: Path) -> bool:
    """Whether a file of weights is there and as it was written; of one without a checksum, whether it is whole."""
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if size > LARGEST:
                return False
            head, data = json.loads(file.read(size)), file.read()
        noted = head.pop("__metadata__", {}).get(SUM)
        return max((row["data_offsets"][1] for row in head.values()), default=0) == len(data) and (
            noted is None or noted == _sum_of(head, data)
        )
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return False


def checksum(path: Path) -> str:
    """The checksum that an intact file of `save_whole` holds."""
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        noted: str = file.metadata()[SUM]
    return noted


def _sum_of(head: Mapping[str, Any], data: bytes | memoryview) -> str:
    """Checksum of the tensors of a file: of their names, kinds, shapes and numbers."""
    told = {name: row for name, row in head.items() if name != "__metadata__"}
    made = sha256(json.dumps(told, sort_keys=True).encode())
    made.update(data)
    return made.hexdigest()


def _digest(path: Path, told: bytes | memoryview) -> bytes:
    """Checksum of a checkpoint: of its name, which says whose it is, and what it holds."""
    made = sha256(path.name.encode())
    made.update(told)
    return made.digest()


def _address(place: str) -> str:
    """A database without who uses it, and how."""
    return masked(place).partition("://")[2].rpartition("@")[2].partition("?")[0]


def _ours(folder: Path, name: re.Pattern[str]) -> list[Path]:
    """The files of a folder that studies make, by their names; users may keep others there."""
    return [path for path in folder.glob("*") if name.fullmatch(path.name) and path.is_file()]


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        disk.remove(path)
