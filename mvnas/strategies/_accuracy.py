"""A model of the accuracy of networks that were not trained, by those that were."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mvnas.strategies.pareto import Array

if TYPE_CHECKING:
    from sklearn.gaussian_process import GaussianProcessRegressor
from mvnas.strategies import Validation

SHAPING = 100  # most scores, evenly from all, that the kernel of the process is fitted to
NODES = 9  # of quadrature
LEAST = 1e-18  # variance of an accuracy, so that it can be divided by


def logits(validation: Validation, accuracy: Array, variance: Array) -> tuple[Array, Array]:
    """Logits of accuracies (n,) and, by the variance of these, their own: (n,), (n,).

    Who is right on k of n images is so to half an image, at 0 and at 1 alike. Who is right less often than chance has
    learnt as little as chance.
    """
    half = 0.5 / validation.images
    within = np.clip(np.maximum(accuracy, validation.chance), half, 1 - half)
    return np.log(within / (1 - within)), variance / (within * (1 - within)) ** 2


class Model(NamedTuple):
    """Accuracy of networks by their features: a Gaussian process, linear and smooth, of its standardised logits.

    Accuracies lie between 0 and 1, and differ the less the nearer they are to 1; their logits are as uncertain
    everywhere.
    """

    process: GaussianProcessRegressor
    centre: Array
    scale: Array
    mean: float
    deviation: float

    @classmethod
    def fit(cls, features: Array, accuracy: Array, variance: Array, validation: Validation) -> Model:
        """The process that explains `accuracy` (n,), of which `variance` (n,) is unsure beyond the noise of trainings,
        best.
        """
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct, Matern, WhiteKernel

        centre, spread = features.mean(0), features.std(0)
        scale = np.where(spread > 1e-9, spread, 1.0)
        scores, unsure = logits(validation, accuracy, variance)
        mean, deviation = float(scores.mean()), float(scores.std()) or 1.0
        x, y, alpha = (features - centre) / scale, (scores - mean) / deviation, unsure / deviation**2 + 1e-6
        width = features.shape[1]
        smooth = ConstantKernel(0.5, (0.01, 10)) * Matern(2 * width**0.5, (0.6 * width**0.5, 30 * width**0.5), nu=2.5)
        line = ConstantKernel(0.5 / width, (1e-3 / width, 10 / width)) * DotProduct(1.0, "fixed")
        kernel = smooth + line + WhiteKernel(0.1, (0.01, 1.0))
        part = np.linspace(0, len(x) - 1, min(SHAPING, len(x))).astype(int)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a parameter at its bound is an answer too
            shaped = GaussianProcessRegressor(kernel, alpha=alpha[part]).fit(x[part], y[part])
        process = GaussianProcessRegressor(shaped.kernel_, alpha=alpha, optimizer=None).fit(x, y)
        return cls(process, centre, scale, mean, deviation)

    def predict(self, features: Array) -> tuple[Array, Array]:
        """Expected accuracy of a training and its standard deviation: (n,), (n,)."""
        mean, deviation = self.process.predict((features - self.centre) / self.scale, return_std=True)
        return self._accuracy(mean, deviation)

    def joint(self, features: Array) -> tuple[Array, Array]:
        """Expected accuracy of trainings and their covariance: (n,), (n, n)."""
        mean, covariance = self.process.predict((features - self.centre) / self.scale, return_cov=True)
        logits = np.diag(covariance) ** 0.5
        accuracy, deviation = self._accuracy(mean, logits)
        slope = deviation / logits
        return accuracy, slope[:, None] * covariance * slope

    def _accuracy(self, mean: Array, deviation: Array) -> tuple[Array, Array]:
        """Mean and deviation of accuracies whose standardised logits are normal, by Gauss-Hermite quadrature."""
        nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
        logits = self.mean + self.deviation * (mean[:, None] + deviation[:, None] * nodes)
        accuracies, weights = 1 / (1 + np.exp(-logits)), weights / weights.sum()
        middle = accuracies @ weights
        return middle, np.maximum((accuracies - middle[:, None]) ** 2 @ weights, LEAST) ** 0.5

    def believing(self, features: Array) -> Model:
        """The model that has seen networks with these features (n, f) reach what it expects of them."""
        from sklearn.gaussian_process import GaussianProcessRegressor

        process, x = self.process, (features - self.centre) / self.scale
        alpha = np.append(process.alpha, np.full(len(x), 1e-6))
        again = GaussianProcessRegressor(process.kernel_, alpha=alpha, optimizer=None)
        again.fit(np.vstack([process.X_train_, x]), np.append(process.y_train_, process.predict(x)))
        return self._replace(process=again)
