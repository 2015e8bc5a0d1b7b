"""Marks of images, by which a study tells them from others."""

from __future__ import annotations

from pathlib import Path

from mvnas.data._data import Data
from mvnas.system.marks import code_mark


def data_marks(data: Data) -> dict[str, str]:
    """Marks of the images, and of the user's module that they are from, if they are from one."""
    module = "." in data.name and not Path(data.name).expanduser().exists()
    code = {"data.code": code_mark(data.name)} if module else {}
    return {"data": data.fingerprint} | code
