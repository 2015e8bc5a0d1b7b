"""What a command line's NETWORK or STUDY names: an architecture, with what is known of it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mvnas.arch import Arch
from mvnas.errors import SpaceError, StudyError, unknown
from mvnas.score import Score
from mvnas.space import Space, published

if TYPE_CHECKING:
    from mvnas.study import Study


@dataclass(frozen=True)
class Network:
    """An architecture by name; one out of a study has a score and a file of trained weights."""

    name: str
    arch: Arch
    score: Score | None = None
    study: Study | None = None

    @property
    def weights(self) -> Path | None:
        return self.study.files.weights(self.score.number) if self.study and self.score else None


def resolve(text: str, *, pick: str | None = None) -> Network:
    """The network that `text` names: a published name, an Arch's .json file, a trial `STUDY:ID`, or a study and a pick.

    Raises:
        SpaceError, StudyError: there is no such network.
    """
    if text in published():
        return Network(text, Space.load(text).arch())
    if text.endswith(".json"):
        return Network(Path(text).stem, Arch.load(text))
    place, colon, number = text.rpartition(":")
    if colon and number.isdigit() and (os.path.isfile(place) or "://" in place):
        text, pick = place, number
    elif not os.path.isfile(text) and "://" not in text:
        if "/" in text or "." in text:
            raise StudyError(
                f"a network must be a published name, an Arch's .json, a study or STUDY:ID, but there is no {text}"
            )
        raise SpaceError(unknown("network", text, published()) + "; or give an Arch's .json, or STUDY:ID")
    if pick is None:
        raise StudyError(f"one network of the study {text} must be named, as {text}:ID with a trial's number")
    from mvnas.study import Study

    study = Study.load(text)
    score = study.pick(pick)
    return Network(score.name or f"trial{score.number}", score.arch, score, study)
