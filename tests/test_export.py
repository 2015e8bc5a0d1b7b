"""Laws of export: what ships computes what was trained, in every format, or it is an error."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from small import make_space, search
from weights import varied

from mvnas import tasks
from mvnas.backends import formats
from mvnas.cli import main
from mvnas.data import Split, load
from mvnas.errors import ExportError
from mvnas.export import Judged, Pictures, card_of, export
from mvnas.nn import build
from mvnas.ops import State
from mvnas.search import Problem
from mvnas.spaces.arch import Arch
from mvnas.spaces.space import Space
from mvnas.training import initialise
from mvnas.training.judging import RANGES


@pytest.fixture(scope="module")
def arch(tmp_path_factory: pytest.TempPathFactory) -> Arch:
    space = Space.load(make_space(tmp_path_factory.mktemp("space"))).with_classes(5)
    return space.sample(lambda name, options: options[-1])


@pytest.fixture(scope="module")
def state(arch: Arch) -> State:
    return varied(arch, variance=(0.5, 2))


def test_every_format_is_written_checked_and_told_of(arch: Arch, state: State, tmp_path: Path) -> None:
    done = export(arch, state, tmp_path, name="net", formats=formats(), card={"data": "digits"})
    assert [row.format for row in done] == formats()
    card = json.loads(card_of(tmp_path, "net").read_text())
    assert Arch.from_json(card["arch"]) == arch
    assert (card["params"], card["macs"], card["data"]) == (arch.params, arch.macs, "digits")
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
    assert os.listdir(tmp_path) == ["net.pt2.failed"]


def test_weights_of_another_network_are_an_error(arch: Arch, state: State, tmp_path: Path) -> None:
    for wrong in (
        {},
        {k: v for k, v in state.items() if "stage3" not in k},
        state | {"extra": torch.zeros(1)},
    ):
        with pytest.raises(ExportError, match="weights must"):
            export(arch, wrong, tmp_path, name="net", formats=["torch"])


def test_int8_takes_its_ranges_from_images_and_is_held_to_classes(arch: Arch, state: State, tmp_path: Path) -> None:
    shown = Pictures.of(load("digits"), arch.resolution)
    for image in (*shown.ranges, *shown.judges):
        assert image.shape == (1, 3, arch.resolution, arch.resolution) and 0 <= image.min() < image.max() <= 1
    (done,) = export(arch, state, tmp_path, name="net", formats=["tflite"], precision="int8", images=shown)
    assert tasks.Task.agreement <= done.figures["agreement"] <= 1
    with pytest.raises(ExportError, match="int8 must have images"):
        export(arch, state, tmp_path, name="net", formats=["tflite"], precision="int8")


def test_ranges_come_from_training_images_and_judges_from_the_others_however_few_there_are() -> None:
    data = load("digits")
    few = replace(data, val=Split(data.val.images[:3], data.val.targets[:3]))
    shown = Pictures.of(few, data.side)
    assert (len(shown.ranges), len(shown.judges)) == (RANGES, 3)
    known = {image.tobytes() for image in few.val.images.astype(np.float32) / 255}
    assert {image[0].tobytes() for image in shown.judges} == known


def test_an_int8_file_that_names_other_classes_fails_the_export(
    arch: Arch, state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = Pictures.of(load("digits"), arch.resolution)
    monkeypatch.setattr(tasks.Task, "agreement", 1.01)
    with pytest.raises(ExportError, match="the class of torch on .* where the bound is 101%"):
        export(arch, state, tmp_path, name="net", formats=["tflite"], precision="int8", images=shown)
    assert (tmp_path / "net.tflite.failed").exists()


def files_of(folder: Path, name: str = "net") -> dict:
    """What a card tells of its files."""
    return json.loads(card_of(folder, name).read_text())["files"]


def test_a_card_tells_of_each_file_its_precision_and_an_accuracy_only_where_it_was_judged_at_that(
    arch: Arch, state: State, tmp_path: Path
) -> None:
    shown = Pictures.of(load("digits"), arch.resolution)
    export(arch, state, tmp_path, name="net", formats=["tflite", "onnx", "coreml"], precision="int8", images=shown,
           judged=Judged.of(replace(arch, precision="int8"), 0.5, 32, "for a while"))  # fmt: skip
    told = {name: (row["precision"], row.get("accuracy")) for name, row in files_of(tmp_path).items()}
    assert told == {
        "net.tflite": ("int8", 0.5),
        "net.onnx": ("float32", None),
        "net.mlpackage": ("float16", None),
    }
    in_torch = Judged.of(replace(arch, precision="float16"), 0.75, 32, "for a while")
    export(arch, state, tmp_path, name="net", formats=["torch", "coreml"], judged=in_torch)
    told = {name: (row["precision"], row.get("accuracy")) for name, row in files_of(tmp_path).items()}
    assert told == {
        "net.tflite": ("int8", 0.5),
        "net.onnx": ("float32", None),
        "net.pt2": ("float32", 0.75),
        "net.mlpackage": ("float16", None),
    }
    assert files_of(tmp_path)["net.pt2"]["judged_px"] == 32


def test_a_card_is_of_one_network_and_of_the_files_that_are_there(arch: Arch, state: State, tmp_path: Path) -> None:
    other = {name: weight * 0.5 if weight.is_floating_point() else weight for name, weight in state.items()}
    export(arch, state, tmp_path, name="net", formats=["onnx"])
    export(arch, other, tmp_path, name="more", formats=["onnx"])
    assert list(files_of(tmp_path)) == ["net.onnx"] and list(files_of(tmp_path, "more")) == ["more.onnx"]
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ExportError, match="has net.onnx of other weights; name another folder with --out"):
        export(arch, other, tmp_path, name="net", formats=["torch"])
    with pytest.raises(ExportError, match="of another network of that name"):
        export(
            arch.with_classes(7),
            build(arch.with_classes(7).graph()).state_dict(),
            tmp_path,
            name="net",
            formats=["onnx"],
        )
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    export(arch, other, tmp_path, name="net", formats=["onnx"])  # all of its files are new
    assert list(files_of(tmp_path)) == ["net.onnx"]
    export(arch, state, tmp_path, name="net", formats=["torch"], replace_others=True)
    assert list(files_of(tmp_path)) == ["net.pt2"] and not (tmp_path / "net.onnx").exists()
    (tmp_path / "net.pt2").unlink()
    export(arch, other, tmp_path, name="net", formats=["onnx"])
    assert list(files_of(tmp_path)) == ["net.onnx"]
    (tmp_path / "net.d").mkdir()
    (tmp_path / "net.d" / "mine").touch()
    told = json.loads(card_of(tmp_path, "net").read_text())
    told["files"] |= {name: {} for name in ("net.d/mine", "..", "more.onnx", f"{tmp_path}/net.d/mine")}
    card_of(tmp_path, "net").write_text(json.dumps(told))
    export(arch, state, tmp_path, name="net", formats=["torch"], replace_others=True)
    assert (tmp_path / "net.d" / "mine").exists() and (tmp_path / "more.onnx").exists()
    assert list(files_of(tmp_path)) == ["net.pt2"]
    card_of(tmp_path, "net").write_text("[]")
    with pytest.raises(ExportError, match="must be a card that export wrote"):
        export(arch, state, tmp_path, name="net", formats=["torch"])


def test_a_study_tells_nothing_of_weights_that_it_did_not_judge(
    problem: Problem, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = search(problem, study=str(tmp_path / "s.db"), trials=2)
    knee = study.pick("knee")
    own = study.files.weights(knee.number)
    module = build(knee.arch.graph())
    initialise(module, 1)
    save_file(module.state_dict(), tmp_path / "full.safetensors")
    (tmp_path / "same.safetensors").write_bytes(own.read_bytes())
    words = ["export", study.place, "--format", "torch", "--json", "--out"]
    told = {}
    for case, extra in {"own": [], "same": ["--weights", str(tmp_path / "same.safetensors")],
                        "full": ["--weights", str(tmp_path / "full.safetensors")]}.items():  # fmt: skip
        assert main([*words, str(tmp_path / case), *extra]) == 0
        said = capsys.readouterr()
        told[case] = card = json.loads(said.out)
        (file,) = card["files"].values()
        assert card["classes"] == list(study.setup.classes) and card["trial"] == knee.number
        assert ("its weights were trained at" in said.err) == ("trained_px" in card) == (case != "full")
        assert file.get("accuracy") == (None if case == "full" else knee.quality.kept)
    assert told["own"]["weights"] == told["same"]["weights"] != told["full"]["weights"]


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
