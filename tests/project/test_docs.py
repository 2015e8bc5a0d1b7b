"""Laws of docs/blocks.md: its cards are of the code as it is, and tell what files hold."""

from __future__ import annotations

import json
from pathlib import Path
from re import DOTALL, findall
from runpy import run_path
from types import SimpleNamespace

import pytest

from mvnas.spaces.space import Space

cards = SimpleNamespace(**run_path(str(Path(__file__).parents[2] / "docs" / "make_blocks.py")))
DATA = json.loads(cards.DATA.read_text())
AGAIN = "run python docs/make_blocks.py"


def test_cards_are_those_of_the_code() -> None:
    told = {kind: row["of"] for kind, row in DATA["blocks"].items()}
    assert told == {kind: cards.identity(row) for kind, (_, row) in cards.references().items()}, AGAIN
    assert cards.PAGE.read_text() == cards.page(DATA), AGAIN


@pytest.mark.parametrize("kind", ["efficientvit", "mbconv", "mobilevit"])
def test_cards_tell_what_files_hold(kind: str, tmp_path: Path) -> None:
    _, row = cards.references()[kind]
    assert cards.converted(row, tmp_path) == DATA["blocks"][kind]["files"], AGAIN


SPACES = findall(r"```yaml\n(.*?)```", (Path(__file__).parents[2] / "docs" / "spaces.md").read_text(), DOTALL)


@pytest.mark.parametrize("place", range(len(SPACES)))
def test_spaces_of_the_page_are_spaces(place: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[2])
    (tmp_path / "it.yaml").write_text(SPACES[place])
    space = Space.load(tmp_path / "it.yaml")
    arch = space.sample(lambda name, options: options[-1])
    assert space.locate(arch) and ("taps" in SPACES[place]) == (len(arch.ends) == 2)


@pytest.mark.parametrize("kind", cards.kinds())
def test_a_block_is_seventy_lines_at_most(kind: str) -> None:
    file = Path(cards.blocks.__file__).with_name(f"{kind}.py")
    assert len(file.read_text().splitlines()) <= 70
