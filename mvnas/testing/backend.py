"""Laws of a backend, and of one whose files are shipped, for whoever writes one. In a test file of yours:

from mvnas.backends import backend
from mvnas.testing.backend import FormatContract

class TestMine(FormatContract):
    def make(self, **settings):
        return backend("mine.runtime", **settings)
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from mvnas import ops
from mvnas.backends import Format, Runtime
from mvnas.graph import Graph, Kernel
from mvnas.nn import arbitrary, build, deploy, example
from mvnas.ops import Input, Map, Op, Shape, State, Tokens, Vector
from mvnas.spaces.space import Space
from mvnas.training import initialise

STAGES: list[dict[str, Any]] = [
    {"block": "stem", "channels": 8},
    {"block": "inverted_residual", "channels": 8, "expand": 1},
    {"block": "inverted_residual", "channels": 16, "stride": 2, "expand": 2},
    {"block": "mobilevit", "dim": 16, "layers": 1, "heads": 2, "patch": 2},
    {"block": "head", "channels": 24, "classes": 3},
]
SIDE = 36  # so that maps are resized to be cut into patches
KERNELS: list[Kernel] = [
    (ops.Conv(16, kernel=3, stride=2, groups=16, norm=False, bias=True), (Map(16, 9, 9),)),
    (ops.Attention(2), (Tokens(4, 9, 16),) * 3),
]  # what is timed alone
MAP, TOKENS = Map(8, 4, 6), Tokens(4, 6, 8)
OPS: list[tuple[Op, tuple[Shape, ...]]] = [
    (ops.Conv(8, kernel=3, norm=False, bias=True, act="relu"), (MAP,)),
    (ops.Conv(8, kernel=5, stride=2, groups=2, norm=False, act="hardswish"), (Map(8, 7, 9),)),
    (ops.Conv(8, kernel=3, stride=2, groups=8, norm=False, bias=True, same=True, act="relu6"), (Map(8, 6, 7),)),
    (ops.Conv(6, kernel=3, norm=False, act=""), (Tokens(3, 25, 8),)),
    (ops.Linear(12, act="silu"), (TOKENS,)),
    (ops.Linear(5, act="hardsigmoid"), (Vector(7),)),
    *[(ops.Act(act), (MAP,)) for act in ("gelu", "gelu_tanh", "sigmoid")],
    *[(ops.LayerNorm(affine=False), (shape,)) for shape in (MAP, TOKENS, Vector(7))],
    *[(ops.LayerNorm(affine=False, whole=True), (shape,)) for shape in (MAP, TOKENS)],
    *[(ops.Affine(), (shape,)) for shape in (MAP, TOKENS)],
    (ops.Normalise(100.0, 50.0), (MAP,)),
    (ops.Position(), (TOKENS,)),
    (ops.Attention(2), (TOKENS, Tokens(4, 9, 8), Tokens(4, 9, 12))),
    (ops.Attention(2, bias=ops.PairBias(), talking=True), (TOKENS,) * 3),
    (ops.Attention(2, form="relu_softmax"), (TOKENS,) * 3),
    *[(ops.LinearAttention(2, form), (TOKENS,) * 3) for form in ("scaled", "relu_linear")],
    (ops.SeparableAttention(), (Tokens(4, 6, 1), TOKENS, TOKENS)),
    *[(ops.Unfold(side, windows=windows), (MAP,)) for side, windows in ((1, False), (2, False), (2, True))],
    (ops.Fold(1, size=(4, 6)), (Tokens(1, 24, 8),)),
    (ops.Fold(2, size=(4, 6)), (TOKENS,)),
    (ops.Fold(2, size=(4, 6), windows=True), (Tokens(6, 4, 8),)),
    (ops.Spread(2), (Tokens(1, 6, 8),)),
    (ops.Resize(size=(5, 7)), (MAP,)),
    (ops.Resize(size=(8, 12), nearest=True), (MAP,)),
    (ops.Add(), (TOKENS,) * 2),
    (ops.Sub(), (MAP,) * 2),
    (ops.Mul(), (MAP, Vector(8))),
    (ops.Concat(), (MAP, Map(2, 4, 6))),
    (ops.Concat(patches=True), (TOKENS, Tokens(4, 2, 8))),
    (ops.Slice(3, first=2), (MAP,)),
    (ops.Slice(3, patches=True), (TOKENS,)),
    *[(ops.Pool(), (shape,)) for shape in (MAP, TOKENS)],
    (ops.Pool(3, stride=2), (MAP,)),
    (ops.Pool(2, stride=2, largest=True), (MAP,)),
    (ops.Pool(1, stride=2), (MAP,)),
]  # deployed ops, one of each kind at least


class BackendContract:
    """What holds for every backend; a test class for each one says how it is made."""

    runs = True  # whether it computes on this machine
    times = True  # whether it times on this machine
    within = 1e-4  # largest |difference| from torch, as a share of the largest |number| or 1

    def make(self, **settings: Any) -> Runtime:
        """The backend with these settings."""
        raise NotImplementedError

    def execute(self, path: Path, graph: Graph, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Outputs of the file of a graph; for a runtime that does not tell tokens from maps, as the graph has them."""
        return self.make().run(path, inputs)

    def test_its_file_computes_what_torch_computes(self, tmp_path: Path) -> None:
        graph, weights = network()
        path = self._written(graph, weights, tmp_path)
        if self.runs:
            self._compare(path, graph, weights)

    def test_its_file_names_no_path_of_this_machine(self, tmp_path: Path) -> None:
        path = self._written(*network(), tmp_path)
        files = [file for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file()]
        for part in (str(Path(ops.__file__).parents[2]), str(tmp_path), "site-packages"):
            assert all(part.encode() not in file.read_bytes() for file in files), part

    def test_its_stopwatch_tells_the_milliseconds_of_a_run(self, tmp_path: Path) -> None:
        if self.times:
            run = self.make().stopwatch(self._written(*network(), tmp_path))
            assert min(run() for _ in range(3)) > 0

    def test_it_writes_ops_alone_to_be_timed(self, tmp_path: Path) -> None:
        graphs, runtime = [Graph.single(*kernel) for kernel in KERNELS], self.make()
        paths = runtime.export_each(graphs, tmp_path)
        assert len({*paths}) == len(graphs)
        assert all(path.exists() and path.suffix == runtime.suffix for path in paths)
        if self.times:
            assert all(runtime.stopwatch(path)() > 0 for path in paths)

    def test_its_conditions_are_json_and_complete(self) -> None:
        conditions = json.loads(json.dumps(self.make().conditions()))
        assert {"backend", "runtime", "versions", "threads", "precision"} <= {*conditions}
        assert conditions["versions"] and all(conditions["versions"].values())
        assert conditions["threads"] >= 1

    def _written(self, graph: Graph, weights: State, folder: Path) -> Path:
        runtime = self.make()
        path = folder / f"network{runtime.suffix}"
        runtime.export(graph, path, weights)
        assert path.exists()
        return path

    def _compare(self, path: Path, graph: Graph, weights: State) -> None:
        inputs = [x.numpy() for x in example(graph, seed=1)]
        made, true = self.execute(path, graph, inputs), computed(graph, weights, inputs)
        assert len(made) == len(true)
        for y, wanted in zip(made, true, strict=True):
            assert y.shape == wanted.shape and y.dtype == np.float32
            assert np.abs(y - wanted).max() <= self.within * max(1, np.abs(wanted).max())


