"""Laws of a technique, for whoever writes one. In a test file of yours:

from mvnas.testing.technique import TechniqueContract

class TestMine(TechniqueContract):
    text = "mine.teacher:epochs=0.1"  # as --technique names it
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mvnas.data import Data, load
from mvnas.nn import build
from mvnas.spaces.arch import Arch
from mvnas.spaces.space import Space
from mvnas.studies.prepared import Plain
from mvnas.tasks import Task, task
from mvnas.techniques import techniques
from mvnas.training import Artifact, Checkpoint, Schedule, Trained, fit, initialise

SIDE, FACTOR = 128, 0.25  # of the network: 32 pixels, as the images have
STAGES = [
    {"block": "stem", "channels": [4, 8]},
    {"block": "inverted_residual", "channels": [8, 16], "stride": 2, "expand": [1, 2]},
    {"block": "head", "channels": [8, 16]},
]  # of the space, of which the network is the largest


class TechniqueContract:
    """A training with the technique is as reproducible as a plain one, may rest anywhere, and leaves what it shares
    alone.
    """

    text: str
    task = "classification"
    data = "digits"

    def test_the_same_seed_gives_the_same_bits(self) -> None:
        first, again = self._trained(), self._trained()
        assert first.quality == again.quality
        assert _same(first.state, again.state), "two trainings from one seed must end in the same weights"

    def test_a_training_that_rests_ends_as_one_that_does_not(self) -> None:
        part = self._trained(until=0.5)
        assert part.checkpoint
        rested = self._trained(begin=part.checkpoint)
        assert _same(rested.state, self._trained().state), (
            "what a training keeps beside its weights belongs into `state`"
        )

    def test_the_generators_and_the_images_are_left_as_they_were(self) -> None:
        data = self._data()
        known = data.fingerprint, data.train.images.copy()
        self._trained()
        data.__dict__.pop("fingerprint")
        assert data.fingerprint == known[0] and np.array_equal(data.train.images, known[1])

    def test_what_is_prepared_is_arrays_and_the_same_each_time(self) -> None:
        first, again = _prepared(self.text, self.task, self.data), _prepare(self.text, self.task, self.data)
        for one, other in zip(first, again, strict=True):
            assert one.keys() == other.keys() and all(np.array_equal(one[key], other[key]) for key in one)

    def test_every_loss_is_finite(self) -> None:
        seen: list[float] = []
        self._trained(progress=lambda step, steps, loss: seen.append(loss))
        assert seen and np.isfinite(seen).all()

    def _data(self) -> Data:
        return _load(self.data)

    def _trained(self, *, until: float = 1.0, begin: Checkpoint | None = None, progress: Any = None) -> Trained:
        aim, data = task(self.task), self._data()
        made = techniques(self.text, _prepared(self.text, self.task, self.data))
        arch = _arch(aim, data)
        module = build(arch.graph())
        initialise(module, 1)
        before = torch.get_rng_state()
        trained = fit(module, data, resolution=SIDE, factor=FACTOR, schedule=_schedule(), seed=1, task=aim,
                      techniques=made, until=until, begin=begin, progress=progress,
                      arch=arch)  # fmt: skip
        assert torch.equal(torch.get_rng_state(), before), "random numbers of others must go on as if nothing had been"
        return trained


def _space(aim: Task, data: Data) -> Space:
    return aim.space(Space.from_data({"resolution": SIDE, "stages": STAGES}, source="contract"), data)


def _arch(aim: Task, data: Data) -> Arch:
    space = _space(aim, data)
    return space.at(space.ends[1])


def _schedule() -> Schedule:
    return Schedule(epochs=0.3, batch=64)


@cache
def _load(data: str) -> Data:
    return load(data)


@cache
def _prepared(text: str, task_name: str, data: str) -> list[Artifact]:
    return _prepare(text, task_name, data)


def _prepare(text: str, task_name: str, data: str) -> list[Artifact]:
    """What each technique prepares for a study of these images."""
    aim = task(task_name)
    study = Plain(_load(data), aim, _schedule(), FACTOR, 0, "cpu", searched=_space(aim, _load(data)))
    return [technique.prepare(study) for technique in techniques(text)]


def _same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())
