"""timm's names of FastViT's layers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from mvnas.pretrained._names import Names, Part, branch_of, branches, conv, conv_bn, dense, squeeze_excite
from mvnas.spaces.arch import Arch


def layers(arch: Arch) -> Iterator[Names]:
    yield from (branches(f"stem.{i}", 1, scale=i < 2, skip=i == 2) for i in range(3))
    stage, place = 0, -1
    for block in cast(Any, arch.blocks[1:-1]):
        stage, place = (stage + 1, 0) if block.stride > 1 else (stage, place + 1)
        if block.stride > 1:
            large, small = (conv_bn(f"stages.{stage}.downsample.proj.0.{size}_conv") for size in ("large", "small"))
            yield branch_of("conv0", large) | branch_of("small0", small)
            yield branches(f"stages.{stage}.downsample.proj.1", 1, scale=False)
        name = f"stages.{stage}.blocks.{place}"
        mixer = branches(f"{name}.token_mixer.mixer", 1, at="branches.sum0.")
        norm: Names = {"branches.sum0.branches.norm1": f"{name}.token_mixer.norm.identity"}
        for leaf in ("weight", "bias"):  # it is subtracted there
            norm[f"branches.sum0.branches.norm1.{leaf}"] = Part(f"{name}.token_mixer.norm.identity.{leaf}", sign=-1)
        yield mixer | norm | {"branches.sum0.scale": f"{name}.token_mixer.layer_scale.gamma"}
        yield conv_bn(f"{name}.mlp.conv")
        yield conv(f"{name}.mlp.fc1")
        yield conv(f"{name}.mlp.fc2") | {"scale": f"{name}.layer_scale.gamma"}
    yield branches("final_conv", 1, skip=False)
    yield from (*squeeze_excite("final_conv.se"), dense("head.fc"))
