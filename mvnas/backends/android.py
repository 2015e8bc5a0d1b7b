"""Android: TFLite files timed on an attached phone by TensorFlow's benchmark_model, through adb and without root.

The binary is the stock one: https://ai.google.dev/edge/litert/models/measurement, "Native benchmark binary".
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha1
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mvnas.backends import Runtime, backend
from mvnas.backends._timing import Sample, Stopwatch
from mvnas.errors import ExportError
from mvnas.graph import Graph
from mvnas.ops import State

SERIAL = "ANDROID_SERIAL"  # adb's own variable: which phone
BINARY = "MVNAS_BENCHMARK_MODEL"  # path of benchmark_model on this machine
INSTALLED = "/data/local/tmp/benchmark_model"  # where TensorFlow's instructions put it on a phone
FOLDER = "/data/local/tmp/mvnas"  # our files on the phone
BINARIES = {"arm64-v8a": "android_aarch64_benchmark_model", "armeabi-v7a": "android_arm_benchmark_model"}
SOURCE = "https://ai.google.dev/edge/litert/models/measurement"
WARM_UP = 0.05  # seconds of runs before those that count: a phone raises its clock under load
TIMEOUT = 900  # seconds; benchmark_model itself ends warm-up and runs after 150 each
END = "mvnas-ended-"  # what separates the outputs of commands
ADVICE = {
    "unauthorized": "unlock it and accept its dialog 'Allow USB debugging?'",
    "offline": "attach it again, or restart adb: adb kill-server",
    "no permissions": "let this user access USB devices: https://developer.android.com/studio/run/device",
}


@dataclass(frozen=True)
class Backend:
    """TFLite on an attached phone's CPU with XNNPACK, `threads` threads; files are those of the TFLite backend.

    `serial` names the phone where more than one is attached (else ANDROID_SERIAL does); `binary` is the path of
    benchmark_model on this machine (else MVNAS_BENCHMARK_MODEL, else the one at /data/local/tmp/benchmark_model of
    the phone is used); `cores` are the numbers of the cores to run on, such as "6,7": without them the fastest of the
    phone, as many clusters as `threads` need, where it permits pinning.

    Raises:
        ExportError: the TFLite backend refuses the precision or is not installed, or `cores` are no numbers of cores.
    """

    threads: int = 1
    precision: str = "float32"
    serial: str = ""
    binary: str = ""
    cores: str = ""
    suffix = ".tflite"
    files_of = "tflite"  # the format that its files are shipped in

    def __post_init__(self) -> None:
        if not re.fullmatch(r"(\d+(,\d+)*)?", self.cores):
            raise ExportError(f"cores must be numbers such as 6,7, but got {self.cores!r}")
        _ = self._writer  # which checks the precision

    @cached_property
    def _writer(self) -> Runtime:
        return backend("tflite", threads=self.threads, precision=self.precision)

    def export(self, graph: Graph, path: Path, weights: State) -> None:
        """Write the deployed `graph` with `weights`, as the TFLite backend does."""
        self._writer.export(graph, path, weights)

    def export_each(self, graphs: Sequence[Graph], folder: Path) -> list[Path]:
        return self._writer.export_each(graphs, folder)

    def run(self, path: Path, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Nothing: benchmark_model takes no inputs and gives no outputs.

        Raises:
            ExportError: always.
        """
        raise ExportError(
            "a backend must give outputs to be run, but benchmark_model only times; choose another backend: "
            "tflite runs the same file here"
        )

    def stopwatch(self, path: Path) -> Stopwatch:
        """Function that runs the file once on the phone, after a warm-up, and returns milliseconds."""
        return lambda: self.samples([path], runs=1, seconds=0)[0].min_ms

    def samples(self, paths: Sequence[Path], *, runs: int, seconds: float) -> list[Sample]:
        """Times of each file in turn, by benchmark_model's clock of microseconds; a process each, one call to adb.

        A file that takes less than a microsecond counts as one. The median is benchmark_model's; older ones print
        none, and the mean stands for it.

        Raises:
            ExportError: no phone is ready, or benchmark_model cannot run a file.
        """
        flags = f"--num_runs={runs} --min_secs={seconds:g}"
        commands = [self._command(self._phone.send(path), flags) for path in paths]
        return [
            read_sample(self._checked(path, *said))
            for path, said in zip(paths, self._phone.shell(*commands), strict=True)
        ]

    def op_profile(self, path: Path, *, runs: int = 50) -> list[OpTime]:
        """Where the time of a file goes, op by op as the phone's runtime executes them, in their order.

        With XNNPACK these are its own operators, fused, or one for all in binaries before TensorFlow 2.10: no nodes of
        our graph, so tables are not made of them.
        """
        remote = self._phone.send(path)
        csv = f"{remote}.csv"
        flags = f"--num_runs={runs} --enable_op_profiling=true --profiling_output_csv_file={csv}"
        said, table = self._phone.shell(self._command(remote, flags), f"cat {csv} && rm {csv}")
        printed = self._checked(path, *said)
        return read_profile(printed if table.status else table.output)

    def conditions(self) -> Mapping[str, Any]:
        """What figures depend on: the phone, its system, the binary, and the cores it was pinned to.

        Raises:
            ExportError: no phone is ready, or it has no benchmark_model.
        """
        files, phone = self._writer.conditions(), self._phone
        chip = " ".join(filter(None, (phone["ro.soc.manufacturer"], phone["ro.soc.model"]))) or phone["hardware"]
        return {
            "backend": "android",
            "runtime": "benchmark_model with XNNPACK",
            "cpu": f"{chip} ({phone['ro.product.manufacturer']} {phone['ro.product.model']})",
            "cores": len(phone.clocks),
            "system": f"Android {phone['ro.build.version.release']} {phone.abi}, {phone['ro.build.fingerprint']}",
            "versions": {"benchmark_model": self._benchmark.version, **files["versions"]},
            "form": files["form"],
            "threads": self.threads,
            "precision": self.precision,
            "pinned": f"cores {','.join(map(str, _cores(self._mask)))}" if self._mask else "no: taskset is refused",
        }

    def _command(self, remote: str, flags: str) -> str:
        pin = f"taskset {self._mask:x} " if self._mask else ""
        warm_up = f"--warmup_runs=1 --warmup_min_secs={WARM_UP}"
        settings = f"--num_threads={self.threads} --use_xnnpack=true {warm_up}"
        return f"{pin}{self._benchmark.path} --graph={remote} {settings} {flags}"

    def _checked(self, path: Path, output: str, status: int) -> str:
        """Output of benchmark_model, once it is sure that it has run the file with XNNPACK."""
        if status:
            last = _last(output.replace("ERROR: Benchmarking failed.", ""))
            advice = f"; its file for this phone is {self._phone.wanted}" if status in (126, 127) else ""
            raise ExportError(f"benchmark_model must run {path.name}, but it ended with {status}: {last}{advice}")
        if "XNNPACK delegate is explicitly applied, the model graph will not be executed" in output:
            raise ExportError(f"XNNPACK must run {path.name}, or its timings mislead, but it was not delegated to it")
        return output

    @cached_property
    def _phone(self) -> _Phone:
        return _Phone(attached(self.serial or os.environ.get(SERIAL, "")))

    @cached_property
    def _benchmark(self) -> _Binary:
        """benchmark_model on the phone: ours, or the one that somebody installed."""
        local = self.binary or os.environ.get(BINARY, "")
        if local:
            if not Path(local).is_file():
                raise ExportError(f"benchmark_model must be a file, but there is no {local}; get it from {SOURCE}")
            remote = self._phone.send(Path(local))
            self._phone.shell(f"chmod 755 {remote}")
            return _Binary(remote, _digest(Path(local)))
        (said,) = self._phone.shell(f"sha1sum {INSTALLED}")
        if said.status:
            raise ExportError(
                f"the phone must have benchmark_model, but there is no {INSTALLED}; get {self._phone.wanted} from "
                f"{SOURCE} and give its path as --setting binary=PATH or in {BINARY}"
            )
        return _Binary(INSTALLED, said.output[:16])

    @cached_property
    def _mask(self) -> int:
        """Bits of the cores to run on that the phone permits; 0 where it permits none.

        Raises:
            ExportError: `cores` were asked for, and the phone refuses them.
        """
        asked = sum({1 << int(core) for core in self.cores.split(",") if core}) or fastest(
            self._phone.clocks, self.threads
        )
        (said,) = self._phone.shell(f"taskset {asked:x} grep Cpus_allowed: /proc/self/status")
        found = re.search(r"Cpus_allowed:\s*([\da-f,]+)", said.output)
        permitted = int(found[1].replace(",", ""), 16) if found and not said.status else 0
        if self.cores and permitted != asked:
            raise ExportError(f"cores must be ones that the phone lets us use, but {self.cores}: {_last(said.output)}")
        return permitted


