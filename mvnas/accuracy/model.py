"""What accuracy is expected of networks, by those that were trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from mvnas.accuracy.features import Groups
from mvnas.accuracy.process import Array, Observations, Part, Places, Prior, Process

PARTS = (Part(0, False), Part(1, False), Part(2, False), Part(0, True), Part(2, True))  # orders, kinds, costs
MOST = 500  # networks that a model is fitted to, of more than there are: half the best, half evenly from the others
PATIENCE = 100  # a model is good for this share of more trainings, so that there is one for several of a long study
SHAPING = 150  # most networks, evenly from all, that variances and lengths are fitted to
SPECIAL = Prior.at(0.05, 2.7)  # share of the differences between scores that no feature explains
SEEDS = 0.1  # deviation of logits between seeds that is thought likely: 2.4 points of accuracy at 60 %
UNSURE = 4.5  # factor within which the variance of noise is thought to lie by two thirds
WIDTH = 1.6449  # deviations to either side that hold 90 %
NODES = 9  # of quadrature
LEAST = 1e-18  # variance of an accuracy, so that it can be divided by
FEWEST = 8  # networks whose cross-validation says anything
FOLDS = 5


class Validation(NamedTuple):
    """What qualities are shares of: so many validation images, of which who has learnt nothing has `chance`."""

    images: int
    chance: float


class Expected(NamedTuple):
    """The accuracy that trainings of n networks come to on average, with a 90 % interval: (n,) each."""

    mean: Array
    low: Array
    high: Array


def logits(validation: Validation, accuracy: Array, variance: Array) -> tuple[Array, Array]:
    """Logits of accuracies (n,) and, by the variance of these, their own: (n,), (n,).

    Who is right on k of n images is so to half an image, at 0 and at 1 alike. Who is right less often than chance has
    learnt as little as chance.
    """
    half = 0.5 / validation.images
    within = np.clip(np.maximum(accuracy, validation.chance), half, 1 - half)
    return np.log(within / (1 - within)), variance / (within * (1 - within)) ** 2


@dataclass(frozen=True)
class AccuracyModel:
    """Accuracy of networks by their features and trainings: a Gaussian process of standardised logits.

    Accuracies lie between 0 and 1, and differ the less the nearer they are to 1; their logits are as uncertain
    everywhere. What trainings of one network differ by is estimated from those that were repeated, and what is likely
    before: that of as many images as there are, and of seeds. All candidates are judged on the same validation images,
    so that the luck of these is no part of the interval.
    """

    process: Process
    centres: tuple[Array, ...]
    scales: tuple[Array, ...]
    mean: float
    deviation: float
    validation: Validation

    @classmethod
    def fit(
        cls,
        features: Groups,
        scores: Sequence[Sequence[float]],
        validation: Validation,
        variance: Array | None = None,
        shape: Array | None = None,
    ) -> AccuracyModel:
        """The model of n networks by the accuracies of their trainings, one or more each.

        `variance` (n,) is how unsure each is beyond the noise of a training, such as where it was trained in part.
        `shape` are the variances and lengths of another model, which are not fitted again then.
        """
        unsure = np.zeros(len(scores)) if variance is None else variance
        of_each = [logits(validation, np.array(its, float), np.zeros(len(its)))[0] for its in scores]
        means = np.array([each.mean() for each in of_each])
        averages = np.array([float(np.mean(its)) for its in scores])
        mean, deviation = float(means.mean()), float(means.std()) or 1.0
        observed = Observations(
            (means - mean) / deviation,
            np.array([len(its) for its in scores], float),
            logits(validation, averages, unsure)[1] / deviation**2,
            float(sum(((each - each.mean()) ** 2).sum() for each in of_each)) / deviation**2,
            sum(len(its) - 1 for its in scores),
        )
        centres = tuple(group.mean(0) for group in features)
        scales = tuple(np.where(group.std(0) > 1e-9, group.std(0), 1.0) for group in features)
        groups = tuple((group - at) / by for group, at, by in zip(features, centres, scales, strict=True))
        usual = 1 / (1 + np.exp(-mean))
        noise = (SEEDS**2 + 1 / (validation.images * usual * (1 - usual))) / deviation**2
        priors = SPECIAL, Prior.at(noise, UNSURE)
        parts = [part for part in PARTS if groups[part.group].shape[1]]
        if shape is None and len(means) > SHAPING:
            some = np.linspace(0, len(means) - 1, SHAPING).astype(int)
            few = observed._replace(
                means=observed.means[some], counts=observed.counts[some], unsure=observed.unsure[some]
            )
            shape = Process.fit(parts, [group[some] for group in groups], few, *priors).theta
        if shape is None:
            process = Process.fit(parts, groups, observed, *priors)
        else:
            process = Process.of(parts, groups, observed, shape)
        return cls(process, centres, scales, mean, deviation, validation)

    @property
    def noise(self) -> float:
        """Variance of the logits of trainings about that of their network."""
        return self.process.noise * self.deviation**2

    def expect(
        self, features: Groups, places: Places | None = None, later: Sequence[Sequence[float]] | None = None
    ) -> Expected:
        """What is expected of networks.

        `places` (n,) are those of trained ones among these, -1 of others; `later` are accuracies of trainings of each
        that the model has not seen.
        """
        mean, variance = self.process.predict(self._scaled(features), places)
        for i, scores in enumerate(later or ()):
            if scores:
                seen = logits(self.validation, np.array(scores, float), np.zeros(len(scores)))[0].mean()
                gain = variance[i] / (variance[i] + self.process.noise / len(scores))
                mean[i] += gain * ((seen - self.mean) / self.deviation - mean[i])
                variance[i] *= 1 - gain
        middle, _ = self._accuracy(mean, variance**0.5)
        low, high = (self._sigmoid(mean + side * WIDTH * variance**0.5) for side in (-1, 1))
        return Expected(middle, low, high)

    def predict(self, features: Groups, places: Places | None = None) -> tuple[Array, Array]:
        """Expected accuracy and its standard deviation: (n,), (n,)."""
        mean, variance = self.process.predict(self._scaled(features), places)
        return self._accuracy(mean, variance**0.5)

    def learns(self, features: Groups, places: Places | None = None) -> tuple[Array, Array]:
        """Expected accuracy, and the deviation of what it will be expected to be after another training: (n,), (n,)."""
        mean, variance = self.process.predict(self._scaled(features), places)
        accuracy, deviation = self._accuracy(mean, variance**0.5)
        return accuracy, deviation * (variance / (variance + self.process.noise)) ** 0.5

    def joint(self, features: Groups, places: Places | None = None) -> tuple[Array, Array]:
        """Expected accuracy of different networks, and its covariance: (n,), (n, n)."""
        mean, covariance = self.process.joint(self._scaled(features), places)
        apart = np.diag(covariance) ** 0.5
        accuracy, deviation = self._accuracy(mean, apart)
        slope = deviation / apart
        return accuracy, slope[:, None] * covariance * slope

    def believing(self, features: Groups) -> AccuracyModel:
        """The model that has seen one training each of other networks come to what it expects of them."""
        process, new = self.process, self._scaled(features)
        groups = [np.vstack(pair) for pair in zip(process.groups, new, strict=True)]
        told, count = process.observed, len(new[0])
        observed = told._replace(
            means=np.append(told.means, process.predict(new)[0]),
            counts=np.append(told.counts, np.ones(count)),
            unsure=np.append(told.unsure, np.zeros(count)),
        )
        return replace(self, process=Process.of(process.parts, groups, observed, process.theta))

    def _scaled(self, features: Groups) -> list[Array]:
        return [(group - at) / by for group, at, by in zip(features, self.centres, self.scales, strict=True)]

    def _sigmoid(self, standardised: Array) -> Array:
        found: Array = 1 / (1 + np.exp(-(self.mean + self.deviation * standardised)))
        return found

    def _accuracy(self, mean: Array, deviation: Array) -> tuple[Array, Array]:
        """Mean and deviation of accuracies whose standardised logits are normal, by Gauss-Hermite quadrature."""
        nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
        accuracies, weights = self._sigmoid(mean[:, None] + deviation[:, None] * nodes), weights / weights.sum()
        middle = accuracies @ weights
        return middle, np.maximum((accuracies - middle[:, None]) ** 2 @ weights, LEAST) ** 0.5


def explained(features: Groups, scores: Sequence[Sequence[float]], validation: Validation) -> float | None:
    """Share of the differences between scores of n networks that features explain, each predicted by models of the
    others (R2 of FOLDS-fold cross-validation, of logits); None of fewer than FEWEST networks, or where all are equal.
    """
    truth = np.array([logits(validation, np.array(its, float), np.zeros(len(its)))[0].mean() for its in scores])
    if len(truth) < FEWEST or not np.ptp(truth):
        return None
    fold = np.random.default_rng(0).permutation(len(truth)) % FOLDS
    wrong = blind = 0.0
    for held in (np.flatnonzero(fold == number) for number in range(FOLDS)):
        rest = np.setdiff1d(np.arange(len(truth)), held)
        model = AccuracyModel.fit(features.rows(rest), [scores[i] for i in rest.tolist()], validation)
        mean, _ = model.process.predict(model._scaled(features.rows(held)))
        wrong += float(((truth[held] - model.mean - model.deviation * mean) ** 2).sum())
        blind += float(((truth[held] - truth[rest].mean()) ** 2).sum())
    return 1 - wrong / blind
