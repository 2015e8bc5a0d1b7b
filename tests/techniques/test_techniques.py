"""Laws of techniques: ours keep them, and what a study was begun with is what all its trainings do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from shutil import copytree

import pytest
import torch
from safetensors.numpy import load_file
from small import SHORT, make_problem, make_space, make_table, search

import mvnas
from mvnas import techniques as named
from mvnas.data import load
from mvnas.engines import Job, engine, seed_of, train
from mvnas.errors import StudyError, TrainingError, TrustError
from mvnas.latency.table import Table
from mvnas.studies.prepared import prepared
from mvnas.studies.study import Study
from mvnas.system import trust
from mvnas.tasks import task
from mvnas.techniques import techniques
from mvnas.testing.technique import TechniqueContract
from mvnas.training import Loop, Schedule, Training
from mvnas.verification.rank import rank
from mvnas.verification.retrain import images, retrained, trainer
from mvnas.verification.verify import verify

ROOT = Path(mvnas.__file__).parents[1]
TEACHER = "multi_scale,examples.teacher:network=mobilevit_xxs:epochs=0.02"


@pytest.fixture(autouse=True, scope="module")
def _examples() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT))
        yield


class TestMultiScale(TechniqueContract):
    text = "multi_scale"


class TestTeacher(TechniqueContract):
    text = TEACHER


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A space and a table by arithmetic, and a study with a teacher."""
    folder = tmp_path_factory.mktemp("technique")
    space = make_space(folder)
    make_table(folder / "roof", space)
    problem = make_problem(space, folder / "roof", technique=TEACHER)
    search(problem, study=str(folder / "s.db"), trials=3)
    return folder


def test_a_study_is_searched_ranked_and_verified_with_its_teacher(folder: Path) -> None:
    study = Study.load(str(folder / "s.db"))
    data = images(study)
    (file,) = study.files.subfolder("prepared").iterdir()
    assert load_file(file)["outputs"].shape == (len(data.train), 10)
    before = file.stat().st_mtime_ns
    rank(study, data, longer=2)
    found = verify(study, [Table.load(folder / "roof")], data, longer=2)
    assert found.measured and {times for _, times in retrained(study)} == {1, 2}
    score = found.rows[0].score
    job = Job(score.arch, SHORT, study.setup.factor, seed_of(score.arch, 0))
    taught = replace(job, techniques=TEACHER, artifacts=(None, str(file)))
    with trainer(study, data) as again:
        assert again(job).quality == train(taught, data).quality == score.quality.kept
    assert train(job, data).quality != score.quality.kept
    assert file.stat().st_mtime_ns == before, "it is prepared once a study"


def test_every_engine_trains_with_it(folder: Path, tmp_path: Path) -> None:
    problem = make_problem(folder / "small.yaml", folder / "roof", technique=TEACHER)
    with closing(engine("processes", problem.images, workers=1)) as workers:
        other = search(problem, study=str(tmp_path / "p.db"), trials=1, trainer=workers)
    (score,) = other.scores()
    assert score.quality.observed == Study.load(str(folder / "s.db")).scores()[0].quality.observed


def test_what_was_prepared_and_is_gone_is_prepared_again_and_must_be_the_same(folder: Path, tmp_path: Path) -> None:
    place = copytree(folder, tmp_path / "moved") / "s.db"
    study = Study.load(str(place))
    (file,) = study.files.subfolder("prepared").iterdir()
    told = file.read_bytes()
    file.unlink()
    assert prepared(study, images(study)) == (None, str(file)) and file.read_bytes() == told
    study.record.set_user_attr(f"prepared {file.stem}", "other")
    with pytest.raises(StudyError, match="prepare what .* was begun with"):
        prepared(study, images(study))


def test_a_study_does_not_run_code_that_the_user_did_not_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trust, "_run", {})
    study = Study.load(str(folder / "s.db"))
    with pytest.raises(TrustError, match=r"examples\.teacher"):
        rank(study, images(study), longer=2)


def test_a_study_holds_to_its_techniques_and_their_code(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, space, table = str(folder / "s.db"), folder / "small.yaml", folder / "roof"
    with pytest.raises(StudyError, match="technique was multi_scale,examples.*; give --technique"):
        search(make_problem(space, table), study=place, trials=3)
    monkeypatch.setattr(named, "code_mark", lambda name: "changed")
    with pytest.raises(StudyError, match="the content of technique .* has changed since"):
        search(make_problem(space, table, technique=TEACHER), study=place, trials=3)
    study = Study.load(place)
    with pytest.raises(StudyError, match="the content of technique .* has changed since"):
        rank(study, images(study), longer=2)


def test_without_techniques_all_steps_are_of_one_size() -> None:
    plain, several = (Loop(training(), techniques(text)) for text in ("none", "multi_scale"))
    assert (len(plain.sampler.sizes), len(several.sampler.sizes)) == (1, 5)


def training() -> Training:
    data, schedule = load("digits"), Schedule()
    return Training(torch.nn.Linear(1, 1), data, task(), schedule, 256, 0.125, 0)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("multi_scal", "unknown technique 'multi_scal'; did you mean 'multi_scale'"),
        ("multi_scale:sizes=3", "unknown setting of the technique multi_scale 'sizes'"),
        ("examples.teacher:epochs=long", "epochs of the technique examples.teacher must be a number, but got 'long'"),
        ("examples.teacher:epochs", "must be NAME:key=value"),
        ("examples.rotation", "must define the class Technique"),
        ("no.such", "none of that name is found"),
    ],
)
def test_what_is_not_there_is_said(text: str, told: str) -> None:
    with pytest.raises(TrainingError, match=told):
        techniques(text)