class OpTime(NamedTuple):
    """One line of benchmark_model's profile: milliseconds of a call on average, calls a run, share of all time."""

    type: str
    name: str
    mean_ms: float
    calls: int
    share: float


class _Binary(NamedTuple):
    """Path of benchmark_model on the phone, and the start of its SHA-1: it prints no version."""

    path: str
    version: str


class _Said(NamedTuple):
    """Output of a command, standard error included, and its exit status."""

    output: str
    status: int


@dataclass(frozen=True)
class _Phone:
    """An attached phone; what it is like and which of our files it holds is asked once."""

    serial: str
    held: set[str] = field(default_factory=set)

    def shell(self, *commands: str) -> list[_Said]:
        """Run commands one after the other in one call to adb."""
        script = "; ".join(f"{{ {command}; }} 2>&1; echo {END}$?" for command in commands)
        done = _adb("-s", self.serial, "shell", script)
        parts = re.split(rf"{END}(\d+)\r?\n", done.stdout)
        said = [_Said(output, int(status)) for output, status in zip(parts[:-1:2], parts[1::2], strict=True)]
        if len(said) < len(commands):
            raise self._lost(done)
        return said

    def send(self, path: Path) -> str:
        """Path on the phone of a file, which is copied unless a file of its content and size is there."""
        remote = f"{FOLDER}/{_digest(path)}{path.suffix}"
        if remote not in self.held:
            (said,) = self.shell(f"mkdir -p {FOLDER}; stat -c %s {remote}")
            if said.output.strip() != str(path.stat().st_size):
                done = _adb("-s", self.serial, "push", str(path), remote)
                if done.returncode:
                    raise self._lost(done)
            self.held.add(remote)
        return remote

    def _lost(self, done: subprocess.CompletedProcess[str]) -> ExportError:
        """Error for a call to adb that failed: the phone is not ready, or else what adb said."""
        attached(self.serial)
        return ExportError(f"adb must reach the phone {self.serial}, but failed: {_last(done.stderr + done.stdout)}")

    def __getitem__(self, name: str) -> str:
        """A system property, or "" if the phone has none of the name."""
        return self._facts.get(name, "")

    @cached_property
    def _facts(self) -> dict[str, str]:
        names = "ro.soc.manufacturer ro.soc.model ro.product.manufacturer ro.product.model ro.product.cpu.abi"
        names += " ro.build.version.release ro.build.fingerprint"
        said = self.shell(
            f'for name in {names}; do echo "$name=$(getprop $name)"; done',
            'echo "hardware=$(grep -m1 Hardware /proc/cpuinfo | cut -d: -f2)"',
            "for core in /sys/devices/system/cpu/cpu[0-9]*; "
            'do echo "${core##*/}=$(cat $core/cpufreq/cpuinfo_max_freq)"; done',
        )
        rows = [row.split("=", 1) for output, _ in said for row in output.splitlines() if "=" in row]
        return {name: value.strip() for name, value in rows}

    @property
    def clocks(self) -> dict[int, int]:
        """Highest clock of each core in kHz; 0 where the phone does not tell."""
        cores = {name[3:]: value for name, value in self._facts.items() if name.startswith("cpu")}
        return {int(core): int(value) if value.isdigit() else 0 for core, value in cores.items()}

    @property
    def abi(self) -> str:
        return self["ro.product.cpu.abi"]

    @property
    def wanted(self) -> str:
        """Name of the stock binary for this phone."""
        return BINARIES.get(self.abi, f"benchmark_model (none is ready-made for {self.abi}: build it)")


