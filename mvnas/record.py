"""What is written in a study's record: how it began, and what each trial tells of a candidate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from itertools import groupby
from typing import Any

from optuna.trial import FrozenTrial, TrialState, create_trial

from mvnas.arch import FLOAT, Arch, block, kind_of
from mvnas.errors import StudyError
from mvnas.latency import Latency
from mvnas.score import COSTS, Score
from mvnas.space import Picks

NAME = "mvnas"  # of the record among Optuna's
PLACE = ("rung", "candidate")  # attributes of a trial where a study has rungs
SIZES = ("params", "macs", "memory_bytes")  # of an architecture, as trials tell them

Key = tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Setup:
    """What a study remembers and every command that continues it must agree with.

    `marks` identify the contents behind the names, so that an edited space, other images or a re-measured table show.
    """

    budget: str
    space: str
    data: str
    device: str
    schedule: Mapping[str, Any]
    seed: int
    factor: float
    classes: tuple[str, ...]
    note: str = ""
    marks: Mapping[str, str] = field(default_factory=dict)
    objective: str = "latency"
    rungs: str = "1"
    flip: bool | None = None  # whether images are mirrored in training; None: as their source says, in older studies

    @property
    def costs(self) -> tuple[str, ...]:
        """What is predicted of each candidate: latency, and the objective if it is another."""
        return tuple(dict.fromkeys(("latency", self.objective)))

    def check(self, wanted: Setup, study: str) -> None:
        """Return if a command that wants `wanted` may continue this study.

        Raises:
            StudyError: it contradicts the study; the message names the difference.
        """
        have, want = asdict(self), asdict(wanted)
        flip = () if self.flip is None else ("flip",)
        for key in ("budget", "objective", "space", "device", "schedule", "rungs", "seed", "data", *flip):
            same = self.marks.get(key) == wanted.marks.get(key) if key in self.marks else have[key] == want[key]
            if same:
                continue
            change = f"{key} was {have[key]} and is {want[key]}"
            if have[key] == want[key]:
                change = f"the content of {key} {have[key]} has changed since"
            raise StudyError(
                f"the study {study} must be continued as it began, but {change}; repeat its command or name another --study"
            )


def describe(arch: Arch, costs: Mapping[str, float]) -> dict[str, Any]:
    """What Optuna's own tools show of a candidate: its blocks in a line, its sizes, and the costs that `predicted` gave.

    >>> from mvnas.space import Space
    >>> describe(Space.load("mobilevit_xxs").arch(), {})["architecture"][:70]
    '256 px: stem 16, inverted_residual 16 expand 2, inverted_residual 24 s'
    """
    runs = [(part, len(list(same))) for part, same in groupby(map(_told, arch.blocks))]
    return {
        "architecture": f"{arch.resolution} px: " + ", ".join(f"{n}x {part}" if n > 1 else part for part, n in runs),
        "precision": arch.precision,
        **{size: getattr(arch, size) for size in SIZES},
        **costs,
    }


def _told(part: Any) -> str:
    """A block in words: its first field, and the others where they are not their default."""
    first, *rest = fields(part)
    others = [
        f"{field.name} {getattr(part, field.name)}" for field in rest if getattr(part, field.name) != field.default
    ]
    return " ".join([kind_of(part), str(getattr(part, first.name)), *others])


def predicted(arch: Arch, model: Latency, costs: Iterable[str]) -> dict[str, float]:
    """What `model` predicts of a network, by the names of Score's fields: `costs` of COSTS with their intervals.

    Raises:
        UnmeasuredError: the model does not know one of the ops.
        TableError: energy is asked for, and the model's table has none.
    """
    found: dict[str, float] = {}
    for cost in costs:
        estimate = (model.energy if cost == "energy" else model).predict(arch)
        found |= dict(zip(COSTS[cost], (estimate.ms, estimate.low_ms, estimate.high_ms), strict=True))
    return found


def score_of(trial: FrozenTrial, setup: Setup, model: Latency | None = None) -> Score:
    """The score of a finished trial, its costs as they were predicted for the search, or as `model` predicts them."""
    known = trial.user_attrs
    arch = _arch(known["arch"])
    device = model.device if model else setup.device
    precision = "" if arch.precision == FLOAT else f", at {arch.precision}"
    sources = {
        "accuracy": f"measured on held-out images of {setup.data}, {setup.schedule['epochs']:g} epochs of training{precision}",
        **dict.fromkeys(setup.costs, f"predicted for {device}{precision}"),
    }
    costs = {"latency_ms": trial.values[1]}  # an older study tells it nowhere else
    costs |= {name: known[name] for cost in setup.costs for name in COSTS[cost] if name in known}
    if model:
        costs = predicted(arch, model, setup.costs)
    return Score(
        arch=arch,
        accuracy=trial.values[0],
        **{name: known[name] if name in known else getattr(arch, name) for name in SIZES},
        number=trial.number,
        name=known.get("name", ""),
        sources=sources,
        **costs,
    )


def _arch(told: Mapping[str, Any]) -> Arch:
    """The architecture in a trial's attributes, which was checked before it was written."""
    rows = [
        (row["block"], tuple((key, value) for key, value in row.items() if key != "block")) for row in told["blocks"]
    ]
    return Arch(tuple(block(*row) for row in rows), told["resolution"], told.get("precision", FLOAT))


def picks_of(trial: FrozenTrial) -> Picks:
    """The point of the space that a trial is of: drawn, or queued."""
    picks: Picks = trial.params if "arch" in trial.user_attrs else trial.system_attrs.get("fixed_params", trial.params)
    return picks


def key_of(picks: Mapping[str, Any]) -> Key:
    """Picks in a form that sets can hold."""
    return tuple(sorted(picks.items()))


def rung_of(trial: FrozenTrial) -> int:
    """The rung that a trial reached, or is to reach; 0 is the shortest."""
    found: int = trial.user_attrs.get("rung", 0)
    return found


def candidate_of(trial: FrozenTrial) -> int:
    """The number of a candidate is that of the first of its trials: it has one for each rung."""
    found: int = trial.user_attrs.get("candidate", trial.number)
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
    """The trial that queues the candidate of an interrupted one, with all that its sampler noted; None if it had not been drawn."""
    if "arch" not in trial.user_attrs and "fixed_params" not in trial.system_attrs:
        return None
    place = {key: trial.user_attrs[key] for key in PLACE if key in trial.user_attrs}
    noted = notes_of(trial) | {"fixed_params": picks_of(trial)}
    return create_trial(state=TrialState.WAITING, user_attrs=place, system_attrs=noted)
