"""Machines that lack something: it is left out, and what does not need it works. They are played by hiding modules."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from mvnas.backends import android
from mvnas.errors import ExportError

ROOT = Path(__file__).parents[2]
WINDOWS = ("fcntl", "resource", "pwd", "grp", "termios")  # what Python lacks there
HIDE = """
import os, sys
for name in {modules}:
    sys.modules[name] = None
for name in {functions}:
    vars(os).pop(name, None)
from mvnas.cli import main
for words in {commands}:
    status = main(words)
    if status:
        sys.exit(status)
"""


def run(
    commands: list[list[str]], hidden: tuple[str, ...], functions: tuple[str, ...] = (), **changes: str | None
) -> str:
    """What is said by commands in a process without some modules and functions of `os`."""
    code = HIDE.format(modules=hidden, functions=functions, commands=commands)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **changes}
    told = {name: value for name, value in environment.items() if value is not None}
    done = subprocess.run([sys.executable, "-c", code], env=told, capture_output=True, text=True, check=False)
    return f"{done.returncode}\n{done.stdout}{done.stderr}"


def test_what_needs_no_posix_runs_without_it() -> None:
    lacking = ("sched_getaffinity", "sched_setaffinity", "getuid", "fork", "O_NOFOLLOW", "O_CLOEXEC", "O_NONBLOCK")
    said = run([["predict", "mobilevit_xs"], ["space", "mobilevit_xs"], ["fit", "genoa-2t"]], WINDOWS, lacking)
    assert said.startswith("0\n") and "2,308,488 parameters" in said and "MAPE" in said, said


def test_all_but_core_ml_runs_without_coremltools(tmp_path: Path) -> None:
    measure = ["measure", "--table", str(tmp_path / "t"), "--backend"]
    said = run([["predict", "mobilevit_xs"], [*measure, "coreml"]], ("coremltools",))
    assert said.startswith("2\n") and "2,308,488 parameters" in said
    assert "the backend coreml needs the package coremltools, which is not installed; docs/platforms.md" in said


@pytest.mark.parametrize(
    ("system", "processor", "python", "taken"),
    [
        ("linux", "x86_64", "3.11", True),
        ("darwin", "arm64", "3.13", True),
        ("linux", "aarch64", "3.12", False),
        ("win32", "AMD64", "3.12", False),
        ("linux", "x86_64", "3.14", False),
    ],
)
def test_coremltools_is_taken_where_it_has_wheels(system: str, processor: str, python: str, taken: bool) -> None:
    needs = [
        Requirement(text) for text in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    ]
    (marker,) = [need.marker for need in needs if need.name == "coremltools"]
    assert marker
    assert marker.evaluate({"sys_platform": system, "platform_machine": processor, "python_version": python}) is taken


def test_caches_have_a_place_where_there_is_no_home(tmp_path: Path) -> None:
    """Neither HOME nor an entry for the user."""
    unset = dict.fromkeys(("HOME", "USER", "LOGNAME", "XDG_CACHE_HOME", "MPLCONFIGDIR"))
    picture = tmp_path / "f.png"
    said = run([["fit", "genoa-2t", "--out", str(picture)]], ("pwd",), XDG_RUNTIME_DIR=str(tmp_path), **unset)
    assert said.startswith("0\n") and "cache" not in said.lower(), said
    assert picture.stat().st_size > 10_000
    assert (tmp_path / "mvnas" / "matplotlib").is_dir()


def test_adb_of_another_processor_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "adb").write_bytes(b"\x7fELF of another processor")
    (tmp_path / "adb").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ExportError, match="adb must run on this machine, but the system says: Exec format error"):
        android._adb("devices")
