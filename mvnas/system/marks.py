"""Short hashes of texts and code, to notice that they have changed."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from contextlib import suppress
from hashlib import file_digest, sha256
from importlib.util import find_spec, resolve_name
from pathlib import Path


def mark(*texts: str) -> str:
    """A hash of some texts, in 16 hex digits."""
    return sha256("\0".join(texts).encode()).hexdigest()[:16]


def file_mark(path: str | Path) -> str:
    """A hash of what a file holds.

    Raises:
        OSError: it cannot be read.
    """
    with Path(path).open("rb") as file:
        return file_digest(file, "sha256").hexdigest()[:16]


def code_mark(name: str) -> str:
    """A hash of the source of a module and of all that it imports from its own top-level package.

    It misses modules without a file, and imports by other means than `import`.
    """
    top, left = name.partition(".")[0], [name]
    found: dict[str, str] = {}
    while left:
        module = left.pop()
        if module in found or module.partition(".")[0] != top:
            continue
        found[module] = ""
        left.append(module.rpartition(".")[0] or module)
        with suppress(
            Exception
        ):  # of what is named, not all are modules with a file; to look imports packages of the user's
            spec = find_spec(module)
            if spec and spec.origin and spec.has_location:
                found[module] = Path(spec.origin).read_bytes().decode(errors="replace")
                left += _imported(ast.parse(found[module]), module if spec.submodule_search_locations else spec.parent)
    return mark(*(f"{module} {text}" for module, text in sorted(found.items()) if text))


def _imported(tree: ast.AST, package: str | None) -> Iterator[str]:
    """Dotted names that code may import; `package` resolves relative ones."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), package)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
