"""Draws the rooms of the package and what each imports, from the code, into DESIGN.md.

    python docs/make_rooms.py

All imports count, those inside functions and under TYPE_CHECKING too. An arrow goes from a room to one that imports it;
arrows that follow from others are left out.
"""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "DESIGN.md"
BEGIN, END = "<!-- written by docs/make_rooms.py -->", "<!-- end -->"

Rooms = Mapping[str, set[str]]


def room(parts: tuple[str, ...]) -> str:
    """The room of a module: its folder in the package, or its own name where it lies beside the folders."""
    return parts[0].removesuffix(".py")


def imported(tree: ast.AST) -> Iterator[str]:
    """Dotted names that a file imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imports(package: Path) -> dict[str, set[str]]:
    """For each room of a package the other rooms that it imports from."""
    files = [file for file in package.rglob("*.py") if file.parent != package or file.name != "__init__.py"]
    found: dict[str, set[str]] = {room(file.relative_to(package).parts): set() for file in files}
    for file in files:
        own = room(file.relative_to(package).parts)
        names = (name.split(".") for name in imported(ast.parse(file.read_text(encoding="utf-8"))))
        found[own] |= {name[1] for name in names if name[0] == package.name and name[1:2] and name[1] in found} - {own}
    return found


def reachable(rooms: Rooms, start: str) -> set[str]:
    """The rooms that a room imports, itself or by others."""
    seen: set[str] = set()
    left = [*rooms[start]]
    while left:
        name = left.pop()
        if name not in seen:
            seen.add(name)
            left += rooms[name]
    return seen


def reduced(rooms: Rooms) -> dict[str, set[str]]:
    """The imports that do not follow from others. Those within a circle all stay."""
    far = {name: reachable(rooms, name) for name in rooms}

    def follows(name: str, target: str) -> bool:
        return any(target in far[by] and by not in far[target] and name not in far[by] for by in rooms[name])

    return {name: {target for target in rooms[name] if not follows(name, target)} for name in rooms}


def picture(rooms: Rooms) -> str:
    """The rooms as a Mermaid flow chart, from those that import nothing to the command line."""
    arrows = reduced(rooms)
    order = sorted(rooms, key=lambda name: (len(reachable(rooms, name)), name))
    lines = [f"    {target} --> {name}" for target in order for name in order if target in arrows[name]]
    return "\n".join(["```mermaid", "flowchart LR", *lines, "```"])


def page(text: str, drawn: str) -> str:
    """DESIGN.md with the picture between its marks."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{drawn}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), picture(imports(ROOT / "mvnas"))), encoding="utf-8")
