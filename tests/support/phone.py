"""A phone that is not there: an `adb` that keeps a phone's files in a folder, and a benchmark_model that replays real output.

A shell of this machine runs what the phone is asked to, with its paths moved into the folder. What benchmark_model
prints was printed by it elsewhere, but for the name of the file and the times, which follow from the file's size.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

# TensorFlow 2.20 on an AM62x: Texas Instruments, Processor SDK Linux, "TensorFlow Lite (LiteRT)"
NEW = """\
INFO: STARTING!
INFO: Log parameter values verbosely: [0]
INFO: Graph: [/usr/share/oob-demo-assets/models/ssd_mobilenet_v2_coco.tflite]
INFO: Signature to run: []
INFO: Use xnnpack: [1]
INFO: Loaded model /usr/share/oob-demo-assets/models/ssd_mobilenet_v2_coco.tflite
INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
INFO: XNNPACK delegate created.
INFO: Explicitly applied XNNPACK delegate, and the model graph will be partially executed by the delegate w/ 1 delegate kernels.
INFO: The input model file size (MB): 67.3128
INFO: Initialized session in 614.333ms.
INFO: Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
INFO: count=1 curr=905463 p5=905463 median=905463 p95=905463
INFO: Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
INFO: count=50 first=900416 curr=898333 min=898007 max=906121 avg=899641 std=1549 p5=898333 median=899281 p95=904305
INFO: Inference timings in us: Init: 614333, First inference: 905463, Warmup (avg): 905463, Inference (avg): 899641
INFO: Note: as the benchmark tool itself affects memory footprint, the following is only APPROXIMATE to the actual memory footprint of the model at runtime. Take the information at your discretion.
INFO: Memory footprint delta from the start of the tool (MB): init=146.363 overall=150.141
"""

# on a phone: https://github.com/tensorflow/tensorflow/issues/42507
OLD = """\
STARTING!
Duplicate flags: num_threads
Log parameter values verbosely: [0]
Num threads: [4]
Graph: [/data/local/tmp/espcn_harmonic_2x_slim_w_cl.tflite]
Enable op profiling: [1]
#threads used for CPU inference: [4]
Loaded model /data/local/tmp/espcn_harmonic_2x_slim_w_cl.tflite
The input model file size (MB): 0.004448
Initialized session in 0.855ms.
Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
count=15 first=49060 curr=33682 min=32825 max=49060 avg=34825.1 std=3930

Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
count=50 first=32891 curr=33978 min=32641 max=34005 avg=33209.4 std=450

Inference timings in us: Init: 855, First inference: 49060, Warmup (avg): 34825.1, Inference (avg): 33209.4
Note: as the benchmark tool itself affects memory footprint, the following is only APPROXIMATE to the actual memory footprint of the model at runtime. Take the information at your discretion.
Peak memory footprint (MB): init=0 overall=12.8672
"""

# what a phone says of itself, in the form of a Pixel 4a (5G)
PROPERTIES = {
    "ro.product.manufacturer": "Google",
    "ro.product.model": "Pixel 4a (5G)",
    "ro.product.cpu.abi": "arm64-v8a",
    "ro.build.version.release": "14",
    "ro.build.fingerprint": "google/bramble/bramble:14/UP1A.231105.001/10817346:user/release-keys",
}
CLOCKS = [1804800] * 6 + [2208000, 2400000]

ADB = """\
#!/bin/sh
phone='{folder}'
if [ "$1" = devices ]; then cat "$phone/devices"; exit; fi
serial=$2; shift 2
if [ -e "$phone/calls-left" ]; then
    left=$(($(cat "$phone/calls-left") - 1)); echo $left > "$phone/calls-left"
    if [ $left -lt 0 ]; then
        printf 'List of devices attached\\n\\n' > "$phone/devices"; rm "$phone/calls-left"
        echo "INFO: STARTING!"; exit 255
    fi
fi
if ! grep -q "^$serial	device" "$phone/devices"; then echo "adb: device '$serial' not found" >&2; exit 1; fi
echo "$*" >> "$phone/asked"
case $1 in
    push) cp "$2" "$phone$3" && echo "$2: 1 file pushed, 0 skipped." ;;
    shell) PATH="$phone/bin:$PATH" sh -c "$(echo "$2" | sed "s#/data/local/tmp#$phone&#g; s#/proc/#$phone&#g; s#/sys/#$phone&#g")" ;;
esac
"""

TASKSET = """\
#!/bin/sh
if [ -e '{folder}/no-taskset' ]; then echo "taskset: sched_setaffinity: Operation not permitted"; exit 1; fi
printf 'Cpus_allowed:\\t%s\\n' "$1" > '{folder}/proc/self/status'; shift; exec "$@"
"""

BENCHMARK = """\
#!/bin/sh
for flag in "$@"; do case $flag in --graph=*) graph=${{flag#*=}} ;; --num_runs=*) runs=${{flag#*=}} ;; esac; done
us=$((100 + $(wc -c < "$graph") / 32))
cat << END
{output}END
"""


@dataclass(frozen=True)
class Phone:
    """The folder of a phone that adb reaches under the serial 0A1B2C3D."""

    folder: Path

    @classmethod
    def plug_in(cls, folder: Path) -> Phone:
        phone = cls(folder)
        for place in ("bin", "data/local/tmp", "proc/self"):
            (folder / place).mkdir(parents=True)
        phone.attach("0A1B2C3D\tdevice")
        phone._script("bin/adb", ADB.format(folder=folder))
        phone._script("bin/taskset", TASKSET.format(folder=folder))
        cases = " ".join(f"{name}) echo '{value}' ;;" for name, value in PROPERTIES.items())
        phone._script("bin/getprop", f"#!/bin/sh\ncase $1 in {cases} esac\n")
        (folder / "proc/cpuinfo").write_text("processor\t: 0\nHardware\t: Qualcomm Technologies, Inc SM7250\n")
        for core, clock in enumerate(CLOCKS):
            place = folder / f"sys/devices/system/cpu/cpu{core}/cpufreq"
            place.mkdir(parents=True)
            (place / "cpuinfo_max_freq").write_text(f"{clock}\n")
        phone.install(NEW)
        return phone

    def attach(self, *rows: str) -> None:
        """Rows that `adb devices` lists from now on."""
        (self.folder / "devices").write_text("".join(f"{row}\n" for row in ("List of devices attached", *rows, "")))

    def install(self, output: str) -> None:
        """A benchmark_model that prints `output`, with the times of the file that it is given."""
        output = re.sub(r"\S+\.tflite", "$graph", output.replace("`", "'"))
        times = r"count=$runs first=$((us + 9)) curr=$us min=$us max=$((us + 9)) avg=$((us + 3)).5 std=2"
        percentiles = r" p5=$us median=$((us + 2)) p95=$((us + 8))" if "median=" in output else ""
        output = re.sub(r"count=50 .*", lambda _: times + percentiles, output)
        self._script("data/local/tmp/benchmark_model", BENCHMARK.format(output=output))

    def break_benchmark(self, output: str, status: int) -> None:
        """A benchmark_model that prints `output` and ends with `status`."""
        self._script("data/local/tmp/benchmark_model", f"#!/bin/sh\ncat << 'END'\n{output}END\nexit {status}\n")

    def unplug_after(self, calls: int) -> None:
        """Unplug the phone in the middle of the call to adb that comes after so many."""
        (self.folder / "calls-left").write_text(str(calls))

    def asked(self) -> list[str]:
        """Words of each call to adb so far but `adb devices`."""
        return (self.folder / "asked").read_text().splitlines()

    def _script(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)
        (self.folder / name).chmod(0o755)
