"""Tables of images, as the Hugging Face hub and `save_to_disk` write them: .parquet or .arrow, a row an image."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from mvnas.data import Item
from mvnas.data._splits import PURPOSES, split_of
from mvnas.data._tree import TABLES, files, listed
from mvnas.errors import DataError, quoted

ROWS, BYTES = 256, 64_000_000  # read at a time: so many rows, or fewer if they are large
BOMB = 100  # times that a column of images, which are compressed already, may be compressed again
METADATA = 10_000_000  # bytes of JSON
CLASSES, LONGEST = 100_000, 200  # of classes, and of letters in the name of one
IMAGES = re.compile(r"image|img|picture|photo|path|file", re.IGNORECASE)  # in names of columns
LABELS = re.compile(r"label|class|target|categor", re.IGNORECASE)
FIRST = ("image", "img", "label", "labels")  # what decides between several columns


class Columns(NamedTuple):
    """What to read of a table: images, labels, names of classes if it has them; and other labels, left out."""

    image: str
    label: str
    names: tuple[str, ...]
    unused: tuple[str, ...]


class Dataset:
    """The rows of the files of each split, files in the order of their paths.

    Class names are those in the metadata; without them a class is called by its label.
    """

    def __init__(self, path: Path) -> None:
        self._root = path if path.is_dir() else path.parent
        parts, notes = _parts(path)
        columns = {file: _columns(file) for its in parts.values() for file in its}
        first = next(iter(columns))
        self._columns = columns[first]
        for file, its in columns.items():
            if its[:3] != self._columns[:3]:
                raise DataError(
                    f"all files must have the same columns and name the classes alike, but {file} differs from {first}:"
                    f" {_shown(its)}, and {_shown(self._columns)}; write them with one schema"
                )
        _, label, names, unused = self._columns
        for split in names and ("val", "test"):
            held = parts.get(split, [])
            if held and set().union(*(_distinct(file, label) for file in held)) == {-1}:
                notes.append(f"left out: {listed(file.name for file in parts.pop(split))} (no labels)")
        self._parts = parts
        read = [file for its in parts.values() for file in its]
        labels = range(len(names)) if names else sorted(set().union(*(_distinct(file, label) for file in read)))
        self._number = {label: i for i, label in enumerate(labels)}
        self.classes = names or tuple(map(str, labels))
        self.files = (*read, *sorted({image for file in read for image in self._named(file)}))
        chosen = [f"classes are column {label}, not {listed(unused)}"] if unused else []
        self.note = "; ".join([*chosen, *notes])

    def items(self, split: str) -> Iterator[Item] | None:
        return self._rows(self._parts[split]) if split in self._parts else None

    def _rows(self, parts: list[Path]) -> Iterator[Item]:
        for file in parts:
            row = 0
            for images, labels in _batches(file, self._columns):
                for image, label in zip(images, labels, strict=True):
                    place = f"{file} row {row}"
                    if label is None:
                        raise DataError(f"every row must have a label, but {place} has none; add it")
                    content, name = _content(image)
                    source = self._path(file, name, place) if content is None and name else content or b""
                    yield Item(source, self._number.get(label, label), place)
                    row += 1

    def _named(self, file: Path) -> Iterator[Path]:
        """The files of images that a table only names."""
        if file.suffix.lower() == ".parquet" and _holds_all(file, self._columns.image):
            return
        for images, _ in _batches(file, self._columns):
            kept = images.field("bytes") if _has(images.type, "bytes") else images
            if pa.types.is_string(kept.type) or kept.null_count:
                for i, image in enumerate(images):
                    content, name = _content(image)
                    if content is None and name:
                        yield self._path(file, name, f"{file} row {i}")

    def _path(self, file: Path, name: str, place: str) -> Path:
        """The file that a row names, beside the table or in the folder of the data, and nowhere else."""
        root = self._root.resolve()
        found = [path for path in (file.parent / name, self._root / name) if path.resolve().is_relative_to(root)]
        if not found:
            raise DataError(
                f"a row must hold its image or name one in the folder of the data, but {place} names {quoted(name)};"
                " write the images into the table"
            )
        return next((path for path in found if path.exists()), found[0])


def _parts(path: Path) -> tuple[dict[str, list[Path]], list[str]]:
    """The files of each split, and notes on what is taken and what is not."""
    if path.is_file():
        return {"train": [path]}, []
    found = sorted(file for file in files(path) if file.suffix.lower() in TABLES and not file.name.startswith("cache-"))
    splits: dict[str, dict[int, list[Path]]] = defaultdict(lambda: defaultdict(list))  # by how likely the name is
    sets: set[str] = set()
    left: list[Path] = []
    for file in found:
        above = [name for name in file.relative_to(path).parts[:-1] if name != "data"]
        named = next(filter(None, map(split_of, (file.stem, *reversed(above)))), None)
        if named:
            splits[named.kind][0 if named.kind == "train" else named.rank].append(file)
            sets.add("/".join(name for name in above if not split_of(name)))
        else:
            left.append(file)
    if not splits:
        return {"train": found}, [f"took {listed(file.name for file in found)} to train"]
    if len(sets) > 1:
        raise DataError(
            f"there must be one data set, but {path} has {listed(sorted(sets))}; give the path of one of these folders"
        )
    if "train" not in splits:
        raise DataError(
            f"tables must be named after splits, one of them train, but {path} has"
            f" {listed(file.name for file in found)}; rename them, or give the path of one file"
        )
    ranked = {kind: [its for _, its in sorted(splits[kind].items())] for kind in PURPOSES if kind in splits}
    parts = {kind: its[0] for kind, its in ranked.items()}
    unused = [file for its in ranked.values() for others in its[1:] for file in others]
    told = ", ".join(f"{_names(its, path)} to {PURPOSES[kind]}" for kind, its in parts.items())
    reasons = ((unused, "another is used"), (left, "no split"))
    return parts, [
        f"took {told}",
        *(f"left out: {_names(its, path)} ({reason})" for its, reason in reasons if its),
    ]


def _names(its: list[Path], path: Path) -> str:
    return listed(str(file.relative_to(path)) for file in its)


def _columns(file: Path) -> Columns:
    """What to read of a table. Raises: DataError unless there is a column of images and one of labels, or if it is a
    bomb.
    """
    with _readable(file):
        schema = pq.read_schema(file) if file.suffix.lower() == ".parquet" else _arrow_schema(file)
    features = _features(schema, file)
    types = dict(zip(schema.names, schema.types, strict=True))
    images = [name for name, kind in types.items() if _has(kind, "bytes") or _has(kind, "path") or _is_binary(kind)]
    images = images or [name for name, kind in types.items() if pa.types.is_string(kind) and IMAGES.search(name)]
    images = [name for name in images if _field(features, name).get("_type") == "Image"] or images
    labels = [name for name in types if _class_names(features, name)]
    known = [name for name, kind in types.items() if _is_label(kind) and name not in images]
    labels = labels or [name for name in known if LABELS.search(name)]
    labels = labels or [name for name in known if pa.types.is_integer(types[name])]
    if not images or not labels or (len(labels) > 1 and not any(map(LABELS.search, labels))):
        found = ", ".join(f"{name} ({str(kind)[:60]})" for name, kind in types.items())
        raise DataError(
            "a table must have a column of images (struct of bytes, path) and one of labels (integer or text), but"
            f" {file} has {found[:120] or 'none'}; rename or convert them"
        )
    image = min(images, key=_order)
    label = min(labels, key=lambda name: (_order(name), -len(_class_names(features, name))))
    if file.suffix.lower() == ".parquet":
        _check_size(file, image)
    return Columns(image, label, _class_names(features, label), tuple(name for name in labels if name != label))


def _order(name: str) -> int:
    return FIRST.index(name) if name in FIRST else len(FIRST)


def _has(kind: pa.DataType, field: str) -> bool:
    return bool(pa.types.is_struct(kind) and kind.get_field_index(field) >= 0)


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_label(kind: pa.DataType) -> bool:
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_integer(value) or pa.types.is_string(value) or pa.types.is_large_string(value))


def _features(schema: pa.Schema, file: Path) -> dict[str, Any]:
    """What the hub's metadata says of the columns, in the schema or beside the file; nothing if it is not there."""
    for content in ((schema.metadata or {}).get(b"huggingface"), file.parent / "dataset_info.json"):
        try:
            size = content.stat().st_size if isinstance(content, Path) else len(content or b"")
            if size > METADATA:
                raise DataError(
                    f"metadata must be at most {METADATA:,} bytes, but those of {file} are {size:,}; leave them out"
                )
            told = json.loads(content.read_bytes() if isinstance(content, Path) else content or b"{}")
            info = told.get("info", told)
            if isinstance(found := info.get("features"), dict):
                return found
        except (OSError, ValueError, AttributeError, RecursionError):
            continue
    return {}


