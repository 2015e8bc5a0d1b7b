"""What a training computes in: precision, random numbers, and memory that runs out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch

from mvnas.errors import TrainingError


def mixed(device: torch.device) -> torch.autocast:
    """Of training steps: bfloat16 where it is fast, on CUDA; float32 elsewhere."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


@contextmanager
def float32(device: torch.device) -> Iterator[None]:
    """What networks are judged in, as their files compute.

    No lower precision, nor TensorFloat-32, which cuDNN convolves in unasked.
    """
    plain = torch.backends.cudnn.flags(enabled=True, allow_tf32=False) if device.type == "cuda" else nullcontext()
    with torch.autocast(device.type, enabled=False), plain:
        yield


@contextmanager
def reproducible(device: torch.device, seed: int) -> Iterator[None]:
    """Seed what draws from torch's global generators (dropout), and give them back as they were."""
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(cuda):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed all devices
        for one in cuda:
            with torch.cuda.device(one):
                torch.cuda.manual_seed(seed)
        yield


@contextmanager
def memory() -> Iterator[None]:
    """Turn exhausted memory into a TrainingError."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        spent = isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
        if not spent:
            raise
        told = str(error).partition("\n")[0][:150]
        raise TrainingError(
            f"training must fit in memory, but ran out of memory: {told}; search with a smaller --batch"
        ) from error
