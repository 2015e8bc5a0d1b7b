"""Damaged images and tables: each is read, counted as broken, or refused in one sentence; none raises anything else."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
import pytest
from pictures import encoded, picture, write_folder, write_parquet
from PIL import features

from mvnas.data import load
from mvnas.errors import DataError

KINDS = ["png", "jpeg", "gif", "webp", "bmp", "ppm", "tiff", *(["avif"] if features.check("avif") else [])]
EACH = 13  # damaged files of a kind


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("home")))


def damaged(content: bytes, generator: random.Random) -> bytes:
    """A file with a few bytes changed, most near its ends where its structure is, or cut off."""
    changed = bytearray(content)
    if generator.random() < 0.25:
        return bytes(changed[: generator.randrange(len(changed))])
    for _ in range(generator.choice((1, 1, 3, 20))):
        reach = min(len(changed), generator.choice((64, 1024, len(changed))))
        place = generator.randrange(reach)
        changed[place if generator.random() < 0.5 else -1 - place] = generator.randrange(256)
    return bytes(changed)


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_images_are_read_or_counted(tmp_path: Path, kind: str) -> None:
    generator = random.Random(f"images {kind}")
    write_folder(tmp_path, {"train/a": 1, "train/b": 1, "val/a": 1, "val/b": 1, "test/a": 1, "test/b": 1})
    for i in range(EACH):
        content = damaged(encoded(picture(i), kind), generator)
        (tmp_path / "train" / "ab"[i % 2] / f"x{i}.{kind}").write_bytes(content)
    data = load(str(tmp_path), skip_broken=True)
    assert len(data.train) + data.skipped == 2 + EACH
    if data.skipped:
        with pytest.raises(DataError, match="every image must decode"):
            load(str(tmp_path))


@pytest.mark.parametrize("kind", ["parquet", "stream", "file"])
def test_damaged_tables_are_read_or_refused(tmp_path: Path, kind: str) -> None:
    generator = random.Random(f"tables {kind}")
    source = write_parquet(tmp_path / "whole.parquet", [0, 1] * 5, ["cat", "dog"])
    if kind != "parquet":
        rows = pa.parquet.read_table(source)
        source = tmp_path / "whole.arrow"
        with (pa.ipc.new_stream if kind == "stream" else pa.ipc.new_file)(str(source), rows.schema) as writer:
            writer.write_table(rows, max_chunksize=4)
    sentences = []
    for i in range(16):
        file = tmp_path / f"{i}{source.suffix}"
        file.write_bytes(damaged(source.read_bytes(), generator))
        try:
            load(str(file), skip_broken=True)
        except DataError as error:
            sentences.append(str(error).replace(str(tmp_path), ""))
    assert 0 < len(sentences) < 16
    assert max(map(len, sentences)) <= 300
