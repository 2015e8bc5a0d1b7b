"""Rows of test_zoo.py for networks of windows and of several resolutions of tokens."""

from typing import Any

NETWORKS: dict[str, tuple[Any, ...]] = {
    "tiny_vit_5m_224": (5_392_764, 1255.2, "", 224, {"num_classes": 1000}),
    "tiny_vit_11m_224": (10_996_972, 2016.0, "", 224, {"num_classes": 1000}),
    "tiny_vit_21m_224": (21_198_568, 4250.3, "", 224, {"num_classes": 1000}),
    "hiera_tiny_224": (27_910_216, 4900.8, "", 224),
    "fastervit_0": (31_404_840, 3361.8, "", 0),
    "fastervit_1": (53_366_696, 5320.1, "", 0),
}
DEPLOYED = {"tiny_vit_5m_224": 6_592_228, "tiny_vit_11m_224": 12_898_124, "tiny_vit_21m_224": 24_037_624}
DEPLOYED |= {"hiera_tiny_224": 27_891_208, "fastervit_0": 28_917_672, "fastervit_1": 49_610_376}
BLOCKS = {
    "tiny_vit": (
        "tiny_vit_mbconv channels=16, tiny_vit window=4 head_width=8, tiny_vit_mbconv channels=24 stride=2, "
        "tiny_vit window=8 head_width=8 mlp=2, classifier norm=pooled_layer classes=5"
    ),
    "elasticvit": (
        "elasticvit_conv channels=16 expand=1, elasticvit_conv channels=24 kernel=5 stride=2 se=true, "
        "elasticvit values=3 head_width=8, elasticvit_head hidden=32 classes=5"
    ),
    "fmvit": (
        "fmvit groups=2 head_width=4, conv channels=24 stride=2, fmvit low=0.75 pool=1 groups=3 head_width=6 mlp=3"
    ),
    "turbovit": (
        "turbovit window=4 head_width=8, turbovit channels=24 stride=2 window=8 head_width=8, turbovit head_width=24, "
        "turbovit channels=32 stride=2 head_width=8, classifier norm=pooled_layer classes=5"
    ),
    "fastervit": (
        "fastervit_conv, fastervit_down channels=24, fastervit layers=2 window=8 head_width=8 mlp=2, "
        "classifier norm=batch classes=5"
    ),
}
ELASTICVITS = ["t1", "t2", "s1", "s2", "m", "l1", "l1_5", "l2", "l3"]
POINTS = {
    "tiny_vit": ["tiny_vit_5m_224", "tiny_vit_11m_224", "tiny_vit_21m_224"],
    "elasticvit": [f"elasticvit_{name}" for name in ELASTICVITS],
    "fastervit": ["fastervit_0"],
}
TOLD = [
    ("tiny_vit_mbconv channels=24", "channels must stay as they are at stride 1, but are 16 -> 24"),
    ("tiny_vit window=7 head_width=8", "the window must divide the map, but got window 7 on 32 x 32"),
    ("tiny_vit window=8 head_width=6", "the width of a head must divide the channels, but got 6 of 16"),
    ("fastervit layers=1 window=7", "the window must divide the map, but got window 7 on 32 x 32"),
    ("fastervit layers=1 window=4 carriers=5", "carriers must fit into the windows of a square map, but got 5 x 5 in"),
    ("fmvit low=0.5 head_width=16", "low must leave channels for a head and for others, but gives 0 of 16 to heads"),
    ("fmvit groups=3 head_width=8", "groups must divide the channels, but got 3 groups for 8 -> 8"),
    ("turbovit head_width=6", "the width of a head must divide the channels, but got 6 of 16"),
    ("turbovit window=7 head_width=8", "the window must divide the map, but got window 7 on 32 x 32"),
    ("turbovit window=4 stride=3 head_width=8", "the stride must divide the window, but got stride 3 of 4"),
    ("elasticvit head_width=6", "the width of a head must divide the channels, but got 6 of 16"),
]
