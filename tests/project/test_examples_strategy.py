"""The example of a strategy outside the package: it keeps the laws, and searches by object and by name."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from small import SHORT, make_problem, search

import mvnas
from mvnas.cli import main
from mvnas.strategies import Context, Strategy
from mvnas.studies.study import Study
from mvnas.testing.strategy import StrategyContract

ROOT = Path(mvnas.__file__).parents[1]
sys.path += [path for path in [str(ROOT)] if path not in sys.path]

from examples import evolution  # noqa: E402


class TestEvolution(StrategyContract):
    def make(self, context: Context) -> Strategy:
        return evolution.Strategy(context, population=5)


def test_it_searches_by_object_and_by_name_alike(
    space: Path, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    problem = make_problem(space, table)
    study = search(problem, study=str(tmp_path / "a.db"), trials=6, strategy=evolution.Strategy)
    assert len(study.scores()) == 6
    words = [
        "search",
        "--budget",
        "20K-params",
        "--space",
        space,
        "--device",
        table,
        "--epochs",
        SHORT.epochs,
        "--json",
    ]
    words += ["--engine", "inline", "--study", tmp_path / "b.db", "--trials", 6, "--strategy", "examples.evolution"]
    assert main([*map(str, words)]) == 0
    assert len(json.loads(capsys.readouterr().out)["frontier"]) == len(study.frontier().scores)
    assert [s.arch for s in Study.load(str(tmp_path / "b.db")).scores()] == [s.arch for s in study.scores()]
