"""The law of test images: nothing looks at one before the end, so that what they say of the picks is no luck."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from small import make_problem, search

from mvnas.data import Data, Split
from mvnas.engines import engine
from mvnas.nn import build
from mvnas.search import Problem
from mvnas.training import evaluate
from mvnas.verification.rank import rank


class Sealed:
    """An array of so many rows that nobody may look into: whatever is asked of it but their number is an error."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count


def sealed(data: Data) -> Data:
    """Data with test images that cannot be looked at."""
    return replace(data, test=Split(Sealed(len(data.test)), Sealed(len(data.test))))  # type: ignore[arg-type]


def test_whoever_judges_by_sealed_images_fails(problem: Problem) -> None:
    data = sealed(problem.data)
    module = build(problem.space.sample(lambda name, options: options[0]).graph())
    assert evaluate(module, data.val, side=16) >= 0
    with pytest.raises(TypeError):
        evaluate(module, data.test, side=16)


@pytest.mark.parametrize("rungs", ["1", "1/2,1"])
def test_neither_a_search_nor_a_ranking_looks_at_test_images(
    rungs: str, space: Path, table: Path, tmp_path: Path
) -> None:
    problem = make_problem(space, table, rungs=rungs)
    problem = replace(problem, data=sealed(problem.data))
    trainer = engine("inline", problem.images)
    trainer._data = problem.data  # type: ignore[attr-defined]
    study = search(problem, study=str(tmp_path / "s.db"), trials=4, trainer=trainer)
    assert len(study.scores()) >= 4 and not study.failures()
    if rungs == "1":
        assert rank(study, problem.data, longer=2).failed == 0
    plain = search(make_problem(space, table, rungs=rungs), study=str(tmp_path / "t.db"), trials=4)
    assert [one[1:4] for one in plain.told] == [one[1:4] for one in study.told]
