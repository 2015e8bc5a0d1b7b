"""Laws of a search that cannot be broken: whatever dies, no finished candidate is lost, and none is counted twice."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from shutil import rmtree
from typing import cast

import pytest
from flawed import LOST, Flawed, Moody
from optuna.trial import TrialState
from small import PATIENCE, SHORT, make_problem, search, wait_until, write_images

from mvnas.engines import Done, Event, Failed, Job, Step, engine, failure
from mvnas.errors import DataError, FileError, StudyError, TrainingError
from mvnas.search import Problem
from mvnas.search import search as search_with
from mvnas.strategies import key_of
from mvnas.studies.study import SLACK, Study
from mvnas.studies.trials import picks_of
from mvnas.system.stop import Stop
from mvnas.training import Schedule


def command(
    space: Path, table: Path, study: Path, *, trials: int, epochs: float = 0.2, extra: Sequence[str] = ()
) -> list[str]:
    words = [sys.executable, "-m", "mvnas.cli", "search", "--budget", "20K-params", "--space", str(space)]
    words += ["--device", str(table), "--epochs", str(epochs), "--study", str(study), "--trials", str(trials)]
    return [*words, *extra]


def finished(place: Path) -> dict[int, tuple[object, ...]]:
    """Number of every training that has ended, with what is known of it."""
    study = Study.load(str(place))
    scores = {trial.number: (trial.params, trial.values) for trial in study.trials(TrialState.COMPLETE)}
    rests = {trial.number: (trial.params, trial.intermediate_values) for trial in study.trials(TrialState.PRUNED)}
    return scores | rests | {number: (reason,) for number, reason in study.failures().items()}


def workers(pid: int) -> list[int]:
    """Processes that another one has started."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def started(process: subprocess.Popen[bytes]) -> bool:
    return len(workers(process.pid)) == 2 or process.poll() is not None


