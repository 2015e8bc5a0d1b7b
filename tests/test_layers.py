"""Laws of the package's structure: a module imports only from layers below it or its own (DESIGN.md, section 4).

All imports count, those inside functions and under TYPE_CHECKING too, but for the few that are listed as lazy: they
point upwards, and must stay inside functions, so that loading a module never loads a layer above it.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

import mvnas

ROOT = Path(mvnas.__file__).parent

LAYERS = {
    0: "errors ops graph reading trust __init__",
    1: "arch blocks disk marks place score space table",
    2: "budget filesize holdout latency nn pareto pretrained record regression rungs surrogate transfer",
    3: "backends datasets energy files machine stop storage training",
    4: "clock engines export imported job measure network plot rank report retrain search strategy study verify",
    5: "cli",
}
LAYER = {name: layer for layer, names in LAYERS.items() for name in names.split()}
PLUG_INS = ("backends", "blocks", "datasets", "engines")  # folders of which the loader names the files
LAZY = {("ops", "nn")}  # an op says what its torch module is, without torch
PACKAGES = {0: set[str](), 1: {"yaml"}}  # what the lowest layers may import beside the standard library
UNLOADED = ("torch", "pandas", "optuna")  # slow to import, so that no command loads them before it needs them

FILES = sorted(ROOT.rglob("*.py"))


def module(file: Path) -> str:
    """Dotted name without the package's: `blocks.head`, or `__init__` for the package itself."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


MODULES = {module(file): ast.parse(file.read_text()) for file in FILES}


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


def own(name: str) -> str | None:
    """Our module of an imported name: `mvnas.blocks.head.Block` is of `blocks.head`, `mvnas.__version__` of `__init__`."""
    package, _, rest = name.partition(".")
    if package != "mvnas":
        return None
    while rest and rest not in MODULES:
        rest = rest.rpartition(".")[0]
    return rest or "__init__"


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_only_from_its_layer_and_below(name: str) -> None:
    room = name.partition(".")[0]
    assert room in LAYER, "every module has a layer: add it to LAYERS, as low as its imports allow"
    for imported, place in imports(MODULES[name]):
        target = (own(imported) or "errors").partition(".")[0]
        lazy = (room, target) in LAZY and place != ""
        assert LAYER[target] <= LAYER[room] or lazy, f"{name} imports {imported}"


@pytest.mark.parametrize("name", MODULES)
def test_nobody_imports_a_plug_in(name: str) -> None:
    for imported, _ in imports(MODULES[name]):
        folder, _, file = (own(imported) or "").partition(".")
        private = file.startswith("_") and name.partition(".")[0] == folder
        assert folder not in PLUG_INS or not file or private, f"{name} imports {imported}"


@pytest.mark.parametrize("name", [name for name in MODULES if LAYER.get(name.partition(".")[0], 9) in PACKAGES])
def test_the_lowest_layers_need_no_packages(name: str) -> None:
    allowed = PACKAGES[LAYER[name.partition(".")[0]]] | sys.stdlib_module_names | {"mvnas"}
    for imported, place in imports(MODULES[name]):
        assert place == "types" or imported.partition(".")[0] in allowed, f"{name} imports {imported}"


@pytest.mark.parametrize("name", [name for name in MODULES if name.partition(".")[0] in ("datasets", "training")])
def test_data_and_training_know_nothing_of_architectures(name: str) -> None:
    for imported, _ in imports(MODULES[name]):
        target = (own(imported) or "errors").partition(".")[0]
        assert target in ("errors", "disk", "trust", "datasets", "training"), f"{name} imports {imported}"


def test_every_exception_from_the_layers_is_needed() -> None:
    upwards = {
        (name.partition(".")[0], (own(imported) or "errors").partition(".")[0])
        for name, tree in MODULES.items()
        for imported, _ in imports(tree)
    }
    assert upwards >= LAZY


@pytest.mark.parametrize(
    "names",
    ["mvnas", "mvnas.space, mvnas.budget, mvnas.score, mvnas.table", "mvnas.network, mvnas.report", "mvnas.cli"],
)
def test_slow_packages_are_not_loaded_before_they_are_needed(names: str) -> None:
    if names == "mvnas.cli" and find_spec(names) is None:
        pytest.skip("there is no command line yet")
    code = f"import sys, {names}; print(*({{*{UNLOADED}}} & {{*sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    assert done.stdout.split() == []
