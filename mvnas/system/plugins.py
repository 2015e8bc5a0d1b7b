"""Plug-ins: one file a plug-in in a folder of ours, or any importable module of the user's by its dotted name."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from mvnas.errors import MvnasError, lacking, unknown
from mvnas.system import trust


def names(folder: str) -> list[str]:
    """Names of the plug-ins in a package of ours: its files, all but those that begin with an underscore."""
    found = iter_modules(import_module(folder).__path__)
    return sorted(module.name for module in found if not module.name.startswith("_"))


def load_class(
    kind: str, name: str, folder: str, attribute: str, error: type[MvnasError], *, foreign: bool = False
) -> Any:
    """The class `attribute` of the plug-in `name`: a `kind` of the package `folder`, or any module if the name is
    dotted.

    `foreign` says that a file named it, and not the user: such a module is run only if it is trusted.

    Raises:
        MvnasError: an `error`, since there is no such module or class, or a package that it needs is not installed.
        TrustError: it is not trusted.
    """
    known, own = names(folder), "." in name
    if (not own and name not in known) or not all(part.isidentifier() for part in name.split(".")):
        raise error(unknown(kind, name, known))
    if own and foreign:
        trust.check(name)
    module = name if own else f"{folder}.{name}"
    try:
        loaded = trust.module(name, error) if own else import_module(module)
    except ModuleNotFoundError as failed:
        if trust.missing(failed, module):
            raise error(f"{unknown(kind, name, known)}; or a module of yours, but none of that name is found") from None
        raise error(lacking(f"the {kind} {name}", failed.name)) from None
    made = getattr(loaded, attribute, None)
    if not isinstance(made, type):
        article = "an" if kind[0] in "aeiou" else "a"
        raise error(f"{article} {kind}'s module must define the class {attribute}, but {module} does not")
    return made
