"""Laws of the backends: files compute what torch does, and an op alone is what it is inside a network."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from shutil import which
from typing import Any

import numpy as np
import pytest
import torch
from files import assert_close, compute, evaluate, evaluate_all, execute, runs_here
from phone import Phone
from vocabulary import EXAMPLES

from mvnas import nn, ops
from mvnas.backends import Runtime, backend, formats, names
from mvnas.backends._quiet import quiet
from mvnas.errors import ExportError
from mvnas.graph import FLOAT_BYTES, Graph, Kernel
from mvnas.latency.kinds import kind
from mvnas.lowering import registry
from mvnas.ops import Conv, Map, Op, Shape, State
from mvnas.spaces.arch import Arch
from mvnas.spaces.space import Space
from mvnas.testing.backend import KERNELS, OPS, BackendContract, FormatContract

WRITTEN = ("coreml", "onnx", "tflite")  # backends that write files op by op

Files = Callable[[str], Path]


@pytest.fixture(scope="module")
def arch() -> Arch:
    """A network of every op: maps of 18, 18 and 9, the last of which the patch does not divide."""
    stages = [
        {"block": "stem", "channels": 8},
        {"block": "inverted_residual", "channels": 8, "expand": 1},
        {"block": "inverted_residual", "channels": 16, "stride": 2, "expand": 2},
        {"block": "mobilevit", "dim": 16, "layers": 1, "heads": 2, "patch": 2},
        {"block": "head", "channels": 24, "classes": 3},
    ]
    return Space.from_data({"resolution": 36, "stages": stages}, source="test").arch()


@pytest.fixture(scope="module")
def graph(arch: Arch) -> Graph:
    return arch.graph().deployed()


@pytest.fixture(scope="module")
def weights(graph: Graph) -> State:
    return nn.arbitrary(graph)


@pytest.fixture(scope="module")
def inputs(graph: Graph) -> list[np.ndarray]:
    return [x.numpy() for x in nn.example(graph, seed=1)]


@pytest.fixture(scope="module")
def truth(graph: Graph, weights: State, inputs: list[np.ndarray]) -> np.ndarray:
    """What torch computes: (1, 3)."""
    return compute(graph, weights, inputs)


@pytest.fixture(scope="module")
def exported(graph: Graph, weights: State, tmp_path_factory: pytest.TempPathFactory) -> Files:
    """The network's file by the name of a backend, exported once."""

    @cache
    def export(name: str) -> Path:
        runtime = backend(name)
        path = tmp_path_factory.mktemp(name) / f"network{runtime.suffix}"
        runtime.export(graph, path, weights)
        return path

    return export


@pytest.fixture(scope="module")
def kernels(graph: Graph, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Graph, Path, State]]:
    """Every kernel of the network as a graph, with the TFLite file that it gets and the weights in it."""
    graphs = [Graph.single(*key) for key in dict.fromkeys(node.key for node in graph.work)]
    folder, rows = tmp_path_factory.mktemp("kernels"), []
    for i, graph in enumerate(graphs):
        rows.append((graph, folder / f"{i}.tflite", nn.arbitrary(graph)))
        backend("tflite").export(*rows[-1])
    return rows


