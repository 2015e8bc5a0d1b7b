"""What picked networks reach on test images, at which nothing looked before: judged at the end, and remembered by the
study.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from optuna.trial import TrialState

from mvnas.data import Data
from mvnas.engines import at_hand
from mvnas.errors import MvnasError, StudyError, plain
from mvnas.export import load
from mvnas.ops import State
from mvnas.pretrained import read_weights
from mvnas.spaces.arch import PRECISIONS, Arch
from mvnas.studies.checking import fields_of
from mvnas.studies.faults import damaged, written
from mvnas.studies.files import checksum, intact
from mvnas.studies.score import Score
from mvnas.studies.storage import owned
from mvnas.studies.study import Study
from mvnas.system.machine import threads
from mvnas.system.progress import Progress
from mvnas.tasks import Task
from mvnas.training import Schedule, evaluate, evaluate_file, trained_size
from mvnas.training.numerics import memory
from mvnas.verification.retrain import accuracies, shipped, task_of
from mvnas.verification.retrain import weights as longer_weights

KEY = "tested"  # an attribute of the study for each candidate: tested TRIAL xTIMES


@dataclass(frozen=True)
class OnTest:
    """Quality of a candidate on `count` test images after `times` the study's epochs, by the study's metric.

    `weights` is the checksum of the very weights, `images` the mark of the test images.
    """

    number: int
    times: int
    quality: float
    count: int
    weights: str
    images: str


def on_test(study: Study, times: int = 1) -> Mapping[int, OnTest]:
    """What the study knows of candidates on test images, by trial; of those whose weights are still as they were
    judged, or gone.

    Raises:
        StudyError: the study tells something else.
    """
    told = {key: row for key, row in study.record.user_attrs.items() if key.startswith(f"{KEY} ")}
    try:
        rows = [OnTest(**fields_of(OnTest, row, plain(key))) for key, row in told.items()]
    except StudyError as error:
        raise damaged(study.place, str(error)) from None
    return {
        row.number: row
        for row in rows
        if row.times == times and _mark(_path(study, row.number, times)) in (row.weights, "")
    }


def known_quality(study: Study, number: int, times: int = 1) -> float | None:
    """What the study knows of one candidate's quality on test images; None if it was not judged."""
    row = on_test(study, times).get(number)
    return None if row is None else row.quality


def validated(study: Study, score: Score) -> float:
    """Quality on validation images of the weights of a candidate that are shipped and judged."""
    trained = accuracies(study, 1).get(score.number)
    searched = trained is None or shipped(study, score.number) == study.files.weights(score.number)
    return score.quality.kept if searched or trained is None else trained


def compared(study: Study) -> list[tuple[float, OnTest]]:
    """Of each network of the frontier that was judged, the quality on validation images and what is known of test
    images.
    """
    known = on_test(study)
    return [
        (validated(study, score), known[score.number]) for score in study.frontier().scores if score.number in known
    ]


def judge_frontier(study: Study, images: Callable[[], Data], *, tell: Progress | None = None) -> str:
    """Judge the networks of a frontier on test images, those that are not yet; why some are not, or nothing.

    `images` loads the data, only if there is something to judge. Nothing is judged while a search runs.
    """
    known, scores = on_test(study), study.frontier().scores
    if all(score.number in known for score in scores):
        return ""
    try:
        with owned(study.place):
            if study.shared and study.trials(TrialState.RUNNING):
                raise StudyError("candidates are in training")
            judge(study, images(), scores, tell=tell)
    except (MvnasError, OSError) as error:
        return str(error)
    return ""


def judge(study: Study, data: Data, scores: Sequence[Score], times: int = 1, *, tell: Progress | None = None) -> None:
    """Judge candidates on the test images by their kept weights, at the size and precision that they were validated at,
    and let the study remember it.

    In float32 torch computes on the device at hand, in 8 bits a file does. What was judged before, of the same weights
    and images, is not judged again.

    Raises:
        StudyError: there are no test images, or weights of a candidate are not kept; all others are judged then.
        TrustError: the study's task is the user's, who has not said that it may run.
    """
    if not len(data.test):
        raise StudyError(f"{study.setup.data} has no test images, and too few others to cut some")
    task, images = task_of(study).by(study.setup.quality.name, data), data.test.fingerprint
    known, gone = on_test(study, times), []
    torch.set_num_threads(min(torch.get_num_threads(), threads()))
    for score in scores:
        path = _path(study, score.number, times)
        if not intact(path):
            gone += [score.label] * (score.number not in known)
            continue
        row = known.get(score.number)
        if row and (row.weights, row.images) == (_mark(path), images):
            continue
        state = read_weights(score.arch, path)[1]
        quality = _quality(study, score.arch, state, data, task, tell)
        row = OnTest(score.number, times, quality, len(data.test), _mark(path), images)
        with written(study.place):
            study.record.set_user_attr(f"{KEY} {score.number} x{times}", vars(row))
    if gone:
        names = ", ".join(gone[:3]) + " and others" * (len(gone) > 3)
        raise StudyError(
            f"the weights of {names} are not kept whole; train {'them' if len(gone) > 1 else 'it'} longer with `mvnas"
            " verify`"
        )


def _quality(study: Study, arch: Arch, state: State, data: Data, task: Task, tell: Progress | None) -> float:
    """Quality of a network on test images as it was validated."""
    side = trained_size(arch.resolution, study.setup.factor)
    if PRECISIONS[arch.precision] == 1:
        return evaluate_file(arch, state, data, side, split=data.test, task=task, tell=tell)
    batch = Schedule(**study.setup.schedule).batch
    with memory():
        module = load(arch.graph(), state).to(at_hand(), memory_format=torch.channels_last)  # type: ignore[call-overload]
        return evaluate(module, data.test, side=side, batch=batch, task=task, tell=tell)


def _path(study: Study, number: int, times: int) -> Path:
    """File of the weights of a candidate that was trained `times` as long."""
    return shipped(study, number) if times == 1 else longer_weights(study, number, times)


def _mark(path: Path) -> str:
    """Checksum of the weights in a file; nothing if it is not there or has none."""
    with suppress(Exception):
        return checksum(path)
    return ""
