"""Laws of networks of attention that other networks do not have."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import conv_transpose2d

from mvnas.errors import ExportError
from mvnas.nn import module
from mvnas.ops import Fold, Map, Spread, Tokens, Unfold
from mvnas.pretrained import from_timm
from mvnas.spaces.space import Space


def test_systems_without_published_networks_have_the_counts_of_their_code() -> None:
    """ViT-Lite 7/4 of MPCViT without gates and class token (28 and 512 numbers), and LookupViT as
    lucidrains/vit-pytorch has it.
    """
    mpcvit = Space.load("mpcvit").sample(lambda _, options: options[0])
    assert mpcvit.graph().params == 3_716_902 - 28 - 512
    lookupvit = {"block": "lookupvit", "channels": 128, "stride": 8, "layers": 2, "heads": 2, "ratio": 4}
    data = {"resolution": 256, "stages": [lookupvit, {"block": "classifier", "bias": False}]}
    assert Space.from_data(data, source="test").arch().graph().params == 2_188_544


def test_weights_of_a_network_that_timm_does_not_have_are_refused() -> None:
    with pytest.raises(ExportError, match="weights of edgevit_xxs must be mvnas's own"):
        from_timm("edgevit_xxs", {"head.weight": torch.zeros(1000, 288)})


def test_spread_and_folded_tokens_are_a_depthwise_transposed_convolution() -> None:
    x, spread = torch.randn(2, 6, 3, 4), module(Spread(2), Tokens(1, 12, 6))
    weight, bias = (spread.get_parameter(name).data.normal_() for name in ("weight", "bias"))
    unfold, fold = module(Unfold(1), Map(6, 3, 4)), module(Fold(2, size=(6, 8), windows=True), Tokens(12, 4, 6))
    y = fold(spread(unfold(x)))
    expected = conv_transpose2d(x, weight.T.reshape(6, 1, 2, 2), bias, stride=2, groups=6)
    torch.testing.assert_close(y, expected)