def gone(pids: Sequence[int]) -> bool:
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finding worker processes needs Linux's /proc")
@pytest.mark.parametrize(("moments", "rungs"), [(12, "1"), (6, "1/4,1/2,1")])
def test_killed_at_random_moments_a_study_loses_nothing(
    moments: int, rungs: str, space: Path, table: Path, tmp_path: Path
) -> None:
    search_for = partial(command, space, table, tmp_path / "s.db")
    place, generator, known = tmp_path / "s.db", random.Random(0), {}
    kills: Counter[str] = Counter()
    process: subprocess.Popen[bytes] | None = None
    for _ in range(moments):
        if process is None or process.poll() is not None:
            process = subprocess.Popen(
                search_for(trials=10_000, extra=["--rungs", rungs, "--workers", "2"]),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            wait_until("two workers run", partial(started, process))
        time.sleep(generator.uniform(0, 2.5))
        children = workers(process.pid)
        victim = generator.choice(["driver", "worker"])
        if victim == "driver":
            process.kill()
            process.wait()
            wait_until("its workers have gone too", partial(gone, children))
        elif children:
            os.kill(generator.choice(children), signal.SIGKILL)
        kills[victim] += 1
        if place.exists() and place.stat().st_size:
            now = finished(place)
            assert known.items() <= now.items()
            known = now
    process.kill()
    process.wait()
    assert min(kills["driver"], kills["worker"]) >= moments // 4
    total = int(Study.load(str(place)).finished) + 2
    subprocess.run(search_for(trials=total, extra=["--rungs", rungs]), check=True, capture_output=True)
    assert known.items() <= finished(place).items()
    study = Study.load(str(place))
    assert total <= study.finished + SLACK < total + 1
    assert study.finished == total or rungs != "1"
    once = [(key_of(one.picks), one.rung) for one in study.told]
    assert len(set(once)) == len(once)
    assert {(picks, rung - 1) for picks, rung in once if rung} <= set(once)
    assert not study.trials(TrialState.RUNNING)
    assert all("signal 9" in reason for reason in study.failures().values())


@pytest.mark.parametrize(
    ("stop", "rungs", "moments"),
    [
        (signal.SIGKILL, "1", ("2", "5")),
        (signal.SIGTERM, "1", ("2", "5")),
        (signal.SIGINT, "1", ("2", "5")),
        (signal.SIGKILL, "1/4,1/2,1", ("1.25", "2.5", "5")),  # in training for the second rung, the last, and the first
    ],
)
def test_interrupted_or_not_a_study_is_the_same(
    stop: int, rungs: str, moments: Sequence[str], space: Path, table: Path, tmp_path: Path
) -> None:
    whole, parts = tmp_path / "whole.db", tmp_path / "parts.db"
    extra = ["--rungs", rungs]
    subprocess.run(command(space, table, whole, trials=8, extra=extra), check=True, capture_output=True)
    for done in moments:
        with subprocess.Popen(
            command(space, table, parts, trials=8, extra=extra),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            for line in process.stderr:
                if line.startswith(f"trials {done}/"):
                    break
            process.send_signal(stop)
    subprocess.run(command(space, table, parts, trials=8, extra=extra), check=True, capture_output=True)
    rows = [[one[1:4] for one in Study.load(str(place)).told] for place in (whole, parts)]
    assert sum(rung == rungs.count(",") for _, rung, _ in rows[0]) == 8
    assert rows[1] == rows[0]


def test_asked_once_to_stop_a_search_finishes_what_runs(problem: Problem, tmp_path: Path) -> None:
    stop = Stop()

    def show(status: object) -> None:
        stop.asked = max(stop.asked, 1) if status.doing else stop.asked

    study = search(problem, study=str(tmp_path / "s.db"), trials=5, show=show, stop=stop)
    assert len(study.scores()) == 1
    assert not study.trials(TrialState.RUNNING, TrialState.WAITING)


def test_what_a_training_does_beside_its_steps_is_shown(problem: Problem, tmp_path: Path) -> None:
    seen: list[str] = []
    search(problem, study=str(tmp_path / "s.db"), trials=1, show=lambda status: seen.append(status.doing))
    assert "trial 0 judging images 602/602" in seen
    assert any(told.startswith("trial 0 calibrating norms 512/512") for told in seen)


def test_asked_twice_to_stop_a_search_puts_back_what_runs(problem: Problem, tmp_path: Path) -> None:
    stop, place = Stop(), str(tmp_path / "s.db")

    def show(status: object) -> None:
        stop.asked = 2 if status.doing else stop.asked

    with closing(engine("processes", problem.images, workers=2)) as trainer, pytest.raises(KeyboardInterrupt):
        search_with(
            replace(problem, setup=replace(problem.setup, schedule=replace_epochs(problem, 50))),
            study=place,
            trials=5,
            trainer=trainer,
            show=show,
            stop=stop,
        )
    study = Study.load(place)
    assert not study.scores() and not study.trials(TrialState.RUNNING)
    assert len(study.trials(TrialState.WAITING)) == 2


def replace_epochs(problem: Problem, epochs: float) -> dict:
    return {**problem.setup.schedule, "epochs": epochs}


def test_a_file_has_one_search_at_a_time(space: Path, table: Path, problem: Problem, tmp_path: Path) -> None:
    place = tmp_path / "s.db"
    with subprocess.Popen(
        command(space, table, place, trials=50), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        for line in process.stderr:
            if line.startswith("trials 1/"):
                break
        with pytest.raises(StudyError, match="another process searches"):
            search(problem, study=str(place), trials=3)
        process.kill()


@pytest.mark.parametrize(
    ("error", "broken", "doubtful"),
    [
        (OSError(errno.ENOMEM, ""), False, False),
        (MemoryError(), False, False),
        (TrainingError("the loss must be finite"), False, False),
        (OSError(errno.ENOSPC, ""), True, False),
        (FileError("the cache must be writable"), True, False),
        (DataError("an image is gone"), True, False),
        (RuntimeError("CUDA error"), False, True),
        (ImportError("libcudart.so"), False, True),
    ],
)
def test_whose_fault_an_error_is(error: Exception, broken: bool, doubtful: bool) -> None:
    assert failure(error)[2:] == (broken, doubtful)


def test_a_candidate_that_takes_too_long_is_a_failure(problem: Problem, tmp_path: Path) -> None:
    endless = replace(problem, setup=replace(problem.setup, schedule=replace_epochs(problem, 1000)))
    with closing(engine("processes", problem.images, limit=4.0)) as trainer:
        study = search_with(endless, study=str(tmp_path / "s.db"), trials=1, trainer=trainer)
    assert "within 4 s" in study.failures()[0]


def test_a_candidate_whose_process_dies_in_training_is_a_failure_and_the_next_one_trains(problem: Problem) -> None:
    arch = problem.space.at(problem.space.ends[0])
    job = Job(arch, Schedule(epochs=200), problem.setup.factor, 0)
    with closing(engine("processes", problem.images)) as trainer:
        trainer.start(7, job)
        wait_until("it trains", lambda: any(isinstance(event, Step) for event in trainer.wait(0.2)))
        (worker,) = trainer._workers
        os.kill(worker.process.pid, signal.SIGKILL)
        (event,) = ended(trainer)
        assert isinstance(event, Failed) and not event.broken and not event.doubtful
        assert event.key == 7 and "memory" in event.reason
        trainer.start(8, replace(job, schedule=SHORT))
        (event,) = ended(trainer)
        assert isinstance(event, Done) and event.key == 8


def test_a_process_that_dies_before_its_first_step_is_replaced_and_its_candidate_trained(problem: Problem) -> None:
    with closing(engine("processes", problem.images)) as trainer:
        trainer.start(7, Job(problem.space.at(problem.space.ends[0]), SHORT, problem.setup.factor, 0))
        (worker,) = trainer._workers
        first = worker.process.pid
        os.kill(first, signal.SIGKILL)
        (event,) = ended(trainer)
        assert isinstance(event, Done) and event.key == 7
        assert worker.process.pid != first


@pytest.mark.parametrize(("times", "workers"), [(1, 1), (2, 2)])
def test_what_raises_an_error_that_is_not_ours_is_tried_again_in_another_process(
    times: int, workers: int, problem: Problem, tmp_path: Path
) -> None:
    arch = problem.space.at(problem.space.ends[0])
    notes = tmp_path / "notes"
    with closing(engine("processes", problem.images, workers=workers)) as trainer:
        trainer.start(7, Job(arch, cast(Schedule, Flawed(notes, times, SHORT)), problem.setup.factor, 0))
        (event,) = ended(trainer)
        assert len(set(notes.read_text().split())) == 2
        if times == 1:
            assert isinstance(event, Done) and event.key == 7
            return
        assert event == Failed(7, f"RuntimeError: {LOST}", doubtful=True)
        assert [worker.process for worker in trainer._workers] == [None, None]
        trainer.start(8, Job(arch, SHORT, problem.setup.factor, 0))
        (event,) = ended(trainer)
        assert isinstance(event, Done) and event.key == 8


def test_whose_fault_a_failure_is_the_next_candidate_shows(problem: Problem, tmp_path: Path) -> None:
    trainer = Moody(problem.images, [LOST, None])
    study = search_with(problem, study=str(tmp_path / "s.db"), trials=3, trainer=trainer)
    assert list(study.failures().values()) == [LOST]
    assert len(study.scores()) == 2 and not study.trials(TrialState.RUNNING, TrialState.WAITING)


@pytest.mark.parametrize(
    ("moods", "scored"),
    [
        ([LOST, LOST], 0),
        ([None, LOST, LOST], 1),
        ([None, None, LOST], 2),  # nobody is left to show whose fault it is
        ([LOST, "of another kind", LOST], 0),
    ],
)
def test_a_fault_of_the_machine_stops_the_search_and_is_charged_to_nobody(
    moods: list[str | None], scored: int, problem: Problem, tmp_path: Path
) -> None:
    place = str(tmp_path / "s.db")
    with pytest.raises(StudyError, match=f"{LOST}; mend the cause, then the same command continues it") as told:
        search_with(problem, study=place, trials=3, trainer=Moody(problem.images, moods))
    assert len(str(told.value)) <= 300
    study = Study.load(place)
    assert len(study.scores()) == study.finished == scored and not study.failures()
    assert not study.trials(TrialState.RUNNING)
    waiting = [key_of(picks_of(trial)) for trial in study.trials(TrialState.WAITING)]
    assert len(set(waiting)) == len([mood for mood in moods if mood])
    after = search_with(problem, study=place, trials=3, trainer=Moody(problem.images, []))
    assert len(after.scores()) == 3 and not after.failures()
    assert {key_of(problem.space.locate(score.arch)) for score in after.scores()} >= set(waiting[: 3 - scored])


def test_files_of_the_user_do_not_take_the_place_of_the_library_in_workers(
    space: Path, table: Path, tmp_path: Path
) -> None:
    for name in ("random", "types", "statistics"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('of the user')\n")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "pets.py").write_text(
        "import numpy as np\n"
        "class Dataset:\n"
        "    classes, note, files = ('cat', 'dog'), '', ()\n"
        "    def items(self, split):\n"
        "        return [(np.full((32, 32), 99 * (i % 2), np.uint8), i % 2) for i in range(40)]\n"
    )
    words = command(space, table, tmp_path / "s.db", trials=2, extra=["--data", "mine.pets"])
    done = subprocess.run([words[0], "-P", *words[1:]], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(Study.load(str(tmp_path / "s.db")).scores()) == 2


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finding worker processes needs Linux's /proc")
def test_sigterm_to_driver_and_workers_together_is_an_interruption(space: Path, table: Path, tmp_path: Path) -> None:
    place = tmp_path / "s.db"
    words = command(space, table, place, trials=500, epochs=2, extra=["--workers", "2"])
    generator = random.Random(0)
    for pause in (0, 1):
        with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
            wait_until("two workers run", partial(started, process))
            time.sleep(generator.uniform(0, 3) * pause)
            children = workers(process.pid)
            for pid in [*children, process.pid]:
                os.kill(pid, signal.SIGTERM)
            told = process.communicate()[1]
        assert process.returncode == 143 and "Traceback" not in told
        wait_until("its workers have gone too", partial(gone, children))
        study = Study.load(str(place))
        assert not study.failures() and not study.trials(TrialState.RUNNING)
        assert study.trials(TrialState.WAITING)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finding worker processes needs Linux's /proc")
def test_workers_leave_it_to_their_driver_when_to_stop(problem: Problem) -> None:
    with closing(engine("processes", problem.images)) as trainer:
        trainer.start(7, Job(problem.space.at(problem.space.ends[0]), SHORT, problem.setup.factor, 0))
        (worker,) = trainer._workers
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(worker.process.pid, number)
        (event,) = ended(trainer)
        assert isinstance(event, Done)


def ended(trainer) -> list[Event]:
    """The next trainings to end."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        events = [event for event in trainer.wait(0.2) if isinstance(event, Done | Failed)]
        if events:
            return events
    raise AssertionError("no training ended")


def test_images_that_vanish_stop_the_search_and_lose_no_candidate(
    space: Path, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, cache, place = tmp_path / "images", tmp_path / "cache", str(tmp_path / "s.db")
    write_images(images)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    problem = make_problem(space, table, data=str(images))
    search(problem, study=place, trials=1)
    rmtree(images)
    with pytest.raises(StudyError, match="the same command continues it"):
        search(problem, study=place, trials=3)
    write_images(images)
    study = search(make_problem(space, table, data=str(images)), study=place, trials=3)
    assert len(study.scores()) == 3 and not study.failures()


def test_a_full_disk_stops_the_search_in_one_sentence(space: Path, table: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")
    place = disk / "s.db"
    try:
        told = subprocess.run(command(space, table, place, trials=80), capture_output=True, text=True)
        assert told.returncode == 2
        assert told.stderr.splitlines()[-1].startswith("mvnas: ")
        assert "Traceback" not in told.stderr
        before = finished(place)
        assert before
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        subprocess.run(command(space, table, place, trials=len(before) + 2), check=True, capture_output=True)
        after = finished(place)
        assert before.items() <= after.items() and len(after) == len(before) + 2
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)
