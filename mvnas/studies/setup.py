"""How a study began, which every command that continues it must agree with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import inf
from shlex import quote
from typing import Any

from mvnas import tasks, techniques
from mvnas.accuracy import Validation
from mvnas.costs import cost
from mvnas.errors import CostError, StudyError
from mvnas.strategies.rungs import Rungs
from mvnas.studies.checking import fields_of, fits, shown, shown_texts
from mvnas.tasks import Metric

# That a study holds to.
FIELDS = (
    "budget",
    "objective",
    "space",
    "device",
    "rungs",
    "seed",
    "data",
    "flip",
    "engine",
    "task",
    "metric",
    "scores",
    "technique",
)
SHORT, SUPERNET = "short", "supernet"
SCORES = {SHORT: "short trainings", SUPERNET: "slices of a supernet"}  # what qualities of candidates are of
FLIP = {True: "yes", False: "no", None: None}  # as the command line says it; None in older studies
SETTABLE = ("epochs", "batch", "lr", "clip")  # of its schedule, that the command line sets
BUILT_IN = "processes"  # stands for every engine of ours, since each trains the same
UNKNOWN = 1000  # validation images of a study that does not tell how many it has
COUNTED = ("params", "macs", "memory")  # costs that every study tells of its candidates beside what it minimises


@dataclass(frozen=True)
class Setup:
    """What a study remembers and every command that continues it must agree with.

    `marks` identify the contents behind the names, so that an edited space, other images or a re-measured table show:
    one of the field's name, and others such as `device.model` of what else belongs to it. A study may be older than a
    mark.
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
    engine: str = BUILT_IN
    task: str = tasks.DEFAULT
    metric: Mapping[str, Any] = field(default_factory=tasks.ACCURACY.to_json)
    technique: str = techniques.DEFAULT
    judged: int = 0  # validation images that qualities are of; 0: unknown, in older studies
    scores: str = SHORT  # what qualities of candidates are of: SCORES
    chance: float = 0.0  # quality of a network that has learnt nothing
    flip: bool | None = None  # whether images are mirrored in training; None: as their source says, in older studies

    @property
    def costs(self) -> tuple[str, ...]:
        """Costs that a study tells of each candidate: latency, the objective if it is another, and what is counted."""
        return tuple(dict.fromkeys(("latency", self.objective, *COUNTED)))

    @property
    def predicted(self) -> list[str]:
        """Those of them that are not counted."""
        return [name for name in self.costs if cost(name).interval]

    @property
    def validation(self) -> Validation:
        """What the qualities of candidates are measured on."""
        return Validation(self.judged or UNKNOWN, self.chance)

    @property
    def quality(self) -> Metric:
        """What the qualities of candidates are shares of."""
        return Metric.from_json(self.metric)

    @classmethod
    def read(cls, told: object) -> Setup:
        """The setup that a study tells, with texts that a terminal may show.

        Raises:
            StudyError: a newer mvnas wrote it, or nobody did.
            TrustError: it names a module that is not trusted.
        """
        values = fields_of(cls, told, "its setup")
        made = cls(**values | {"classes": tuple(values["classes"])})
        try:
            cost(made.objective, foreign=True)
        except CostError as error:
            raise StudyError(f"its setup must tell an objective that there is, but: {error}") from None
        if not (made.classes or made.task != tasks.DEFAULT) or not 0 < made.factor < inf:
            raise StudyError("its setup must tell classes and a factor that there are, but does not")
        if not fits(made.schedule.get("epochs"), float):
            raise StudyError(f"its setup must tell epochs, but tells {shown(made.schedule.get('epochs'))}")
        Rungs.parse(made.rungs)
        if made.scores not in SCORES:
            raise StudyError(f"its setup must tell scores that there are, but tells {shown(made.scores)}")
        try:
            _ = made.quality
        except (TypeError, ValueError) as error:
            raise StudyError(f"its setup must tell a metric, but {error}") from None
        return made

    def check(self, wanted: Setup, study: str) -> None:
        """Return if a command that wants `wanted` may continue this study.

        Raises:
            StudyError: it contradicts the study; the message names the difference.
        """
        have, want = (
            {**asdict(setup), **setup.schedule, "flip": FLIP[setup.flip], "metric": setup.quality.name}
            for setup in (self, wanted)
        )
        for key in dict.fromkeys([*FIELDS, *self.schedule, *wanted.schedule]):
            before, now = have.get(key, 0), shown_texts(want.get(key, 0))  # an older study lacks what was off
            marks = [mark for mark in self.marks if mark.partition(".")[0] == key]
            same = all(self.marks[mark] == wanted.marks.get(mark) for mark in marks) if marks else before in (now, None)
            if same:
                continue
            change, advice = f"{key} was {before} and is {now}", "set it back"
            if before == now:
                change, advice = f"the content of {key} {before} has changed since", "bring it back"
            elif key in (*FIELDS, *SETTABLE):
                advice = f"give --{key} {quote(str(before))}"
            raise StudyError(
                f"the study {study} must be continued as it began, but {change}; {advice} or name another --study"
            )