def alive_bytes(path: Path) -> int:
    """Most bytes of tensors of a TFLite file alive at once, its inputs throughout.

    A reshape is a view, a pad merges into the convolution after it, and an op that maps its input number by number
    overwrites one that nobody reads later.
    """
    from ai_edge_litert import schema_py_generated as schema

    from mvnas.backends.tflite import op_names

    file = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0).subgraphs[0]
    place = list(range(len(file.tensors)))  # of each tensor, the first that lies where it lies
    steps = []
    for name, op in zip(op_names(path), file.operators, strict=True):
        steps.append((name, [i for i in op.inputs.tolist() if not file.tensors[i].buffer], int(op.outputs[0])))
    last = {i: step for step, (_, reads, _) in enumerate(steps) for i in reads}
    forever = {int(i): len(steps) for i in file.inputs}
    ends = [forever.get(i, last.get(i, len(steps))) for i in range(len(file.tensors))]
    sizes = [4 * int(np.prod(tensor.shape)) for tensor in file.tensors]
    for step, (name, reads, made) in enumerate(steps):
        free = [i for i in reads if ends[place[i]] == step and sizes[i] == sizes[made]]
        if name in ("RESHAPE", "PAD"):
            place[made] = place[reads[0]]
        elif name in ("MUL", "SUB", "LOGISTIC", "HARD_SWISH", "SOFTMAX") and free:
            place[made] = place[free[0]]
        ends[place[made]] = max(ends[place[made]], ends[made])
    alive, most = set(forever), 0
    for step, (_, _, made) in enumerate(steps):
        alive.add(place[made])
        most = max(most, sum(sizes[i] for i in alive))
        alive = {i for i in alive if ends[i] > step}
    return most


def op_names(name: str, path: Path) -> Counter[str]:
    """How often each op occurs in a file; nothing where the backend does not tell."""
    return Counter(getattr(import_module(f"mvnas.backends.{name}"), "op_names", lambda _: [])(path))


def test_the_network_of_these_tests_holds_every_op_and_resizes(graph: Graph) -> None:
    kinds = Counter(type(node.op).__name__ for node in graph.work)
    assert kinds["Resize"] == 2
    assert set(kinds) == {
        *("Add", "Attention", "Concat", "Conv", "Fold", "LayerNorm", "Linear", "Pool", "Resize", "Unfold"),
    }


def test_every_backend_is_listed() -> None:
    assert {"android", "coreml", "onnx", "roofline", "tflite", "torch"} <= set(names())
    assert not any(name.startswith("_") for name in names())


