"""What several tests need: timm, a phone, a small search, and modules whose weights and statistics are not those of
a fresh module.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from phone import Phone
from small import make_problem, make_space, make_table, wait_until

from mvnas.search import Problem
from mvnas.studies.study import Study


def pytest_configure(config: pytest.Config) -> None:
    """Give each test process a folder for locks of its own, so that each may measure: with one folder one may at a
    time.
    """
    folder = os.environ["XDG_RUNTIME_DIR"] = tempfile.mkdtemp(
        prefix=os.environ.get("PYTEST_XDIST_WORKER", "tests") + "-"
    )
    config.add_cleanup(partial(shutil.rmtree, folder, ignore_errors=True))


@pytest.fixture(scope="session")
def timm() -> Iterator[ModuleType]:
    """timm, the reference for published networks.

    It imports torchvision, whose compiled operators do not load beside every build of torch. None of them is called
    here, so where they are missing it is enough to declare the two that torchvision names while it is imported.
    """
    if find_spec("timm") is None:
        pytest.skip("timm, the reference for published networks, is not installed: pip install timm")
    try:
        import_module("torchvision")
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor boxes, Tensor scores, float iou_threshold) -> Tensor")
    yield import_module("timm")


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """File of a small space."""
    return make_space(tmp_path_factory.mktemp("space"))


@pytest.fixture(scope="module")
def table(space: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a table of that space, on the arithmetic backend."""
    return make_table(tmp_path_factory.mktemp("tables") / "roof", space)


@pytest.fixture(scope="module")
def problem(space: Path, table: Path) -> Problem:
    """A short search of that space for that table."""
    return make_problem(space, table)


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let drivers share studies in files, as they share those in a database's server."""
    monkeypatch.setattr(Study, "shared", True)


@pytest.fixture
def server() -> Iterator[str]:
    """The URL of an empty database of a PostgreSQL server on loopback."""
    pytest.importorskip("psycopg", reason="PostgreSQL's driver is not installed: pip install 'mvnas[postgres]'")
    found = [path.parent for path in sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_isready"))]
    found += [Path(path).parent for path in [shutil.which("pg_isready")] if path]
    if not found:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(dir="/tmp"))  # a short path, for its socket, that its user may enter
    user: dict[str, Any] = {"cwd": folder}
    if os.getuid() == 0:  # which PostgreSQL refuses to run as
        shutil.chown(folder, "postgres", "postgres")
        user |= {"user": "postgres", "group": "postgres", "extra_groups": []}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    subprocess.run([found[0] / "initdb", "-D", "data", "-U", "mvnas", "-A", "trust", "--no-sync"],
                   check=True, capture_output=True, **user)  # fmt: skip
    words = [found[0] / "postgres", "-D", "data", "-h", "127.0.0.1", "-p", str(port), "-k", folder, "-F"]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **user) as process:
        try:
            ready = [found[0] / "pg_isready", "-h", "127.0.0.1", "-p", str(port)]
            wait_until("PostgreSQL is ready", lambda: not subprocess.run(ready, capture_output=True).returncode)
            yield f"postgresql://mvnas@127.0.0.1:{port}/postgres"
        finally:
            process.send_signal(signal.SIGQUIT)
    shutil.rmtree(folder)


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Phone:
    """A phone that `adb` reaches, with benchmark_model on it."""
    plugged = Phone.plug_in(tmp_path / "phone")
    monkeypatch.setenv("PATH", f"{plugged.folder / 'bin'}{os.pathsep}{os.environ['PATH']}")
    for name in ("ANDROID_SERIAL", "MVNAS_BENCHMARK_MODEL"):
        monkeypatch.delenv(name, raising=False)
    return plugged
