"""Predicted and real sizes of the TFLite files of all published networks, in every precision.

    python benchmarks/file_size.py [NETWORK ...]

Files are made with arbitrary weights, and in int8 with arbitrary ranges: neither changes how long they are.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from mvnas.backends import backend
from mvnas.costs._filesize import file_bytes
from mvnas.nn import arbitrary
from mvnas.spaces.arch import PRECISIONS
from mvnas.spaces.space import Space
from mvnas.spaces.zoo import published


def sizes(name: str, precisions: Sequence[str], folder: Path) -> list[tuple[float, int]]:
    """Predicted and real bytes of a network at each precision."""
    arch = Space.load(name).arch()
    graph = arch.graph().deployed()
    weights, rows = arbitrary(graph), []
    for precision in precisions:
        path = folder / f"{name}.tflite"
        backend("tflite", precision=precision).export(graph, path, weights)
        rows.append((file_bytes(replace(arch, precision=precision)), path.stat().st_size))
        path.unlink()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*", default=published())
    args = parser.parse_args()
    print(f"{'MB, predicted / real':24}" + "".join(f"{precision:>26}" for precision in PRECISIONS))
    worst = dict.fromkeys(PRECISIONS, 0.0)
    with TemporaryDirectory() as folder:
        for name in args.networks:
            cells = ""
            for precision, (told, real) in zip(PRECISIONS, sizes(name, list(PRECISIONS), Path(folder)), strict=True):
                error = told / real - 1
                worst[precision] = max(worst[precision], abs(error))
                cells += f"{told / 1e6:>9.3f} /{real / 1e6:>8.3f} {error:>+7.2%}"
            print(f"{name:24}{cells}")
    print(f"{'largest error':24}" + "".join(f"{error:>26.2%}" for error in worst.values()))


if __name__ == "__main__":
    main()
