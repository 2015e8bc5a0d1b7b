"""The search itself: `Problem` says what is searched for what, `search` runs or continues a study of it."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mvnas.search.loop import search
    from mvnas.search.problem import Problem
    from mvnas.search.status import Status

__all__ = ["Problem", "Status", "search"]


def __getattr__(name: str) -> Any:
    """What this room offers, imported when it is asked for: torch and Optuna take seconds."""
    if name not in __all__:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    from mvnas.search import loop, problem, status

    return {"Problem": problem.Problem, "Status": status.Status, "search": loop.search}[name]
