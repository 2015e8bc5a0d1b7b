"""Backends as latency tables name them: what a table needs to be timed again, and the format that its files ship in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from mvnas.backends._loading import backend, load, names, settings, ships
from mvnas.backends._protocol import Runtime
from mvnas.errors import ExportError, quoted
from mvnas.system import trust

AT_HAND = ("serial", "binary", "team")  # settings that say what is at hand here, of which figures know nothing


def of_table(conditions: Mapping[str, Any], **asked: Any) -> Runtime:
    """The backend that a table with these conditions was measured with, at the table's settings but for those asked.

    Raises:
        ExportError: a package that it needs is not installed, or it cannot be had here at these settings.
        TrustError: it is a module that is not trusted.
    """
    name = _trusted(conditions)
    kinds = {
        setting: (int, float) if type(row.default) is float else type(row.default)
        for setting, row in settings(name).items()
    }
    beside = {key: value for key, value in conditions.items() if key in kinds and isinstance(value, kinds[key])}
    chosen = conditions.get("settings") or {}
    if not isinstance(chosen, Mapping) or not all(isinstance(chosen[key], kinds.get(key, object)) for key in chosen):
        raise ExportError(
            f"settings of a table must be those of its backend, but {name} has others than {quoted(chosen)}"
        )
    return backend(name, **{**beside, **chosen, **asked})


def chosen_settings(runtime: Runtime) -> dict[str, Any]:
    """The settings of a runtime that are not their defaults and that figures depend on, to be timed with again."""
    if not is_dataclass(runtime):
        return {}
    rows = [row for row in fields(runtime) if row.init and row.compare and row.name not in AT_HAND]
    return {row.name: getattr(runtime, row.name) for row in rows if getattr(runtime, row.name) != row.default}


def format_of(conditions: Mapping[str, Any]) -> str | None:
    """The format of the files that a table's runtime executes; None if they are none to ship.

    It is the runtime itself, or the format that it says its files are of (`files_of`).

    Raises:
        ExportError: a package that it needs is not installed.
        TrustError: it is a module that is not trusted.
    """
    name = _trusted(conditions)
    if "." not in name and name not in names():  # timings of others, imported
        return None
    form = str(getattr(load(name), "files_of", name))
    return form if ships(form) else None


def _trusted(conditions: Mapping[str, Any]) -> str:
    name = str(conditions["backend"])
    if "." in name:
        trust.check(name)
    return name
