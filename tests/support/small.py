"""A small space, measured in a moment on the arithmetic backend: what tests search."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from mvnas.backends import backend
from mvnas.engines import engine
from mvnas.measuring.measure import measure
from mvnas.measuring.protocol import Protocol
from mvnas.search import Problem
from mvnas.search import search as search_with
from mvnas.search.problem import from_names
from mvnas.spaces.space import Space
from mvnas.studies.study import Study
from mvnas.training import Schedule

SPACE = """
resolution: [64, 96]
stages:
  - {block: stem, channels: 8}
  - {block: inverted_residual, channels: [8, 16], stride: 2, expand: [1, 2]}
  - {block: inverted_residual, channels: 16, stride: 2, expand: 2, repeat: [1, 2]}
  - {block: mobilevit, dim: [16, 32], layers: [1, 2], heads: 2, patch: [2, 4], mlp: 2}
  - {block: head, channels: [32, 64]}
"""

SHORT = Schedule(epochs=0.1)
PATIENCE = 300.0  # seconds after which a test gives up waiting
ONCE = Protocol(
    op_openings=1,
    op_runs=1,
    op_seconds=0,
    op_patience=0,
    network_runs=1,
    network_seconds=0,
    network_patience=0,
    passes=2,
)


def make_space(folder: Path) -> Path:
    path = folder / "small.yaml"
    path.write_text(SPACE)
    return path


def make_table(folder: Path, space: Path) -> Path:
    """A table of `space` on the arithmetic backend: every one of its kernels, and networks to calibrate on."""
    measure([Space.load(space)], backend("roofline"), folder=folder, ops=1000, networks=12, protocol=ONCE)
    return folder


def make_problem(space: Path, table: Path, budget: str = "20K-params", **settings: object) -> Problem:
    return from_names(budget, space=str(space), device=str(table), **{"schedule": SHORT, **settings})


def search(problem: Problem, **settings: object) -> Study:
    """A search that trains in this process, since a worker takes seconds to start."""
    return search_with(problem, **{"trainer": engine("inline", problem.images), **settings})


def wait_until(what: str, true: Callable[[], object]) -> None:
    """Return once `true` is; fail after PATIENCE seconds."""
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, f"waited in vain until {what}"
        time.sleep(0.02)


def write_images(root: Path, *, classes: int = 10, each: int = 5) -> Path:
    """An image folder of noise, with class sub-folders."""
    generator = np.random.default_rng(0)
    for label in range(classes):
        (root / f"class{label}").mkdir(parents=True)
        for i in range(each):
            Image.fromarray(generator.integers(0, 256, (32, 32, 3), np.uint8)).save(root / f"class{label}" / f"{i}.png")
    return root
