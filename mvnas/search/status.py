"""Where a search stands, for whoever shows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mvnas.studies.study import Study


@dataclass(frozen=True)
class Status:
    """Where a search stands, for whoever shows it.

    `finished` of `total` are trainings as full lengths; `resting` are candidates by the share of it that they were
    trained.
    """

    finished: float
    failed: int
    infeasible: int
    total: int | None
    best: float
    frontier: int
    left_seconds: float | None
    resting: Mapping[str, int]
    doing: str = ""

    @classmethod
    def of(cls, study: Study, total: int | None, left_seconds: float | None) -> Status:
        """Where the search of a study stands, of which all but the time is in the study."""
        trials = study.trials()
        front = study.frontier().scores
        return cls(
            finished=study.finished,
            failed=sum("reason" in trial.user_attrs for trial in trials),
            infeasible=study.infeasible(),
            total=total,
            best=max((score.quality.value for score in front), default=0.0),
            frontier=len(front),
            left_seconds=left_seconds,
            resting=study.resting,
        )
