"""Laws of the Android backend, over an `adb` that stands for a phone and replays what benchmark_model printed on real ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from phone import NEW, OLD, Phone
from small import make_space

from mvnas.backends import Device, Profiler, backend
from mvnas.backends._timing import Sample
from mvnas.backends.android import OpTime, fastest, read_profile, read_sample
from mvnas.cli import main
from mvnas.errors import ExportError
from mvnas.graph import Graph
from mvnas.latency.model import LatencyModel
from mvnas.measuring.measure import measure
from mvnas.measuring.protocol import Protocol
from mvnas.ops import Conv, Linear, Map, Tokens
from mvnas.spaces.space import Space

FAST = Protocol(op_openings=1, op_runs=1, op_seconds=0, network_runs=1, network_seconds=0, passes=2)

# https://github.com/tensorflow/tensorflow/issues/25021
PRINTED = """\
Operator-wise Profiling Info for Regular Benchmark Runs:
============================== Run Order ==============================
\t             [node type]\t          [start]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t[times called]\t[Name]
\t       DEPTHWISE_CONV_2D\t            0.000\t    0.802\t    0.719\t 45.131%\t 45.131%\t     0.000\t        1\t[Relu6]
\t         FULLY_CONNECTED\t            0.719\t    0.848\t    0.849\t 53.325%\t 98.456%\t     0.000\t        1\t[BiasAdd_1]

============================== Top by Computation Time ==============================
\t             [node type]\t          [start]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t[times called]\t[Name]
\t         FULLY_CONNECTED\t            0.719\t    0.848\t    0.849\t 53.325%\t 98.456%\t     0.000\t        1\t[BiasAdd_1]
"""

# linux_x86-64_benchmark_model on EfficientDet-Lite0; CSV is the same as TensorFlow's stats_calculator.cc would write it
XNNPACK = """\
INFO: Operator-wise Profiling Info for Regular Benchmark Runs:
============================== Run Order ==============================
                                     [node type]          [first]        [avg ms]            [%]          [cdf%]          [mem KB]        [times called]  [Name]
                                        QUANTIZE            0.199           0.203         1.328%          1.328%             0.000                1       [tfl.quantize]:0
                  Convolution (NHWC, QC8) DWConv            0.428           0.051         4.317%          8.304%             0.000               13       Delegate/Convolution (NHWC, QC8) DWConv:1

"""
CSV = """\
Operator-wise Profiling Info for Regular Benchmark Runs:
============================== Run Order ==============================
node type, first, avg_ms, %, cdf%, mem KB, times called, name
QUANTIZE, 0.199, 0.203, 1.328%, 1.328%, 0, 1, [tfl.quantize]:0
Convolution (NHWC, QC8) DWConv, 0.428, 0.051, 4.317%, 8.304%, 0, 13, Delegate/Convolution (NHWC\t QC8) DWConv:1

