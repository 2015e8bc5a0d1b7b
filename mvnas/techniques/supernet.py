"""One training for a whole space: a supernet, of whose weights every candidate begins with its slices.

A supernet is a dictionary of the weights of the largest network of the space, and a candidate its own module, called
with views of them (`mvnas.sharing`). Each step is a sandwich (arXiv:1903.05134, sec. 3): the largest network learns
from labels, a small one and some sampled ones from its soft outputs.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor
from torch.func import functional_call
from torch.nn import Module, Parameter, ParameterList

from mvnas import training
from mvnas.budgets.feasible import repair
from mvnas.errors import SpaceError, TrainingError, unknown
from mvnas.graph import Graph
from mvnas.nn import build
from mvnas.sharing import Slice, plan, views
from mvnas.spaces.arch import Arch
from mvnas.spaces.rows import Picks, options
from mvnas.spaces.space import Space
from mvnas.tasks import last
from mvnas.training import Artifact, Preparation, Sampler, Training, initialise, trained_size
from mvnas.training.loop import each
from mvnas.training.numerics import memory, mixed, reproducible
from mvnas.training.weights import Average, groups

SAMPLING = ("complexity", "performance", "uniform")
TIMES = 10  # passes of the supernet for each of a candidate's, where nothing is said
DRAWN = 60  # networks of a bank that are drawn once, of which steps take some
MEMORY = 30  # of these that a bank remembers by their loss
RECALL = 0.2, 0.65  # share of draws from the memory at the first step, and at the last
KEPT = 60.0  # seconds between two times at which the training is kept
ARCHS = "archs"  # in the artifact, beside weights by their names: the largest networks, as JSON


@dataclass
class Technique(training.Technique):
    """Candidates begin with slices of a supernet's weights, which is trained once a study.

    `sampling` says which networks a step trains beside the largest. `uniform`: the smallest, and `others` at random.
    `complexity`: the smallest and random ones of one of so many `banks` of similar MACs, from which a step goes to a
    neighbouring one at most (ElasticViT, arXiv:2303.09730, sec. 3). `performance`: the same, but more and more often
    random ones are those of least loss that the bank remembers; its rule for new ones, which goes by channels and
    depths, is left out. `epochs` are passes over the training images, 0: ten times a candidate's. `cache` modules of
    networks are kept.
    """

    sampling: str = SAMPLING[0]
    epochs: float = 0.0
    others: int = 2
    banks: int = 5
    cache: int = 200

    def check(self, space: Space) -> None:
        if self.sampling not in SAMPLING:
            raise TrainingError(unknown("sampling of the technique supernet", self.sampling, SAMPLING))
        if min(self.others, self.banks, self.cache) < 1 or self.epochs < 0:
            raise TrainingError(
                "others, banks and cache of the technique supernet must be 1 or more, and epochs not negative, but are"
                f" {self.others}, {self.banks}, {self.cache} and {self.epochs:g}"
            )
        check_shared(space)

    def prepare(self, study: Preparation) -> Artifact:
        """The weights of the largest networks of the study's space, by name, and what these are."""
        self.check(study.space)
        schedule = training.Schedule(**{**vars(study.schedule), "epochs": self.epochs or TIMES * study.schedule.epochs})
        with memory(), reproducible(torch.device(study.device), study.seed):
            net = Supernet(maximal(study.space), study.seed, device=study.device, cache=self.cache)
            sampling = Networks(study.space, study.excess, self, study.seed)
            Sandwiches(net, sampling, study, schedule).run()
        archs = json.dumps([arch.to_json() for arch in net.archs]).encode()
        weights = {name: weight.detach().cpu().contiguous().numpy() for name, weight in net.weights.items()}
        return {**weights, ARCHS: np.frombuffer(archs, np.uint8)}

    def begin(self, training: Training) -> None:
        if training.arch is None:
            raise TrainingError("a training from a supernet must be told its architecture, but was not; give fit arch")
        slices = plan(_graphs(self.artifact[ARCHS].tobytes()), training.arch.graph()).slices
        own = dict(training.module.named_parameters())
        weights = {name: torch.from_numpy(value) for name, value in self.artifact.items() if name != ARCHS}
        with torch.no_grad():
            for name, value in views({name: slices[name] for name in own}, weights).items():
                own[name].copy_(value)


