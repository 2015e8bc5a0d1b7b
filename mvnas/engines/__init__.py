"""Where trainings run. One file an engine; the file name is the name.

An engine takes jobs and tells what became of them; it knows nothing of studies. It never raises for a job: a training
that fails, hangs or kills its process is an event like one that ends. Where it may have failed by the machine's fault,
an engine tries it once more, in another process, before it says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from errno import ENOMEM
from inspect import signature
from typing import Any, NamedTuple, Protocol

from mvnas.engines._job import Job as Job
from mvnas.engines._job import artifact as artifact
from mvnas.engines._job import at_hand as at_hand
from mvnas.engines._job import seed_of as seed_of
from mvnas.engines._job import train as train
from mvnas.errors import DataError, FileError, MvnasError, StudyError, quoted, unknown
from mvnas.system.plugins import load_class
from mvnas.training import Trained


@dataclass(frozen=True)
class Images:
    """What workers load their images from; where the source has files, they are decoded once a machine and mapped."""

    source: str
    skip_broken: bool = False
    flip: bool | None = None


class Step(NamedTuple):
    """A training has taken a step."""

    key: int
    step: int
    steps: int
    loss: float


class Doing(NamedTuple):
    """A training is at work beside its steps: images are read, norms calibrated, networks judged; `total` is 0 if it
    is not known.
    """

    key: int
    what: str
    done: int
    total: int


class Done(NamedTuple):
    """A training has ended."""

    key: int
    trained: Trained


class Failed(NamedTuple):
    """A training has failed, by its own fault; or if `broken`, by the fault of the machine, so that others would fail
    too.

    If `doubtful` the fault may be either's: it raised what is not ours, or its process ended before the first step.
    """

    key: int
    reason: str
    broken: bool = False
    doubtful: bool = False


Event = Step | Doing | Done | Failed


def ended(event: Event) -> bool:
    """Whether a training has ended with an event."""
    return isinstance(event, Done | Failed)


def failure(error: Exception) -> Failed:
    """What became of a job that raised `error`: images or a disk that are gone are the machine's fault, too little
    memory is not.

    What is not ours may be: a GPU that has failed fails whatever its process does next.
    """
    if isinstance(error, MvnasError):
        return Failed(0, str(error), broken=isinstance(error, DataError | FileError))
    memory = isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == ENOMEM)
    gone = isinstance(error, OSError) and not memory
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    return Failed(0, reason, broken=gone, doubtful=not (memory or gone))


class Engine(Protocol):
    """Trainings elsewhere than in the process that owns the study."""

    @property
    def slots(self) -> int:
        """Trainings that run at a time."""

    def start(self, key: int, job: Job) -> None:
        """Begin a training; there must be a free slot."""

    def wait(self, seconds: float) -> Sequence[Event]:
        """What has happened since last asked, after at most so many seconds."""

    def close(self) -> None:
        """Stop all trainings at once."""


def is_built_in(engine: Engine) -> bool:
    """Whether an engine is one of ours: they differ in where trainings run, and not in what comes of them."""
    return module_of(engine).startswith(f"{__name__}.")


def module_of(engine: Engine) -> str:
    """The module of an engine's class."""
    return type(engine.made if isinstance(engine, _Own) else engine).__module__


def engine(name: str, images: Images, **settings: Any) -> Engine:
    """The engine `name` of this folder, or of any importable module if the name is dotted, with settings of its own.

    Raises:
        StudyError: there is no such engine or setting, or a package that it needs is not installed.
    """
    kind = load_class("engine", name, __name__, "Engine", StudyError)
    known = [setting for setting in signature(kind).parameters if setting != "images"]
    for setting in settings:
        if setting not in known:
            raise StudyError(unknown(f"setting of the engine {name}", setting, known))
    made: Engine = kind(images, **settings)
    return _Own(name, made) if "." in name else made


class _Own:
    """An engine of the user's, whose answers are looked at before a study takes them.

    Raises:
        StudyError: it lacks something, or answers with what is no answer.
    """

    def __init__(self, name: str, made: Any) -> None:
        for need in ("slots", "start", "wait", "close"):
            if not hasattr(made, need):
                raise StudyError(f"an engine must have slots, start, wait and close, but {name} has no {need}")
        self.name, self.made = name, made
        self._keys: set[int] = set()

    @property
    def slots(self) -> int:
        slots = self.made.slots
        if type(slots) is not int or slots < 0:
            raise StudyError(f"slots of the engine {self.name} must be a whole number, but are {quoted(slots)}")
        return slots

    def start(self, key: int, job: Job) -> None:
        self._keys.add(key)
        self.made.start(key, job)

    def wait(self, seconds: float) -> Sequence[Event]:
        events = self.made.wait(seconds)
        for event in events if isinstance(events, list | tuple) else [events]:
            if not isinstance(event, Event) or event.key not in self._keys:
                raise StudyError(
                    f"wait of the engine {self.name} must answer with events of trainings that it has, but answers"
                    f" {quoted(event)}"
                )
            if isinstance(event, Done) and not isinstance(event.trained, Trained):
                raise StudyError(
                    f"the engine {self.name} must answer with what was Trained, but answers {quoted(event.trained)}"
                )
            if isinstance(event, Done | Failed):
                self._keys.discard(event.key)
        return list(events)

    def close(self) -> None:
        self.made.close()
