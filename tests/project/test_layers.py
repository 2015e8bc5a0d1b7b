"""Laws of the package's structure: its rooms, what each may import, and that nothing imports in a circle (DESIGN.md,
Rooms).

All imports count, those inside functions and under TYPE_CHECKING too.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import mvnas

ROOT = Path(mvnas.__file__).parent

ROOMS = [
    "errors",
    "system",
    "ops",
    "graph",
    "lowering",
    "blocks",
    "spaces",
    "nn",
    "sharing",
    "pretrained",
    "latency",
    "costs",
    "budgets",
    "backends",
    "data",
    "tasks",
    "training",
    "techniques",
    "engines",
    "accuracy",
    "strategies",
    "studies",
    "measuring",
    "export",
    "search",
    "verification",
    "reports",
    "testing",
    "cli",
]  # a room imports from those before it
PLUG_INS = (
    "backends",
    "blocks",
    "costs",
    "data",
    "engines",
    "strategies",
    "tasks",
    "techniques",
)  # of which the loader names the files,
PARTS = ("strategies.pareto", "strategies.rungs")  # but these
CIRCLES: tuple[set[str], ...] = ()
EXCEPT = set[tuple[str, str]]()
PACKAGES = {
    "errors": set[str](),
    "system": set[str](),
    "ops": set[str](),
    "graph": set[str](),
    "blocks": set[str](),
    "spaces": {"yaml"},
}  # what the lowest rooms may import beside the standard library
UNLOADED = ("torch", "pandas", "optuna")  # slow to import, so that no command loads them before it needs them

Trees = Mapping[str, ast.AST]


def module(file: Path) -> str:
    """Dotted name without the package's: `blocks.head`, or `blocks` for a room itself."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES: Trees = {module(file): ast.parse(file.read_text()) for file in sorted(ROOT.rglob("*.py"))}


def imports(tree: ast.AST, place: str = "") -> Iterator[tuple[str, str]]:
    """Dotted names of what is imported, each with where: "" on loading, "function" or "types"."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, place) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            yield from ((f"{node.module}.{alias.name}", place) for alias in node.names)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from imports(node, "function")
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from imports(node, "types")
        else:
            yield from imports(node, place)


def own(name: str, modules: Trees) -> str | None:
    """Our module of an imported name: `mvnas.blocks.head.Block` is of `blocks.head`, `mvnas.__version__` of the
    package itself.
    """
    package, _, rest = name.partition(".")
    if package != "mvnas":
        return None
    while rest and rest not in modules:
        rest = rest.rpartition(".")[0]
    return rest


def edges(modules: Trees) -> dict[str, set[str]]:
    """The modules of ours that each imports, but the package itself."""
    found = {name: {own(imported, modules) for imported, _ in imports(tree)} for name, tree in modules.items()}
    return {name: {target for target in targets if target} - {name} for name, targets in found.items()}


def upward(modules: Trees) -> set[tuple[str, str]]:
    """Imports from a room that comes later, as (module, module)."""
    rooms = {name: ROOMS.index(name.partition(".")[0]) for name in modules if name}
    return {
        (name, target) for name, targets in edges(modules).items() for target in targets if rooms[target] > rooms[name]
    }


def circles(modules: Trees) -> list[list[str]]:
    """Circles of imports: each a list of modules of which every one imports the next, and the last the first."""
    below, state, found = edges(modules), dict[str, int](), list[list[str]]()

    def visit(name: str, path: list[str]) -> None:
        state[name] = 1
        for target in sorted(below[name]):
            if state.get(target) == 1:
                found.append(path[path.index(target) :])
            elif target not in state:
                visit(target, [*path, target])
        state[name] = 2

    for name in below:
        if name and name not in state:
            visit(name, [name])
    return found


def plant(name: str, code: str) -> Trees:
    """The modules with one more line of code in one of them."""
    return {**MODULES, name: ast.parse(f"{ast.unparse(MODULES[name])}\n{code}")}


def test_every_room_is_known() -> None:
    assert {name.partition(".")[0] for name in MODULES if name} <= {*ROOMS}, "add it to ROOMS, as early as it can be"


def test_a_room_imports_from_those_before_it() -> None:
    assert {edge for edge in upward(MODULES) if edge not in EXCEPT} == set()
    assert upward(MODULES) >= EXCEPT, "an exception is not needed any more"


def test_nothing_imports_in_a_circle() -> None:
    assert [circle for circle in circles(MODULES) if not any({*circle} <= known for known in CIRCLES)] == []


def test_a_planted_violation_is_found() -> None:
    assert ("spaces.arch", "search") in upward(plant("spaces.arch", "def f():\n    from mvnas.search import search"))
    assert ("blocks.head", "nn") in upward(plant("blocks.head", "import mvnas.nn"))
    assert any(
        {"latency.table", "latency.model"} <= {*circle}
        for circle in circles(plant("latency.table", "from mvnas.latency.model import x"))
    )


@pytest.mark.parametrize("name", MODULES)
def test_nobody_imports_a_plug_in(name: str) -> None:
    for imported, _ in imports(MODULES[name]):
        folder, _, file = (own(imported, MODULES) or "").partition(".")
        private = "_" in (file[:1], file.partition(".")[2][:1]) and name.partition(".")[0] == folder
        assert folder not in PLUG_INS or not file or private or f"{folder}.{file}" in PARTS, (
            f"{name} imports {imported}"
        )


@pytest.mark.parametrize("name", [name for name in MODULES if name.partition(".")[0] in PACKAGES])
def test_the_lowest_rooms_need_no_packages(name: str) -> None:
    allowed = PACKAGES[name.partition(".")[0]] | sys.stdlib_module_names | {"mvnas"}
    for imported, place in imports(MODULES[name]):
        assert place == "types" or imported.partition(".")[0] in allowed, f"{name} imports {imported}"


@pytest.mark.parametrize("name", [name for name in MODULES if name.partition(".")[0] == "data"])
def test_data_knows_nothing_of_architectures(name: str) -> None:
    for imported, _ in imports(MODULES[name]):
        assert (own(imported, MODULES) or "errors").partition(".")[0] in ("errors", "system", "data"), imported


@pytest.mark.parametrize(
    "names",
    [
        "mvnas",
        "mvnas.spaces.space, mvnas.budgets, mvnas.studies.score, mvnas.latency.table",
        "mvnas.cli.network, mvnas.reports.json, mvnas.reports.tables, mvnas.reports.lines",
        "mvnas.search",
        "mvnas.cli",
    ],
)
def test_slow_packages_are_not_loaded_before_they_are_needed(names: str) -> None:
    code = f"import sys, {names}; print(*({{*{UNLOADED}}} & {{*sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    assert done.stdout.split() == []
