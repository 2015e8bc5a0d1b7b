"""What each trial of a study tells of a candidate, in the attributes that Optuna keeps."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from itertools import chain, groupby
from math import inf
from typing import Any

from optuna.trial import FrozenTrial, TrialState, create_trial

from mvnas.blocks import kind_of
from mvnas.costs import Counted, cost, from_json, to_json
from mvnas.costs import names as costs_of_ours
from mvnas.errors import SpaceError, StudyError, plain
from mvnas.latency.estimate import Estimate
from mvnas.latency.model import Latency
from mvnas.spaces.arch import FLOAT, Arch
from mvnas.spaces.rows import Picks
from mvnas.studies.checking import fits, shown
from mvnas.studies.score import Quality, Score
from mvnas.studies.setup import COUNTED, SCORES, SHORT, Setup

PLACE = ("rung", "candidate", "repeat")  # attributes of a trial of a candidate that has others
NUMBERS = ("infeasible", "seconds")  # attributes of a trial that are numbers, beside costs
TEXTS = ("name", "reason")  # and texts
LABEL = re.compile(r"[A-Za-z0-9][\w.-]{0,63}", re.ASCII)  # a name that may be a file's


def describe(arch: Arch, costs: Mapping[str, Estimate]) -> dict[str, Any]:
    """What Optuna's own tools show of a candidate: its blocks in a line, and its costs.

    >>> from mvnas.spaces.space import Space
    >>> describe(Space.load("mobilevit_xxs").arch(), {})["architecture"][:70]
    '256 px: stem 16, inverted_residual 16 expand 2, inverted_residual 24 s'
    """
    runs = [(part, len(list(same))) for part, same in groupby(map(_told, arch.blocks))]
    return {
        "architecture": f"{arch.resolution} px: " + ", ".join(f"{n}x {part}" if n > 1 else part for part, n in runs),
        "precision": arch.precision,
        **to_json(costs),
    }


def _told(part: Any) -> str:
    """A block in words: its first field, and the others where they are not their default."""
    first, *rest = fields(part)
    others = [
        f"{field.name} {getattr(part, field.name)}" for field in rest if getattr(part, field.name) != field.default
    ]
    return " ".join([kind_of(part), str(getattr(part, first.name)), *others])


def check_trial(trial: FrozenTrial, setup: Setup) -> None:
    """Return if a trial tells what a search tells of one, whatever else it tells; its texts are made plain.

    Raises:
        StudyError: it does not.
    """
    known = trial.user_attrs
    told = dict.fromkeys((*costs_of_ours(), *setup.costs))
    for name in chain(NUMBERS, *(cost(name).keys for name in told)):
        if name in known and not fits(known[name], float):
            raise StudyError(f"{name} must be a number, but is {shown(known[name])}")
    for name in TEXTS:
        if name in known:
            if not isinstance(known[name], str):
                raise StudyError(f"{name} must be a text, but is {shown(known[name])}")
            known[name] = plain(known[name])
    for name, most in (("rung", setup.rungs.count(",")), ("candidate", trial.number), ("repeat", trial.number)):
        if name in known and not (fits(known[name], int) and 0 <= known[name] <= most):
            raise StudyError(f"{name} must be in 0..{most}, but is {shown(known[name])}")
    costs = [*cost(setup.objective).keys[:1]] if trial.state == TrialState.PRUNED else []
    if trial.state == TrialState.COMPLETE:
        costs = [key for name in setup.costs if name not in COUNTED for key in cost(name).keys if key != "latency_ms"]
        if len(trial.values or ()) != 2 or not 0 < trial.values[1] < inf:
            raise StudyError(f"its values must be an accuracy and a cost, but are {shown(trial.values)}")
    if missing := [name for name in ("arch", *costs) if name not in known and costs]:
        raise StudyError(f"it must tell {missing[0]}, but does not, and so was not made by a search")
    if trial.state == TrialState.PRUNED and rung_of(trial) not in trial.intermediate_values:
        raise StudyError(f"it must tell its accuracy at rung {rung_of(trial)}, but does not")
    accuracy = accuracy_of(trial)
    if accuracy is not None and not 0 <= accuracy <= 1:
        raise StudyError(f"its accuracy must be in 0..1, but is {shown(accuracy)}")
    picks = picks_of(trial)
    if not isinstance(picks, Mapping) or not all(
        isinstance(value, str | int | float | None) for value in picks.values()
    ):
        raise StudyError(f"it must be a point of a space, but is {shown(picks)}")
    if trial.state == TrialState.WAITING and "fixed_params" not in trial.system_attrs:
        raise StudyError("what waits must be a point of the space, but it names none")


def score_of(trial: FrozenTrial, setup: Setup, model: Latency | None = None) -> Score:
    """The score of a finished trial, its costs as they were predicted for the search, or as `model` predicts them.

    Raises:
        StudyError: its architecture is none.
    """
    known = trial.user_attrs
    arch = _arch(known["arch"])
    device = model.device if model else setup.device
    precision = "" if arch.precision == FLOAT else f", at {arch.precision}"
    of = f"{setup.schedule['epochs']:g} epochs of training" if setup.scores == SHORT else SCORES[setup.scores]
    seen = f"measured on validation images of {setup.data}, {of}{precision}"
    how = f"expected by all candidates of the study on validation images of {setup.data}, {of}{precision}"
    return Score(
        arch=arch,
        quality=Quality(trial.values[0], name=setup.quality.name, observed=(trial.values[0],)),
        costs={name: _cost(name, arch, trial, setup, model) for name in setup.costs},
        number=trial.number,
        name=known["name"] if LABEL.fullmatch(known.get("name", "")) else "",  # files are called by it
        sources={
            "accuracy": how,
            "observed": seen,
            **dict.fromkeys(setup.predicted, f"predicted for {device}{precision}"),
        },
    )


def _cost(name: str, arch: Arch, trial: FrozenTrial, setup: Setup, model: Latency | None) -> Estimate:
    """What a candidate costs: as `model` predicts it, as its trial tells it, or counted where an old trial does not."""
    its = cost(name)
    if model and its.interval:
        return its.of(arch, model)
    known = trial.user_attrs
    if name == setup.objective:
        known = {its.keys[0]: trial.values[1]} | known  # an older study tells it nowhere else
    found = from_json(name, known)
    if found is None:
        if not isinstance(its, Counted):
            raise StudyError(f"it must tell {name}, but does not")
        found = Estimate.exactly(its.count(arch), its.unit)
    return found


def _arch(told: Any) -> Arch:
    """The architecture in a trial's attributes.

    Raises:
        StudyError: it is none.
    """
    try:
        return Arch.from_json(told, check=False)
    except (SpaceError, RecursionError) as error:
        raise StudyError(f"its architecture must be one, but is not: {shown(str(error))}") from None


def picks_of(trial: FrozenTrial) -> Picks:
    """The point of the space that a trial is of: drawn, or queued."""
    picks: Picks = trial.params if "arch" in trial.user_attrs else trial.system_attrs.get("fixed_params", trial.params)
    return picks


def rung_of(trial: FrozenTrial) -> int:
    """The rung that a trial reached, or is to reach; 0 is the shortest."""
    found: int = trial.user_attrs.get("rung", 0)
    return found


def candidate_of(trial: FrozenTrial) -> int:
    """The number of a candidate is that of the first of its trials: it has one for each rung and each repeat."""
    found: int = trial.user_attrs.get("candidate", trial.number)
    return found


def repeat_of(trial: FrozenTrial) -> int:
    """Which of its candidate's trainings from another seed a trial is; 0 for those from the first."""
    found: int = trial.user_attrs.get("repeat", 0)
    return found


