"""Laws of the blocks of the package, and of two that are not in it."""

from __future__ import annotations

from pathlib import Path

import zoo

from examples.channel_shuffle import Block as Shuffled
from examples.decoder import Block as Decoder
from mvnas import blocks
from mvnas.blocks import kind_of
from mvnas.ops import Map
from mvnas.testing.block import BlockContract


class TestBlocks(BlockContract):
    examples = tuple(dict.fromkeys(zoo.examples()))
    refused = tuple(zoo.refused())


class TestShuffle(BlockContract):
    examples = ((Shuffled(2), (Map(16, 8, 6),)), (Shuffled(4), (Map(16, 7, 7),)))
    refused = ((Shuffled(3), (Map(16, 8, 8),), "groups must divide the channels, but got 3 groups for 16"),)


class TestDecoder(BlockContract):
    examples = (
        (Decoder(8), (Map(24, 4, 4), Map(16, 8, 8))),
        (Decoder(8), (Map(24, 4, 4), Map(16, 8, 8), Map(6, 16, 16))),
    )


def test_every_block_has_an_example() -> None:
    files = {path.stem for path in Path(blocks.__file__).parent.glob("[!_]*.py")}
    assert files == {kind_of(block) for block, _ in TestBlocks.examples}