def attached(serial: str = "") -> str:
    """Serial of the phone to use: the one that is attached, or `serial` among several.

    Raises:
        ExportError: adb is not installed, or no phone, several phones or none that is ready are attached.
    """
    done = _adb("devices")
    rows = [row.split("\t", 1) for row in done.stdout.splitlines() if "\t" in row]
    phones = {name: state.strip() for name, state in rows}
    listed = ", ".join(phones)
    if not phones:
        raise ExportError(
            "a phone must be attached, but adb lists none; attach it by USB, switch on USB debugging in its developer "
            "options, and repeat the command"
        )
    if serial and serial not in phones:
        raise ExportError(
            f"the phone {serial} must be attached, but adb lists {listed}; attach it and repeat the command"
        )
    if not serial and len(phones) > 1:
        raise ExportError(f"one phone must be chosen of {listed}; give --setting serial=SERIAL or set {SERIAL}")
    chosen = serial or next(iter(phones))
    state = phones[chosen]
    if state != "device":
        advice = [text for start, text in ADVICE.items() if state.startswith(start)]
        raise ExportError(f"the phone {chosen} must be ready, but it is {state}; {(*advice, 'attach it again')[0]}")
    return chosen


def fastest(clocks: Mapping[int, int], threads: int) -> int:
    """Mask of the cores with the highest clocks: whole clusters, as many as `threads` need.

    >>> bin(fastest({0: 1800, 1: 1800, 2: 2400, 3: 2400, 4: 2850}, threads=2))
    '0b11100'
    """
    mask = 0
    for clock in sorted(set(clocks.values()), reverse=True):
        if mask.bit_count() < threads:
            mask |= sum(1 << core for core in clocks if clocks[core] == clock)
    return mask


