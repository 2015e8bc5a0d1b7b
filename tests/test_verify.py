"""Laws of a verified frontier: files compute what was trained, the budget is that of measured latency, and what was not timed is said."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from shutil import copytree, rmtree

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from small import ONCE, make_space, make_table, make_task, search, write_images

from mvnas.backends import backend
from mvnas.cli import main
from mvnas.export import load as load_weights
from mvnas.measure import measure
from mvnas.nn import example
from mvnas.report import verified_told
from mvnas.retrain import images, retrained, weights
from mvnas.space import Space
from mvnas.study import Study
from mvnas.table import Table
from mvnas.verify import verify


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
            task = make_task(space, folder / table, "20K-params,9ms", data=str(data))
            search(task, study=str(folder / f"{table}.db"), trials=5)
        yield folder


def test_arithmetic_keeps_its_word(folder: Path) -> None:
    study = Study.load(str(folder / "roof.db"))
    found = verify(study, [Table.load(folder / "roof")], images(study), longer=2, protocol=ONCE)
    scores = study.frontier().scores
    assert [row.score.arch for row in found.rows] == [score.arch for score in scores]
    assert (found.coverage, found.kept, found.cautions) == (1, 1, ())
    assert found.tau in (None, pytest.approx(1))
    for row in found.rows:
        assert row.measured_ms == pytest.approx(row.score.latency_ms, rel=0.05) and row.inside and row.excess == 0
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