class Ours(FormatContract):
    """A backend of mvnas; its ops are looked at by `TestWrittenOpByOp`, in more examples of each."""

    name = ""
    test_every_op_computes_what_torch_computes = None

    def make(self, **settings: Any) -> Runtime:
        return backend(self.name, **settings)

    def execute(self, path: Path, graph: Graph, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        return evaluate_all(path, inputs) if self.name == "coreml" else super().execute(path, graph, inputs)


class TestCoreMLContract(Ours):
    name, within, times = "coreml", 2e-2, sys.platform == "darwin"


class TestONNXContract(Ours):
    name = "onnx"


class TestTFLiteContract(Ours):
    name = "tflite"


class TestTorchContract(Ours):
    name = "torch"


@pytest.mark.usefixtures("phone")
class TestAndroidContract(BackendContract):
    runs = False

    def make(self, **settings: Any) -> Runtime:
        return backend("android", **settings)


class TestRooflineContract(BackendContract):
    runs = False

    def make(self, **settings: Any) -> Runtime:
        return backend("roofline", **settings)


def test_every_backend_has_its_contract() -> None:
    classes = [made for made in globals().values() if isinstance(made, type) and issubclass(made, BackendContract)]
    known = {made.__name__.removeprefix("Test").removesuffix("Contract").lower() for made in classes}
    assert {*names()} <= known


def test_the_contract_of_formats_has_every_op_that_is_lowered() -> None:
    assert {type(op) for op, _ in OPS} == {kind for _, kind in registry._forms if kind.__module__.startswith("mvnas.")}


def test_formats_are_the_backends_whose_files_are_shipped() -> None:
    assert formats() == ["coreml", "onnx", "tflite", "torch"]


@pytest.mark.parametrize("name", names())
def test_a_backend_names_itself(name: str, phone: Phone) -> None:
    assert backend(name).conditions()["backend"] == name


@pytest.mark.parametrize("name", [name for name in names() if not runs_here(name)])
def test_what_does_not_run_here_says_where_it_does(
    name: str, phone: Phone, exported: Files, inputs: list[np.ndarray]
) -> None:
    with pytest.raises(ExportError, match=r"macOS|another backend"):
        backend(name).run(exported(name), inputs)
    if name == "coreml":
        with pytest.raises(ExportError, match="macOS"):
            backend(name).stopwatch(exported(name))


@pytest.mark.parametrize("name", names())
def test_an_op_is_exported_alone_as_it_is_among_others(
    name: str, phone: Phone, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    graphs = [Graph.single(*kernel) for kernel in KERNELS]
    for graph, path in zip(graphs, backend(name).export_each(graphs, tmp_path), strict=True):
        state = nn.arbitrary(graph)
        alone = tmp_path / f"alone{path.name}"
        backend(name).export(graph, alone, state)
        first = Counter({"SLICE": 1} if name == "tflite" else {})  # all but one element of the output stays inside
        assert op_names(name, alone) + first == op_names(name, path)
        if runs_here(name):
            feed = [x.numpy() for x in nn.example(graph)]
            whole = compute(graph, state, feed)
            assert_close(name, execute(name, alone, graph, feed), whole)
            part = execute(name, path, graph, feed)
            assert_close(name, part, whole[tuple(slice(n) for n in part.shape)])
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", [name for name in names() if name != "coreml"])
def test_threads_are_a_setting(name: str, phone: Phone) -> None:
    assert backend(name, threads=2).conditions()["threads"] == 2


def test_torch_runs_on_its_threads_and_gives_them_back(exported: Files, inputs: list[np.ndarray]) -> None:
    before = torch.get_num_threads()
    backend("torch", threads=before + 1).run(exported("torch"), inputs)
    backend("torch", threads=before + 1).stopwatch(exported("torch"))()
    assert torch.get_num_threads() == before


def test_torch_times_batches(graph: Graph, weights: State, tmp_path: Path) -> None:
    runtime = backend("torch", batch="3")
    runtime.export(graph, tmp_path / "net.pt2", weights)
    assert torch.export.load(tmp_path / "net.pt2").example_inputs[0][0].shape[0] == 3
    assert runtime.stopwatch(tmp_path / "net.pt2")() > 0
    assert runtime.conditions()["batch"] == 3


@pytest.mark.skipif(not which("g++"), reason="torch.compile needs the compiler g++, which is not installed")
def test_torch_times_what_it_compiles(exported: Files) -> None:
    runtime = backend("torch", compiled="yes")
    assert "compiled" in runtime.conditions()["runtime"]
    assert runtime.stopwatch(exported("torch"))() > 0


def test_a_device_that_torch_lacks_is_named() -> None:
    with pytest.raises(ExportError, match="but got abacus"):
        backend("torch", device="abacus")


def test_a_torch_file_needs_no_mvnas(
    exported: Files, inputs: list[np.ndarray], truth: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = exported("torch")
    for module in [module for module in sys.modules if module.startswith("mvnas")]:
        monkeypatch.setitem(sys.modules, module, None)
    with torch.inference_mode():
        y = torch.export.load(path).module()(*map(torch.from_numpy, inputs))
    assert np.abs(y.numpy() - truth).max() <= 1e-4


def test_no_tensor_of_an_exported_program_has_more_than_four_axes(exported: Files) -> None:
    assert nn.most_axes(torch.export.load(exported("torch"))) == 4


def test_onnx_is_one_file_and_valid(exported: Files) -> None:
    import onnx

    path = exported("onnx")
    onnx.checker.check_model(str(path), full_check=True)
    assert list(path.parent.iterdir()) == [path]


class TestTFLite:
    def test_what_an_op_makes_and_drops_is_what_its_file_does(self, kernels: list[tuple[Graph, Path, State]]) -> None:
        for graph, path, _ in kernels:
            assert alive_bytes(path) == pytest.approx(graph.peak_bytes, rel=0.1), graph.output.op

    @pytest.mark.parametrize("name", ["mobilevit_xxs", "mobilevit_s"])
    def test_activations_of_a_network_are_those_of_its_file(self, name: str, tmp_path: Path) -> None:
        arch = Space.load(name).arch()
        graph = arch.graph().deployed()
        backend("tflite").export(graph, tmp_path / "n.tflite", nn.arbitrary(graph))
        assert alive_bytes(tmp_path / "n.tflite") == pytest.approx(arch.peak_bytes, rel=0.01)
        written = (tmp_path / "n.tflite").stat().st_size
        beside = written - FLOAT_BYTES * arch.params  # names, shapes and how ops are joined
        assert 0 < beside < 2e5

    def test_no_tensor_has_more_than_four_axes(self, exported: Files, kernels: list[Any]) -> None:
        from mvnas.backends.tflite import tensor_ranks

        for path in (exported("tflite"), *(path for _, path, _ in kernels)):
            assert max(tensor_ranks(path)) <= 4

    def test_ops_of_a_network_are_those_of_its_kernels(
        self, graph: Graph, exported: Files, kernels: list[Any], tmp_path: Path
    ) -> None:
        """What is timed is what is shipped: the files that `measure` times hold the ops of the network, and one
        more.
        """
        timed = backend("tflite").export_each([single for single, _, _ in kernels], tmp_path)
        first = Counter({"SLICE": 1})
        alone = {row[0].output.key: op_names("tflite", path) - first for row, path in zip(kernels, timed, strict=True)}
        assert sum((alone[node.key] for node in graph.work), Counter[str]()) == op_names("tflite", exported("tflite"))

    def test_mobilevit_s_has_no_more_ops_than_it_needs(self, tmp_path: Path) -> None:
        """A converter makes 634 of the same graph, and 683 of timm's module; 505 is the best form of one known."""
        shipped = Space.load("mobilevit_s").arch().graph().deployed()
        backend("tflite").export(shipped, tmp_path / "s.tflite", nn.arbitrary(shipped))
        assert sum(op_names("tflite", tmp_path / "s.tflite").values()) <= 451

    @pytest.mark.parametrize(
        ("precision", "size", "bound"), [("float16", 0.8, 1e-3), ("dynamic-int8", 0.8, 0.02), ("int8", 0.8, 0.05)]
    )
    def test_a_quantised_file_is_smaller_and_nearly_the_same(
        self, precision: str, size: float, bound: float, graph: Graph, weights: State, exported: Files,
        inputs: list[np.ndarray], truth: np.ndarray, tmp_path: Path,
    ) -> None:  # fmt: skip
        runtime, path = backend("tflite", precision=precision, images=inputs), tmp_path / "small.tflite"
        runtime.export(graph, path, weights)
        assert path.stat().st_size < size * exported("tflite").stat().st_size
        added = Counter({"QUANTIZE": 99, "DEQUANTIZE": 99})
        assert op_names("tflite", path) - added == op_names("tflite", exported("tflite"))
        difference = np.abs(runtime.run(path, inputs)[0] - truth).max() / np.abs(truth).max()
        assert 1e-6 < difference < bound
        assert runtime.conditions()["precision"] == precision
        assert "ai-edge-quantizer" in runtime.conditions()["versions"]

    def test_all_convolutions_and_linear_layers_are_in_8_bits(
        self, graph: Graph, weights: State, inputs: list[np.ndarray], tmp_path: Path
    ) -> None:
        backend("tflite", precision="int8", images=inputs).export(graph, tmp_path / "small.tflite", weights)
        schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
        Builtin = schema.BuiltinOperator  # noqa: N806
        model = schema.ModelT.InitFromPackedBuf((tmp_path / "small.tflite").read_bytes(), 0)
        (inside,) = model.subgraphs
        taken = [
            (model.operatorCodes[row.opcodeIndex].builtinCode, inside.tensors[row.inputs[0]].type)
            for row in inside.operators
        ]
        dense = [getattr(Builtin, name) for name in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")]
        linear = [type for code, type in taken if code in dense]
        assert {*linear} == {schema.TensorType.INT8}
        assert len(linear) == sum(isinstance(node.op, ops.Conv | ops.Linear) for node in graph.work)

    @pytest.mark.parametrize("precision", ["float16", "dynamic-int8", "int8"])
    def test_all_of_a_quantised_network_runs_in_xnnpack(self, precision: str, graph: Graph, tmp_path: Path) -> None:
        """An op that falls out of it costs many times what it should, and so does every crossing."""
        runtime, path = backend("tflite", precision=precision), tmp_path / "small.tflite"
        runtime.export(graph, path, nn.arbitrary(graph))
        assert [op["op_name"] for op in runtime._open(path)._get_ops_details()].count("DELEGATE") == 1

    def test_eight_bits_go_from_op_to_op(self, kernels: list[Any], tmp_path: Path) -> None:
        """A kernel of int8 is timed on 8 bits, as it runs between others, and ends before its output is made float."""
        runtime = backend("tflite", precision="int8")
        for path in runtime.export_each([single for single, _, _ in kernels], tmp_path):
            assert {x["dtype"] for x in runtime._open(path).get_input_details()} == {np.int8}
            assert runtime.stopwatch(path)() > 0

    def test_an_unknown_precision_gives_the_near_miss(self) -> None:
        with pytest.raises(ExportError, match="did you mean 'dynamic-int8'"):
            backend("tflite", precision="dynamic-int")


@pytest.mark.parametrize("name", WRITTEN)
class TestWrittenOpByOp:
    def test_every_kernel_alone_computes_what_torch_computes(
        self, name: str, kernels: list[Any], tmp_path: Path
    ) -> None:
        for single, _, state in kernels:
            path = tmp_path / f"kernel{backend(name).suffix}"
            backend(name).export(single, path, state)
            feed = [x.numpy() for x in nn.example(single)]
            assert_close(name, execute(name, path, single, feed), compute(single, state, feed))

    @pytest.mark.parametrize(("op", "shapes", "out"), EXAMPLES, ids=[str(row[0]) for row in EXAMPLES])
    def test_every_op_computes_what_torch_computes(
        self, name: str, op: Op, shapes: tuple[Shape, ...], out: Shape, tmp_path: Path
    ) -> None:
        single = Graph.single(op, shapes).deployed()
        if not single.work:
            return  # nothing of it is deployed
        state, path = nn.arbitrary(single), tmp_path / f"op{backend(name).suffix}"
        backend(name).export(single, path, state)
        feed = [x.numpy() for x in nn.example(single)]
        assert_close(name, execute(name, path, single, feed), compute(single, state, feed))
        most = {"coreml": "axes", "tflite": "tensor_ranks"}.get(name)
        assert most is None or max(getattr(import_module(f"mvnas.backends.{name}"), most)(path)) <= 4

    @pytest.mark.parametrize("act", ["", "silu", "relu", "hardswish"])
    @pytest.mark.parametrize("stride", [1, 2])
    @pytest.mark.parametrize("groups", [1, 2, 8])
    @pytest.mark.parametrize("size", [(8, 8), (7, 9)])
    def test_every_convolution_computes_what_torch_computes(
        self, name: str, act: str, stride: int, groups: int, size: tuple[int, int], tmp_path: Path
    ) -> None:
        op = Conv(8, kernel=3, stride=stride, groups=groups, norm=False, bias=groups != 2, act=act)
        graph = Graph.single(op, (Map(8, *size),))
        state, path = nn.arbitrary(graph), tmp_path / f"conv{backend(name).suffix}"
        backend(name).export(graph, path, state)
        feed = [x.numpy() for x in nn.example(graph)]
        assert_close(name, execute(name, path, graph, feed), compute(graph, state, feed))


class TestONNX:
    def test_a_profile_is_of_the_nodes_of_the_graph(self, graph: Graph, exported: Files) -> None:
        """All but sums of maps, which onnxruntime does within the convolution before them."""
        nodes = backend("onnx").profile(exported("onnx"), seconds=0.0)
        fused = {node.name for node in graph.work if kind(node.key) == "add.map"}
        assert {node.name for node in graph.work} - fused <= nodes.keys() <= {node.name for node in graph.work}
        assert {len(runs) for runs in nodes.values()} == {4}
        assert all(ms >= 0 for runs in nodes.values() for ms in runs)


class TestCoreML:
    def test_it_is_an_ml_program(self, exported: Files) -> None:
        import coremltools as ct

        assert ct.utils.load_spec(str(exported("coreml"))).WhichOneof("Type") == "mlProgram"

    def test_each_op_becomes_the_native_one(self, graph: Graph, exported: Files) -> None:
        ops = op_names("coreml", exported("coreml"))
        count = Counter(type(node.op).__name__ for node in graph.work)
        assert ops["conv"] == count["Conv"]
        assert ops["linear"] == count["Linear"]
        assert ops["layer_norm"] == count["LayerNorm"]
        assert ops["upsample_bilinear"] == count["Resize"]
        assert ops["softmax"] == count["Attention"]
        assert ops["silu"] == sum(getattr(node.op, "act", "") == "silu" for node in graph.work)

    def test_no_tensor_has_more_than_four_axes(self, exported: Files) -> None:
        from mvnas.backends.coreml import axes

        assert max(axes(exported("coreml"))) == 4
        assert backend("coreml").inspect(exported("coreml"))["max_rank"] == 4

    def test_every_tensor_is_float16(self, exported: Files) -> None:
        from coremltools.proto import MIL_pb2

        from mvnas.backends.coreml import _operations

        tensors = [out.type.tensorType for op in _operations(exported("coreml")) for out in op.outputs]
        kinds = {MIL_pb2.DataType.Name(tensor.dataType) for tensor in tensors if tensor.rank > 1}
        assert kinds == {"FLOAT16"}

    def test_every_op_tells_the_node_that_it_serves(self, graph: Graph, exported: Files) -> None:
        from mvnas.backends.coreml import nodes

        served = nodes(exported("coreml"))
        assert len(served) == sum(op_names("coreml", exported("coreml")).values())
        assert list(dict.fromkeys(served)) == [node.name for node in graph.work]

    def test_mobilevit_s_has_no_more_ops_than_it_needs(self, tmp_path: Path) -> None:
        """A converter makes 341 of the same graph, and 290 of timm's module, with a fifth axis."""
        shipped = Space.load("mobilevit_s").arch().graph().deployed()
        backend("coreml").export(shipped, tmp_path / "s.mlpackage", nn.arbitrary(shipped))
        figures = backend("coreml").inspect(tmp_path / "s.mlpackage")
        assert (figures["ops"], figures["max_rank"]) == (292, 4)

    def test_a_weight_that_float16_does_not_hold_is_refused(self, tmp_path: Path) -> None:
        single = Graph.single(*KERNELS[0])
        state = {name: 1e6 * weight for name, weight in nn.arbitrary(single).items()}
        with pytest.raises(ExportError, match="must fit into float16"):
            backend("coreml").export(single, tmp_path / "kernel.mlpackage", state)

    @pytest.mark.parametrize(
        "kernel",
        [
            *KERNELS,
            (Conv(8, kernel=3, norm=False, act="relu"), (Map(8, 7, 9),)),
            (Conv(8, kernel=3, stride=2, groups=2, norm=False, bias=True, act="hardswish"), (Map(8, 7, 9),)),
        ],
    )
    def test_a_kernel_alone_computes_what_torch_computes(self, kernel: Kernel, tmp_path: Path) -> None:
        single = Graph.single(*kernel)
        state, path = nn.arbitrary(single), tmp_path / "kernel.mlpackage"
        backend("coreml").export(single, path, state)
        feed = [x.numpy() for x in nn.example(single)]
        assert_close("coreml", evaluate(path, feed), compute(single, state, feed))

    def test_its_program_computes_what_torch_computes(
        self, exported: Files, inputs: list[np.ndarray], truth: np.ndarray
    ) -> None:
        """Read back from the file and evaluated op by op as the MIL reference defines them, in float32."""
        y = evaluate(exported("coreml"), inputs)
        assert_close("coreml", y, truth)


class TestRoofline:
    def test_a_network_takes_as_long_as_its_kernels(self, graph: Graph, exported: Files, tmp_path: Path) -> None:
        runtime = backend("roofline")
        alone = runtime.export_each([Graph.single(*node.key) for node in graph.work], tmp_path)
        total = sum(runtime.stopwatch(path)() for path in alone)
        assert runtime.stopwatch(exported("roofline"))() == pytest.approx(total)

    def test_the_slower_of_arithmetic_and_memory_counts(self, tmp_path: Path) -> None:
        kernel = Graph.single(Conv(64, kernel=3, norm=False, act=""), (Map(64, 16, 16),))
        macs, moved = 64 * 64 * 9 * 256, 4 * (2 * 64 * 256 + 64 * 64 * 9)
        path = tmp_path / "op.json"
        for gmacs, gbytes, threads, ms in (
            (1, 1, 1, macs / 1e6),
            (1, 1, 2, macs / 2e6),
            (1e9, 2, 1, moved / 2e6),
        ):
            runtime = backend("roofline", threads=threads, gmacs=gmacs, gbytes=gbytes, overhead_us=3)
            runtime.export(kernel, path, {})
            assert runtime.stopwatch(path)() == pytest.approx(ms + 0.003)


class TestLoading:
    def test_an_unknown_name_gives_the_near_miss(self) -> None:
        with pytest.raises(
            ExportError, match="did you mean 'tflite'\\? known: android, coreml, onnx, roofline, tflite, torch"
        ):
            backend("tflit")

    def test_a_backend_of_the_user_is_a_dotted_name(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "runtimes").mkdir()
        (tmp_path / "runtimes" / "mine.py").write_text(
            "class Backend:\n    suffix = '.mine'\n    export = export_each = run = stopwatch = conditions = print\n"
        )
        (tmp_path / "runtimes" / "empty.py").write_text("")
        monkeypatch.syspath_prepend(tmp_path)
        assert backend("runtimes.mine").suffix == ".mine"
        with pytest.raises(ExportError, match=r"must define the class Backend, but runtimes\.empty does not"):
            backend("runtimes.empty")
        with pytest.raises(ExportError, match=r"unknown backend 'runtimes\.min'"):
            backend("runtimes.min")

    def test_an_unknown_setting_is_named(self) -> None:
        with pytest.raises(ExportError, match="unknown setting of onnx 'thread'; did you mean 'threads'"):
            backend("onnx", thread=2)

    @pytest.mark.parametrize(
        ("name", "package", "advice"),
        [
            ("coreml", "coremltools", "docs/platforms.md"),
            ("onnx", "onnxruntime", r"pip install 'mvnas\[onnx\]'"),
            ("tflite", "ai_edge_litert", r"pip install 'mvnas\[tflite\]'"),
        ],
    )
    def test_a_package_that_is_not_installed_is_named(
        self, name: str, package: str, advice: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, package, None)
        monkeypatch.delitem(sys.modules, f"mvnas.backends.{name}", raising=False)
        with pytest.raises(ExportError, match=f"the backend {name} needs the package {package}.*; {advice}"):
            backend(name)


def test_quiet_hides_all_that_is_written_inside_and_nothing_else(capfd: pytest.CaptureFixture[str]) -> None:
    print("before")
    with quiet() as said:
        print("printed")
        os.write(2, b"native")
        logging.getLogger("third.party").warning("logged")
        warnings.warn("warned", stacklevel=1)
        assert "native" in said()
        assert "printed" in said()
    print("after")
    assert capfd.readouterr() == ("before\nafter\n", "")
    assert logging.root.manager.disable == logging.NOTSET