def _field(features: dict[str, Any], name: str) -> dict[str, Any]:
    told = features.get(name)
    return told if isinstance(told, dict) else {}


def _class_names(features: dict[str, Any], name: str) -> tuple[str, ...]:
    """The names that metadata give to the values of a column; none if they are no list of different ones."""
    told = _field(features, name).get("names")
    names = tuple(map(str, told)) if isinstance(told, list) else ()
    return names if len(set(names)) == len(names) else ()


def _shown(columns: Columns) -> str:
    return f"{columns.image}, {columns.label} of {listed(columns.names) or 'no names'}"


def _check_size(file: Path, image: str) -> None:
    """Raises: DataError if a file would become much more than it is."""
    with _readable(file):
        about = pq.read_metadata(file)
        rows, size = about.num_rows, file.stat().st_size
        packed = unpacked = 0
        for group in range(about.num_row_groups):
            for chunk in _chunks(about.row_group(group), image):
                packed, unpacked = packed + chunk.total_compressed_size, unpacked + chunk.total_uncompressed_size
    if rows > size or (unpacked > BYTES and unpacked > BOMB * packed):
        raise DataError(
            f"a table of images must not be far larger than its file, but {file} has {rows:,} rows and"
            f" {unpacked / 1e6:,.0f} MB of images in {size / 1e6:,.1f} MB; write it anew"
        )


