"""Laws of tasks: ours keep them, and one of numbers instead of classes is searched, trained, exported and verified."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from small import make_problem, make_space, make_table, search

import mvnas
from mvnas import tasks
from mvnas.cli import main
from mvnas.data import Split, load
from mvnas.errors import DataError, StudyError
from mvnas.latency.table import Table
from mvnas.nn import build
from mvnas.spaces.space import Space
from mvnas.studies.study import Study
from mvnas.tasks import Metric
from mvnas.testing.dataset import DatasetContract
from mvnas.testing.engine import EngineContract
from mvnas.testing.task import TaskContract
from mvnas.training import evaluate, evaluate_file, initialise
from mvnas.verification.retrain import images
from mvnas.verification.verify import verify

ROOT = Path(mvnas.__file__).parents[1]
ROTATION = {"task": "examples.rotation", "data": "examples.rotation"}


@pytest.fixture(autouse=True, scope="module")
def _examples() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT))
        yield


class TestClassification(TaskContract):
    task, data = "classification", "digits"


class TestRotation(TaskContract):
    task, data = "examples.rotation", "examples.rotation"


class TestDigits(DatasetContract):
    data = "digits"


class TestTurnedDigits(DatasetContract):
    data = "examples.rotation"


class TestInline(EngineContract):
    engine = "inline"


class TestProcesses(EngineContract):
    engine, settings = "processes", {"workers": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A space, a table by arithmetic, and a study of angles."""
    folder = tmp_path_factory.mktemp("task")
    space = make_space(folder)
    make_table(folder / "roof", space)
    problem = make_problem(space, folder / "roof", "20K-params,9ms", **ROTATION)
    search(problem, study=str(folder / "s.db"), trials=3)
    return folder


def test_a_study_of_angles_is_exported_and_verified(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = Study.load(str(folder / "s.db"))
    assert study.setup.classes == () and study.setup.quality.told(0.75) == "45 degrees"
    score = study.pick("knee")
    assert 0.3 < score.quality.value < 1
    found = verify(study, [Table.load(folder / "roof")], images(study), longer=2)
    assert found.measured and all(row.accuracy is not None for row in found.rows)
    words = ["export", study.place, "--device", str(folder / "roof"), "--out", str(tmp_path), "--pick", "0"]
    assert main([*words, "--format", "tflite", "--format", "onnx", "--format", "torch"]) == 0
    assert capsys.readouterr().out.count("max |difference| from torch") == 3
    assert main([*words, "--precision", "int8", "--json"]) == 0
    card = json.loads(capsys.readouterr().out)
    (int8,) = (row for row in card["files"].values() if row["precision"] == "int8")
    assert int8["agreement"] >= 0.8 and card["classes"] == []


def test_it_is_searched_by_command_too(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["search", "--budget", "20K-params,9ms", "--space", str(folder / "small.yaml")]
    words += ["--device", str(folder / "roof"), "--epochs", "0.1", "--engine", "inline", "--trials", "3"]
    words += ["--data", ROTATION["data"], "--task", ROTATION["task"], "--study", str(tmp_path / "c.db")]
    assert main(words) == 0
    told = capsys.readouterr().out
    assert "to test; 32 px" in told and "classes" not in told and "--trust" in told
    assert re.search(
        r"network +angle error +90 % interval +observed .*\n-+\ntrial \d +[\d.]+ degrees +[\d.]+ .. [\d.]+ degrees ",
        told,
    )
    assert "(of quality by angle error 0..1 by latency" in told
    mine = [score.quality.value for score in Study.load(str(tmp_path / "c.db")).scores()]
    assert mine == [score.quality.value for score in Study.load(str(folder / "s.db")).scores()]


def test_a_study_holds_to_its_task(folder: Path) -> None:
    setup = Study.load(str(folder / "s.db")).setup
    with pytest.raises(StudyError, match="task was examples.rotation and is examples.other"):
        setup.check(replace(setup, task="examples.other", marks={**setup.marks, "task": "x"}), "s.db")


def test_a_coarse_file_is_judged_by_the_same_metric() -> None:
    aim, data = tasks.task("examples.rotation"), load("examples.rotation")
    data = replace(data, val=Split(data.val.images[:64], data.val.targets[:64]))
    arch = replace(aim.arch(Space.load("mobilevit_xxs").arch(), data), precision="dynamic-int8")
    module = build(arch.graph())
    initialise(module, 0)
    state = {name: value.clone() for name, value in module.state_dict().items()}
    near = evaluate(module, data.val, side=32, task=aim)
    assert evaluate_file(arch, state, data, 32, task=aim) == pytest.approx(near, abs=0.1)


def test_classification_needs_classes() -> None:
    with pytest.raises(DataError, match="classification must have classes, but examples.rotation has none"):
        tasks.task().check(load("examples.rotation"))


@pytest.mark.parametrize("name", ["classificatio", "no.such", "examples.teacher"])
def test_a_task_that_is_not_there_is_said(name: str) -> None:
    with pytest.raises(DataError, match="task"):
        tasks.task(name)


def test_targets_are_of_one_shape_and_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = """
import numpy as np
class Dataset:
    classes, note, files = None, "", ()
    def items(self, split):
        return [(np.zeros((32, 32), np.uint8), target) for target in {}] if split == "train" else None
"""
    monkeypatch.syspath_prepend(str(tmp_path))
    for i, (targets, told) in enumerate(
        [
            ("[1.5, [2.0, 3.0]]", "one shape"),
            ("['a', 'b']", "number"),
            ("[float('nan'), 1]", "finite"),
            ("[1]", "two images"),
        ]
    ):
        (tmp_path / f"pack{i}").mkdir()
        (tmp_path / f"pack{i}" / "own.py").write_text(source.replace("{}", targets))
        with pytest.raises(DataError, match=told):
            load(f"pack{i}.own")


@pytest.mark.parametrize("data", [{"name": "x"}, {"name": "x", "worst": 1, "best": 1}, {"worst": 0}, {"nam": "x"}])
def test_a_metric_of_a_study_is_checked(data: dict) -> None:
    if set(data) == {"name"}:
        assert Metric.from_json(data).told(0.5) == "50.0%"
        return
    with pytest.raises((ValueError, TypeError)):
        Metric.from_json(data)
