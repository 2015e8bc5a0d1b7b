"""Finds the network that a NETWORK argument names: published, in a file, or a trial of a study."""

from __future__ import annotations

import re
from dataclasses import dataclass
from os.path import isfile
from pathlib import Path
from typing import TYPE_CHECKING

from mvnas.errors import SpaceError, StudyError, unknown
from mvnas.spaces.arch import Arch
from mvnas.spaces.space import Space
from mvnas.spaces.zoo import published
from mvnas.studies.place import file_of, masked
from mvnas.studies.score import Score

if TYPE_CHECKING:
    from mvnas.studies.study import Study

NUMBERED = re.compile(r"(?P<study>(?![A-Za-z][\w+.-]*://[^/]*$).+):(?P<number>[0-9]+)", re.DOTALL)  # not a URL's port


@dataclass(frozen=True)
class Network:
    """An architecture and its name; one of a study also has a score and a file of trained weights."""

    name: str
    arch: Arch
    score: Score | None = None
    study: Study | None = None

    @property
    def weights(self) -> Path | None:
        """The file of its weights, which may be missing; None if it is of no study.

        Raises:
            StudyError: the file is damaged.
        """
        if not (self.study and self.score):
            return None
        from mvnas.studies.files import intact
        from mvnas.verification.retrain import shipped

        path = shipped(self.study, self.score.number)
        if path.exists() and not intact(path):
            raise StudyError(
                f"weights must be as they were written, but {path} is damaged; pick another trial, or search anew"
            )
        return path


def resolve(text: str, *, pick: str | None = None) -> Network:
    """The network that `text` names: a published name, an Arch's .json file, a trial `STUDY:ID`, or a study and a pick.

    Raises:
        SpaceError, StudyError: there is no such network.
    """
    if text in published():
        return Network(text, Space.load(text).arch())
    if text.endswith(".json"):
        return Network(Path(text).stem, Arch.load(text))
    match = NUMBERED.fullmatch(text)
    if match and not isfile(text) and _is_study(match["study"]):
        text, pick = match["study"], match["number"]
    elif not _is_study(text):
        if "/" in text or "." in text:
            raise StudyError(
                f"a network must be a published name, an Arch's .json, a study or STUDY:ID, but there is no {text}"
            )
        raise SpaceError(unknown("network", text, published()) + "; or give an Arch's .json, or STUDY:ID")
    if pick is None:
        study_name = masked(text)
        raise StudyError(f"one network of the study {study_name} must be named; add a trial's number: {study_name}:ID")
    from mvnas.studies.study import Study

    study = Study.load(text)
    score = study.pick(pick)
    return Network(score.name or f"trial{score.number}", score.arch, score, study)


def named_arch(text: str) -> Arch:
    """The architecture of the network that `text` names, as `resolve` finds it."""
    return resolve(text).arch


def _is_study(text: str) -> bool:
    """Whether a text names a database or a file that is there."""
    path = file_of(text)
    return path is None or isfile(path)
