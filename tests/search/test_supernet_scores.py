"""Laws of a search whose candidates are judged with slices of a supernet: none is trained but the frontier, in the end;
an interrupted one goes on to the same scores; a study holds to what its scores are of.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
from safetensors.torch import load_file
from small import make_problem, make_space, make_table, search
from torch import equal

from mvnas.cli import main
from mvnas.errors import SpaceError, StudyError
from mvnas.search.status import Status
from mvnas.studies.study import Study
from mvnas.verification.retrain import trained_after

TRIALS = 4
SETTINGS = "multi_scale,supernet:epochs=0.1"
supernet = importlib.import_module("mvnas.techniques.supernet")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A space and a table by arithmetic, and a study of a search by the command line."""
    folder = tmp_path_factory.mktemp("scores")
    make_table(folder / "roof", make_space(folder))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(supernet, "DRAWN", 3)
        assert main(command(folder, "s.db")) == 0
    return folder


def command(folder: Path, study: str, *others: str) -> list[str]:
    words = f"search --budget 20K-params --space {folder / 'small.yaml'} --device {folder / 'roof'} --engine inline"
    words += f" --study {folder / study} --trials {TRIALS} --epochs 0.1 --technique {SETTINGS} --scores supernet"
    return [*words.split(), *others]


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supernet, "DRAWN", 3)
    monkeypatch.setattr(supernet, "KEPT", -1.0)


def test_candidates_are_slices_and_the_frontier_is_trained_and_told(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = Study.load(str(folder / "s.db"))
    (kept,) = study.files.subfolder("prepared").iterdir()
    weights, best = load_file(kept), study.pick("best")
    first = "stage0.0.stem.conv.conv.weight"
    scored = load_file(study.files.weights(best.number))
    assert equal(scored[first], weights[first]) and len(study.scores()) == TRIALS
    assert main(["front", study.place]) == 0
    told = capsys.readouterr().out
    assert "scores are of slices of a supernet; trained from them for 0.1 epochs:" in told
    assert main(["front", study.place, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["frontier"]
    assert {row["trial"]: row["trained"] for row in rows} == trained_after(study)
    assert main(["export", study.place, "--pick", "best", "--format", "torch", "--out", str(tmp_path)]) == 0
    (card,) = tmp_path.glob("*.card.json")
    assert "slices of a supernet, then 0.1 epochs of training" in card.read_text()
    trained = study.record.user_attrs[f"retrained {best.number} x1"]
    assert json.loads(card.read_text())["files"].popitem()[1]["accuracy"] == trained["accuracy"]
    begun = len(study.trials())
    assert main(command(folder, "s.db")) == 0
    assert len(Study.load(study.place).trials()) == begun, "a search that is done is told again, and nothing trained"


def test_a_search_interrupted_in_the_supernet_goes_on_to_the_same_scores(folder: Path, tmp_path: Path) -> None:
    problem = make_problem(folder / "small.yaml", folder / "roof", technique=SETTINGS, scores="supernet")
    seen: list[str] = []

    def show(status: Status) -> None:
        seen.append(status.doing)
        if sum("supernet" in doing for doing in seen) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(problem, study=str(tmp_path / "s.db"), trials=TRIALS, show=show)
    assert [part.suffix for part in Study.load(str(tmp_path / "s.db")).files.subfolder("prepared").iterdir()] == [
        ".part"
    ]
    found = search(problem, study=str(tmp_path / "s.db"), trials=TRIALS)
    whole = Study.load(str(folder / "s.db"))
    assert [(one.arch, one.quality.value) for one in found.scores()] == [
        (one.arch, one.quality.value) for one in whole.scores()
    ]


def test_a_study_holds_to_its_scores(folder: Path) -> None:
    plain = make_problem(folder / "small.yaml", folder / "roof", technique=SETTINGS)
    with pytest.raises(StudyError, match="scores was supernet and is short; give --scores supernet"):
        search(plain, study=str(folder / "s.db"), trials=TRIALS)


def test_what_cannot_be_scored_so_is_refused_before_images_are_read(folder: Path, tmp_path: Path) -> None:
    fused = tmp_path / "fused.yaml"
    fused.write_text(
        "resolution: 64\nstages:\n  - {block: stem, channels: 8}\n"
        "  - {block: fused_mbconv, channels: 8, stride: 2, expand: [1, 4]}\n  - {block: head, channels: 8}\n"
    )
    with pytest.raises(SpaceError, match=r"fused_mbconv\.expand cannot share weights"):
        make_problem(fused, folder / "roof", data="no such data", scores="supernet")
    for settings, told in (
        ({"scores": "supernets"}, "unknown scores 'supernets'; did you mean 'supernet'"),
        ({"scores": "supernet", "rungs": "1/3,1"}, "rungs must be 1, but are 1/3,1"),
    ):
        with pytest.raises(StudyError, match=told):
            make_problem(folder / "small.yaml", folder / "roof", data="no such data", **settings)