"""

# android_aarch64_benchmark_model on a phone, for a speech model of eight bits
REFUSED = """\
INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
ERROR: tensorflow/lite/kernels/batch_matmul.cc:353 (lhs_data->type == kTfLiteFloat32 && rhs_data->type == kTfLiteInt8) || lhs_data->type == rhs_data->type was not true.
ERROR: Node number 57 (BATCH_MATMUL) failed to prepare.
ERROR: Failed to allocate tensors!
ERROR: Benchmarking failed.
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of one op."""
    graph = Graph.single(Conv(8, norm=False, bias=True, act=""), (Map(8, 4, 4),))
    return backend("android").export_each([graph], tmp_path)[0]


def milliseconds(path: Path) -> float:
    """What the phone of these tests takes for a file."""
    return (100 + path.stat().st_size // 32) / 1e3


@pytest.mark.parametrize(
    ("output", "sample"),
    [
        (NEW, Sample(898.007, 899.281, 50)),
        (OLD, Sample(32.641, 33.2094, 50)),
        (NEW.replace("min=898007", "min=0"), Sample(0.001, 899.281, 50)),
        ("count=9 curr=44(all same)\n\ncount=50 curr=43(all same)\n", Sample(0.043, 0.043, 50)),
        ("INFO: count=1 curr=905463\nINFO: count=1 curr=8 p5=8 median=8 p95=8\r\n", Sample(0.008, 0.008, 1)),
    ],
)
def test_timings_are_those_after_the_warm_up(output: str, sample: Sample) -> None:
    assert read_sample(output) == pytest.approx(sample)


@pytest.mark.parametrize(
    ("output", "last"),
    [
        ("", "nothing"),
        ("STARTING!\n\n", "STARTING!"),
        (NEW.partition("INFO: count=50")[0], "INFO: Running benchmark for at least 50 iterations"),
        (OLD.replace("count=50", "n=50"), "Peak memory footprint"),
    ],
)
def test_output_without_timings_is_an_error_that_quotes_its_end(output: str, last: str) -> None:
    with pytest.raises(ExportError, match=f"must print its timings, but the last that it said is: {last}"):
        read_sample(output)


def test_a_profile_is_read_as_printed_and_as_csv() -> None:
    first, second = read_profile(PRINTED)
    assert first == OpTime("DEPTHWISE_CONV_2D", "[Relu6]", 0.719, 1, pytest.approx(0.45131))
    assert second.name == "[BiasAdd_1]"
    printed, csv = read_profile(XNNPACK), read_profile(CSV)
    assert printed[1] == OpTime("Convolution (NHWC, QC8) DWConv", "Delegate/Convolution (NHWC, QC8) DWConv:1", 0.051, 13,
                                pytest.approx(0.04317))  # fmt: skip
    assert [op._replace(name="") for op in printed] == [op._replace(name="") for op in csv]
    with pytest.raises(ExportError, match="must print a profile"):
        read_profile(NEW)


@pytest.mark.parametrize("printed", [PRINTED, XNNPACK])
def test_the_profile_of_a_file_comes_from_the_phone(printed: str, phone: Phone, file: Path) -> None:
    phone.install(NEW + printed)
    assert backend("android").op_profile(file) == read_profile(printed)  # type: ignore[attr-defined]
    assert "--enable_op_profiling=true" in phone.asked()[-1]
    assert not isinstance(backend("android"), Profiler)


@pytest.mark.parametrize("output", [NEW, OLD])
def test_samples_are_the_phone_s_in_turn_and_files_go_there_once(output: str, phone: Phone, tmp_path: Path) -> None:
    phone.install(output)
    graphs = [Graph.single(Linear(width), (Tokens(1, 4, width),)) for width in (16, 64)]
    runtime = backend("android")
    assert isinstance(runtime, Device)
    small, large = runtime.export_each(graphs, tmp_path)
    samples = runtime.samples([large, small, large], runs=7, seconds=0.1)
    assert [sample.min_ms for sample in samples] == [milliseconds(path) for path in (large, small, large)]
    assert all(sample.runs == 7 and sample.median_ms > sample.min_ms for sample in samples)
    backend("android").samples([small, large], runs=7, seconds=0.1)  # type: ignore[attr-defined]
    asked = phone.asked()
    assert [row.partition(" ")[0] for row in asked].count("push") == 2
    assert sum("--graph=" in row for row in asked) == 2
    assert asked[-1].count("taskset 80 ") == 2


def test_a_file_that_arrived_in_part_is_sent_again(phone: Phone, file: Path) -> None:
    backend("android").stopwatch(file)()
    (sent,) = (phone.folder / "data/local/tmp/mvnas").glob("*.tflite")
    sent.write_bytes(file.read_bytes()[:-1])
    assert backend("android").stopwatch(file)() == milliseconds(file)
    assert sent.read_bytes() == file.read_bytes()


def test_pinned_to_the_fastest_clusters_that_hold_the_threads() -> None:
    clocks = {0: 1800, 1: 1800, 2: 1800, 3: 2400, 4: 2400, 5: 2850}
    assert [fastest(clocks, threads) for threads in (1, 2, 3, 4)] == [0b100000, 0b111000, 0b111000, 0b111111]


def test_conditions_name_the_phone_and_its_cores(phone: Phone) -> None:
    conditions = backend("android").conditions()
    assert conditions["cpu"] == "Qualcomm Technologies, Inc SM7250 (Google Pixel 4a (5G))"
    assert conditions["system"].startswith("Android 14 arm64-v8a, google/bramble")
    assert (conditions["cores"], conditions["pinned"]) == (8, "cores 7")
    assert backend("android", threads=2).conditions()["pinned"] == "cores 6,7"
    assert backend("android", cores="0,1").conditions()["pinned"] == "cores 0,1"
    assert len(conditions["versions"]["benchmark_model"]) == 16


def test_where_pinning_is_refused_nothing_is_pinned_and_conditions_say_so(phone: Phone, file: Path) -> None:
    (phone.folder / "no-taskset").touch()
    runtime = backend("android")
    assert runtime.conditions()["pinned"] == "no: taskset is refused"
    assert runtime.stopwatch(file)() == milliseconds(file)
    assert "taskset" not in phone.asked()[-1]
    with pytest.raises(ExportError, match=r"cores must be ones that .* 6,7: taskset: .* not permitted"):
        backend("android", cores="6,7").conditions()


def test_a_binary_of_this_machine_goes_to_the_phone(
    phone: Phone, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "android_aarch64_benchmark_model"
    (phone.folder / "data/local/tmp/benchmark_model").rename(mine)
    mine.chmod(0o600)
    monkeypatch.setenv("MVNAS_BENCHMARK_MODEL", str(mine))
    assert backend("android").stopwatch(file)() == milliseconds(file)
    there = backend("android", binary=str(mine)).conditions()["versions"]["benchmark_model"]
    assert (phone.folder / "data/local/tmp/mvnas" / there).read_bytes() == mine.read_bytes()


STATES = [
    ([], {}, "a phone must be attached, but adb lists none"),
    (["0A1B2C3D\tunauthorized"], {}, "is unauthorized; unlock it and accept its dialog"),
    (["0A1B2C3D\toffline"], {}, "is offline; attach it again"),
    (["0A1B2C3D\tno permissions (user in plugdev group; are your udev rules wrong?)"], {}, "run/device"),
    (["0A1B2C3D\trecovery"], {}, "is recovery; attach it again"),
    (["0A1B2C3D\tdevice", "emulator-5554\tdevice"], {}, "chosen of 0A1B2C3D, emulator-5554; give --setting serial"),
    (["0A1B2C3D\tdevice"], {"serial": "B"}, "the phone B must be attached, but adb lists 0A1B2C3D"),
    (["0A1B2C3D\tdevice"], {"binary": "none"}, "there is no none; get it from https"),
    (["0A1B2C3D\tdevice"], {"cores": "big"}, "cores must be numbers such as 6,7"),
]


@pytest.mark.parametrize(("listed", "settings", "told"), STATES, ids=[told for _, _, told in STATES])
def test_each_state_of_the_phone_has_its_sentence(
    listed: list[str], settings: dict[str, str], told: str, phone: Phone, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    phone.attach(*listed)
    words = [f"--setting={key}={value}" for key, value in settings.items()]
    space = str(make_space(tmp_path))
    assert main(["measure", "--backend", "android", "--space", space, "--table", str(tmp_path / "t"), *words]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert not (tmp_path / "t").exists()


def test_without_adb_the_message_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ExportError, match="platform-tools"):
        backend("android").conditions()


def test_without_a_binary_the_message_names_the_one_for_the_phone(phone: Phone) -> None:
    (phone.folder / "data/local/tmp/benchmark_model").unlink()
    with pytest.raises(ExportError, match="get android_aarch64_benchmark_model from https"):
        backend("android").conditions()


def test_the_serial_chooses_among_phones(phone: Phone, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    phone.attach("emulator-5554\tdevice", "0A1B2C3D\tdevice")
    assert backend("android", serial="0A1B2C3D").stopwatch(file)() == milliseconds(file)
    monkeypatch.setenv("ANDROID_SERIAL", "0A1B2C3D")
    assert backend("android").stopwatch(file)() == milliseconds(file)


@pytest.mark.parametrize(
    ("output", "status", "told"),
    [
        (REFUSED, 1, "ended with 1: ERROR: Failed to allocate tensors!"),
        ("Segmentation fault\n", 139, "ended with 139: Segmentation fault"),
        ("benchmark_model: not executable: 32-bit ELF file\n", 126, "its file for this phone is android_aarch64"),
        ("INFO: Though XNNPACK delegate is explicitly applied, the model graph will not be executed by the delegate.\n",
         0, "XNNPACK must run"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_timed_says_why(output: str, status: int, told: str, phone: Phone, file: Path) -> None:
    phone.break_benchmark(output, status)
    with pytest.raises(ExportError, match=f"{file.name}") as caught:
        backend("android").stopwatch(file)()
    assert told in str(caught.value)


def test_outputs_are_left_to_another_backend(file: Path) -> None:
    with pytest.raises(ExportError, match="tflite runs the same file"):
        backend("android").run(file, [])


def test_a_table_of_a_phone_that_was_unplugged_is_continued_and_serves_the_model(phone: Phone, tmp_path: Path) -> None:
    space, folder = Space.load(make_space(tmp_path)), tmp_path / "my-phone"
    phone.unplug_after(60)
    with pytest.raises(ExportError, match="adb lists none"):
        measure([space], backend("android"), folder=folder, ops=200, networks=8, protocol=FAST)
    before = (folder / "ops.csv").read_text()
    assert before.count("\n") > 5
    phone.attach("0A1B2C3D\tdevice")
    table = measure([space], backend("android"), folder=folder, ops=200, networks=8, protocol=FAST)
    assert (folder / "ops.csv").read_text().startswith(before)
    assert table.device["backend"] == "android"
    assert table.device["pinned"] == "cores 7"
    assert "Pixel" in table.device["cpu"]
    for kernel, timing in list(table.ops.items())[:5]:
        (path,) = backend("tflite").export_each([Graph.single(*kernel)], tmp_path)
        assert timing.min_ms == pytest.approx(milliseconds(path), rel=1e-5)
    estimate = LatencyModel.fit(table).predict(space.at(space.ends[0]))
    assert 0 < estimate.low <= estimate.value <= estimate.high
