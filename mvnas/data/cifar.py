"""The files of CIFAR-10 and CIFAR-100 as their authors publish them, in the Python or the binary version."""

from __future__ import annotations

import codecs
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mvnas.data import Item
from mvnas.errors import DataError

PIXELS = 3 * 32 * 32  # the red plane, then green, then blue, each row by row
TEN = tuple(f"data_batch_{i}" for i in range(1, 6))


@dataclass(frozen=True)
class Layout:
    """Names of the files of one version; `labels` and `names` are pickle keys, `head` counts label bytes."""

    train: tuple[str, ...]
    test: str
    meta: str
    labels: str = ""
    names: str = ""
    head: int = 0

    @property
    def files(self) -> tuple[str, ...]:
        return (*self.train, self.test, self.meta)


LAYOUTS = (
    Layout(TEN, "test_batch", "batches.meta", labels="labels", names="label_names"),
    Layout(("train",), "test", "meta", labels="fine_labels", names="fine_label_names"),
    Layout(tuple(f"{name}.bin" for name in TEN), "test_batch.bin", "batches.meta.txt", head=1),
    Layout(("train.bin",), "test.bin", "fine_label_names.txt", head=2),
)


class Dataset:
    """32x32 images in the order of the files; CIFAR-100 with its 100 fine classes; there is no validation split."""

    note = ""

    def __init__(self, path: Path) -> None:
        self._path = path
        present = {entry.name for entry in path.iterdir()}
        self._layout = max(LAYOUTS, key=lambda layout: len(present.intersection(layout.files)))
        missing = [name for name in self._layout.files if name not in present]
        if missing:
            raise DataError(
                f"CIFAR must have the files {', '.join(self._layout.files)}, but {path} lacks "
                f"{', '.join(missing)}; unpack the archive again"
            )
        self.files = tuple(path / name for name in self._layout.files)
        self.classes = self._class_names(path / self._layout.meta)

    def items(self, split: str) -> Iterator[Item] | None:
        names = {"train": self._layout.train, "test": (self._layout.test,)}.get(split)
        return None if names is None else self._images(names)

    def _images(self, names: Sequence[str]) -> Iterator[Item]:
        for name in names:
            file = self._path / name
            read = _binary if self._layout.head else _pickled
            pixels, labels = read(file, self._layout)
            images = pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
            for i, (image, label) in enumerate(zip(images, labels, strict=True)):
                yield Item(image, int(label), f"{file} image {i}")

    def _class_names(self, file: Path) -> tuple[str, ...]:
        if self._layout.head:
            return tuple(file.read_text(errors="replace").split())
        names = _unpickle(file).get(self._layout.names, ())
        if not isinstance(names, list | tuple):
            names = ()
        return tuple(name.decode(errors="replace") if isinstance(name, bytes) else str(name) for name in names)


def _pickled(file: Path, layout: Layout) -> tuple[np.ndarray, list[int]]:
    """Pixels, uint8 (N, 3072), and labels of one batch of the Python version."""
    batch = _unpickle(file)
    pixels, labels = np.asarray(batch.get("data")), batch.get(layout.labels, [])
    whole = isinstance(labels, list) and all(type(label) is int for label in labels)
    if not whole or pixels.dtype != np.uint8 or pixels.shape != (len(labels), PIXELS):
        raise DataError(
            f"a CIFAR batch must hold data, uint8 (N, {PIXELS}), and {layout.labels}, N integers, but {file} "
            "does not; unpack the archive again"
        )
    return pixels, labels


def _binary(file: Path, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """Pixels, uint8 (N, 3072), and labels, the byte before the pixels, of one batch of the binary version."""
    raw = np.fromfile(file, np.uint8)
    size = layout.head + PIXELS
    if raw.size % size:
        raise DataError(
            f"a CIFAR batch must hold whole records of {size} bytes, but {file} has {raw.size} bytes and is "
            "truncated; unpack the archive again"
        )
    records = raw.reshape(-1, size)
    return records[:, layout.head :], records[:, layout.head - 1]


def _unpickle(file: Path) -> dict[str, Any]:
    """The dict in a CIFAR pickle, its keys as text."""
    try:
        with file.open("rb") as stream:
            content = _ArraysOnly(stream, encoding="bytes").load()
        return {
            key.decode(errors="replace") if isinstance(key, bytes) else key: value for key, value in content.items()
        }
    except Exception as error:  # bytes that are no pickle fail in any way
        raise DataError(
            f"a CIFAR file must be a whole pickle of arrays and lists, but {file} is not ({error}); "
            "unpack the archive again"
        ) from error


class _ArraysOnly(pickle.Unpickler):
    """Reads built-in containers, numbers, text and numpy arrays, and nothing else.

    A pickle is a program: it may name any function of any module and have it called. This reader looks names
    up in a short table, so a batch from a stranger can at worst fail to load. The published files are by
    Python 2: their text arrives as bytes, and their arrays ask for numpy's function of the time.
    """

    def __init__(self, file: BinaryIO, *, encoding: str) -> None:
        super().__init__(file, encoding=encoding)
        rebuild = np.empty(0).__reduce__()[0]  # numpy's own, which has moved between modules
        self._known = {
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
            ("numpy.core.multiarray", "_reconstruct"): rebuild,
            ("numpy._core.multiarray", "_reconstruct"): rebuild,
            ("_codecs", "encode"): _latin1,  # how Python 3 writes bytes for Python 2
        }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._known:
            raise pickle.UnpicklingError(f"it calls {module}.{name}, which is no part of an array")
        return self._known[module, name]


def _latin1(text: str, encoding: object) -> bytes:
    return codecs.latin_1_encode(text)[0]
