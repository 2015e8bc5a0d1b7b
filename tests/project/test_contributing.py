"""Laws of CONTRIBUTING.md and its kin: what they name is there, and every example and contract is named."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import pytest

from mvnas import testing

ROOT = Path(__file__).parents[2]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
EXAMPLES = sorted(path.name for path in (ROOT / "examples").glob("*.py") if path.name != "__init__.py")
SUITES = sorted(module.name for module in iter_modules(testing.__path__))


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "examples/README.md"])
def test_files_that_are_named_are_there(page: str) -> None:
    named = re.findall(r"`((?:mvnas|examples|tests|docs|search_spaces)/[\w/.]+)`", (ROOT / page).read_text("utf-8"))
    assert named
    assert [path for path in named if not (ROOT / path).exists() and not path.endswith("foo.py")] == []


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_is_named(name: str) -> None:
    assert f"`{name}`" in (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    assert any(f"examples.{name[:-3]}" in file.read_text("utf-8") for file in (ROOT / "tests").rglob("*.py"))


@pytest.mark.parametrize("name", SUITES)
def test_every_contract_is_named(name: str) -> None:
    contracts = [word for word in vars(import_module(f"mvnas.testing.{name}")) if word.endswith("Contract")]
    assert all(f"`{contract}`" in CONTRIBUTING and contract in str(testing.__doc__) for contract in contracts)
