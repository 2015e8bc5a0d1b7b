"""The command line: its verbs, its mistakes, its files, tried as a user would from another folder."""

from __future__ import annotations

import ast
import csv
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from small import make_space, make_table

from mvnas import cli
from mvnas.blocks import kind_of
from mvnas.cli import main, parser
from mvnas.studies.study import Study

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a space, a table and a finished study."""
    folder = tmp_path_factory.mktemp("home")
    space = make_space(folder)
    table = make_table(folder / "roof", space)
    command = [
        "search",
        "--budget",
        "20K-params",
        "--space",
        str(space),
        "--device",
        str(table),
        "--trials",
        "4",
    ]
    assert main([*command, "--epochs", "0.1", "--study", str(folder / "mvnas.db")]) == 0
    return folder


def test_what_is_printed_is_made_safe() -> None:
    root = Path(cli.__file__).parent.parent
    for file in root.rglob("*.py"):
        names = {node.id for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Name)}
        imported = re.search(r"^from mvnas.cli.output import (.*, )?print\b", file.read_text(), re.MULTILINE)
        assert "print" not in names or imported, f"{file} prints by itself"


def test_verbs_and_options_are_a_frozen_set() -> None:
    (verbs,) = (action for action in parser()._actions if hasattr(action, "choices") and action.choices)
    options = {name: {o for a in verb._actions for o in a.option_strings if o.startswith("--")} - {"--help", "--trust"}
               for name, verb in verbs.choices.items()}  # fmt: skip
    assert all("--trust" in verb.format_help() for verb in verbs.choices.values())
    assert options == {
        "search": {
            "--budget",
            "--space",
            "--data",
            "--skip-broken",
            "--flip",
            "--device",
            "--trials",
            "--time",
            "--epochs",
            "--strategy",
            "--rungs",
            "--workers",
            "--engine",
            "--address",
            "--limit",
            "--verify",
            "--seed",
            "--study",
            "--objective",
            "--task",
            "--start",
            "--technique",
            "--scores",
            "--metric",
            "--batch",
            "--lr",
            "--clip",
            "--json",
        },
        "space": {"--budget", "--device", "--json"},
        "predict": {"--device", "--json"},
        "front": {"--csv", "--data", "--skip-broken", "--device", "--json"},
        "plot": {"--out", "--device"},
        "rank": {"--candidates", "--longer", "--data", "--skip-broken", "--engine", "--json"},
        "verify": {"--longer", "--data", "--skip-broken", "--engine", "--device", "--json"},
        "export": {
            "--pick",
            "--format",
            "--precision",
            "--data",
            "--skip-broken",
            "--out",
            "--weights",
            "--device",
            "--json",
        },
        "measure": {
            "--backend",
            "--table",
            "--space",
            "--threads",
            "--ops",
            "--networks",
            "--like",
            "--minutes",
            "--precision",
            "--setting",
            "--energy",
            "--seed",
            "--import",
            "--json",
        },
        "fit": {"--out", "--json"},
    }


def test_search_leaves_a_table_and_a_picture_beside_the_study(home: Path) -> None:
    with (home / "mvnas.frontier.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows
    assert all(float(row["latency_low_ms"]) <= float(row["latency_ms"]) for row in rows)
    assert Image.open(home / "mvnas.frontier.png").size[0] > 1000


def test_studies_in_one_folder_leave_tables_and_pictures_of_their_own(home: Path, tmp_path: Path) -> None:
    for name in ("one.db", "two.db"):
        shutil.copy(home / "mvnas.db", tmp_path / name)
        command = [
            "search",
            "--budget",
            "20K-params",
            "--space",
            str(home / "small.yaml"),
            "--epochs",
            "0.1",
            "--trials",
        ]
        assert main([*command, "4", "--device", str(home / "roof"), "--study", str(tmp_path / name)]) == 0
    kinds = ("db", "frontier.csv", "frontier.png")
    assert sorted(os.listdir(tmp_path)) == [f"{name}.{kind}" for name in ("one", "two") for kind in kinds]
    (tmp_path / "one.frontier.png").unlink()
    assert main(["plot", str(tmp_path / "one.db")]) == 0
    assert (tmp_path / "one.frontier.png").read_bytes() == (tmp_path / "two.frontier.png").read_bytes()


def test_a_study_is_told_and_drawn_for_another_device(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    shutil.copytree(home / "roof", other)
    study = str(home / "mvnas.db")
    assert main(["front", study, "--json"]) == 0
    own = json.loads(capsys.readouterr().out)
    assert main(["front", study, "--device", str(other), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (own["device"], told["device"]) == (str(home / "roof"), "other")
    assert [row["latency_ms"] for row in told["frontier"]] == [row["latency_ms"] for row in own["frontier"]]
    assert main(["plot", study, "--device", str(other), "--out", str(tmp_path / "f.png")]) == 0
    assert (tmp_path / "f.png").stat().st_size > 10_000


def test_measure_says_what_it_achieved(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["measure", "--backend", "roofline", "--space", str(home / "small.yaml"), "--table", str(home / "told")]
    assert main([*command, "--ops", "300", "--networks", "9", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["networks"], told["coverage"]) == (9, 1)
    assert told["held_out"][0]["mape"] < told["held_out"][2]["mape"]
    like = [*command[:-1], str(home / "like"), "--like", str(home / "told"), "--ops", "12"]
    assert main(like) == 0
    assert "12 ops and 2 networks; 100% of random networks" in capsys.readouterr().out
    assert main(["measure", "--table", str(home / "no"), "--minutes", "3"]) == 2
    assert "--like" in capsys.readouterr().err


def test_the_command_that_an_unmeasured_op_advises_measures_it(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = str(home / "one of $mine")
    settings = ["--threads", "2", "--networks", "8"]
    assert (
        main(["measure", "--backend", "roofline", "--space", str(home / "small.yaml"), "--table", place, *settings])
        == 0
    )
    assert main(["predict", "mobilenetv2_100", "--device", place]) == 2
    told = capsys.readouterr().err
    command = shlex.split(re.search("`mvnas (.*)`", told)[1].replace("SPACE", "mobilenetv2_100"))  # type: ignore[index]
    assert main(command) == 0
    assert json.loads(Path(place, "device.json").read_text())["threads"] == 2
    assert main(["predict", "mobilenetv2_100", "--device", place]) == 0


def test_search_says_what_it_is_and_how_to_export(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [
        "search",
        "--budget",
        "20K-params",
        "--space",
        str(home / "small.yaml"),
        "--device",
        str(home / "roof"),
    ]
    assert main([*command, "--trials", "4", "--epochs", "0.1", "--study", str(home / "mvnas.db")]) == 0
    told = capsys.readouterr().out
    for part in (
        "demo data",
        "params at most 20K",
        "hypervolume",
        "--pick knee",
        "mvnas.frontier.csv",
        "predicted for",
    ):
        assert part in told


def test_front_prints_the_frontier(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["front", str(home / "mvnas.db"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert main(["front", str(home / "mvnas.db"), "--csv", str(home / "f.csv")]) == 0
    table, _, lines = capsys.readouterr().out.partition("\n\n")
    assert table.count("\n") == len(told["frontier"]) + 1 and "test accuracy of" in lines
    with (home / "f.csv").open() as file:
        assert [int(row["trial"]) for row in csv.DictReader(file)] == [row["trial"] for row in told["frontier"]]
    assert told["knee"] in [row["trial"] for row in told["frontier"]]


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_plot_writes_a_picture(suffix: str, home: Path) -> None:
    assert main(["plot", str(home / "mvnas.db"), "--out", str(home / f"f{suffix}")]) == 0
    assert (home / f"f{suffix}").stat().st_size > 5000


def test_predict_tells_of_a_trial_and_of_its_arch_file(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    device = ["--device", str(home / "roof"), "--json"]
    assert main(["predict", f"{home / 'mvnas.db'}:0", *device]) == 0
    trial = json.loads(capsys.readouterr().out)
    from mvnas.studies.study import Study

    (home / "arch.json").write_text(json.dumps(Study.load(str(home / "mvnas.db")).pick("0").arch.to_json()))
    assert main(["predict", str(home / "arch.json"), *device]) == 0
    assert json.loads(capsys.readouterr().out) == trial
    assert sum(block["latency_ms"] for block in trial["blocks"]) == pytest.approx(trial["latency_ms"])
    assert sum(block["params"] for block in trial["blocks"]) == trial["params"]


def test_predict_mobilevit_s(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "mobilevit_s", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["trained_params"], told["params"], told["macs"]) == (5_578_632, 5_564_248, 2_000_831_488)
    assert told["latency_low_ms"] < told["latency_ms"] < told["latency_high_ms"]
    assert {"memory_bytes", "peak_bytes", "device", "blocks"} <= set(told)
    assert main(["predict", "mobilevit_s"]) == 0
    assert "5,564,248 parameters (5,578,632 in training)" in capsys.readouterr().out


def test_space_mobilevit(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["space", "mobilevit", "--budget", "6M-params", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["points"] == 35_429_400_000_000_000
    assert 0 < told["share_that_fits"] < 1
    for spread in told["costs"].values():
        assert spread["min"] < spread["median"] < spread["max"]


def test_space_tells_what_its_blocks_refuse(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["space", "mobilevit"]) == 0
    assert "  mobilevit: the map is smaller than the patch, or" in capsys.readouterr().out


def test_a_newcomers_block_is_searched_as_contributing_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file and the space of CONTRIBUTING.md as they stand there, and nothing else."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    for name, content in re.findall(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", text, re.DOTALL):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [part for part in sys.path if part != str(tmp_path)])
    measure = ["measure", "--backend", "roofline", "--space", "mine/space.yaml", "--table", "roof", "--networks", "8"]
    search = ["search", "--space", "mine/space.yaml", "--budget", "2M-params", "--device", "roof", "--epochs", "0.1"]
    assert main(measure) == main([*search, "--trials", "4"]) == 0
    archs = [score.arch for score in Study.load("mvnas.db").scores()]
    assert len(archs) == 4
    assert any("mine.shuffle" in map(kind_of, arch.blocks) for arch in archs)


def test_fit_tells_held_out_errors(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", str(home / "roof")]) == 0
    told = capsys.readouterr().out
    for part in ("MAPE", "within 5 %", "tau", "MACs only", "plain sum of ops", "noise floor", "covers"):
        assert part in told


def test_fit_tells_errors_by_system(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "genoa-1t"]) == 0
    words = capsys.readouterr().out.split("system of the network")[1]
    assert main(["fit", "genoa-1t", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)["systems"]
    assert all(row["name"] in words for row in rows)
    assert {row["tau"] is None for row in rows if row["name"].endswith("(1)")} == {True}


MISTAKES = [
    (["search", "--budget", "1K-params"], "the nearest feasible is"),
    (["search", "--budget", "6M"], "must name its cost"),
    (["search", "--budget", "6M-parms"], "did you mean 'params'"),
    (["search", "--budget", "8s"], "a budget must be"),
    (["search", "--budget", "6M-params,5M-params"], "each cost once"),
    (["search", "--budget", "6M-params", "--space", "mobilevitt"], "did you mean 'mobilevit'"),
    (["search", "--budget", "6M-params", "--space", "none.yaml"], "none.yaml"),
    (["search", "--budget", "6M-params", "--data", "digit"], "did you mean 'digits'"),
    (["search", "--budget", "6M-params", "--data", "./no/such/folder"], "no/such/folder"),
    (["search", "--budget", "6M-params", "--device", "pixel9"], "unknown device"),
    (["search", "--budget", "6M-params", "--strategy", "NSGA", "--epochs", "0.01"], "unknown strategy"),
    (["search", "--budget", "6M-params", "--study", "no/such/folder/s.db"], "the folder of a study"),
    (["search", "--budget", "mobilvit_s"], "did you mean 'mobilevit_s'"),
    (["predict", "mobilevit_l"], "did you mean 'mobilevit_"),
    (["predict", "none.json"], "none.json"),
    (["predict", "mobilevit_s", "--device", "nowhere"], "unknown device"),
    (["predict", "broken.json"], "must be an architecture's JSON file"),
    (["front", "none.db"], "run the search first"),
    (["plot", "none.db"], "run the search first"),
    (["plot", "notes.db"], "SQLite"),
    (["export", "none.db"], "there is no none.db"),
    (["export", "mobilevit_s"], "--weights"),
    (["export", "mobilevit_s", "--weights", "none.safetensors"], "none.safetensors"),
    (["fit", "nowhere"], "unknown device"),
    (["measure", "--import", "none.csv", "--table", "t"], "none.csv"),
    (["measure", "--backend", "tflit", "--table", "t"], "did you mean 'tflite'"),
    (["measure", "--backend", "roofline", "--table", "t", "--setting", "gmac=9"], "did you mean 'gmacs'"),
    (["measure", "--backend", "roofline", "--table", "t", "--setting", "gmacs=fast"], "gmacs must be a number"),
    (["measure", "--backend", "roofline", "--table", "t", "--energy", "none.csv"], "none.csv must be a readable CSV"),
    (["measure", "--table", "t", "--threads", "2", "--setting", "threads=1"], "must be given once"),
]


@pytest.mark.parametrize(("command", "told"), MISTAKES, ids=[" ".join(command) for command, _ in MISTAKES])
def test_mistake_exits_2_with_one_sentence(
    command: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "notes.db").write_text(
        "some notes that are no database at all, and long enough to be taken for a header"
    )
    assert main(command) == 2
    *progress, error = capsys.readouterr().err.splitlines()
    assert told in error
    assert error.startswith("mvnas: ")
    assert all(line.startswith("reading ") for line in progress), "on a slow machine"


@pytest.mark.parametrize(
    "words",
    [
        ["search"],
        ["serch"],
        ["search", "--budget", "6M-params", "--trials", "0"],
        ["search", "--budget", "6M-params", "--time", "soon"],
        ["search", "--budget", "6M-params", "--epochs", "-1"],
        ["search", "--budget", "6M-params", "--trials", "3", "--time", "0m"],
        ["measure", "--table", "t", "--setting", "serial"],
    ],
    ids=" ".join,
)
def test_wrong_words_exit_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_export_refuses_what_it_cannot_pick(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = str(home / "mvnas.db")
    for words, told in ((["--pick", "knees"], "did you mean 'knee'"), (["--pick", "99"], "99 is not there"),
                        (["--format", "tflit"], "did you mean 'tflite'")):  # fmt: skip
        assert main(["export", study, *words, "--out", str(home / "no"), "--device", str(home / "roof")]) == 2
        assert told in capsys.readouterr().err


def test_importing_loads_no_torch() -> None:
    code = (
        "import sys, mvnas, mvnas.cli; sys.exit(bool({'torch', 'pandas', 'optuna', 'sklearn', 'numpy'} &"
        " set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_wheel_works_outside_of_the_checkout(tmp_path: Path) -> None:
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(tmp_path),
        str(ROOT),
    ]
    subprocess.run(build, check=True, cwd=tmp_path, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    site, home = tmp_path / "site", tmp_path / "home"
    home.mkdir()
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(site), str(wheel)]
    subprocess.run(install, check=True, cwd=tmp_path, capture_output=True)
    code = "import mvnas.cli, sys; assert 'site' in mvnas.__file__; sys.exit(mvnas.cli.main(sys.argv[1:]))"
    words = ["search", "--budget", "1.5M-params", "--trials", "1", "--epochs", "0.02"]
    ran = subprocess.run([sys.executable, "-c", code, *words], cwd=home, env=os.environ | {"PYTHONPATH": str(site)},
                         capture_output=True, text=True, check=False)  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert "mobilevit_xxs" in ran.stdout
    assert (home / "mvnas.frontier.png").exists()