class FormatContract(BackendContract):
    """What holds beside that for a backend whose files are shipped: it has every op, and says how exact it is."""

    def test_it_says_how_far_its_numbers_may_be_from_torch_s(self) -> None:
        runtime = cast(Format, self.make())
        assert runtime.ships
        assert runtime.tolerance is None or 0 < runtime.tolerance < 1

    @pytest.mark.parametrize(("op", "shapes"), OPS, ids=[str(op) for op, _ in OPS])
    def test_every_op_computes_what_torch_computes(self, op: Op, shapes: tuple[Shape, ...], tmp_path: Path) -> None:
        graph = Graph.single(op, shapes)
        weights = arbitrary(graph)
        path = self._written(graph, weights, tmp_path)
        if self.runs:
            self._compare(path, graph, weights)

    def test_a_file_has_all_outputs_of_a_graph_in_their_order(self, tmp_path: Path) -> None:
        x = Input(Map(3, 8, 8))()
        early = ops.Conv(4, kernel=3, stride=2, norm=False)(x)
        late = ops.Conv(5, norm=False, act="")(early)
        graph = Graph.of(early, late, outputs=[late, early])
        weights = arbitrary(graph)
        path = self._written(graph, weights, tmp_path)
        if self.runs:
            self._compare(path, graph, weights)


@cache
def network() -> tuple[Graph, State]:
    """A small network, deployed, with weights."""
    graph = Space.from_data({"resolution": SIDE, "stages": STAGES}, source="contract").arch().graph()
    module = build(graph)
    initialise(module, 0)
    return deploy(graph, module.state_dict())


def computed(graph: Graph, weights: Mapping[str, torch.Tensor], inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Outputs of a graph as torch computes them."""
    module = build(graph)
    module.load_state_dict(weights)
    with torch.inference_mode():
        made = module.eval()(*map(torch.from_numpy, inputs))
    return [y.numpy() for y in (made if isinstance(made, tuple) else (made,))]
