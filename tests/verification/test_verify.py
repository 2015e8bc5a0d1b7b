"""Laws of a verified frontier: files compute what was trained, the budget is that of measured latency, and what was
not timed is said.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from shutil import copytree, rmtree
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from small import ONCE, make_problem, make_space, make_table, search, write_images

from mvnas.backends import backend, chosen_settings, of_table
from mvnas.cli import main
from mvnas.errors import ExportError, TableError
from mvnas.export import load as load_weights
from mvnas.latency.table import Table
from mvnas.measuring.measure import measure
from mvnas.nn import build, example
from mvnas.reports.tables import verified_told
from mvnas.spaces.space import Space
from mvnas.studies.study import Study
from mvnas.verification.retrain import images, retrained, weights
from mvnas.verification.verify import Verified, timed_file, verify


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A space, a table by arithmetic, a hasty table of this machine, and a study of a few images by each."""
    folder = tmp_path_factory.mktemp("verify")
    space, data = make_space(folder), write_images(folder / "images", each=10)
    make_table(folder / "roof", space)
    measure([Space.load(space)], backend("tflite"), folder=folder / "here", ops=120, networks=9, protocol=ONCE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        for table in ("roof", "here"):
            problem = make_problem(space, folder / table, "20K-params,9ms", data=str(data))
            search(problem, study=str(folder / f"{table}.db"), trials=5)
        yield folder


def test_arithmetic_keeps_its_word(folder: Path) -> None:
    study = Study.load(str(folder / "roof.db"))
    found = verify(study, [Table.load(folder / "roof")], images(study), longer=2, protocol=ONCE)
    scores = study.frontier().scores
    assert [row.score.arch for row in found.rows] == [score.arch for score in scores]
    assert (found.coverage, found.kept, found.cautions) == (1, 1, ())
    assert found.tau in (None, pytest.approx(1))
    for row in found.rows:
        assert (
            row.measured_ms == pytest.approx(row.score.costs["latency"].value, rel=0.05)
            and row.inside
            and row.excess == 0
        )
        assert row.accuracy == retrained(study)[row.score.number, 2].accuracy
        assert row.file is None and "no files to ship" in row.told
        assert row.pixels < row.score.arch.resolution


def test_what_is_over_budget_as_measured_is_told(folder: Path) -> None:
    study = Study.load(str(folder / "roof.db"))
    table = Table.load(folder / "roof")
    slow = Table(table.path, {**table.device, "gmacs": 0.01, "overhead_us": 10_000.0}, table.ops, table.passes)
    found = verify(study, [slow], images(study), longer=2, protocol=ONCE)
    assert (found.coverage, found.kept) == (0, 0)
    for row in found.rows:
        assert row.measured_ms and row.excess == pytest.approx(row.measured_ms / 9 - 1)


def test_files_are_of_the_longer_training_and_are_timed_here(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = str(folder / "here.db")
    assert main(["verify", place, "--longer", "2", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    study = Study.load(place)
    assert [row["trial"] for row in told["frontier"]] == [score.number for score in study.frontier().scores]
    for row in told["frontier"]:
        assert row["measured_ms"] > 0 and row["excess"] is not None
        assert row["inside_interval"] == (row["latency_low_ms"] <= row["measured_ms"] <= row["latency_high_ms"])
        score = study.pick(str(row["trial"]))
        module = load_weights(score.arch.graph(), load_file(weights(study, score.number, 2)))
        (x,) = example(score.arch.graph())
        with torch.inference_mode():
            truth = module(x).numpy()
        assert np.abs(backend("tflite").run(Path(row["file"]), [x.numpy()])[0] - truth).max() < 1e-4
        card = json.loads(Path(row["file"]).with_suffix(".card.json").read_text())
        file = card["files"][Path(row["file"]).name]
        assert file["accuracy"] == row["accuracy_longer"] and "epochs of training" in file["judged"]
        assert card["trained_px"] == file["judged_px"] == row["accuracy_px"] < row["resolution"]
    assert told["share_within_budget"] == np.mean([row["excess"] == 0 for row in told["frontier"]])
    trained = retrained(study)
    again = verify(study, [Table.load(folder / "here")], images(study), longer=2, protocol=ONCE)
    assert "within the budget as measured" in verified_told(again)
    assert retrained(study) == trained


def test_weights_that_are_gone_are_trained_again_and_are_the_same(folder: Path, tmp_path: Path) -> None:
    study = Study.load(str(copytree(folder, tmp_path / "copy") / "roof.db"))
    tables = [Table.load(folder / "roof")]
    first = verify(study, tables, images(study), longer=2, protocol=ONCE)
    rmtree(weights(study, 0, 2).parent)
    assert [row.accuracy for row in verify(study, tables, images(study), longer=2, protocol=ONCE).rows] == [
        row.accuracy for row in first.rows
    ]
    assert all(weights(study, row.score.number, 2).exists() for row in first.rows)


@pytest.mark.parametrize("device", [{"backend": "coreml"}, {"backend": "imported"}])
def test_what_cannot_run_here_is_predicted_only(device: dict, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = copytree(folder / "here", folder / device["backend"], dirs_exist_ok=True)
    conditions = json.loads((other / "device.json").read_text())
    (other / "device.json").write_text(json.dumps(conditions | device))
    assert main(["verify", str(folder / "here.db"), "--longer", "2", "--device", str(other)]) == 0
    said = capsys.readouterr()
    assert "predicted only" in said.out and "predicted only" in said.err


def test_another_machines_table_is_cautioned_against(folder: Path, tmp_path: Path) -> None:
    study = Study.load(str(folder / "roof.db"))
    table = Table.load(folder / "roof")
    far = Table(table.path, {**table.device, "cpu": "of another machine"}, table.ops, table.passes)
    (told,) = verify(study, [far], images(study), longer=2, protocol=ONCE).cautions
    assert "of another machine" in told


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("torch", {"batch": 64, "compiled": True, "threads": 2}),
        ("tflite", {"threads": 2, "precision": "dynamic-int8"}),
        ("onnx", {"threads": 3}),
        ("roofline", {"gmacs": 2.5, "overhead_us": 4.0}),
        ("roofline", {}),
    ],
)
def test_a_table_names_the_backend_that_it_was_measured_with(name: str, settings: dict[str, Any]) -> None:
    runtime = backend(name, **settings)
    assert chosen_settings(runtime) == settings
    told = json.loads(json.dumps({**runtime.conditions(), "cores": 8, "settings": chosen_settings(runtime)}))
    assert of_table(told) == runtime
    older = {key: value for key, value in told.items() if key != "settings"}
    assert of_table(older).conditions()["threads"] == runtime.conditions()["threads"]


def test_a_phone_s_number_of_cores_is_not_which_to_run_on() -> None:
    told = {"backend": "android", "cores": 8, "threads": 1, "precision": "float32", "settings": {"cores": "6,7"}}
    assert of_table(told) == backend("android", cores="6,7")
    assert of_table(told | {"settings": {}}) == backend("android")
    phone = backend("android", cores="4", serial="emulator-5554", binary="/somewhere/benchmark_model")
    assert chosen_settings(phone) == {"cores": "4"}


@pytest.mark.parametrize(("settings", "told"), [({"device": "cuda:99"}, "a device of torch must be cpu, or cuda where"),
                                                ({"speed": 2}, "unknown setting of torch 'speed'"),
                                                ({"batch": "many"}, "settings of a table must be those of its backend"),
                                                ([1], "settings of a table must be those of its backend")])  # fmt: skip
def test_settings_that_cannot_be_had_here_are_told(settings: Any, told: str) -> None:
    with pytest.raises(ExportError, match=told):
        of_table({"backend": "torch", "threads": 1, "precision": "float32", "versions": {}, "settings": settings})


def test_a_measured_table_keeps_settings_and_is_continued_by_them_alone(tmp_path: Path) -> None:
    space, runtime = Space.load(make_space(tmp_path)), backend("roofline", gmacs=2.5)
    for _ in range(2):
        measure([space], runtime, folder=tmp_path / "table", ops=40, networks=3, protocol=ONCE)
    assert of_table(Table.load(tmp_path / "table").device) == runtime
    with pytest.raises(TableError, match="must be continued under its own conditions"):
        measure([space], backend("roofline", gmacs=3.0), folder=tmp_path / "table", ops=40, networks=3, protocol=ONCE)


def test_a_file_is_timed_for_as_many_images_as_the_table_is_of(folder: Path, tmp_path: Path) -> None:
    score = Study.load(str(folder / "roof.db")).frontier().scores[0]
    row = Verified(score, 32, 0.5, tmp_path / "shipped.pt2")
    state = build(score.arch.graph()).state_dict()
    path = timed_file(row, backend("torch", batch=3), lambda score: state, tmp_path)
    ((x,), _) = torch.export.load(path).example_inputs
    assert tuple(x.shape) == (3, 3, score.arch.resolution, score.arch.resolution)
    assert timed_file(row, backend("torch"), lambda score: state, tmp_path) == row.file


def test_another_runtime_than_the_table_s_is_cautioned_against(folder: Path) -> None:
    study, table = Study.load(str(folder / "roof.db")), Table.load(folder / "roof")
    far = Table(table.path, {**table.device, "runtime": "exported program, NVIDIA H100"}, table.ops, table.passes)
    (told,) = verify(study, [far], images(study), longer=2, protocol=ONCE).cautions
    assert (
        "was measured on runtime exported program, NVIDIA H100, but networks were timed on runtime arithmetic" in told
    )
