"""What a training does beyond plain. One file a technique; the file name is the name, and the class it defines is
`Technique`.

`mvnas.training.Technique` says what a technique may do: prepare arrays once a study, set the weights that a candidate
begins with, choose sizes and images of steps, change the schedule, and add to the loss. `mvnas.techniques.multi_scale`
is the first; `mvnas.techniques.supernet` prepares weights that candidates begin with.

Techniques are named in one text, in the order in which they take part: `multi_scale,mine.teacher:network=mobilevit_xs`
are those of the files here and of any importable module, each with settings of its own; `none` are none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from mvnas.errors import TrainingError, unknown
from mvnas.system.marks import code_mark, mark
from mvnas.system.plugins import load_class

if TYPE_CHECKING:
    from mvnas.training import Artifact, Technique

DEFAULT, NONE = "multi_scale", "none"
KINDS = (str, int, float, bool)  # of settings


class Named(NamedTuple):
    """A technique as a text names it, with its settings as they are written."""

    name: str
    settings: Mapping[str, str]


def named(text: str) -> list[Named]:
    """The techniques that a text names.

    Raises:
        TrainingError: a setting is not key=value, or is there twice.

    >>> named("multi_scale,mine.teacher:epochs=2")
    [Named(name='multi_scale', settings={}), Named(name='mine.teacher', settings={'epochs': '2'})]
    """
    if text == NONE:
        return []
    found = []
    for part in text.split(","):
        name, *settings = part.split(":")
        pairs = [setting.partition("=") for setting in settings]
        told = {key: value for key, _, value in pairs}
        if not all(middle for _, middle, _ in pairs) or len(told) < len(pairs):
            raise TrainingError(f"a technique must be NAME:key=value with each key once, but got {part!r}; mend it")
        found.append(Named(name, told))
    return found


def techniques(
    text: str = DEFAULT, artifacts: Sequence[Artifact | None] = (), *, foreign: bool = False
) -> list[Technique]:
    """The techniques that a text names, for one training; each has its artifact where `artifacts` has one at its place.

    `foreign` says that a file named them, such as a study: modules are then run only if they are trusted.

    Raises:
        TrainingError: there is no such technique or setting.
        TrustError: one is not trusted.
    """
    made = [_made(name, settings, foreign) for name, settings in named(text)]
    for technique, artifact in zip(made, artifacts, strict=False):
        technique.artifact = artifact or technique.artifact
    return made


def marks(text: str) -> dict[str, str]:
    """Marks by which a study holds to the user's techniques, and to files that a text names.

    Raises:
        TrainingError: a file that is named cannot be read.
    """
    own = sorted({name for name, _ in named(text) if "." in name})
    told, found = [], False
    for one, technique in zip(named(text), techniques(text), strict=True):
        contents = technique.contents()
        found |= bool(contents)
        told.append(":".join([one.name, *(f"{key}={value}" for key, value in {**one.settings, **contents}.items())]))
    made = {"technique": mark(",".join(told) or text)} if own or found else {}
    return made | ({"technique.code": mark(*map(code_mark, own))} if own else {})


def defaults(text: str) -> dict[str, float]:
    """Fields of a schedule that the techniques which a text names want, where the user says nothing of them."""
    return {key: value for technique in techniques(text) for key, value in technique.defaults.items()}


def _made(name: str, settings: Mapping[str, str], foreign: bool) -> Technique:
    from mvnas.training import Technique

    kind = load_class("technique", name, __name__, "Technique", TrainingError, foreign=foreign)
    if not issubclass(kind, Technique):
        raise TrainingError(f"a technique must derive from mvnas.training.Technique, but that of {name} does not")
    known = {field.name: field.default for field in fields(kind)} if is_dataclass(kind) else {}
    for key in settings:
        if key not in known:
            raise TrainingError(unknown(f"setting of the technique {name}", key, known))
    made: Technique = kind(**{key: _read(name, key, value, known[key]) for key, value in settings.items()})
    return made


def _read(name: str, key: str, value: str, default: Any) -> Any:
    """A setting as the type of its default.

    Raises:
        TrainingError: it is not of that type.
    """
    kind = type(default)
    try:
        if kind is bool:
            return {"yes": True, "no": False}[value]
        if kind in KINDS:
            return kind(value)
    except (ValueError, KeyError):
        wanted = "yes or no" if kind is bool else "a number"
        raise TrainingError(f"{key} of the technique {name} must be {wanted}, but got {value!r}") from None
    raise TrainingError(
        f"{key} of the technique {name} must have a default that is a text or a number, but has {default!r}"
    )
