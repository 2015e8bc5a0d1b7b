"""Candidates of a study trained again, from scratch and longer; the study keeps what came of each, so that none is trained twice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from mvnas.datasets import Data, load
from mvnas.errors import MvnasError, StudyError, plain
from mvnas.files import intact, save_whole
from mvnas.record import fields_of
from mvnas.score import Score
from mvnas.storage import damaged
from mvnas.study import Study

KEY = "retrained"  # an attribute of the study for each training: retrained TRIAL xTIMES


@dataclass(frozen=True)
class Retrained:
    """A training that took `times` the epochs of the study's; `accuracy` is None where it failed, for `reason`."""

    number: int
    times: int
    accuracy: float | None
    seconds: float = 0.0
    reason: str = ""


def retrained(study: Study) -> dict[tuple[int, int], Retrained]:
    """What the study knows of longer trainings, by trial and times.

    Raises:
        StudyError: one of them was not written by this.
    """
    told = {key: row for key, row in study.record.user_attrs.items() if key.startswith(f"{KEY} ")}
    try:
        rows = [Retrained(**fields_of(Retrained, row, plain(key))) for key, row in told.items()]
    except StudyError as error:
        raise damaged(study.place, str(error)) from None
    return {(row.number, row.times): row for row in rows}


def accuracies(study: Study, times: int) -> Mapping[int, float]:
    """Accuracy after `times` the study's epochs, by trial, of the candidates that were trained so."""
    rows = retrained(study).values()
    return {row.number: row.accuracy for row in rows if row.times == times and row.accuracy is not None}


def weights(study: Study, number: int, times: int) -> Path:
    """File of a candidate's weights after `times` the study's epochs."""
    return study.files.subfolder("longer") / f"{number}x{times}.safetensors"


def images(study: Study, place: str | None = None, *, skip_broken: bool = False) -> Data:
    """The images of a study, at `place` if they have moved since, without broken ones if it was searched so.

    Raises:
        DataError: there are none.
        StudyError: they are others.
    """
    source = place or study.setup.data
    data = load(source, skip_broken=skip_broken)
    if data.fingerprint != study.setup.marks["data"]:
        raise StudyError(
            f"the images must be those that {study.place} was searched with, but {source} holds others; give theirs with --data"
        )
    return data


def retrain(study: Study, score: Score, times: int, data: Data, *, keep: bool = False) -> None:
    """Train a candidate with `times` the study's epochs, from a seed of its own, unless the study knows what comes of it.

    With `keep` its weights are kept too, beside the study. A training that fails is noted as such.
    """
    from mvnas.job import Job, seed_of, train
    from mvnas.training import Schedule

    known = retrained(study).get((score.number, times))
    path = weights(study, score.number, times)
    if known and (known.accuracy is None or not keep or intact(path)):
        return
    setup = study.setup
    schedule = Schedule(**setup.schedule)
    schedule = replace(schedule, epochs=times * schedule.epochs)
    job = Job(score.arch, schedule, setup.factor, seed_of(score.arch, setup.seed + times))
    try:
        trained = train(job, data)
    except MvnasError as error:
        row = Retrained(score.number, times, None, reason=str(error))
    else:
        row = Retrained(score.number, times, trained.accuracy, trained.seconds)
        if keep:
            save_whole(trained.state, path)
    study.record.set_user_attr(f"{KEY} {score.number} x{times}", vars(row))