def accuracy_of(trial: FrozenTrial) -> float | None:
    """The accuracy of a trial at its rung, if it got there."""
    if trial.state == TrialState.PRUNED:
        return trial.intermediate_values[rung_of(trial)]
    return trial.values[0] if trial.state == TrialState.COMPLETE else None


def notes_of(trial: FrozenTrial) -> dict[str, Any]:
    """What the sampler noted of a trial."""
    return {name: told for name, told in trial.system_attrs.items() if not name.startswith(("constraints", "fixed"))}


def counts(trial: FrozenTrial) -> bool:
    """Whether a trial is one of those that were asked for: not in the queue, and neither interrupted nor surplus."""
    return trial.state not in (TrialState.WAITING, TrialState.FAIL) or "reason" in trial.user_attrs


def requeued(trial: FrozenTrial) -> FrozenTrial | None:
    """The trial that queues the candidate of an interrupted one, with all that its sampler noted; None if it had not
    been drawn.
    """
    if "arch" not in trial.user_attrs and "fixed_params" not in trial.system_attrs:
        return None
    place = {key: trial.user_attrs[key] for key in PLACE if key in trial.user_attrs}
    noted = notes_of(trial) | {"fixed_params": picks_of(trial)}
    return create_trial(state=TrialState.WAITING, user_attrs=place, system_attrs=noted)
