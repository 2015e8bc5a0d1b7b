"""Laws of predicted sizes: they are those of TFLite files, at every precision, and are found without making any."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from mvnas.backends import backend
from mvnas.budgets import Budget
from mvnas.costs import Price
from mvnas.costs._filesize import Held, file_bytes, held
from mvnas.latency import DEFAULT_TABLE
from mvnas.latency.model import LatencyModel
from mvnas.latency.table import Table
from mvnas.nn import arbitrary
from mvnas.spaces.arch import PRECISIONS, Arch
from mvnas.spaces.space import Space

NETWORKS = ["mobilevit_xxs", "mobileone_s0", "efficientvit_m0", "efficientformerv2_s0", "tiny_vit_5m_224"]
SPACES = ["hybrid", "mpcvit", "fmvit"]


def assert_predicted(arch: Arch, folder: Path, within: float) -> None:
    graph = arch.graph().deployed()
    weights = arbitrary(graph)
    for precision in PRECISIONS:
        path = folder / f"{precision}.tflite"
        backend("tflite", precision=precision).export(graph, path, weights)
        assert file_bytes(replace(arch, precision=precision)) == pytest.approx(path.stat().st_size, rel=within)


@pytest.mark.parametrize("name", NETWORKS)
def test_sizes_of_published_networks_are_those_of_their_files(name: str, tmp_path: Path) -> None:
    assert_predicted(Space.load(name).arch(), tmp_path, 0.005)


@pytest.mark.parametrize("name", SPACES)
def test_sizes_of_networks_of_a_space_are_those_of_their_files(name: str, tmp_path: Path) -> None:
    generator = random.Random(0)
    assert_predicted(Space.load(name).sample(lambda _, options: generator.choice(options)), tmp_path, 0.02)


def test_what_a_file_holds_is_every_number_once() -> None:
    """Numbers of a deployed graph, and a bias of zeros where a convolution has none."""
    for name in NETWORKS:
        arch = Space.load(name).arch()
        parts = Held(*[sum(column) for column in zip(*[held(block) for block in arch.summaries], strict=True)])
        numbers = parts.dense + parts.dense_outputs + parts.depthwise + parts.depthwise_outputs + parts.floats
        assert arch.params <= numbers <= 1.005 * arch.params


def test_a_budget_of_size_is_of_the_file_at_its_precision() -> None:
    arch, model = Space.load("tiny_vit_5m_224").arch(), LatencyModel.fit(Table.load(DEFAULT_TABLE))
    costs = {precision: Price(replace(arch, precision=precision), model)["size"] for precision in PRECISIONS}
    assert (
        costs["float32"] > 4 * arch.params and costs["float32"] > costs["float16"] > costs["int8"] > 1.6 * arch.params
    )
    assert Budget.parse("10MB-size").excess({"size": costs["int8"]}) > 0  # though it has 6.6 million parameters