@lru_cache(4)
def _graphs(archs: bytes) -> list[Graph]:
    """The largest networks that an artifact tells."""
    return [Arch.from_json(one).graph() for one in json.loads(archs)]


# The space ------------------------------------------------------------------------------------------------------------


def maximal(space: Space) -> list[Arch]:
    """Networks with the largest option of every choice, or where these are no numbers the last, which among them have
    every kind of every row.
    """
    most = {name: _largest(values) for name, values in space.choices.items()}
    found = []
    for turn in range(max(len(row.stages) for row in space.rows)):
        mixed = [(i, row) for i, row in enumerate(space.rows) if len(row.stages) > 1]
        kinds = {f"{i}.block": row.stages[min(turn, len(row.stages) - 1)].kind for i, row in mixed}
        found.append(space.at({**most, **kinds}))
    return found


def _largest(values: Sequence[Any]) -> Any:
    return max(values) if all(isinstance(value, int | float) for value in values) else values[-1]


def check_shared(space: Space) -> None:
    """Check that networks of a space share weights: the smallest, and those that differ from it or from the largest in
    one choice.

    Raises:
        SpaceError: one does not; the message names the op.
    """
    large = [arch.graph() for arch in maximal(space)]
    for ends in ({name: _largest(values) for name, values in space.choices.items()}, space.ends[0]):
        for name, values in space.choices.items() or [("", ("",))]:
            for value in values:
                picks = {**ends, name: value} if name else {}
                try:
                    plan(large, space.at(space.activated(picks, name) if name else picks).graph())
                except SpaceError as error:
                    raise SpaceError(f"{error}; search without the technique supernet") from None


class Networks:
    """Networks that steps train beside the largest: some drawn once, those of similar MACs in a bank.

    All of it follows from the seed, but what banks remember.
    """

    def __init__(self, space: Space, excess: Callable[[Arch], float], told: Technique, seed: int) -> None:
        self.told, self.seed = told, seed
        generator = random.Random(f"{seed} networks")
        drawn = [_drawn(space, excess, generator) for _ in range(DRAWN * told.banks)]
        archs = sorted([space.at(space.ends[0]), *map(space.at, drawn)], key=lambda arch: arch.macs)
        self.archs = archs
        count = 1 if told.sampling == "uniform" else told.banks
        self.banks = [bank.tolist() for bank in np.array_split(np.arange(len(archs)), count)]
        self.scores = torch.full((count, MEMORY), -math.inf, dtype=torch.float64)
        self.remembered = torch.zeros((count, MEMORY), dtype=torch.int64)

    def walk(self) -> Iterator[int]:
        """The bank of each step: one beside that of the step before, or the same (sec. 3.2)."""
        bank = 0
        for number in range(1, 1 << 62):
            yield bank
            step = random.Random(f"{self.seed} bank {number}").choice((-1, 0, 1))
            bank = min(max(bank + step, 0), len(self.banks) - 1)

    def members(self, number: int, bank: int, share: float) -> list[int]:
        """The networks of a step, by their places in `archs`, at this share of the training: the smallest of its bank,
        and some others.
        """
        generator, known = random.Random(f"{self.seed} step {number}"), self.scores[bank].isfinite()
        places = [generator.choice(self.banks[bank]) for _ in range(self.told.others)]
        recall = RECALL[0] + (RECALL[1] - RECALL[0]) * share
        if self.told.sampling == "performance" and 2 * int(known.sum()) > MEMORY:
            chances = self.scores[bank].softmax(0).tolist()
            for i in range(len(places)):
                if generator.random() < recall:
                    places[i] = generator.choices(self.remembered[bank].tolist(), chances)[0]
        return [self.banks[bank][0], *places]

    def learn(self, bank: int, place: int, loss: float) -> None:
        """Remember a network if its loss is less than the greatest that is remembered."""
        known = (self.remembered[bank] == place) & self.scores[bank].isfinite()
        worst = int(known.nonzero()[0]) if bool(known.any()) else int(self.scores[bank].argmin())
        if bool(known.any()) or -loss > self.scores[bank, worst]:
            self.scores[bank, worst], self.remembered[bank, worst] = -loss, place


