"""What techniques prepare once a study: made before its first training, kept beside it, and the same for all that
train for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import Module

from mvnas.data import Data, Split
from mvnas.engines import at_hand
from mvnas.errors import StudyError
from mvnas.nn import build
from mvnas.spaces.arch import Arch
from mvnas.spaces.space import Space
from mvnas.studies.files import checksum, intact, save_whole
from mvnas.studies.study import Study
from mvnas.system import disk
from mvnas.system.marks import mark
from mvnas.system.progress import Progress
from mvnas.tasks import Task, last, task
from mvnas.techniques import techniques
from mvnas.training import Schedule, Technique, computed, fit, initialise, trained_size

NOTE = "prepared"  # an attribute of the study for each technique that prepares something: its checksum


def _none(arch: Arch) -> float:
    """Nothing is over a budget where there is none."""
    return 0.0


@dataclass(frozen=True)
class Plain:
    """Plain trainings for a study, as `mvnas.training.Preparation` says."""

    data: Data
    task: Task
    schedule: Schedule
    factor: float
    seed: int
    device: str
    tell: Progress | None = None
    searched: Space | None = None
    excess: Callable[[Arch], float] = _none
    partial: Path | None = None  # where an unfinished preparation is kept

    @property
    def space(self) -> Space:
        if self.searched is None:
            raise StudyError(
                "what a technique prepared for this study is gone, and only its search makes it anew; continue that"
            )
        return self.searched

    def keep(self, state: Mapping[str, Tensor]) -> None:
        if self.partial:
            save_whole(dict(state), self.partial)

    def kept(self) -> Mapping[str, Tensor] | None:
        return load_file(self.partial) if self.partial and intact(self.partial) else None

    def train(self, arch: Arch, *, epochs: float) -> Module:
        module = build(arch.graph())
        initialise(module, self.seed)
        tell = self.tell
        fit(
            module,
            self.data,
            resolution=arch.resolution,
            factor=self.factor,
            schedule=replace(self.schedule, epochs=epochs),
            seed=self.seed,
            task=self.task,
            device=self.device,
            progress=(lambda step, steps, loss: tell("steps", step, steps)) if tell else None,
            tell=tell,
            arch=arch,
        )
        return module

    def outputs(self, module: Module, split: Split, resolution: int) -> np.ndarray:
        rows = computed(module, split, self.task, side=trained_size(resolution, self.factor), batch=self.schedule.batch)
        return np.concatenate([last(output) for _, output in rows])


def prepared(
    study: Study,
    data: Data,
    *,
    space: Space | None = None,
    excess: Callable[[Arch], float] = _none,
    foreign: bool = False,
    tell: Progress | None = None,
) -> tuple[str | None, ...]:
    """Files of what each of a study's techniques has prepared, made where they are not there; None where it prepares
    nothing.

    Only a search has the `space`, and `excess` over its budget. `foreign` says that the user did not name the
    techniques, and so must trust them.

    Raises:
        StudyError: what is prepared on this machine is not what the study was begun with, or only a search can make it.
    """
    setup = study.setup
    aim = task(setup.task, foreign=foreign)
    plain = Plain(data, aim, Schedule(**setup.schedule), setup.factor, setup.seed, at_hand(), tell, space, excess)
    parts = [setup.technique, setup.task, *map(repr, sorted(setup.schedule.items())), *sorted(setup.marks.values())]
    name = mark(str(setup.seed), *parts)
    made = techniques(setup.technique, foreign=foreign)
    folder = study.files.subfolder(NOTE)
    return tuple(
        _prepared(study, technique, folder / f"{name}-{i}.safetensors", plain) for i, technique in enumerate(made)
    )


def _prepared(study: Study, technique: Technique, path: Path, plain: Plain) -> str | None:
    """The file of what one technique has prepared."""
    if type(technique).prepare is Technique.prepare:
        return None
    note = f"{NOTE} {path.stem}"
    if not intact(path):
        partial = path.with_suffix(".part")
        arrays = technique.prepare(replace(plain, partial=partial))
        save_whole({key: torch.tensor(np.ascontiguousarray(value)) for key, value in arrays.items()}, path)
        disk.remove(partial)
    known, found = study.record.user_attrs.get(note), checksum(path)
    if known is None:
        study.record.set_user_attr(note, found)
    elif known != found:
        raise StudyError(
            f"techniques must prepare what {study.place} was begun with, but here it comes out otherwise; bring {path}"
            " from the machine that began it"
        )
    return str(path.resolve())
