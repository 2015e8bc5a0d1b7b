"""Laws of the metrics of classification: each is what its name says, a study holds to its own, and trainings note
others beside.
"""

from __future__ import annotations

import pickle
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import write_folder
from small import SHORT, search
from torch.nn.functional import cross_entropy

from mvnas import tasks
from mvnas.cli import main
from mvnas.data import Data, Split, load
from mvnas.engines import Job, train
from mvnas.errors import DataError
from mvnas.export import load as load_weights
from mvnas.pretrained import read_weights
from mvnas.search import Problem
from mvnas.spaces.space import Space
from mvnas.studies.study import Study
from mvnas.training import evaluate, trained_size
from mvnas.verification.rank import rank
from mvnas.verification.retrain import images, retrained, weights


@pytest.fixture(scope="module")
def digits() -> Data:
    return load("digits")


def some(count: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are right more often than by chance, and unbalanced targets that leave the last class out."""
    generator = np.random.default_rng(seed)
    targets = np.minimum(generator.geometric(0.3, count) - 1, classes - 2)
    logits = generator.normal(size=(count, classes)).astype(np.float32)
    logits[np.arange(count), targets] += 1.0
    return logits, targets


def test_each_metric_is_what_its_name_says(digits: Data) -> None:
    logits, targets = some(500, 10)
    order = (-logits).argsort(1)
    recalls = [(order[targets == label, 0] == label).mean() for label in set(targets.tolist())]
    expected = {
        "accuracy": np.mean(order[:, 0] == targets),
        "top5": np.mean((order[:, :5] == targets[:, None]).any(1)),
        "balanced": np.mean(recalls),
        "logloss": float(cross_entropy(torch.from_numpy(logits), torch.from_numpy(targets))),
    }
    aim = tasks.task()
    assert list(aim.metrics(digits)) == list(expected)
    for name, value in expected.items():
        judged = aim.by(name, digits)
        assert judged.value(judged.tally(logits, targets)) == pytest.approx(value, rel=1e-6), name
    assert aim.measures(aim.tally(logits, targets)) == {"log-loss": pytest.approx(expected["logloss"], rel=1e-6)}
    assert aim.metric == tasks.ACCURACY, "as ever"


def test_who_knows_nothing_has_the_quality_of_chance(digits: Data) -> None:
    targets = np.tile(np.arange(10), 2000)
    logits = np.random.default_rng(0).normal(size=(len(targets), 10)) * 1e-6
    for name in ("accuracy", "top5", "balanced", "logloss"):
        aim = tasks.task().by(name, digits)
        assert aim.quality(aim.tally(logits, targets)) == pytest.approx(aim.chance(digits), abs=0.02), name
    assert aim.metric.told(0.0) == "2.3 nats" and aim.metric.told(1.0) == "0 nats"


def test_who_says_the_largest_class_of_everything_is_often_right_and_not_balanced(digits: Data) -> None:
    logits, targets = np.eye(10)[np.zeros(100, int)], np.repeat([0, 1], [90, 10])
    values = {name: tasks.task().by(name, digits) for name in ("accuracy", "balanced")}
    assert {name: aim.quality(aim.tally(logits, targets)) for name, aim in values.items()} == {
        "accuracy": 0.9,
        "balanced": 0.5,
    }


def test_unbalanced_classes_are_judged_alike(digits: Data) -> None:
    def suited(large: int) -> str:
        targets = np.repeat([0, 1], [large, 10])
        return tasks.task().suited(replace(digits, classes=("a", "b"), train=Split(targets, targets)))[0]

    assert (suited(29), suited(30)) == ("accuracy", "balanced")
    few = replace(digits, classes=("a", "b"))
    for name in ("top5", "f1"):
        with pytest.raises(DataError, match=f"unknown metric '{name}'"):
            tasks.task().by(name, few)


@pytest.fixture(scope="module")
def unbalanced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("unbalanced"), {"rare": 10, "usual": 40}, side=32)


def test_a_study_tells_its_metric_and_holds_to_it(
    unbalanced: Path,
    space: Path,
    table: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    place = str(tmp_path / "s.db")
    words = ["search", "--budget", "20K-params", "--space", str(space), "--device", str(table), "--study", place]
    words += ["--data", str(unbalanced), "--trials", "2", "--epochs", "0.5", "--engine", "inline"]
    assert main([*words, "--metric", "f1"]) == 2
    assert "unknown metric 'f1'" in capsys.readouterr().err
    assert main(words) == 0
    told = capsys.readouterr().out
    assert re.search(r"metric +balanced accuracy.*: the largest has 4 times the images of the smallest", told)
    assert (
        re.search(r"network +balanced accuracy +90 % interval +observed +test ", told)
        and "test balanced accuracy of" in told
    )
    assert main([*words, "--metric", "accuracy"]) == 2
    assert "metric was balanced accuracy and is accuracy; give --metric 'balanced accuracy'" in capsys.readouterr().err
    for same in ("balanced", "balanced accuracy"):
        assert main([*words, "--metric", same]) == 0
    study = Study.load(place)
    data, score = images(study), study.frontier().scores[0]
    rank(study, data, longer=2)
    module = load_weights(score.arch.graph(), read_weights(score.arch, weights(study, score.number, 2))[1])
    aim, side = tasks.task().by("balanced", data), trained_size(score.arch.resolution, study.setup.factor)
    found = evaluate(module, data.val, side=side, task=aim)
    assert retrained(study)[score.number, 2].accuracy == pytest.approx(found)


def test_a_job_knows_its_metric_and_what_else_was_measured(digits: Data, space: Path) -> None:
    arch = Space.load(space).with_classes(10).sample(lambda name, options: options[0])
    steps: list[float] = []
    jobs = [Job(arch, replace(SHORT, epochs=1.5), 0.125, 0, metric=name) for name in ("", "logloss")]
    plain, other = (
        train(pickle.loads(pickle.dumps(job)), digits, progress=lambda *step: steps.append(step[2])) for job in jobs
    )
    count = len(steps) // 2
    assert steps[:count] == steps[count:], "whatever they are judged by, trainings are the same"
    assert plain.measures == other.measures and list(plain.measures) == ["log-loss", "training loss"]
    loss = tasks.task().by("logloss", digits).metric
    assert loss.value(other.quality) == pytest.approx(min(plain.measures["log-loss"], loss.worst))
    epoch = -(-count * 2 // 3)
    assert plain.measures["training loss"] == pytest.approx(np.mean(steps[count - epoch : count]))


def test_a_study_notes_what_else_was_measured(problem: Problem, tmp_path: Path) -> None:
    study = search(problem, study=str(tmp_path / "s.db"), trials=1)
    (trial,) = study.trials()
    assert trial.user_attrs["measures"].keys() == {"log-loss", "training loss"}
