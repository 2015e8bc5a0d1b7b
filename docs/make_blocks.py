"""Writes docs/blocks.md, a card for each block, and docs/blocks.json, what of it is known by converting and pricing.

    python docs/make_blocks.py

A block of each kind is converted to TFLite, ONNX and Core ML, and priced by the shipped table TABLE. `page` makes the
cards of the code and docs/blocks.json alone.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields, is_dataclass, replace
from functools import cache
from importlib import import_module, metadata
from inspect import cleandoc
from pathlib import Path
from pkgutil import iter_modules
from tempfile import TemporaryDirectory
from textwrap import fill
from typing import Any, get_type_hints

from mvnas import blocks
from mvnas.backends import backend
from mvnas.blocks import block_class, kind_of, rules
from mvnas.errors import UnmeasuredError
from mvnas.graph import Graph, Layer, Summary
from mvnas.latency.model import LatencyModel
from mvnas.latency.table import Table, write_shapes
from mvnas.nn import arbitrary
from mvnas.ops import (
    Add,
    Attention,
    Fold,
    Input,
    LinearAttention,
    Mul,
    Resize,
    SeparableAttention,
    Shape,
    Sub,
    Value,
)
from mvnas.spaces.reading import names
from mvnas.spaces.space import Space
from mvnas.spaces.zoo import published

PAGE = Path(__file__).parent / "blocks.md"
DATA = PAGE.with_suffix(".json")
TABLE = "genoa-1t"
FORMATS = {"tflite": "TFLite", "onnx": "ONNX", "coreml": "Core ML"}
PACKAGES = ("ai-edge-litert", "onnx", "coremltools")
DOCUMENTED = {  # https://www.tensorflow.org/lite/performance/gpu
    "ADD", "AVERAGE_POOL_2D", "CONCATENATION", "CONV_2D", "DEPTHWISE_CONV_2D", "EXP", "FULLY_CONNECTED", "LOGICAL_AND",
    "LOGISTIC", "LSTM", "MAX_POOL_2D", "MAXIMUM", "MINIMUM", "MUL", "PAD", "PRELU", "RELU", "RELU6", "RESHAPE",
    "RESIZE_BILINEAR", "SOFTMAX", "STRIDED_SLICE", "SUB", "TRANSPOSE_CONV",
}  # fmt: skip
TAKEN = {  # kinds beyond these in the delegate's code, gpu_compatibility.cc (see OPS)
    "ABS", "ADD_N", "ATAN2", "BATCH_MATMUL", "CAST", "CEIL", "COS", "CUMSUM", "DENSIFY", "DEPTH_TO_SPACE", "DEQUANTIZE",
    "DIV", "DYNAMIC_UPDATE_SLICE", "ELU", "EMBEDDING_LOOKUP", "EQUAL", "FLOOR", "FLOOR_DIV", "FLOOR_MOD", "GATHER",
    "GELU", "GREATER", "GREATER_EQUAL", "HARD_SWISH", "LEAKY_RELU", "LESS", "LESS_EQUAL", "LOG", "MEAN", "MIRROR_PAD",
    "NEG", "NOT_EQUAL", "ONE_HOT", "PACK", "PADV2", "POW", "QUANTIZE", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD",
    "RELU_N1_TO_1", "RESIZE_NEAREST_NEIGHBOR", "RSQRT", "SELECT", "SELECT_V2", "SIGN", "SIN", "SLICE", "SPACE_TO_DEPTH",
    "SPLIT", "SPLIT_V", "SQRT", "SQUARE", "SQUARED_DIFFERENCE", "STABLEHLO_CLAMP", "SUM", "TANH", "TILE", "TRANSPOSE",
}  # fmt: skip
SIGNS = {Add: "+", Sub: "-", Mul: "*"}
LETTERS = "abcdefghijklmnopqrstuvw"  # names of values between x and y
WIDTH = 110

HEAD = """# Blocks

