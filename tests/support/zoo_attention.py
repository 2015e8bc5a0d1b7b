"""Rows of test_zoo.py for networks of attention."""

from typing import Any

NETWORKS: dict[str, tuple[Any, ...]] = {
    "mobilevitv2_050": (1_370_593, 464.8, "", 256),
    "mobilevitv2_075": (2_866_009, 1028.4),
    "mobilevitv2_100": (4_901_841, 1812.6),
    "mobilevitv2_125": (7_478_089, 2817.6),
    "mobilevitv2_150": (10_594_753, 4043.2),
    "mobilevitv2_175": (14_251_833, 5489.7),
    "mobilevitv2_200": (18_449_329, 7156.8),
    # timm's attention multiplies keys by a column of ones where ours adds them up (0.1 to 1.3 million MACs), and is in
    # float32
    "efficientvit_b0": (3_410_008, 100.2, "", 224, {}, 1e-4),
    "efficientvit_b1": (9_102_024, 519.0, "", 64, {}, 1e-4),
    "efficientvit_b2": (24_330_712, 1584.4, "", 64, {}, 1e-4),
    "efficientvit_b3": (48_646_056, 3952.8, "", 64, {}, 1e-4),
    "efficientvit_l1": (52_654_088, 5258.2, "", 64, {}, 1e-4),
    "efficientvit_m0": (2_349_436, 79.2, "", 224),
    "efficientvit_m1": (2_980_560, 167.1, "", 224),
    "efficientvit_m2": (4_187_554, 201.0, "", 224),
    "efficientvit_m3": (6_900_722, 262.7, "", 224),
    "efficientvit_m4": (8_804_228, 299.3, "", 224),
    "efficientvit_m5": (12_473_772, 521.6, "", 224),
    "edgevit_xxs": (4_067_704, 551.0, "", 0),
    "edgevit_xs": (6_770_056, 1127.4, "", 0),
    "edgevit_s": (13_108_168, 1910.5, "", 0),
}
BLOCKS = {  # small stages of each block, behind a convolution to 16 channels at half the size
    "mobilevitv2": (
        "conv channels=16 stride=2, mobilevitv2 dim=12 layers=2, mobilevitv2 dim=16 layers=1 patch=4 mlp=1.5"
    ),
    "efficientvit": (
        "residual act=gelu_tanh, efficientvit channels=32 stride=2, efficientvit channels=32, efficientvit channels=32"
        " width=8 kernel=3 expand=2.0 act=gelu_tanh, efficientvit_head channels=24 hidden=20 classes=5"
    ),
    "efficientvit_m_stem": "efficientvit_m_stem channels=16",
    "efficientvit_m": (
        "conv channels=16 stride=2, efficientvit_m heads=2 kernels=53 window=4, efficientvit_m channels=32 stride=2,"
        " efficientvit_m heads=1 kernels=7 width=8 window=12, classifier norm=pooled classes=5"
    ),
    "edgevit": (
        "edgevit heads=2 rate=4, edgevit channels=24 stride=2 rate=2 heads=1 expand=2.0, edgevit rate=1 heads=3, "
        "classifier norm=batch classes=5"
    ),
    "mpcvit": (
        "mpcvit channels=24 stride=4 heads=2, mpcvit heads=3 form=relu_softmax scaled=1, mpcvit form=separable"
        " act=silu, mpcvit form=relu_linear mlp=1.5, mpcvit form=scaled, classifier norm=layer classes=5"
    ),
    "lookupvit": (
        "lookupvit channels=24 stride=4 layers=2 heads=2 ratio=4, lookupvit layers=1 heads=3 ratio=2 cheap=1.0"
    ),
}
POINTS = {
    "mobilevitv2": [name for name in NETWORKS if name.startswith("mobilevitv2")],
    "efficientvit": [f"efficientvit_b{i}" for i in range(4)],
    "efficientvit_m": ["efficientvit_m1"],
    "edgevit": ["edgevit_xxs"],
    "mpcvit": [],
    "lookupvit": [],
}
TOLD = [
    ("mobilevitv2 dim=8 layers=1 patch=64", "the patch must fit into the map, but got patch 64 on 32 x 32"),
    ("efficientvit channels=16 width=12", "the width of a head must divide the channels, but got 12 of 16"),
    ("mpcvit form=sofmax", "unknown form 'sofmax'; did you mean 'softmax'"),
    ("mpcvit heads=3", "heads must divide the channels, but got 3 heads for 16"),
    ("mpcvit form=separable scaled=1", "some heads must be separable, but 1 of 4 are to be only scaled"),
    (
        "mpcvit form=separable heads=2",
        "heads of mpcvit must stay 4 with the form separable, which ignores it, but is 2",
    ),
    ("lookupvit ratio=6", "the ratio must divide the map, but got ratio 6 on 32 x 32"),
    ("lookupvit heads=3", "heads must divide the width, but got 3 heads for width 16"),
    ("edgevit rate=3", "the rate must divide the map, but got rate 3 on 32 x 32"),
    ("efficientvit_m window=5", "the window must divide the map, but got window 5 on 32 x 32"),
    ("efficientvit_m heads=3 window=4", "3 heads must divide 16 channels and have kernels, but got 5555"),
    ("efficientvit_m kernels=53 window=4", "4 heads must divide 16 channels and have kernels, but got 53"),
    ("efficientvit_m channels=24", "channels must stay as they are at stride 1, but are 16 -> 24"),
]
