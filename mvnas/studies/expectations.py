"""What a study expects of its candidates, by the model of accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np

from mvnas.accuracy import MOST, PATIENCE, AccuracyModel, Expected, Features, Groups, Validation, explained
from mvnas.spaces.rows import Picks
from mvnas.strategies.pareto import few
from mvnas.studies.score import Quality, Score

Choices = Mapping[str, Sequence[Any]]


class Training(NamedTuple):
    """A full training: the candidate it is of, its point, and its accuracy."""

    candidate: int
    picks: Picks
    accuracy: float


class Expectations:
    """Expected qualities of the candidates of one study, remembered while it grows.

    They follow from the study alone, whoever reads it and when.
    """

    def __init__(self, objective: str, validation: Validation) -> None:
        self.objective, self.validation = objective, validation
        self.model: AccuracyModel | None = None
        self._fitted: Sequence[Training] = ()
        self._places: dict[int, int] = {}  # of candidates in the model
        self._known: dict[int, tuple[int, Quality]] = {}  # by the number of trainings of a candidate

    def of(self, scores: Mapping[int, Score], trainings: Sequence[Training], choices: Choices) -> dict[int, Score]:
        """Scores with what is expected of each, by trainings in the order in which they were begun."""
        count = len(trainings)
        fitted = count - count % max(1, count // PATIENCE)
        features = Features(choices)
        if trainings[:fitted] != self._fitted:
            self._fit(scores, trainings[:fitted], features)
        observed = _by_candidate(trainings)
        unseen = _by_candidate(trainings[fitted:])
        for number in observed.keys() - self._places.keys():  # of those that are too many for the model it saw none
            unseen[number] = observed[number]
        left = [number for number in scores if self._known.get(number, (0,))[0] != len(observed[number])]
        if left and self.model:
            picks = {one.candidate: one.picks for one in trainings}
            places = np.array([self._places.get(number, -1) for number in left])
            groups = self._groups(features, scores, left, picks)
            expected = self.model.expect(groups, places, [unseen.get(number, []) for number in left])
            for i, number in enumerate(left):
                quality = _quality(expected, i, scores[number].quality, observed[number])
                self._known[number] = len(observed[number]), quality
        return {number: replace(score, quality=self._known[number][1]) for number, score in scores.items()}

    def explained(self, scores: Mapping[int, Score], trainings: Sequence[Training], choices: Choices) -> float | None:
        """Share of the differences between candidates that choices and costs explain (R2); None of too few."""
        _, groups, observed = self._shown(scores, trainings, Features(choices))
        return explained(groups, observed, self.validation)

    def _fit(self, scores: Mapping[int, Score], trainings: Sequence[Training], features: Features) -> None:
        """Fit the model to the candidates of some trainings."""
        numbers, groups, observed = self._shown(scores, trainings, features)
        self.model = AccuracyModel.fit(groups, observed, self.validation)
        self._fitted, self._known = trainings, {}
        self._places = {number: place for place, number in enumerate(numbers)}

    def _shown(
        self, scores: Mapping[int, Score], trainings: Sequence[Training], features: Features
    ) -> tuple[list[int], Groups, list[list[float]]]:
        """What a model is fitted to: numbers of candidates, MOST at most, their features, and their accuracies."""
        observed, picks = _by_candidate(trainings), {one.candidate: one.picks for one in trainings}
        numbers = sorted(observed)
        points = [(-fmean(observed[number]), scores[number].costs[self.objective].value) for number in numbers]
        chosen = [numbers[place] for place in few(np.array(points), MOST)]
        return chosen, self._groups(features, scores, chosen, picks), [observed[number] for number in chosen]

    def _groups(
        self, features: Features, scores: Mapping[int, Score], numbers: Sequence[int], picks: Mapping[int, Picks]
    ) -> Groups:
        """What the model sees of candidates."""
        names = (self.objective, "params", "macs")
        costs = np.array([[scores[number].costs[name].value for name in names] for number in numbers], float)
        return features.at([picks[number] for number in numbers], costs)


def _by_candidate(trainings: Sequence[Training]) -> dict[int, list[float]]:
    """Accuracies of each candidate."""
    found: dict[int, list[float]] = {}
    for one in trainings:
        found.setdefault(one.candidate, []).append(one.accuracy)
    return found


def _quality(expected: Expected, place: int, quality: Quality, observed: Sequence[float]) -> Quality:
    value, low, high = (float(ends[place]) for ends in expected)
    return replace(quality, value=value, low=low, high=high, observed=tuple(observed))