def _drawn(space: Space, excess: Callable[[Arch], float], generator: random.Random) -> Picks:
    """A random network, within the budget if the walk to it is short."""
    picks = {name: generator.choice(values) for name, values in space.choices.items()}
    return repair(picks, space, excess, generator)[0]


# Weights --------------------------------------------------------------------------------------------------------------


class Supernet:
    """The weights of the largest networks of a space, by name, and modules of candidates that are called with slices
    of them.
    """

    def __init__(self, archs: Sequence[Arch], seed: int, *, device: str = "cpu", cache: int = 200) -> None:
        self.archs, self.device, self.most = archs, device, cache
        self.graphs = [arch.graph() for arch in archs]
        self.modules: list[Module] = []
        self.weights: dict[str, Parameter] = {}
        for graph in self.graphs:
            module = build(graph)
            initialise(module, seed)
            module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
            self.modules.append(module)
            for name, weight in module.named_parameters():
                self.weights.setdefault(name, weight)
        self._made: OrderedDict[Arch, tuple[Module, Mapping[str, Slice]]] = OrderedDict()

    def __call__(self, arch: Arch, x: Tensor) -> Any:
        """What a network puts out, in training: (B, 3, H, W) -> (B, K)."""
        module, slices = self._candidate(arch)
        return functional_call(module, views(slices, self.weights), (x,))

    def _candidate(self, arch: Arch) -> tuple[Module, Mapping[str, Slice]]:
        """The module of a network and its slices."""
        if arch not in self._made:
            graph = arch.graph()
            module, slices = build(graph).to(self.device).train(), plan(self.graphs, graph).slices
            trained = {name for name, _ in module.named_parameters()}
            self._made[arch] = module, {name: part for name, part in slices.items() if name in trained}
            if len(self._made) > self.most:
                self._made.popitem(last=False)
        self._made.move_to_end(arch)
        return self._made[arch]

    def groups(self, decay: float) -> list[dict[str, Any]]:
        """The weights for an optimizer, as those of a module are grouped."""
        own = {id(weight) for weight in self.weights.values()}
        both: list[dict[str, Any]] = [{"params": [], "weight_decay": decay}, {"params": [], "weight_decay": 0.0}]
        for module in self.modules:
            for group, found in zip(both, groups(module, decay), strict=True):
                group["params"] += [weight for weight in found["params"] if id(weight) in own]  # type: ignore[attr-defined]
        return both


# Training -------------------------------------------------------------------------------------------------------------


