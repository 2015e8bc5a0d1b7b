"""Laws of the supernet: steps go from bank to neighbouring bank, an interrupted training goes on to the same bits, and
candidates begin with slices.
"""

from __future__ import annotations

import importlib
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from mvnas.data import load
from mvnas.engines import Job, train
from mvnas.errors import SpaceError, TrainingError
from mvnas.spaces.space import Space
from mvnas.studies.prepared import Plain
from mvnas.tasks import task
from mvnas.techniques import techniques
from mvnas.testing.technique import TechniqueContract
from mvnas.training import Artifact, Schedule

supernet = importlib.import_module("mvnas.techniques.supernet")

STAGES = [
    {"block": "stem", "channels": [4, 8]},
    {"block": ["inverted_residual", "mbconv"], "channels": [8, 16], "stride": 2, "expand": [1, 2], "repeat": [1, 2]},
    {"block": "mobilevit", "dim": [8, 16], "layers": [1, 2], "heads": 2},
    {"block": "head", "channels": [8, 16]},
]


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supernet, "DRAWN", 3)


class TestSupernet(TechniqueContract):
    text = "supernet:epochs=0.3"


class TestPerformance(TechniqueContract):
    text = "multi_scale,supernet:epochs=0.3:sampling=performance:banks=2:cache=3"


def study(partial: Path | None = None, **changes: object) -> Plain:
    """A study of small networks at two resolutions."""
    space = Space.from_data({"resolution": [64, 96], "stages": STAGES}, source="test").with_classes(10)
    plain = Plain(load("digits"), task(), Schedule(epochs=0.05), 0.25, 3, "cpu", searched=space, partial=partial)
    return replace(plain, **changes)


def technique(**settings: object) -> object:
    return replace(techniques("supernet")[0], **settings)


def same(one: Artifact, other: Artifact) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("sampling", ["complexity", "performance"])
def test_an_interrupted_supernet_goes_on_to_the_same_bits(
    sampling: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supernet, "KEPT", -1.0)
    monkeypatch.setattr(supernet, "MEMORY", 3)
    made = technique(epochs=0.15, sampling=sampling)
    taken: list[int] = []

    def tell(what: str, done: int, total: int) -> None:
        taken.append(done)
        if len(taken) == total // 2:
            raise KeyboardInterrupt

    interrupted = study(tmp_path / "part", tell=tell)
    with pytest.raises(KeyboardInterrupt):
        made.prepare(interrupted)
    whole = made.prepare(study())
    assert same(made.prepare(interrupted), whole)
    assert taken.count(1) == 1, "steps that were kept are not taken again"
    assert not same(technique(epochs=0.15, sampling="uniform").prepare(study()), whole)


def test_a_candidate_begins_with_slices_and_may_be_judged_as_it_is() -> None:
    artifact = technique(epochs=0.1).prepare(study())
    space = study().space
    arch = space.at({**space.ends[0], "1.block": "mbconv"})
    job = Job(arch, Schedule(epochs=0.1), 0.25, 0, techniques="supernet", until=0.0)
    judged = train(job, study().data, artifacts=[artifact])
    assert judged.checkpoint is None and judged.images == 0
    for name in ("stage0.0.stem.conv.conv.weight", "stage1.0.mbconv.project.conv.weight"):
        here = judged.state[name]
        assert torch.equal(here, torch.from_numpy(artifact[name])[tuple(slice(0, side) for side in here.shape)])
    assert train(job, study().data, artifacts=[artifact]).quality == judged.quality
    longer = train(replace(job, until=1.0), study().data, artifacts=[artifact])
    assert longer.images and not torch.equal(longer.state[name], judged.state[name])


def test_steps_stay_in_a_bank_or_go_to_the_next_and_their_networks_are_of_it() -> None:
    networks = supernet.Networks(study().space, lambda arch: max(0, arch.params - 8000), technique(banks=4), 0)
    walk = list(islice(networks.walk(), 200))
    assert {*walk} == {0, 1, 2, 3} and all(abs(one - other) <= 1 for one, other in pairwise(walk))
    macs = [[networks.archs[place].macs for place in bank] for bank in networks.banks]
    assert all(max(low) <= min(high) for low, high in pairwise(macs))
    assert all(arch.params <= 8000 for arch in networks.archs)
    for number, bank in enumerate(walk, 1):
        places = networks.members(number, bank, 0.0)
        assert len(places) == 3 and {*places} <= {*networks.banks[bank]}
        assert networks.archs[places[0]].macs == macs[bank][0]


def test_a_bank_remembers_the_networks_of_least_loss_and_draws_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supernet, "MEMORY", 4)
    monkeypatch.setattr(supernet, "RECALL", (1.0, 1.0))
    networks = supernet.Networks(study().space, lambda arch: 0.0, technique(sampling="performance"), 0)
    for place, loss in [(5, 9.0), (1, 2.0), (2, 3.0), (3, 4.0), (4, 5.0), (1, 6.0)]:
        networks.learn(0, place, loss)
    known = dict(zip(networks.remembered[0].tolist(), networks.scores[0].tolist(), strict=True))
    assert known == {1: -6.0, 2: -3.0, 3: -4.0, 4: -5.0}, "what is met again has its newest loss"
    assert {place for number in range(50) for place in networks.members(number, 0, 0.0)[1:]} <= {1, 2, 3, 4}


def test_what_cannot_be_shared_or_set_is_refused() -> None:
    fused = {"block": "fused_mbconv", "channels": 8, "stride": 2, "expand": [1, 4]}
    space = Space.from_data({"resolution": 64, "stages": [STAGES[0], fused, STAGES[-1]]}, source="test")
    with pytest.raises(
        SpaceError, match=r"fused_mbconv\.expand cannot share weights: .*without the technique supernet"
    ):
        techniques("supernet")[0].check(space)
    for text, told in (("sampling=complex", "unknown sampling .* mean 'complexity'"), ("banks=0", "must be 1 or more")):
        with pytest.raises(TrainingError, match=told):
            techniques(f"supernet:{text}")[0].check(study().space)
