"""Tensors of files that hold weights: safetensors, and what `torch.save` wrote, read without running any code of it."""

from __future__ import annotations

import pickle
import warnings
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mvnas.errors import ExportError
from mvnas.ops import State

HOLDERS = (
    "state_dict_ema",
    "model_ema",
    "state_dict",
    "model",
)  # of weights in a checkpoint; averaged ones are the published
PREFIXES = ("module.", "_orig_mod.", "model.")  # of data parallelism, torch.compile and Lightning
SAVED = (b"PK", b"\x80")  # how files of torch.save begin: as zip, or as bare pickle
DEPTH = 4  # holders within holders


def read_tensors(path: str | Path) -> State:
    """The weights in a file, by name.

    Raises:
        ExportError: it is not there, or holds no weights that can be read without running code.
    """
    try:
        with Path(path).open("rb") as stream:
            begin = stream.read(9)
            if not begin.startswith(SAVED) or begin.endswith(b"{"):  # after the length of safetensors' header
                return load_file(path)
            stream.seek(0)
            with (
                torch.serialization.safe_globals([Namespace]),
                warnings.catch_warnings(),
            ):  # timm's arguments, plain data
                warnings.simplefilter("ignore")
                return weights_of(torch.load(stream, map_location="cpu", weights_only=True))
    except (OSError, SafetensorError) as error:
        raise ExportError(
            f"weights must be a safetensors file or one of torch.save, but {path} cannot be read as one"
            f" ({error!s:.100})"
        ) from None
    except ExportError as error:
        raise ExportError(f"{path}: {error}") from None
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError, LookupError, TypeError, AttributeError):
        raise ExportError(
            f"weights must be a state dict of tensors, but {path} holds objects that only code could make, or is"
            " damaged; where you trust it, save torch.load(FILE, weights_only=False).state_dict() anew"
        ) from None


def weights_of(saved: Any) -> State:
    """The weights in what a checkpoint holds: under the names of what it is kept in, without the prefixes of wrappers.

    Raises:
        ExportError: there are none.
    """
    for _ in range(DEPTH):
        holders = [
            saved[name] for name in HOLDERS if isinstance(saved, Mapping) and isinstance(saved.get(name), Mapping)
        ]
        if not holders:
            break
        saved = holders[0]
    tensors = (
        {name: value for name, value in saved.items() if isinstance(value, Tensor)}
        if isinstance(saved, Mapping)
        else {}
    )
    if not tensors or not all(isinstance(name, str) for name in tensors):
        raise ExportError("weights must be tensors by name, alone or under state_dict or model, but there are none")
    return {_bare(name): value for name, value in tensors.items() if name != "n_averaged"}


def _bare(name: str) -> str:
    """A name without prefixes."""
    prefix = next((prefix for prefix in PREFIXES if name.startswith(prefix)), "")
    return _bare(name.removeprefix(prefix)) if prefix else name
