"""Laws of test accuracy: it is that of the very weights, judged once and remembered, and where it is missing that is
said.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from shutil import copytree

import pytest
from small import ONCE, make_problem, make_space, make_table, search, write_images

from mvnas.cli import main
from mvnas.data import Data
from mvnas.errors import StudyError
from mvnas.export import load
from mvnas.latency.table import Table
from mvnas.pretrained import read_weights
from mvnas.reports.lines import gap_line, gap_of
from mvnas.studies.files import save_whole
from mvnas.studies.storage import owned
from mvnas.studies.study import Study
from mvnas.tasks import ACCURACY, Metric
from mvnas.training import evaluate, trained_size
from mvnas.verification.retrain import images, weights
from mvnas.verification.tested import KEY, OnTest, judge, judge_frontier, on_test
from mvnas.verification.verify import verify


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a study of a few images, whose frontier was not judged."""
    folder = tmp_path_factory.mktemp("tested")
    space, data = make_space(folder), write_images(folder / "images", each=10)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        problem = make_problem(space, make_table(folder / "roof", space), "40K-params", data=str(data))
        search(problem, study=str(folder / "s.db"), trials=4)
        yield folder


@pytest.fixture
def study(searched: Path, tmp_path: Path) -> Study:
    return Study.load(str(copytree(searched, tmp_path / "copy") / "s.db"))


def nothing() -> Data:
    raise AssertionError("no data is needed")


def quality(study: Study, data: Data, number: int, path: Path) -> float:
    """Accuracy on test images of the weights in a file, computed here."""
    arch = study.pick(str(number)).arch
    module = load(arch.graph(), read_weights(arch, path)[1])
    return evaluate(module, data.test, side=trained_size(arch.resolution, study.setup.factor))


def test_it_is_that_of_the_weights_and_judged_once(study: Study) -> None:
    data, scores = images(study), study.frontier().scores
    assert not on_test(study) and gap_of(study) is None
    assert judge_frontier(study, lambda: data) == ""
    known = on_test(study)
    assert known.keys() == {score.number for score in scores}
    for number, row in known.items():
        assert row.count == len(data.test) == 10
        assert row.quality == quality(study, data, number, study.files.weights(number))
    again = Study.load(study.place)
    assert judge_frontier(again, nothing) == "" and on_test(again) == known


def test_other_weights_are_judged_anew_and_weights_that_are_gone_are_told(study: Study) -> None:
    data, number = images(study), study.frontier().scores[0].number
    judge_frontier(study, lambda: data)
    path, before = study.files.weights(number), on_test(study)
    state = {
        name: (value * 2).to(value.dtype) for name, value in read_weights(study.pick(str(number)).arch, path)[1].items()
    }
    save_whole(state, path)
    assert on_test(study).keys() == before.keys() - {number}
    judge(study, data, study.frontier().scores)
    assert on_test(study)[number].weights != before[number].weights
    path.unlink()
    assert on_test(study).keys() == before.keys(), "remembered"
    study.record.set_user_attr(f"{KEY} {number} x1", vars(before[number]) | {"times": 9})
    assert judge_frontier(study, lambda: data) == (
        f"the weights of {study.pick(str(number)).label} are not kept whole; train it longer with `mvnas verify`"
    )


def test_front_tells_it_or_why_it_is_missing(
    study: Study, searched: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with owned(study.place):
        assert "another process searches" in judge_frontier(study, nothing)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    copytree(searched / "images", tmp_path / "moved")
    away = (searched / "images").rename(searched / "away")
    try:
        assert main(["front", study.place]) == 0
        told = capsys.readouterr().out
        assert "knee" in told and " test " not in told
        assert "test accuracy is missing: the data must exist" in told
        assert main(["front", study.place, "--json"]) == 0
        row = json.loads(capsys.readouterr().out)
        assert "must exist" in row["test_missing"] and row["test_gap"] is None
        assert [one["test"] for one in row["frontier"]] == [None] * len(row["frontier"])
        assert main(["front", study.place, "--data", str(tmp_path / "moved")]) == 0
        assert main(["front", study.place, "--json"]) == 0
    finally:
        away.rename(searched / "images")
    out = capsys.readouterr().out
    table, told = out[: out.index("\n{")], json.loads(out[out.index("\n{") :])
    assert " test " in table and "(10 test images, which tell a share to " in table
    assert told["test_missing"] == "" and told["test_images"] == 10
    assert all(0 <= one["test"] <= 1 for one in told["frontier"])
    gap = sum(one["accuracy_observed"] - one["test"] for one in told["frontier"]) / len(told["frontier"])
    assert told["test_gap"] == pytest.approx(gap, abs=1e-5)


def test_verify_judges_the_longer_training(study: Study, searched: Path) -> None:
    data = images(study)
    found = verify(study, [Table.load(searched / "roof")], data, longer=2, protocol=ONCE)
    assert not on_test(study) and len(found.tests) == len(found.rows)
    for row in found.rows:
        assert row.tested
        number = row.score.number
        assert row.tested.quality == quality(study, data, number, weights(study, number, 2))


def test_how_much_lower_it_is_is_said() -> None:
    rows = [(quality, OnTest(number, 1, quality - 0.05, 400, "", "")) for number, quality in enumerate((0.95, 0.85))]
    assert gap_line(rows, ACCURACY) == (
        "test accuracy of 2 networks is 5.0 points lower on average than on validation images, by which they were"
        " chosen (400 test images, which tell a share to 1.8 points)"
    )
    assert "test error of 2 networks is 9 degrees higher" in gap_line(rows, Metric("error", 180, 0, "degrees"))
    assert "by which" in gap_line(rows, Metric("error", 180, 0, "degrees"))
    other = [(0.8, OnTest(0, 1, 0.9, 400, "", ""))]
    assert "10.0 points higher on average than on validation images (" in gap_line(other, ACCURACY)


def test_what_nobody_judged_is_refused(study: Study) -> None:
    study.record.set_user_attr(f"{KEY} 0 x1", {"number": 0})
    with pytest.raises(StudyError, match="tested 0 x1 must tell times"):
        on_test(study)