Written by `python docs/make_blocks.py` from docstrings, fields, graphs, `search_spaces/` and `docs/blocks.json`; not by
hand.

A card tells what a block is, the ops that it is made of at a *reference*, its dimensions with the options that shipped
spaces search, what it refuses, and what it costs. The reference is where shipped networks (or else the first options of
a space) have the block with most kinds of ops, and among those with fewest MACs. Diagrams are of the form that is
trained, with one layer of those blocks that have `layers`. `a: Map(64, 8, 8) = x → F → G` says that G is applied to
what F makes of x, and that the result, a map of 64 channels and 8 x 8 pixels, is called a; `Layer(...)` is a block
inside a block, drawn below. Fields of ops that have their default are left out. Activations are the most bytes alive at
once, in float32, the block's input among them.
"""
LATENCY = """Latency shares are those of a sum of ops, each as timed or estimated for the table `{name}` of {date}
(`docs/latency.md`); a block is *not measured* where the table neither holds an op nor is wide enough to estimate it.
"""
OPS = """## Ops of each format

What files of the references hold, with how often ({versions}); another point of the same block, such as another
activation or form of attention, may hold others. No tensor has more than four axes. The last column has the kinds of
TFLite ops that TFLite's GPU delegate [is not documented to run](https://www.tensorflow.org/lite/performance/gpu). That
list is older than the delegate: in bold are those that its code does not take either, whatever their shapes
([gpu_compatibility.cc](https://github.com/tensorflow/tensorflow/blob/03a5e4e19a9c8200e13c85f1c637877fdf589be6/tensorflow/lite/tools/versioning/gpu_compatibility.cc)).
What a delegate does not take runs on the CPU, with a transfer there and back. Read, not run: no GPU ran these files,
the code has conditions on shapes too, and a phone may have an older delegate.

| block | TFLite | ONNX | Core ML | outside the GPU delegate's documented ops |
|---|---|---|---|---|
"""


@cache
def spaces() -> dict[str, Space]:
    """All shipped spaces and published networks."""
    return {name: Space.load(name) for name in names()}


@cache
def references() -> dict[str, tuple[str, Summary]]:
    """For each kind of block in a shipped space the name of the space and the block there that cards are about."""
    found: dict[str, tuple[Any, str, Summary]] = {}
    for name, space in spaces().items():
        arch = space.sample(lambda _, options: options[0])
        for part, row in zip(arch.blocks, arch.summaries, strict=True):
            rank = name in published(), len({type(op) for (op, _), _ in row.kernels}), -row.macs
            kind = kind_of(part)
            if kind not in found or rank > found[kind][0]:
                found[kind] = rank, name, row
    return {kind: (name, row) for kind, (_, name, row) in found.items()}


def kinds() -> list[str]:
    """Names of all blocks."""
    return sorted(module.name for module in iter_modules(blocks.__path__) if not module.name.startswith("_"))


def graph(row: Summary) -> Graph:
    """The block alone, as it is trained."""
    return Graph.of(row.block(*[Input(shape)() for shape in row.shapes]))


def identity(row: Summary) -> str:
    """The block and the shape that it is given, as text."""
    block: Any = row.block
    given = [f"{field.name}={getattr(block, field.name)!r}" for field in fields(block)
             if getattr(block, field.name) != field.default]  # fmt: skip
    return f"{kind_of(block)}({', '.join(given)}) on {write_shapes(row.shapes)}"


def known(row: Summary, folder: Path, model: LatencyModel) -> dict[str, Any]:
    """What docs/blocks.json holds of a block."""
    return {"of": identity(row), "files": converted(row, folder), "ms": priced(row, model)}


def converted(row: Summary, folder: Path) -> dict[str, str]:
    """Ops in the file of each format, with how often."""
    told = {}
    deployed = graph(row).deployed()
    for name in FORMATS:
        runtime = backend(name)
        path = folder / f"block{runtime.suffix}"
        runtime.export(deployed, path, arbitrary(deployed))
        told[name] = counted(import_module(f"mvnas.backends.{name}").op_names(path))
    return told


def counted(names: list[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(Counter(names).items()))


def priced(row: Summary, model: LatencyModel) -> dict[str, float] | None:
    """Milliseconds of the ops of each kind; None where the table does not know them all."""
    total: dict[str, float] = {}
    try:
        for kernel, count in row.kernels:
            name = type(kernel[0]).__name__
            total[name] = total.get(name, 0.0) + count * model.prices.kernel(kernel)
    except UnmeasuredError:
        return None
    return {name: round(ms, 6) for name, ms in sorted(total.items())}


def measured() -> dict[str, Any]:
    """All of docs/blocks.json."""
    table = Table.load(TABLE)
    model = LatencyModel.of_kernels(table)
    with TemporaryDirectory() as folder:
        rows = {kind: known(row, Path(folder), model) for kind, (_, row) in sorted(references().items())}
    return {
        "versions": {package: metadata.version(package) for package in PACKAGES},
        "table": {"name": TABLE, "date": table.device["date"]},
        "blocks": rows,
    }


def page(data: dict[str, Any]) -> str:
    """The cards, and the ops of each format."""
    cards = [card(kind, data["blocks"].get(kind)) for kind in kinds()]
    versions = ", ".join(f"{package} {version}" for package, version in data["versions"].items())
    rows = [formats_row(kind, row["files"]) for kind, row in data["blocks"].items()]
    index = " · ".join(f"[{kind}](#{kind})" for kind in kinds())
    head = f"{HEAD}{LATENCY.format(**data['table'])}\n{index}\n"
    return "\n".join([head, *cards, OPS.format(versions=versions) + "\n".join(rows)]) + "\n"


def card(kind: str, data: dict[str, Any] | None) -> str:
    """Heading, docstrings, diagram, dimensions, rules and costs of a block."""
    what, refused = cleandoc(str(block_class(kind).__doc__)).partition("\n\nRaises:\n")[0], rules(kind)
    parts = [f"## {kind}", cleandoc(str(import_module(f"mvnas.blocks.{kind}").__doc__)), what]
    if kind in references():
        name, row = references()[kind]
        parts += [
            f"Reference: `{identity(row)}`, as in `{name}`.",
            f"```text\n{diagram(drawn(row.block), *row.shapes)}\n```",
        ]
    parts += [dimensions(kind), f"Refused: {refused}" if refused else "It has no rule of its own."]
    if kind in references():
        parts += [costs(row), latency(data and data["ms"])]
    return "\n\n".join(part for part in parts if part) + "\n"


def drawn(block: Any) -> Any:
    """The block with one of its layers."""
    return replace(block, layers=1) if hasattr(block, "layers") else block


def dimensions(kind: str) -> str:
    """A table of the fields of a block, with the options that shipped spaces search."""
    block = block_class(kind)
    types, searched = get_type_hints(block), options(kind)
    rows = [
        (f"`{field.name}`", types[field.name].__name__, "" if field.default is MISSING else f"`{field.default!r}`",
         ", ".join(f"`{value!r}`" for value in searched.get(field.name, ())))
        for field in fields(block)
    ]  # fmt: skip
    lines = [("field", "type", "default", "searched"), ("---",) * 4, *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) if rows else ""


def options(kind: str) -> dict[str, list[Any]]:
    """The options of each field that any shipped space leaves open."""
    found: dict[str, set[Any]] = {}
    for stage in [stage for space in spaces().values() for row in space.rows for stage in row.stages]:
        for field, values in stage.choices().items():
            if stage.kind == kind:
                found.setdefault(field, set()).update(values)
    return {field: sorted(values) for field, values in found.items()}


def costs(row: Summary) -> str:
    trained = graph(row).params
    params = f"{trained:,} parameters" + (f" in training, {row.params:,} deployed" if trained != row.params else "")
    return (
        f"Costs: {params}; {row.macs / 1e6:,.2f} M MACs; {row.peak((True,) * len(row.shapes)) / 1e6:,.2f} MB of"
        " activations."
    )


def latency(ms: dict[str, float] | None) -> str:
    if not ms:
        return "Latency: not measured."
    total = sum(ms.values())
    shares = ", ".join(f"{name} {part / total:.1%}" for name, part in sorted(ms.items(), key=lambda item: -item[1]))
    return f"Latency: {total:.3f} ms, of which {shares}."


def formats_row(kind: str, files: dict[str, str]) -> str:
    """A row of the table of formats."""
    used = [op.partition(" ")[0] for op in files["tflite"].split(", ")]
    outside = [name if name in TAKEN else f"**{name}**" for name in used if name not in DOCUMENTED]
    return f"| {' | '.join([f'`{kind}`', *[files[name] for name in FORMATS], ', '.join(outside) or 'none'])} |"


def diagram(block: Callable[..., Value], shape: Shape) -> str:
    """The ops of a block as text: a line for each value that several read, or an op of several values; then the
    layers inside.
    """
    values = list(after_inputs(block(Input(shape)()), set()))
    reads = Counter(x for value in values for x in value.inputs)
    named = {x for value in values for x in apart(value)}
    named |= {value for value in values if not value.inputs or reads[value] != 1}
    between = [LETTERS[i % len(LETTERS)] + str(i // len(LETTERS) or "") for i in range(len(named) - 2)]
    names = dict(zip([value for value in values if value in named], ["x", *between, "y"], strict=True))
    told = [f"x: {write_shapes([shape])}"]
    for value, name in list(names.items())[1:]:
        text = f"{name}: {write_shapes([value.shape])} = {made(value, names)}"
        told.append(fill(text, WIDTH, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False))
    layers = {(value.op.block, value.inputs[0].shape): None for value in values if isinstance(value.op, Layer)}
    return "\n".join([*told, *[f"\n{written(layer)}:\n{diagram(layer, inner)}" for layer, inner in layers]])


def after_inputs(value: Value, seen: set[Value]) -> Iterator[Value]:
    """The values that `value` is made of and that were not seen, each after its inputs."""
    seen.add(value)
    for x in value.inputs:
        if x not in seen:
            yield from after_inputs(x, seen)
    yield value


def apart(value: Value) -> tuple[Value, ...]:
    """The inputs that are told on lines of their own: not what an op goes on from, nor what attention is given."""
    if isinstance(value.op, Attention | LinearAttention | SeparableAttention):
        return ()
    return value.inputs[goes_on(value) :]


def goes_on(value: Value) -> bool:
    """Whether an op is one step on from its first input, and only reads the size of another."""
    return len(value.inputs) == 1 or isinstance(value.op, Fold | Resize)


def made(value: Value, names: dict[Value, str]) -> str:
    """How a value is made of those that have names."""
    told = [names.get(x) or made(x, names) for x in value.inputs]
    if type(value.op) in SIGNS:
        return f" {SIGNS[type(value.op)]} ".join(told)
    if goes_on(value):
        return f"{told[0]} → {written(value.op, *[f'like={name}' for name in told[1:]])}"
    return f"{written(value.op)}({', '.join(told)})"


def written(part: Any, *more: str) -> str:
    """An op or block as code, without fields that have their default; `more` are further arguments."""
    if isinstance(part, tuple):
        return f"({', '.join(map(written, part))})"
    if not is_dataclass(part):
        return f"{part:.3g}" if isinstance(part, float) else repr(part)
    rows = [(field, getattr(part, field.name)) for field in fields(part)]
    given = [
        written(value) if field.default is MISSING else f"{field.name}={written(value)}"
        for field, value in rows
        if field.default is MISSING or value != field.default
    ]
    return f"{type(part).__name__}({', '.join([*given, *more])})"


if __name__ == "__main__":
    DATA.write_text(json.dumps(measured(), indent=1) + "\n")
    PAGE.write_text(page(json.loads(DATA.read_text())))
