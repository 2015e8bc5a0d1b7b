"""Whether a frontier keeps its word: its candidates trained longer, exported, checked, and timed where their runtime
runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from mvnas.backends import Runtime, format_of, of_table, settings
from mvnas.budgets import Budget
from mvnas.costs import Price
from mvnas.data import Data
from mvnas.errors import ExportError, StudyError
from mvnas.export import Judged, Pictures, export, origin
from mvnas.latency.model import Latency, latency
from mvnas.latency.table import Table, Timing
from mvnas.measuring.clock import DRIFT, cpu
from mvnas.measuring.measure import measure_networks
from mvnas.measuring.order import tau
from mvnas.measuring.protocol import STANDARD, Protocol
from mvnas.nn import deploy
from mvnas.ops import State
from mvnas.pretrained import read_weights
from mvnas.spaces.arch import FLOAT
from mvnas.spaces.space import Space
from mvnas.studies.score import Score
from mvnas.studies.study import Study
from mvnas.system.disk import work_folder
from mvnas.system.progress import Progress, silent
from mvnas.tasks import task
from mvnas.training import trained_size
from mvnas.verification.rank import LONGER
from mvnas.verification.retrain import retrain, retrained, trainer, weights
from mvnas.verification.tested import OnTest, judge, known_quality, on_test

PROTOCOL = Protocol()


@dataclass(frozen=True)
class Verified:
    """A candidate of the frontier, with what became of its figures.

    `accuracy` is that after the longer training, on validation images of `trained_size` a side as the search judged,
    and `tested` what the same weights reach on test images; `measured_ms` is the fastest of several passes of its
    file; `excess` is how far it is over the budget as measured. What is not known is None, and `told` says why.
    """

    score: Score
    pixels: int
    accuracy: float | None = None
    file: Path | None = None
    measured_ms: float | None = None
    excess: float | None = None
    told: str = ""
    tested: OnTest | None = None

    @property
    def inside(self) -> bool | None:
        """Whether the measurement is within the interval of the prediction."""
        latency = self.score.costs["latency"]
        return None if self.measured_ms is None else latency.low <= self.measured_ms <= latency.high


@dataclass(frozen=True)
class Verification:
    """A frontier, trained `longer` times the study's epochs; `cautions` speak against its timings."""

    longer: int
    rows: tuple[Verified, ...]
    cautions: tuple[str, ...]

    @property
    def measured(self) -> list[Verified]:
        return [row for row in self.rows if row.measured_ms is not None]

    @property
    def tests(self) -> list[tuple[float, OnTest]]:
        """Quality after the longer training on validation images, and what is known of test images."""
        return [(row.accuracy, row.tested) for row in self.rows if row.accuracy is not None and row.tested]

    @property
    def coverage(self) -> float | None:
        """Share of the measured candidates whose interval holds the measurement."""
        return _share([bool(row.inside) for row in self.measured])

    @property
    def kept(self) -> float | None:
        """Share of the measured candidates that are within the budget as measured."""
        return _share([row.excess == 0 for row in self.measured])

    @property
    def tau(self) -> float | None:
        """Kendall's tau of predicted and measured latency; None for fewer than two candidates."""
        rows = self.measured
        if len(rows) < 2:
            return None
        predicted = [row.score.costs["latency"].value for row in rows]
        return float(tau(predicted, [row.measured_ms or 0.0 for row in rows]))


