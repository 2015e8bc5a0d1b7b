"""Laws of the example of a format outside the package: it has what ours have, is timed, and exported by its name."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file
from small import ONCE

from mvnas.backends import Runtime, backend
from mvnas.cli import main
from mvnas.measuring.measure import measure
from mvnas.nn import build
from mvnas.spaces.space import Space
from mvnas.testing.backend import FormatContract
from mvnas.training import initialise

NAMES = ["examples.numpy_format", *["examples.openvino_format"] * bool(find_spec("openvino"))]
TINY = """
resolution: [64, 96]
stages:
  - {block: stem, channels: 16}
  - {block: head, channels: 128}
"""


@pytest.fixture(autouse=True)
def beside_the_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[2])


class TestNumPy(FormatContract):
    def make(self, **settings: Any) -> Runtime:
        return backend("examples.numpy_format", **settings)


@pytest.mark.skipif(not find_spec("openvino"), reason="the example is of the package openvino, which is not installed")
class TestOpenVINO(FormatContract):
    def make(self, **settings: Any) -> Runtime:
        return backend("examples.openvino_format", **settings)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_timed_and_exported_by_its_name(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    space = tmp_path / "tiny.yaml"
    space.write_text(TINY)
    arch = Space.load(space).sample(lambda name, options: options[0])
    module = build(arch.graph())
    initialise(module, 0)
    save_file(module.state_dict(), tmp_path / "w.safetensors")
    (tmp_path / "arch.json").write_text(json.dumps(arch.to_json()))
    measure([Space.load(space)], backend(name), folder=tmp_path / "table", ops=3, networks=1, protocol=ONCE)
    assert json.loads((tmp_path / "table" / "device.json").read_text())["backend"] == name
    words = ["--weights", str(tmp_path / "w.safetensors"), "--format", name, "--out", str(tmp_path / "out"), "--json"]
    assert main(["export", str(tmp_path / "arch.json"), *words]) == 0
    (file,) = json.loads(capsys.readouterr().out)["files"].values()
    assert file["format"] == name and file["max_difference"] <= file["bound"] and file["measured"]["min_ms"] > 0
