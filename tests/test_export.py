"""Laws of export: what ships computes what was trained, in every format, or it is an error."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from small import make_space

from mvnas.arch import Arch
from mvnas.cli import main
from mvnas.datasets import Split, load
from mvnas.errors import ExportError
from mvnas.export import AGREEMENT, FORMATS, RANGES, Pictures, export
from mvnas.nn import build
from mvnas.ops import State
from mvnas.space import Space
from mvnas.training import initialise


@pytest.fixture(scope="module")
def arch(tmp_path_factory: pytest.TempPathFactory) -> Arch:
    space = Space.load(make_space(tmp_path_factory.mktemp("space"))).with_classes(5)
    return space.sample(lambda name, options: options[-1])


@pytest.fixture(scope="module")
def state(arch: Arch) -> State:
    """Weights with batch norm statistics that folding must get right."""
    module = build(arch.graph())
    initialise(module, 0)
    generator = torch.Generator().manual_seed(1)
    for name, value in module.state_dict().items():
        if "running_var" in name:
            value.uniform_(0.5, 2, generator=generator)
        elif "running_mean" in name or name.endswith("bias"):
            value.normal_(0, 0.2, generator=generator)
    return module.state_dict()


def test_every_format_is_written_checked_and_told_of(arch: Arch, state: State, tmp_path: Path) -> None:
    done = export(arch, state, tmp_path, name="net", formats=FORMATS, card={"accuracy": 0.5})
    assert [row.format for row in done] == list(FORMATS)
    card = json.loads((tmp_path / "card.json").read_text())
    assert Arch.from_json(card["arch"]) == arch
    assert (card["params"], card["macs"], card["accuracy"]) == (arch.params, arch.macs, 0.5)
    for row in done:
        assert row.path.exists()
        figures = card["files"][row.path.name]
        if figures.get("run", True):
            assert figures["max_difference"] <= figures["bound"]
            assert figures["measured"]["min_ms"] > 0
        else:
            assert row.format == "coreml"
            assert "macOS" in row.told


def test_numbers_that_change_fail_the_export(
    arch: Arch, state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mvnas.export

    honest = mvnas.export.deploy

    def careless(graph: object, weights: State) -> tuple[object, State]:
        shipped, folded = honest(graph, weights)
        return shipped, {name: weight * 1.05 for name, weight in folded.items()}

    monkeypatch.setattr(mvnas.export, "deploy", careless)
    with pytest.raises(ExportError, match="must compute what torch does"):
        export(arch, state, tmp_path, name="net", formats=["torch"])
    assert not (tmp_path / "card.json").exists()
    assert not (tmp_path / "net.pt2").exists()


def test_weights_of_another_network_are_an_error(arch: Arch, state: State, tmp_path: Path) -> None:
    for wrong in (
        {},
        {k: v for k, v in state.items() if "block3" not in k},
        state | {"extra": torch.zeros(1)},
    ):
        with pytest.raises(ExportError, match="weights must"):
            export(arch, wrong, tmp_path, name="net", formats=["torch"])


def test_int8_takes_its_ranges_from_images_and_is_held_to_classes(arch: Arch, state: State, tmp_path: Path) -> None:
    shown = Pictures.of(load("digits"), arch.resolution)
    for image in (*shown.ranges, *shown.judges):
        assert image.shape == (1, 3, arch.resolution, arch.resolution) and 0 <= image.min() < image.max() <= 1
    (done,) = export(arch, state, tmp_path, name="net", formats=["tflite"], precision="int8", images=shown)
    assert AGREEMENT <= done.figures["agreement"] <= 1
    with pytest.raises(ExportError, match="int8 must have images"):
        export(arch, state, tmp_path, name="net", formats=["tflite"], precision="int8")


def test_ranges_come_from_training_images_and_judges_from_the_others_however_few_there_are() -> None:
    data = load("digits")
    few = replace(data, val=Split(data.val.images[:3], data.val.labels[:3]))
    shown = Pictures.of(few, data.side)
    assert (len(shown.ranges), len(shown.judges)) == (RANGES, 3)
    known = {image.tobytes() for image in few.val.images.astype(np.float32) / 255}
    assert {image[0].tobytes() for image in shown.judges} == known


def test_an_int8_file_that_names_other_classes_fails_the_export(
    arch: Arch, state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = Pictures.of(load("digits"), arch.resolution)
    monkeypatch.setattr("mvnas.export.AGREEMENT", 1.01)
    with pytest.raises(ExportError, match="the class of torch on .* where the bound is 101%"):
        export(arch, state, tmp_path, name="net", formats=["tflite"], precision="int8", images=shown)
    assert (tmp_path / "net.tflite.failed").exists()


def test_published_network_with_weights_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arch = Space.load("mobilevit_xxs").arch()
    module = build(arch.graph())
    initialise(module, 0)
    save_file(module.state_dict(), tmp_path / "w.safetensors")
    words = [
        "--weights",
        str(tmp_path / "w.safetensors"),
        "--format",
        "torch",
        "--out",
        str(tmp_path / "out"),
        "--json",
    ]
    assert main(["export", "mobilevit_xxs", *words]) == 0
    card = json.loads(capsys.readouterr().out)
    assert card["params"] == 1_266_544
    assert card["predicted"]["low_ms"] < card["predicted"]["ms"] < card["predicted"]["high_ms"]