def verify(
    study: Study,
    tables: Sequence[Table],
    data: Data,
    *,
    longer: int = LONGER,
    engine: str | None = None,
    protocol: Protocol = STANDARD,
    progress: Progress = silent,
    tell: Progress | None = None,
) -> Verification:
    """Train the frontier longer, as far as that is not done yet, export it beside the study, and time it by the
    runtimes of `tables`.

    Latency is predicted by the same tables. Files are made and timed anew at each call: that takes seconds. `engine` is
    that of the user's own by which the study was searched, if it was one. `progress` is told of whole trainings and of
    timings, and `tell` of what is done in a training.

    Raises:
        StudyError: nothing has finished, `longer` is no longer, no table is of a candidate's precision, or the engine
            is another.
        TableError: another measurement is running.
    """
    if longer < 2:
        raise StudyError(f"longer must be 2 or more times the epochs of the study, but got {longer}")
    model = latency(tables)
    study = study.on(model)
    scores = study.frontier().scores
    if not scores:
        raise StudyError(
            f"a study must have finished candidates to verify, but {study.place} has none; run the search first"
        )
    known = {table.precision for table in tables}
    for score in scores:
        if score.arch.precision not in known:
            raise StudyError(
                f"each precision must have a table, but {score.label} has none among {model.device}; name one with"
                " --device"
            )
    with trainer(study, data, engine, tell=tell) as train:
        for done, score in enumerate(scores):
            progress("trainings", done, len(scores))
            retrain(study, score, longer, train, keep=True)
    progress("trainings", len(scores), len(scores))
    rows: list[Verified] = []
    cautions: list[str] = []
    try:
        judge(study, data, scores, longer, tell=tell)
    except StudyError as error:
        cautions.append(f"test {study.setup.quality.name} is missing: {error}")
    reached = on_test(study, longer)
    for table in tables:
        shipped = [
            _ship(score, table, study, data, longer) for score in scores if score.arch.precision == table.precision
        ]
        timings, told = _time(shipped, table, partial(_state, study, longer), protocol, progress)
        rows += timings
        cautions += told
    budget = _budget(study, data, model)
    places = {score.number: place for place, score in enumerate(scores)}
    rows = [replace(_judge(row, budget, model), tested=reached.get(row.score.number)) for row in rows]
    return Verification(longer, tuple(sorted(rows, key=lambda row: places[row.score.number])), tuple(cautions))


def folder(study: Study) -> Path:
    """Where the files of a verification lie, beside the study."""
    return study.files.subfolder("verified")


def _ship(score: Score, table: Table, study: Study, data: Data, longer: int) -> Verified:
    """A candidate with its longer accuracy, exported in the format of the table's runtime where that is one to ship."""
    setup, arch = study.setup, score.arch
    known = retrained(study)[score.number, longer]
    row = Verified(score, trained_size(arch.resolution, setup.factor), known.accuracy)
    if known.accuracy is None:
        return replace(row, told=f"training failed: {known.reason}")
    try:
        form = format_of(table.device)
    except ExportError as error:
        return replace(row, told=str(error))
    if form is None:
        return replace(row, told=f"{table.device['backend']} has no files to ship")
    test = known_quality(study, score.number, longer)
    epochs, latency = longer * setup.schedule["epochs"], score.costs["latency"]
    aim = task(setup.task, foreign=True)
    card = {
        **origin(study, score),
        "epochs": epochs,
        "trained_px": row.pixels,
        "predicted": {"device": table.name, **{key: table.device[key] for key in ("backend", "precision", "threads")},
                      "ms": latency.value, "low_ms": latency.low, "high_ms": latency.high},
    }  # fmt: skip
    how = f"measured on validation images of {setup.data}, {epochs:g} epochs of training"
    try:
        (done,) = export(
            arch,
            _state(study, longer, score),
            folder(study) / f"trial{score.number}",
            name=f"trial{score.number}",
            formats=[form],
            precision=arch.precision if "precision" in settings(form) and arch.precision != FLOAT else None,
            images=Pictures.of(data, arch.resolution, aim) if arch.precision == "int8" else None,
            task=aim,
            card=card,
            judged=Judged.of(arch, known.accuracy, row.pixels, how, metric=setup.quality, tested=test),
            replace_others=True,
        )
    except ExportError as error:
        return replace(row, told=str(error))
    return replace(row, file=done.path, told=done.told)