def read_sample(output: str) -> Sample:
    """The runs that count of benchmark_model's output, those after the warm-up.

    Raises:
        ExportError: there are none.
    """
    lines = re.findall(r"^(?:INFO: )?(count=\d.*)", output, re.MULTILINE)
    known = [{key: float(value) for key, value in re.findall(r"(\w+)=([\d.e+-]+)", line)} for line in lines]
    if len(known) < 2 or "curr" not in known[-1]:
        raise ExportError(f"benchmark_model must print its timings, but the last that it said is: {_last(output)}")
    counted = known[-1]
    least = counted.get("min", counted["curr"])  # it prints one time alone where all are the same
    middle = counted.get("median", counted.get("avg", least))
    return Sample(max(least, 1.0) / 1e3, max(middle, 1.0) / 1e3, int(counted["count"]))


def read_profile(text: str) -> list[OpTime]:
    """Ops of benchmark_model's profile of its regular runs, in execution order: its table as printed, or its CSV.

    Raises:
        ExportError: there is no profile.
    """
    _, _, regular = text.partition("Operator-wise Profiling Info for Regular Benchmark Runs")
    found = re.search(r"^(.*node type\b.*times called.*)\n((?:.*\S.*\n)+)", regular, re.MULTILINE)
    if not found:
        raise ExportError(f"benchmark_model must print a profile, but the last that it said is: {_last(text)}")
    ops = []
    for row in found[2].splitlines():
        if "[node type]" in found[1]:
            cells = re.split(r"\t\s*|\s{2,}", row.strip())
        else:
            cells = row.rsplit(", ", found[1].count(", "))  # from the end, since a type may hold commas
        *head, average, share, _, _, calls, name = cells  # the type, in older ones the start, and the first time
        ops.append(OpTime(head[0], name, float(average), int(calls), float(share.rstrip("%")) / 100))
    return ops


def _cores(mask: int) -> list[int]:
    return [core for core in range(mask.bit_length()) if mask >> core & 1]


def _digest(path: Path) -> str:
    return sha1(path.read_bytes()).hexdigest()[:16]


def _last(output: str) -> str:
    """The last line that says something."""
    return next((line.strip() for line in reversed(output.splitlines()) if line.strip()), "nothing")


def _adb(*arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ["adb", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT,
            check=False,
        )
    except FileNotFoundError:
        raise ExportError(
            "adb must be installed to reach a phone, but it is not on the PATH; install Android's platform-tools: "
            "https://developer.android.com/tools/releases/platform-tools"
        ) from None
    except OSError as error:  # a program of another processor, or one that may not be run
        raise ExportError(
            f"adb must run on this machine, but the system says: {error.strerror}; install the platform-tools for it"
        ) from None
    except subprocess.TimeoutExpired:
        raise ExportError(f"the phone must answer, but did not for {TIMEOUT} s; attach it again") from None
