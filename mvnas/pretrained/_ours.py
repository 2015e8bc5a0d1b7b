"""Where files that mvnas wrote keep weights, by the names that nodes had then."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping

from mvnas.errors import ExportError
from mvnas.ops import Branched, Op
from mvnas.pretrained._names import Part, Source
from mvnas.spaces.arch import Arch

BLOCK = re.compile(r"(stage(\d+)\.(\d+)\.\w+)\.")  # row, repeat and kind of a block
NODE = re.compile(r"(block(\d+)\.[a-z]+(\d+))\.")  # before nodes had roles: block, class of op, place in the block
NUMBERED = re.compile(r"\.branches\.\d+\.")  # before branches of a sum had names: their places in it


def source_of(arch: Arch, keys: Iterable[str]) -> Source | None:
    """Where a file of ours with these keys has each weight of `arch`; None if it is none of ours.

    Blocks are told by their order, since the space of a file may have had other rows.

    Raises:
        ExportError: it has weights of more or fewer blocks.
    """
    keys = list(keys)
    nodes = [node for node in arch.graph().nodes if node.params]
    for began, names in ((BLOCK, [arch.names[node.block] for node in nodes]), (NODE, [node.name for node in nodes])):
        matches = [began.match(key) for key in keys]
        if all(matches):
            theirs = {match[1]: (int(match[2]), int(match[3])) for match in matches if match}
            mine = list(dict.fromkeys(names))
            if len(theirs) != len(mine):
                what = "blocks" if began is BLOCK else "ops"
                raise ExportError(
                    f"weights must be of {len(mine)} {what}, but are of {len(theirs)}; they are of another network"
                )
            kept = dict(zip(mine, sorted(theirs, key=lambda name: theirs[name]), strict=True))
            ops = {node.name: node.op for node in nodes} if any(map(NUMBERED.search, keys)) else {}
            return lambda key: Part(kept[owner(key, kept)] + _numbered(key, ops)[len(owner(key, kept)) :])
    return None


def _numbered(key: str, ops: Mapping[str, Op]) -> str:
    """A weight's key with branches called by their places; `ops` are those of nodes, none if they have names."""
    return f"{owner(key, ops)}{_counted(ops[owner(key, ops)], key[len(owner(key, ops)) :])}" if ops else key


def _counted(op: Op | None, key: str) -> str:
    """The key of a weight of an op, with branches of sums called by their places."""
    if not isinstance(op, Branched) or not key.startswith(".branches."):
        return key
    _, _, name, leaf = key.split(".", 3)
    place = op.parts.index(name)
    return f".branches.{place}{_counted(op.branches[place], f'.{leaf}')}"


def owner(key: str, names: Container[str]) -> str:
    """The one of `names` that a weight's key begins with."""
    while key not in names:
        key = key.rpartition(".")[0]
    return key
