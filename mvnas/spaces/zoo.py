"""The zoo: which networks are published, and of which system a network is."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

from mvnas.spaces.arch import Arch
from mvnas.spaces.reading import data_folder, names, read_yaml
from mvnas.spaces.space import Space


@cache
def published() -> tuple[str, ...]:
    """Names of the shipped networks: the spaces without a choice."""
    folder = data_folder("search_spaces")
    return tuple([name for name in names() if not _holds_list(read_yaml(folder / f"{name}.yaml"))])


def systems(archs: Iterable[Arch]) -> dict[Arch, str]:
    """The system of each network: the shipped space that its published name begins with, or else one that it is a point
    of.

    What is of none goes by its published name, or as "other".
    """
    shipped = [name for name in names() if name not in published()]
    named = {_shipped(name).arch(): name for name in published()}
    found: dict[Arch, str] = {}
    for arch in archs:
        title = named.get(arch, "")
        begins = [name for name in shipped if title.startswith(name)]
        likely = dict.fromkeys([*(name for name in found.values() if name in shipped), *shipped])
        holds = (name for name in likely if _shipped(name).locate(arch) is not None)
        found[arch] = max(begins, key=len) if begins else next(holds, title or "other")
    return found


def placed(name: str) -> Arch:
    """The published network `name` as a point of the space of its system, whose rows name its nodes; as it is where
    that space lacks it.
    """
    arch = _shipped(name).arch()
    systems = [space for space in names() if name.startswith(space) and space not in published()]
    for space in sorted(systems, key=len, reverse=True):
        picks = _shipped(space).locate(arch)
        if picks is not None:
            return _shipped(space).at(picks)
    return arch


@cache
def _shipped(name: str) -> Space:
    return Space.load(name)


def _holds_list(data: Any) -> bool:
    stages = data["stages"]
    return any(isinstance(value, list) for row in (data | {"stages": 0}, *stages) for value in row.values())
