"""Small data sets, written as users have them."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def picture(seed: int, side: int = 32) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)


def encoded(array: np.ndarray, kind: str = "png", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()


def write_folder(root: Path, layout: dict[str, int], side: int = 32) -> Path:
    """PNG files: `layout` counts the images of each class folder; image i has seed i, counted over all."""
    seed = 0
    for name, count in layout.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            (root / name / f"{i:03}.png").write_bytes(encoded(picture(seed, side)))
            seed += 1
    return root


def write_parquet(
    file: Path,
    labels: list[int | None],
    names: list[str] | None = None,
    contents: list[bytes | None] | None = None,
) -> Path:
    """A file of the hub's layout; row i shows `picture(i)`."""
    contents = contents or [encoded(picture(i)) for i in range(len(labels))]
    images = [{"bytes": content, "path": f"{i}.png"} for i, content in enumerate(contents)]
    image = pa.array(images, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    table = pa.table({"image": image, "label": pa.array(labels, pa.int64())})
    if names:
        features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, file, row_group_size=2)
    return file


def channels_last(images: np.ndarray) -> np.ndarray:
    return images.transpose(0, 2, 3, 1)
