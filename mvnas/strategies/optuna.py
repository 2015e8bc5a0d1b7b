"""Samplers of Optuna as strategies: each draw is led to a point near it that is within the budget and new.

A sampler is made anew for each draw and reads a study of what is known of the trainings; what it notes in that study
goes with the proposal.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Container, Mapping, Sequence
from copy import copy
from functools import partial
from typing import Any, cast

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from mvnas.errors import StudyError, unknown
from mvnas.spaces.rows import Picks
from mvnas.strategies import Asked, Context, Key, Maker, Proposal, Told, every, key_of, names
from mvnas.system.marks import mark

optuna.logging.set_verbosity(optuna.logging.ERROR)

DIRECTIONS = [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE]  # accuracy and cost
DRAWN = -1  # stands for the id of the trial that is being drawn
SHARED = "study:"  # begins the names of notes that are of the whole study, such as the parents of a generation


class Strategy:
    """A sampler of Optuna, by the name of its class.

    Raises:
        StudyError: it cannot be made from a seed alone.
    """

    def __init__(self, context: Context, sampler: str = "TPESampler") -> None:
        self.context, self.name = context, sampler
        self.options = {name: CategoricalDistribution(values) for name, values in context.space.choices.items()}
        self._scout = make_sampler(sampler, 0, context.trials)
        self._study = optuna.create_study(directions=DIRECTIONS)
        self._trials: dict[int, tuple[Told | Asked, FrozenTrial, Key]] = {}

    def next(self, history: Sequence[Told], pending: Sequence[Asked], seed: int) -> Proposal | None:
        drawn, notes = self._draw(history, pending, seed)
        generator = random.Random(_turn(history, pending, seed))
        seen = {self._trials[one.number][2] for one in every(history, pending) if not one.repeat}
        picks = self.context.lead(drawn, seen, generator)
        return Proposal(picks, notes=notes) if picks is not None else None

    def notes(self, history: Sequence[Told], pending: Sequence[Asked], seed: int) -> Mapping[str, Any]:
        """What the sampler notes of a draw, whose point is not used: a genetic one to which generation the trial
        belongs.
        """
        return self._draw(history, pending, seed)[1]

    def _draw(self, history: Sequence[Told], pending: Sequence[Asked], seed: int) -> tuple[Picks, dict[str, Any]]:
        """A point of the space as the sampler draws it, and what it notes; it knows the first training of each
        candidate.

        Raises:
            StudyError: it does not take such a study.
        """
        history = [one for one in history if not one.repeat]
        pending = [one for one in pending if not one.repeat]
        trials = [self._trial(one) for one in every(history, pending)]
        if all(trial.state != TrialState.COMPLETE for trial in trials):
            self._scout = make_sampler(self.name, 0, self.context.trials)  # which remembers what it has seen
        base = make_sampler(self.name, _turn(history, pending, seed), self.context.trials)
        study, record = (
            copy(self._study),
            _Record(self._study._storage, trials, [one.notes for one in every(history, pending)]),
        )
        study._storage = cast(BaseStorage, record)
        trial = create_trial(state=TrialState.RUNNING)
        try:
            base.before_trial(study, trial)
            related = self._scout.infer_relative_search_space(study, trial)
            drawn = base.sample_relative(study, trial, related)
            for name, options in self.options.items():
                if name not in drawn:
                    drawn = drawn | {name: base.sample_independent(study, trial, name, options)}
        except (AssertionError, NotImplementedError, ValueError) as error:
            says = str(error).partition("\n")[0]
            raise StudyError(
                f"a sampler must take two objectives and choices, but {self.name} does not: {says}"
            ) from None
        return {name: drawn[name] for name in self.options}, record.notes

    def _trial(self, one: Told | Asked) -> FrozenTrial:
        """A training as Optuna knows it; remembered, since there may be thousands."""
        known = self._trials.get(one.number)
        if known and (known[0] is one or known[0] == one):
            return known[1]
        accuracy = one.accuracy if isinstance(one, Told) else None
        cost = None if accuracy is None else self.context.cost(self.context.space.at(one.picks))
        failed = TrialState.FAIL if isinstance(one, Told) else TrialState.RUNNING
        trial = create_trial(
            state=failed if accuracy is None else TrialState.COMPLETE,
            values=None if accuracy is None or cost is None else [accuracy, cost],
            params=dict(one.picks),
            distributions=dict(self.options),
            system_attrs={name: note for name, note in one.notes.items() if not name.startswith(SHARED)},
            constraints={"budget": 0.0},  # within which it was when it was chosen
        )
        trial.number = trial._trial_id = one.number
        self._trials[one.number] = one, trial, key_of(one.picks)
        return trial


class _Record:
    """A storage of trials that were made elsewhere, which keeps what a sampler notes of the trial that it draws: that
    is yet to be made.
    """

    def __init__(self, storage: BaseStorage, trials: list[FrozenTrial], noted: Sequence[Mapping[str, Any]]) -> None:
        self.storage, self.trials = storage, trials
        self.shared = {
            name[len(SHARED) :]: note for notes in noted for name, note in notes.items() if name.startswith(SHARED)
        }
        self.notes: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.storage, name)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        trials = [trial for trial in self.trials if states is None or trial.state in states]
        return [copy(trial) for trial in trials] if deepcopy else trials

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return dict(self.shared)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self.shared[key] = self.notes[SHARED + key] = value

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        if trial_id == DRAWN:
            self.notes[key] = value


def sampler(name: str) -> Maker:
    """What makes the strategy of a sampler, by the name of its class, or that in small letters without "Sampler".

    Raises:
        StudyError: Optuna has no such sampler.
    """
    known = [word for word in optuna.samplers.__all__ if word.endswith("Sampler") and not word.startswith("Base")]
    found = {word.removesuffix("Sampler").lower(): word for word in known}.get(name, name)
    if found not in known:
        raise StudyError(unknown("strategy", name, [*names(), *known]))
    return partial(Strategy, sampler=found)


def make_sampler(name: str, seed: int, trials: int | None) -> BaseSampler:
    """The Optuna sampler `name`; a genetic one gets a population that lets it evolve within `trials`.

    Raises:
        StudyError: it cannot be made from a seed alone.
    """
    settings: dict[str, Any] = {"seed": seed}
    if name.startswith("NSGA"):
        settings["population_size"] = max(6, min(50, (trials or 100) // 3))
    elif name == "TPESampler":
        settings["multivariate"] = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return getattr(optuna.samplers, name)(**settings)  # type: ignore[no-any-return]
    except (TypeError, ImportError) as error:
        says = str(error).partition("\n")[0]
        raise StudyError(f"a sampler must be made from a seed alone, but {name} is not: {says}") from None


def _turn(history: Sequence[Told], pending: Sequence[Asked], seed: int) -> int:
    """The seed of a draw: each has another."""
    return int(mark(str(seed), str(len(history) + len(pending))), 16) % 2**31