def _unshipped(table: Table) -> bool:
    """Whether files of the runtime of a table are for timing alone."""
    try:
        return format_of(table.device) is None
    except ExportError:  # of a package that is not installed
        return False


def _state(study: Study, longer: int, score: Score) -> State:
    """Weights of a candidate after the longer training."""
    return read_weights(score.arch, weights(study, score.number, longer))[1]


def timed_file(row: Verified, runtime: Runtime, state: Callable[[Score], State], folder: Path) -> Path:
    """The file of a candidate that a runtime times: the shipped one, or one of as many images at once as the runtime
    takes.
    """
    assert row.file
    if getattr(runtime, "batch", 1) == 1:
        return row.file
    path = folder / row.file.name
    graph, folded = deploy(row.score.arch.graph(), state(row.score))
    runtime.export(graph, path, folded)
    return path


def _time(
    rows: Sequence[Verified], table: Table, state: Callable[[Score], State], protocol: Protocol, progress: Progress
) -> tuple[list[Verified], list[str]]:
    """Candidates timed by the table's runtime, as far as it runs here and their files are what was trained; and
    cautions.
    """
    timed = [row for row in rows if row.file or (row.accuracy is not None and _unshipped(table))]
    try:
        runtime = of_table(table.device)
        if not getattr(runtime, "runs_here", True):
            raise ExportError(f"{table.device['backend']} does not run on this machine")
        here = {"cpu": cpu(), **runtime.conditions()}
        with work_folder() as place, work_folder() as beside:
            passes = measure_networks(
                [row.score.arch for row in timed],
                runtime,
                folder=place,
                files={row.score.arch: timed_file(row, runtime, state, beside) for row in timed if row.file},
                protocol=protocol,
                progress=progress,
            )
    except ExportError as error:
        return list(rows), [f"latency on {table.name} is predicted only: {error}"]
    best = {arch: min(timings, key=lambda timing: timing.min_ms) for arch, timings in passes.items()}
    measured = [
        replace(row, measured_ms=best[row.score.arch].min_ms) if row.score.arch in best else row for row in rows
    ]
    return measured, [*_elsewhere(table, here), *_restless(list(best.values()))]


def _elsewhere(table: Table, here: Mapping[str, Any]) -> list[str]:
    """What a table says of its machine and its runtime where networks were timed on others."""
    there, differ = table.device, [key for key in ("cpu", "runtime", "batch") if table.device.get(key) != here.get(key)]
    if not differ:
        return []
    was, now = (" and ".join(f"{key} {told.get(key)}" for key in differ) for told in (there, here))
    return [
        f"{table.name} was measured on {was}, but networks were timed on {now}; its predictions are not for this"
        " machine"
    ]


def _restless(timings: Sequence[Timing]) -> list[str]:
    """What speaks against timings that were made while the machine was slower than at its best."""
    calm = DRIFT * min((timing.reference_ms for timing in timings), default=0.0)
    slow = sum(timing.reference_ms > calm for timing in timings)
    if not slow:
        return []
    return [
        f"{slow} of {len(timings)} networks were timed while the machine was {DRIFT - 1:.0%} slower or more; verify on"
        " a quieter one"
    ]


def _budget(study: Study, data: Data, model: Latency) -> Budget:
    """The budget of a study, by what `model` predicts where it names a network."""
    aim = task(study.setup.task, foreign=True)
    return Budget.parse(
        study.setup.budget, lambda name: Price(aim.arch(Space.load(name).arch(), data), model), foreign=True
    )


def _judge(row: Verified, budget: Budget, model: Latency) -> Verified:
    """A candidate with how far it is over the budget, its latency as measured."""
    if row.measured_ms is None:
        return row
    costs = {**Price(row.score.arch, model), "latency": row.measured_ms}
    return replace(row, excess=budget.excess(costs))


def _share(held: Sequence[bool]) -> float | None:
    return sum(held) / len(held) if held else None