class Sandwiches:
    """The training of a supernet, kept now and then, so that one that was interrupted goes on where it was.

    Steps are of the resolutions of the space in turn by chance, and random numbers of a step follow from its number.
    """

    def __init__(self, net: Supernet, networks: Networks, study: Preparation, schedule: training.Schedule) -> None:
        self.net, self.networks, self.study, self.schedule = net, networks, study, schedule
        sizes = tuple([(side, schedule.batch) for side in options(study.space.resolution)])
        self.sampler = Sampler(len(study.data.train), sizes, epochs=schedule.epochs, seed=study.seed)
        self.steps = len(self.sampler)
        self.average = Average(ParameterList(net.weights.values()), schedule.ema)
        self.optimizer = torch.optim.AdamW(net.groups(schedule.weight_decay), fused=True)

    def run(self) -> None:
        """Take all steps, or those that are left; the weights are then their averages.

        Raises:
            TrainingError: a loss is not finite.
        """
        done, since = self._resume(), time.monotonic()
        for number, ((side, indices), bank) in enumerate(zip(self.sampler, self.networks.walk(), strict=False), 1):
            if number <= done:
                continue
            loss = self._step(number, side, indices, bank)
            if not math.isfinite(loss):
                raise TrainingError(
                    f"the loss of the supernet must be finite, but is {loss} at step {number} of {self.steps}; search"
                    " with a lower --lr, or with --clip 1"
                )
            self.average.update(number)
            if self.study.tell:
                self.study.tell("steps of the supernet", number, self.steps)
            if time.monotonic() - since > KEPT:
                self._keep(number)
                since = time.monotonic()
        self.average.store()

    def _step(self, number: int, side: int, indices: np.ndarray, bank: int) -> float:
        """One step of the optimizer; the loss of the largest network before it."""
        study, task, net = self.study, self.study.task, self.net
        device, smoothing = torch.device(net.device), self.schedule.label_smoothing
        torch.manual_seed(study.seed + number)  # of dropout
        x, targets = task.augment(
            torch.from_numpy(study.data.train.images[indices]).to(device),
            torch.from_numpy(study.data.train.targets[indices]).to(device),
            trained_size(side, study.factor),
            crop=self.schedule.crop,
            flip=study.data.flip,
            generator=Generator().manual_seed(study.seed + number),
        )
        x = x.contiguous(memory_format=torch.channels_last)
        self.optimizer.zero_grad()
        places = self.networks.members(number, bank, number / self.steps)
        largest = net.archs[number % len(net.archs)]
        first, taught = 0.0, None
        for place, arch in [(-1, largest), *[(place, self.networks.archs[place]) for place in places]]:
            with mixed(device):
                output = net(arch, x)
            output = each(output, lambda one: one.float())
            labelled = task.loss(output, targets, smoothing=smoothing)
            if place >= 0:
                self.networks.learn(bank, place, labelled.item())
            loss = labelled if taught is None else self._distilled(output, taught, labelled)
            loss.backward()  # type: ignore[no-untyped-call]
            if taught is None:
                first, taught = labelled.item(), last(output).detach()
        if self.schedule.clip:
            torch.nn.utils.clip_grad_norm_(net.weights.values(), self.schedule.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.rate(number - 1, self.steps)
        self.optimizer.step()
        return first

    def _distilled(self, output: Any, taught: Tensor, labelled: Tensor) -> Tensor:
        """How far a network is from the largest one, where outputs are of classes; else its own loss."""
        if taught.ndim != 2 or taught.shape[1] != len(self.study.data.classes):
            return labelled
        learnt: Tensor = last(output).log_softmax(1)
        return -(taught.softmax(1) * learnt).sum(1).mean()

    def _keep(self, number: int) -> None:
        """Keep where the training stands."""
        told: dict[str, Tensor] = {"step": torch.tensor(number)}
        told |= {"scores": self.networks.scores, "remembered": self.networks.remembered}
        for i, (weight, mean) in enumerate(zip(self.average.source, self.average.values, strict=True)):
            told |= {f"weight {i}": weight, f"average {i}": mean}
        for i, state in self.optimizer.state_dict()["state"].items():
            told |= {f"moment {i} {name}": value for name, value in state.items()}
        self.study.keep({name: value.detach().cpu().contiguous() for name, value in told.items()})

    @torch.no_grad()
    def _resume(self) -> int:
        """Go on where a training of the same study was kept last; how many steps were taken by then."""
        told = self.study.kept()
        if told is None:
            return 0
        self.networks.scores, self.networks.remembered = told["scores"], told["remembered"]
        for i, (weight, mean) in enumerate(zip(self.average.source, self.average.values, strict=True)):
            weight.copy_(told[f"weight {i}"])
            mean.copy_(told[f"average {i}"])
        weights = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in told.items():
            if name.startswith("moment "):
                _, place, part = name.split(" ")
                if value.ndim:  # laid out in memory as the weight is, which the fused optimizer takes for granted
                    value = torch.empty_like(weights[int(place)]).copy_(value)
                state.setdefault(int(place), {})[part] = value
        self.optimizer.load_state_dict({"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]})
        return int(told["step"])
