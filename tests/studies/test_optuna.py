"""Laws of a study that Optuna's own tools read: its trials tell their objectives, constraints, network and costs."""

from __future__ import annotations

from pathlib import Path

import optuna
from small import make_problem, make_space, make_table, search

from mvnas.costs import to_json
from mvnas.latency.estimate import Estimate
from mvnas.spaces.space import Space
from mvnas.studies.trials import describe


def test_optuna_reads_a_study(tmp_path: Path) -> None:
    space = make_space(tmp_path)
    problem = make_problem(space, make_table(tmp_path / "roof", space))
    study = search(problem, study=str(tmp_path / "s.db"), trials=2)
    record = optuna.load_study(study_name="mvnas", storage=f"sqlite:///{tmp_path / 's.db'}")
    assert record.metric_names == ["accuracy", "latency_ms"]
    assert [direction.name for direction in record.directions] == ["MAXIMIZE", "MINIMIZE"]
    scores = {score.number: score for score in study.scores()}
    for trial in record.trials:
        score = scores[trial.number]
        assert tuple(trial.values) == (score.quality.observed[0], score.costs["latency"].value)
        assert trial.constraints == {"budget": 0}
        assert {key: trial.user_attrs[key] for key in to_json(score.costs)} == to_json(score.costs)
        assert score.costs.keys() == {"latency", "params", "macs", "memory"}


def test_a_candidate_is_described_in_a_line_and_by_its_costs() -> None:
    arch = Space.load("mobilevit_xxs").arch()
    made = {"latency": Estimate(3.5, 3.0, 4.0, "ms"), "params": Estimate.exactly(9)}
    told = describe(arch, made)
    assert told["architecture"].startswith("256 px: stem 16, inverted_residual 16 expand 2, ")
    assert "2x inverted_residual 24 expand 2, " in told["architecture"] and told["architecture"].endswith(", head 320")
    assert (told["precision"], told["latency_ms"], told["latency_high_ms"], told["params"]) == ("float32", 3.5, 4.0, 9)
