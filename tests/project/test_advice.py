"""Laws of what the product advises: its options are there, and its commands can be given."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import mvnas
from mvnas.cli import parser

ELSEWHERE = ("backends/android.py",)  # whose strings are commands for a phone


def strings() -> Iterator[tuple[str, str]]:
    """Every text that is no docstring, with what is filled in as {}, and its file."""
    root = Path(mvnas.__file__).parent
    for file in sorted(root.rglob("*.py")):
        name = file.relative_to(root).as_posix()
        tree = ast.parse(file.read_text())
        bodies = [
            node.body[0] for node in ast.walk(tree) if isinstance(getattr(node, "body", None), list) and node.body
        ]
        told = {id(first.value) for first in bodies if isinstance(first, ast.Expr)}
        told |= {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                yield name, "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told:
                yield name, node.value


TEXTS = list(strings())
VERBS = next(action.choices for action in parser()._actions if action.choices)
COMMANDS = sorted(
    {
        found
        for _, text in TEXTS
        for found in re.findall(r"`mvnas ([^`]+)`|: mvnas (.+)$", text)
        for found in found
        if found
    }
)


def test_options_that_are_advised_are_there() -> None:
    known = {option for verb in VERBS.values() for action in verb._actions for option in action.option_strings}
    advised = {(file, option) for file, text in TEXTS for option in re.findall(r"(?<![\w-])--[a-z][a-z_-]*", text)
               if file not in ELSEWHERE and f"ray start {option}" not in text}  # fmt: skip
    assert {option for file, option in advised if not file.startswith("cli/")} >= {
        "--lr",
        "--batch",
        "--clip",
        "--device",
        "--limit",
    }
    assert {(file, option) for file, option in advised if option not in known | {"--version"}} == set()


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_that_are_advised_can_be_given(command: str) -> None:
    words = [word if word.startswith("-") else word.replace("{}", "1") for word in command.split()]
    assert words[0] in VERBS
    if len(words) > 1:
        assert parser().parse_args(words).run


def test_advice_names_no_parameter_of_the_code() -> None:
    assert not [
        text for _, text in TEXTS if re.search(r"; (lower|raise|set|give) (lr|batch|epochs|limit|workers)\b", text)
    ]
