"""Laws of the picture of the rooms in DESIGN.md: it is of the code as it is, and shows every import by one way or
another.
"""

from __future__ import annotations

import re
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

rooms = SimpleNamespace(**run_path(str(Path(__file__).parents[2] / "docs" / "make_rooms.py")))


def test_the_picture_is_of_the_code() -> None:
    text = rooms.PAGE.read_text(encoding="utf-8")
    drawn = rooms.picture(rooms.imports(rooms.ROOT / "mvnas"))
    assert text == rooms.page(text, drawn), "run python docs/make_rooms.py"


def test_every_room_has_a_line() -> None:
    told = set(re.findall(r"^\| `(\w+)(?:/|\.py)` \|", rooms.PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    assert told == set(rooms.imports(rooms.ROOT / "mvnas"))


def test_imports_of_every_form_are_found(tmp_path: Path) -> None:
    package = tmp_path / "mvnas"
    (package / "nn").mkdir(parents=True)
    (package / "__init__.py").write_text("from mvnas.ops import Conv")
    (package / "ops.py").write_text("import math\nfrom other.nn import x")
    (package / "graph.py").write_text("def f():\n    import mvnas.ops")
    (package / "nn" / "form.py").write_text(
        "if TYPE_CHECKING:\n    from mvnas import graph\nfrom mvnas.nn.form import x"
    )
    assert rooms.imports(package) == {"ops": set(), "graph": {"ops"}, "nn": {"graph"}}


def test_arrows_that_follow_from_others_are_left_out() -> None:
    imports = {"ops": set[str](), "graph": {"ops"}, "nn": {"ops", "graph"}, "cli": {"ops", "graph", "nn"}}
    assert rooms.reduced(imports) == {"ops": set(), "graph": {"ops"}, "nn": {"graph"}, "cli": {"nn"}}
    assert rooms.picture(imports).split("\n")[2:-1] == ["    ops --> graph", "    graph --> nn", "    nn --> cli"]
    assert all(rooms.reachable(rooms.reduced(imports), name) == rooms.reachable(imports, name) for name in imports)
