"""Estimates: a figure with the interval that it lies in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """What is said of one figure of a network: its value, and the 90 % interval from `low` to `high`, in a unit such as
    ms or mJ.

    A figure that is known exactly has an interval without width.
    """

    value: float
    low: float
    high: float
    unit: str = ""

    @classmethod
    def exactly(cls, value: float, unit: str = "") -> Estimate:
        """The estimate of what is counted, not predicted.

        >>> Estimate.exactly(5e6)
        Estimate(value=5000000.0, low=5000000.0, high=5000000.0, unit='')
        """
        return cls(value, value, value, unit)


@dataclass(frozen=True)
class Prediction(Estimate):
    """An estimate by a table of timings; `measured_share` is the share of it that stems from kernels that were timed
    themselves.
    """

    measured_share: float = 0.0


class Predictions(NamedTuple):
    """`Prediction` of many networks: (n,) each."""

    value: Array
    low: Array
    high: Array
    measured_share: Array
    unit: str
