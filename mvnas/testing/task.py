"""Laws of a task, for whoever writes one. In a test file of yours:

from mvnas.testing.task import TaskContract

class TestMine(TaskContract):
    task, data = "mine.age", "mine.faces"  # as --task and --data name them
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch

from mvnas.data import Data, load
from mvnas.spaces.space import Space
from mvnas.tasks import Metric, Task, task
from mvnas.training.judging import inputs

COUNT, SIDE = 24, 32


class TaskContract:
    """Qualities are shares of the way to the best, tallies add up, losses can be made small, and files can be
    compared.
    """

    task: str
    data: str
    space = "mobilevit"

    def test_the_data_is_such_as_the_task_needs(self) -> None:
        aim, data = self._made()
        aim.check(data)
        assert aim.outputs(data) >= 1 and aim.epochs(data) > 0 and aim.length(1.0, data)
        assert 0 <= aim.chance(data) < 1

    def test_each_metric_survives_a_study_and_one_of_them_suits_the_data(self) -> None:
        aim, data = self._made()
        assert aim.suited(data)[0] in aim.metrics(data)
        for name, metric in aim.metrics(data).items():
            assert aim.by(name, data).metric == aim.by(metric.name, data).metric == metric
            assert Metric.from_json(metric.to_json()) == metric
            assert (metric.quality(metric.worst), metric.quality(metric.best)) == (0, 1)

    def test_networks_have_its_outputs(self) -> None:
        aim, data = self._made()
        space = aim.space(Space.load(self.space), data)
        arch = space.sample(lambda name, options: options[0])
        assert aim.arch(arch, data) == arch
        assert arch.graph().outputs

    def test_tallies_of_parts_add_up_to_a_quality(self) -> None:
        aim, data = self._made()
        output, targets = self._output(), data.val.targets[:COUNT]
        whole = aim.tally(output, targets)
        parts = aim.tally(output[:7], targets[:7]) + aim.tally(output[7:], targets[7:])
        assert np.allclose(whole, parts)
        for name in aim.metrics(data):
            assert 0 <= aim.by(name, data).quality(whole) <= 1
        assert all(np.isfinite(value) for value in aim.measures(whole).values())

    def test_the_loss_has_a_gradient_and_training_shows_what_the_network_takes(self) -> None:
        aim, data = self._made()
        stored, targets = torch.from_numpy(data.train.images[:COUNT]), torch.from_numpy(data.train.targets[:COUNT])
        shown, changed = aim.augment(
            stored, targets, SIDE, crop=0.7, flip=data.flip, generator=torch.Generator().manual_seed(0)
        )
        assert shown.shape == inputs(aim, data.train.images[:COUNT], SIDE).shape == (COUNT, 3, SIDE, SIDE)
        output = torch.from_numpy(self._output()).requires_grad_()
        loss = aim.loss(output, changed, smoothing=0.1)
        loss.backward()  # type: ignore[no-untyped-call]
        assert loss.ndim == 0 and output.grad is not None and bool(output.grad.isfinite().all())

    def test_augmentation_draws_from_its_generator_alone(self) -> None:
        aim, data = self._made()
        stored, targets = torch.from_numpy(data.train.images[:COUNT]), torch.from_numpy(data.train.targets[:COUNT])
        before = torch.get_rng_state()
        one, other = (
            aim.augment(stored, targets, SIDE, crop=0.5, flip=data.flip, generator=torch.Generator().manual_seed(3))
            for _ in range(2)
        )
        assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])
        assert torch.equal(torch.get_rng_state(), before)

    def test_a_network_agrees_with_itself(self) -> None:
        aim, _ = self._made()
        output = self._output()
        assert aim.agree(output, output) == 1 >= aim.agreement > 0
        assert aim.agree(np.roll(-output, 1, 0), output) < 1

    def _made(self) -> tuple[Task, Data]:
        return task(self.task), _load(self.data)

    def _output(self) -> np.ndarray:
        """Outputs that a network might have for COUNT images."""
        aim, data = self._made()
        return np.random.default_rng(0).normal(size=(COUNT, aim.outputs(data))).astype(np.float32)


@cache
def _load(data: str) -> Data:
    return load(data)