def _chunks(group: Any, image: str | None) -> Iterator[Any]:
    for i in range(group.num_columns):
        if (chunk := group.column(i)).path_in_schema.partition(".")[0] == image:
            yield chunk


def _holds_all(file: Path, image: str) -> bool:
    """Whether every row of a parquet file is known to hold the bytes of its image."""
    with _readable(file):
        about = pq.read_metadata(file)
        chunks = [chunk for group in range(about.num_row_groups) for chunk in _chunks(about.row_group(group), image)]
    content = [chunk for chunk in chunks if chunk.path_in_schema in (image, f"{image}.bytes")]
    return bool(content) and all(
        not pa.types.is_string(pq.read_schema(file).field(image).type)
        and chunk.statistics
        and chunk.statistics.null_count == 0
        for chunk in content
    )


def _batches(file: Path, columns: Columns) -> Iterator[tuple[Any, list[Any]]]:
    """Arrays of images, and lists of their labels; images that are the same are held once."""
    with _readable(file):
        for batch in _stored(file, columns.label, columns.image):
            yield batch.column(columns.image), batch.column(columns.label).to_pylist()


def _distinct(file: Path, label: str) -> set[Any]:
    """The labels of a file. Raises: DataError if they are no classes."""
    found: set[Any] = set()
    with _readable(file):
        for batch in _stored(file, label):
            found.update(batch.column(label).unique().to_pylist())
            if len(found) > CLASSES or any(isinstance(name, str) and len(name) > LONGEST for name in found):
                raise DataError(
                    f"labels must be of at most {CLASSES:,} classes, with names of at most {LONGEST} letters, but"
                    f" column {label} of {file} has others; convert them"
                )
    return found - {None}


def _stored(file: Path, label: str, image: str | None = None) -> Iterator[Any]:
    """Record batches of a file with these columns."""
    if file.suffix.lower() != ".parquet":
        yield from _arrow_batches(file, [label, *([image] if image else [])])
        return
    kind = pq.read_schema(file).field(image).type if image else None
    whole = [image] if image else []
    parts = [f"{image}.{part}" for part in ("bytes", "path") if kind and _has(kind, part)] or whole
    with pq.ParquetFile(file, read_dictionary=parts) as table:
        for group in range(table.num_row_groups):  # each has dictionaries of its own, which do not join
            about = table.metadata.row_group(group)
            size = sum(chunk.total_uncompressed_size for chunk in _chunks(about, image))
            rows = max(1, min(ROWS, BYTES * about.num_rows // size)) if size > 0 else 100 * ROWS
            yield from table.iter_batches(rows, row_groups=[group], columns=[label, *parts])


def _arrow_batches(file: Path, columns: list[str]) -> Iterator[Any]:
    with _arrow(file) as reader:
        for batch in reader:
            part = batch.select(columns)
            part.validate(full=True)  # else a damaged file could make pyarrow read beyond its end
            yield part


def _arrow_schema(file: Path) -> pa.Schema:
    with _arrow(file) as reader:
        return reader.schema


@contextmanager
def _arrow(file: Path) -> Iterator[Any]:
    """A reader of an arrow file, a stream as `save_to_disk` writes it or a file with an index."""
    with pa.memory_map(str(file)) as source:
        if source.read(6) == b"ARROW1":
            reader = pa.ipc.open_file(source)
            yield _Indexed(reader)
        else:
            source.seek(0)
            yield pa.ipc.open_stream(source)


class _Indexed:
    """An arrow file with an index, read like a stream."""

    def __init__(self, reader: Any) -> None:
        self.schema, self._reader = reader.schema, reader

    def __iter__(self) -> Iterator[Any]:
        return map(self._reader.get_batch, range(self._reader.num_record_batches))


def _content(image: Any) -> tuple[bytes | None, str | None]:
    """Bytes and path of an image as it is stored; text alone is a path."""
    if not isinstance(image, pa.StructScalar):
        told = image.as_py()
        return (None, told) if isinstance(told, str) else (told, None)
    if not image.is_valid:
        return None, None
    fields = set(image)
    content = image["bytes"].as_py() if "bytes" in fields else None
    return content, image["path"].as_py() if content is None and "path" in fields else None


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeError) as error:
        told = " ".join(str(error).split())[:120]
        raise DataError(f"a table must be whole and readable, but {file} is not ({told}); fetch it again") from error
