"""The example of a block that reads earlier stages, in networks of two outputs: priced, searched, exported."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from itertools import product
from math import prod
from pathlib import Path

import numpy as np
import pytest
import torch
from files import TOLERANCE, evaluate_all, runs_here
from safetensors.torch import save_file
from small import SHORT, make_problem, make_table, search
from weights import varied

import mvnas
from mvnas.backends import backend, formats
from mvnas.cli import main
from mvnas.data import Split, load
from mvnas.export import Pictures, export
from mvnas.graph import FLOAT_BYTES, POINTER_BYTES
from mvnas.latency.model import latency
from mvnas.latency.table import Table
from mvnas.nn import build, deploy
from mvnas.ops import State
from mvnas.spaces.arch import Arch
from mvnas.spaces.space import Space
from mvnas.tasks import last
from mvnas.training.judging import evaluate, evaluate_file
from mvnas.verification.verify import verify

ROOT = Path(mvnas.__file__).parents[1]
sys.path += [path for path in [str(ROOT)] if path not in sys.path]

SPACE = ROOT / "examples" / "decoder.yaml"  # of the block examples.decoder


@pytest.fixture(scope="module")
def networks() -> list[Arch]:
    """Every point of the space."""
    space = Space.load(SPACE)
    return [space.at(dict(zip(space.choices, picks, strict=True))) for picks in product(*space.choices.values())]


@pytest.fixture(scope="module")
def roof(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_table(tmp_path_factory.mktemp("decoder") / "roof", SPACE)


@pytest.fixture(scope="module")
def arch(networks: list[Arch]) -> Arch:
    """The one that reads two earlier stages, and of most layers."""
    return networks[-1]


@pytest.fixture(scope="module")
def state(arch: Arch) -> State:
    """Small variances, so that outputs are not all near 0."""
    return varied(arch, variance=(0.05, 0.2))


def test_costs_of_every_point_are_those_of_the_flat_graph(networks: list[Arch]) -> None:
    for arch in networks:
        shipped = arch.graph().deployed()
        pointers = sum(node.op.pointers(*node.shapes) for node in shipped.work)
        assert (arch.params, arch.macs) == (shipped.params, shipped.macs)
        assert arch.peak_bytes == shipped.peak_bytes
        assert arch.memory_bytes == FLOAT_BYTES * shipped.params + shipped.peak_bytes + POINTER_BYTES * pointers


def test_every_point_is_found_again_and_read_again(networks: list[Arch]) -> None:
    space = Space.load(SPACE)
    assert len(set(networks)) == len(networks) == space.size
    for arch in networks:
        assert space.at(space.locate(arch) or {}) == arch
        assert Arch.from_json(json.loads(json.dumps(arch.to_json()))).graph() == arch.graph()


def test_predict_tells_a_network_from_its_file(
    arch: Arch, roof: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "net.json").write_text(json.dumps(arch.to_json()))
    assert main(["predict", str(tmp_path / "net.json"), "--device", str(roof), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["params"], told["macs"], told["peak_bytes"]) == (arch.params, arch.macs, arch.peak_bytes)
    assert told["latency_low_ms"] <= told["latency_ms"] <= told["latency_high_ms"]
    assert sum(row["latency_ms"] for row in told["blocks"]) == pytest.approx(told["latency_ms"])
    assert sum(row["params"] for row in told["blocks"]) == arch.params
    (decoder,) = [row for row in told["blocks"] if row["block"] == "examples.decoder"]
    _, height, width = decoder["output"]
    assert decoder["output"] == list(arch.summaries[arch.outputs[0]].shape) and height == width == arch.resolution // 4


def test_more_taps_cost_more(networks: list[Arch], roof: Path) -> None:
    model = latency([Table.load(roof)])
    space = Space.load(SPACE)
    (name,) = [name for name in space.choices if name.endswith("taps")]
    for arch in networks[:: len(networks) // 5]:
        picks = space.locate(arch) or {}
        few, many = (space.at({**picks, name: taps}) for taps in ("1", "2 1"))
        assert few.params < many.params and few.macs < many.macs
        assert model.predict(few).value < model.predict(many).value


def test_both_outputs_of_every_format_are_torchs(arch: Arch, state: State, tmp_path: Path) -> None:
    export(arch, state, tmp_path, name="net", formats=formats())
    image = np.random.default_rng(0).random((1, 3, arch.resolution, arch.resolution), np.float32)
    with torch.inference_mode():
        wanted = [y.numpy() for y in build_with(arch, state)(torch.from_numpy(image))]
    assert [y.shape[1:] for y in wanted] == [tuple(arch.summaries[i].shape) for i in arch.ends]
    for name in formats():
        runtime = backend(name)
        path = tmp_path / f"net{runtime.suffix}"
        got = runtime.run(path, [image]) if runs_here(name) else evaluate_all(path, [image])
        assert [y.shape for y in got] == [y.shape for y in wanted]
        for mine, truth in zip(got, wanted, strict=True):
            assert np.abs(truth).max() > 0.1
            assert np.abs(mine - truth).max() <= TOLERANCE[runtime.conditions()["precision"]] * max(
                1, np.abs(truth).max()
            )


def build_with(arch: Arch, state: State) -> torch.nn.Module:
    module = build(arch.graph())
    module.load_state_dict(state)
    return module.eval()


def test_the_command_line_exports_it(
    arch: Arch, state: State, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "net.json").write_text(json.dumps(arch.to_json()))
    save_file(state, tmp_path / "w.safetensors")
    words = [
        "--weights",
        str(tmp_path / "w.safetensors"),
        "--format",
        "onnx",
        "--out",
        str(tmp_path / "out"),
    ]
    assert main(["export", str(tmp_path / "net.json"), *words]) == 0
    assert "max |difference| from torch" in capsys.readouterr().out
    assert Arch.from_json(json.loads((tmp_path / "out" / "net.card.json").read_text())["arch"]) == arch


def test_files_in_8_bits_have_both_outputs_and_are_judged_by_the_last(arch: Arch, state: State, tmp_path: Path) -> None:
    data = load("digits")
    few = replace(data, train=part(data.train, 16), val=part(data.val, 32))
    images = Pictures.of(few, arch.resolution)
    (done,) = export(arch, state, tmp_path, name="n", formats=["tflite"], precision="int8", images=images)
    assert done.figures["agreement"] >= 0.8
    shipped, _ = deploy(arch.graph(), state)
    sizes = [prod(shipped.nodes[i].shape) for i in shipped.outputs]
    assert [y.size for y in backend("tflite").run(done.path, [images.judges[0]])] == sizes
    by_file = evaluate_file(arch, state, few, arch.resolution)
    assert by_file == evaluate(build_with(arch, state), few.val, side=arch.resolution)


def part(split: Split, count: int) -> Split:
    return Split(split.images[:count], split.targets[:count])


def test_it_is_searched_and_verified(roof: Path, tmp_path: Path) -> None:
    study = search(make_problem(SPACE, roof, "33K-params", schedule=SHORT), study=str(tmp_path / "s.db"), trials=2)
    scores = study.scores()
    assert len(scores) == 2 and all(len(score.arch.ends) == 2 for score in scores)
    assert all(score.arch.params <= 33_000 for score in scores)
    found = verify(study, [Table.load(roof)], load("digits"), longer=2)
    assert found.rows and len(found.measured) == len(found.rows)


def test_the_last_output_is_the_classifiers(arch: Arch, state: State) -> None:
    module = build_with(arch, state)
    with torch.inference_mode():
        made = module(torch.zeros(2, 3, arch.resolution, arch.resolution))
    assert last(made).shape == (2, 10) and last(last(made)) is last(made)
