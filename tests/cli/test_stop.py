"""Laws of stopping: a signal ends any verb, at any moment, without a traceback and with nothing half-written."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest
from safetensors.torch import save_file
from small import PATIENCE, search, wait_until

from mvnas.cli import main
from mvnas.nn import build
from mvnas.search import Problem
from mvnas.spaces.space import Space
from mvnas.system.stop import Interrupt, Stop
from mvnas.training import initialise


def work(seconds: float = PATIENCE) -> None:
    """Work that nothing interrupts but an interrupt."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.01)


class Dropping:
    """What is raised while it is tidied up, Python drops."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


def drop() -> None:
    Dropping()


def keep() -> None:
    """Keep it alive in a circle, as an object does that notes its own error."""
    circle: list[object] = []
    try:
        signal.raise_signal(signal.SIGINT)
    except BaseException as error:
        circle += [error, circle]


def catch() -> None:
    try:
        signal.raise_signal(signal.SIGINT)
    except BaseException:  # as third parties do
        return


@pytest.mark.parametrize("lose", [drop, catch, keep])
def test_an_interrupt_that_is_lost_is_raised_again(
    lose: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    def lose_and_work() -> None:
        with stop.listening():
            lose()
            work()

    stop = Stop()
    with pytest.raises(Interrupt):
        lose_and_work()
    assert stop.asked == 1
    assert capsys.readouterr().err == ""


def test_while_all_is_tidied_up_it_is_not_raised_again() -> None:
    tidied = []

    def end() -> None:
        with Stop().listening():
            try:
                signal.raise_signal(signal.SIGTERM)
            finally:
                signal.raise_signal(signal.SIGINT)
                work(1.5)
                tidied.append(True)

    with pytest.raises(Interrupt) as caught:
        end()
    assert tidied and caught.value.status == 143


def test_with_patience_it_is_counted_first() -> None:
    with Stop(patience=2).listening() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.asked == 1
        signal.raise_signal(signal.SIGINT)
        assert stop.asked == 2
        with pytest.raises(Interrupt):
            signal.raise_signal(signal.SIGINT)


def test_handlers_are_given_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)], sys.unraisablehook
    with pytest.raises(Interrupt), Stop().listening():
        signal.raise_signal(signal.SIGINT)
    assert ([signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)], sys.unraisablehook) == before


def test_what_third_parties_make_of_an_interrupt_is_an_interrupt(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def search(place: str) -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        except BaseException as error:
            raise SystemError("a function returned a result with an exception set") from error

    monkeypatch.setattr("mvnas.studies.study.Study.load", search)
    assert main(["front", "s.db"]) == 143
    assert capsys.readouterr().err.splitlines() == ["mvnas: interrupted; the same command continues where it was"]


def listens(process: subprocess.Popen[str]) -> bool:
    """Whether a process hears SIGTERM, or has ended."""
    try:
        caught = re.search(r"SigCgt:\s*(\w+)", Path(f"/proc/{process.pid}/status").read_text())
    except OSError:
        return True
    return bool(caught and int(caught[1], 16) >> (signal.SIGTERM - 1) & 1) or process.poll() is not None


def has_worked(process: subprocess.Popen[str], seconds: float) -> bool:
    """Whether a process has taken so many seconds of a processor, or has ended: moments do not depend on the
    machine's load.
    """
    try:
        times = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    except OSError:
        return True
    return sum(map(int, times)) / os.sysconf("SC_CLK_TCK") >= seconds or process.poll() is not None


@pytest.fixture(scope="module")
def home(problem: Problem, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study of two candidates, and weights of a network."""
    folder = tmp_path_factory.mktemp("home")
    search(problem, study=str(folder / "s.db"), trials=2)
    module = build(Space.load("mobilevit_xxs").arch().graph())
    initialise(module, 0)
    save_file(module.state_dict(), folder / "w.safetensors")
    return folder


VERBS = {  # each with seconds of work in which it is stopped
    "search": (
        2,
        "search --budget 20K-params --space {space} --device {table} --epochs 0.2 --study new.db --trials 500",
    ),
    "rank": (3, "rank {home}/s.db --candidates 2 --longer 500"),
    "verify": (3, "verify {home}/s.db --longer 500"),
    "measure": (3, "measure --backend roofline --table measured --space mobilevit --ops 2000"),
    "export": (4.5, "export mobilevit_xxs --weights {home}/w.safetensors --format torch --format onnx --out exported"),
}


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="knowing when a process listens needs Linux's /proc")
@pytest.mark.parametrize("verb", VERBS)
def test_a_signal_ends_a_verb_at_any_moment(verb: str, home: Path, space: Path, table: Path, tmp_path: Path) -> None:
    seconds, words = VERBS[verb]
    generator = random.Random(f"{verb} 0")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        with subprocess.Popen(
            [sys.executable, "-m", "mvnas.cli", *words.format(home=home, space=space, table=table).split()],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            wait_until("it listens", partial(listens, process))
            wait_until("it has worked", partial(has_worked, process, generator.uniform(0, seconds)))
            process.send_signal(number)
            told = process.communicate(timeout=PATIENCE)[1]
        if number == signal.SIGKILL:
            assert process.returncode == -number
        else:
            assert process.returncode == 128 + number, told
            assert told.splitlines()[-1] == "mvnas: interrupted; the same command continues where it was"
            assert "Traceback" not in told and "ignored" not in told
        assert not unfinished(tmp_path)


def unfinished(folder: Path) -> Sequence[Path]:
    """Files under a name that says that they are whole, which are not."""
    found = [path for path in folder.rglob("*.*") if path.is_file() and not path.stat().st_size]
    return [path for path in found if path.suffix in (".onnx", ".pt2", ".safetensors", ".json", ".csv", ".png")]
