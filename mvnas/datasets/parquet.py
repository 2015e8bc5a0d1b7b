"""Parquet files in the layout of the Hugging Face hub: `image` is struct(bytes, path), `label` an integer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mvnas.datasets import Item
from mvnas.errors import DataError


class Dataset:
    """The rows of train*.parquet, and of val*.parquet (else of test*.parquet), files in the order of names.

    Class names are those in the metadata of the schema; without them a class is called by its label.
    """

    def __init__(self, path: Path) -> None:
        self._parts, self.note = _parts(path)
        self.files = tuple(file for files in self._parts.values() for file in files)
        schemas = {file: _schema(file) for file in self.files}
        names = _names(schemas[self.files[0]])
        for file, schema in schemas.items():
            if _names(schema) != names:
                raise DataError(
                    f"all files must name the classes alike, but {self.files[0]} has {names} and {file} has "
                    f"{_names(schema)}; write them with one schema"
                )
        labels = range(len(names)) if names else sorted(set().union(*map(_labels, self.files)))
        self._number = {label: i for i, label in enumerate(labels)}
        self.classes = names or tuple(map(str, labels))

    def items(self, split: str) -> Iterator[Item] | None:
        return self._rows(self._parts[split]) if split in self._parts else None

    def _rows(self, files: list[Path]) -> Iterator[Item]:
        for file in files:
            row = 0
            try:
                with pq.ParquetFile(file) as table:
                    for batch in table.iter_batches(256, columns=["image", "label"]):
                        for image, label in zip(*(column.to_pylist() for column in batch), strict=True):
                            if label is None:
                                raise DataError(f"every row must have a label, but {file} row {row} has none; add it")
                            content = image["bytes"] if image else None
                            yield Item(content or b"", self._number.get(label, label), f"{file} row {row}")
                            row += 1
            except (pa.ArrowException, OSError) as error:
                raise _unreadable(file, error) from error


def _parts(path: Path) -> tuple[dict[str, list[Path]], str]:
    """The files of each split, and a note on files that are left out."""
    if path.is_file():
        return {"train": [path]}, ""
    files = sorted([*path.glob("*.parquet"), *path.glob("data/*.parquet")])
    train, val, test = ([file for file in files if file.name.startswith(p)] for p in ("train", "val", "test"))
    if not train or len(train + val + test) < len(files):
        raise DataError(
            "parquet files must be named train*, val*, validation* or test*, and one train*, but "
            f"{path} has {', '.join(file.name for file in files)}; rename them, or give the path of one file"
        )
    held = val or test
    return {
        "train": train,
        **({"val": held} if held else {}),
    }, "test*.parquet not used" if val and test else ""


def _schema(file: Path) -> pa.Schema:
    """The schema of `file`. Raises: DataError unless it has the two columns."""
    try:
        schema = pq.read_schema(file)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(file, error) from error
    types = dict(zip(schema.names, schema.types, strict=True))
    image, label = types.get("image"), types.get("label")
    is_image = image and pa.types.is_struct(image) and image.get_field_index("bytes") >= 0
    if not (is_image and label and pa.types.is_integer(label)):
        found = ", ".join(f"{name} ({kind})" for name, kind in types.items())
        raise DataError(
            f"a parquet file must have the columns image (struct of bytes, path) and label (integer), but "
            f"{file} has {found or 'none'}; rename or convert them"
        )
    return schema


def _names(schema: pa.Schema) -> tuple[str, ...]:
    """The class names in the hub's metadata; none if they are not there."""
    try:
        hub = json.loads((schema.metadata or {})[b"huggingface"])
        return tuple(hub["info"]["features"]["label"]["names"])
    except (KeyError, TypeError, ValueError):
        return ()


def _labels(file: Path) -> set[int]:
    return set(pq.read_table(file, columns=["label"])["label"].drop_null().to_pylist())


def _unreadable(file: Path, error: Exception) -> DataError:
    return DataError(f"a parquet file must be whole and readable, but {file} is not ({error}); fetch it again")
