"""Names of folders and files that mean something to a shell, a terminal, an encoding or a typesetter are names and
nothing else.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from small import make_space, make_table

from mvnas.cli import main
from mvnas.cli.output import many, print, printable, shell_word
from mvnas.errors import LONGEST, MvnasError, SpaceError, unknown
from mvnas.latency.estimate import Estimate
from mvnas.reports.plot import draw
from mvnas.spaces.space import Space
from mvnas.studies.score import Quality, Score

ROOT = Path(__file__).parents[2]
ARCH = Space.load("mobilevit_xxs").arch()
NAMES = [
    "my data",
    "100%",
    "$x^2$",
    "фото",
    "写真",
    "a;b&c",
    "it's",
    'say "hi"',
    "\udcff\udcfe",
    "a\x1b[2Jb",
    "-rf",
    "a\nb",
    "~",
    "*",
]


def stream(encoding: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding=encoding)


@pytest.mark.parametrize("encoding", ["ascii", "utf-8", "latin-1", "cp1252"])
@pytest.mark.parametrize("name", NAMES)
def test_any_name_is_printed_without_harm(name: str, encoding: str) -> None:
    to = stream(encoding)
    print(f"wrote {name}", file=to)
    to.flush()
    said = to.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]
    assert said.startswith("wrote ") and said.endswith("\n")
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", said)


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("a\n")])
def test_a_printed_command_names_the_same_file(
    name: str, encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", to := stream(encoding))
    print(f"cat -- {shell_word(name)}")
    to.flush()
    (tmp_path / name).write_text("it is this one")
    command = to.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]
    ran = subprocess.run(["bash", "-c", command.encode()], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.stdout == "it is this one", ran.stderr


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://me:s3cret@host:5432/db",
        "see postgres://me:s3cret@host/db; and mail@host",
        '{"study": "postgresql+psycopg://me:s3cret@host/db"}',
        "mysql://:s3cret@host",
        "postgresql://me:s3c/r@et:s3cret@host/db",
        "postgresql://host/db?user=me&password=s3cret&sslmode=require",
    ],
)
def test_no_password_is_printed(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    print(text)
    said = capsys.readouterr().out
    assert "s3c" not in said and "***" in said and "host" in said


def test_what_is_no_password_stays() -> None:
    for text in ("wrote a://b/c and d@e", "https://host:80/x", "3 @ 4", "file:///a:b@c"[:9]):
        assert printable(text, sys.stdout) == text


def test_an_error_is_one_line_of_bounded_length(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (
        ["predict", "x" * 5000],
        ["predict", "a\n\x1b]0;owned\x07b"],
        ["space", "y" * 5000],
        ["fit", "a/\x00b"],
    ):
        assert main(words) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and "\x1b" not in said and len(said) <= LONGEST + 10
    assert len(unknown("network", "z" * 10**6, ["a"] * 10**4)) < LONGEST
    assert len(str(SpaceError("a" * 10**6))) == LONGEST
    assert str(MvnasError("must hold " + "x" * 1000 + "; do this")).endswith("; do this")


def test_argparse_prints_as_all_else(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["search", "--budget", "6M-params", "--trials", "\x1b[2J"])
    assert "\x1b" not in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.parametrize("name", NAMES)
def test_a_picture_shows_names_as_they_are(name: str, tmp_path: Path) -> None:
    figure = draw(
        [Score(ARCH, Quality(0.5), {"latency": Estimate(5, 4, 6, "ms")}, 0, name)],
        title=f"{name} $",
        device=f"$\\frac{name}$",
    )
    for suffix in (".png", ".svg"):
        figure.savefig(tmp_path / f"f{suffix}", dpi=20)
    assert not any(text.get_parse_math() for text in (figure.axes[0].title, figure.axes[0].xaxis.label))


def test_a_number_of_networks_has_no_bound() -> None:
    assert [many(count) for count in (7, 35_429_400_000_000_000, 10**1500)] == ["7", "3.54e+16", "10^1500"]


COMMAND = re.compile(r"`mvnas ([^`]+)`|bin/mvnas ([^\n&]+)")
SMALL = {
    "search": [
        "--space",
        "small.yaml",
        "--device",
        "my-device",
        "--trials",
        "2",
        "--epochs",
        "0.05",
        "--engine",
        "inline",
    ],
    "space": ["--device", "my-device"],
    "measure": ["--backend", "roofline", "--space", "small.yaml", "--ops", "40", "--networks", "8"],
    "export": ["--format", "tflite"],
}  # what makes a command of README short, on a small space and a table of it


def short(words: list[str], number: int) -> list[str] | None:
    """A command of README made short; None if it needs what is not here: a phone, timm's weights, or much training."""
    verb, *rest = words
    if verb in ("rank", "verify") or {"android", "--weights"} & set(rest):
        return None
    options = dict(zip(rest[::2], rest[1::2], strict=True)) if rest and rest[0].startswith("-") else {}
    if verb == "search":
        study = (
            {} if options.get("--budget") == "6M-params" and len(options) == 1 else {"--study": f"{number} & more.db"}
        )
        options = {"--budget": "20K-params"} | study
    elif verb == "measure":
        options = {"--table": f"table {number}"} | ({"--like": "my-device"} if "--like" in options else {})
    elif verb == "export":
        options = {"--pick": "knee"}
    elif verb == "space":
        return ["space", "small.yaml", "--budget", "100K-params,20ms", *SMALL["space"]]
    elif not options:
        return words
    return [verb, *(word for option in options.items() for word in option), *SMALL.get(verb, [])]


def test_commands_of_the_readme_run_in_a_folder_of_any_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "my $HOME 100%20 'data' $x"
    home.mkdir()
    monkeypatch.chdir(home)
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "a $cache"))
    make_table(home / "my-device", make_space(home))
    found = ["".join(words).split() for words in COMMAND.findall((ROOT / "README.md").read_text())]
    ran = set()
    for number, words in enumerate(found):
        if command := short(words, number):
            assert main(command) == 0, f"{shlex.join(command)}: {capsys.readouterr().err}"
            ran.add(words[0])
    assert ran == {"search", "front", "plot", "predict", "space", "fit", "export", "measure"}
    said = capsys.readouterr().out
    assert re.search(r"mvnas export '\d+ & more.db' --pick knee", said)
    made = {path.name for path in home.iterdir()}
    assert {"mvnas.db", "f.pdf", "exported"} <= made
    studies = {name.removesuffix(".db") for name in made if name.endswith(" & more.db")}
    assert studies and {f"{study}.frontier.{kind}" for study in studies for kind in ("png", "csv")} <= made
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONPATH": str(ROOT)}
    shutil.copy(home / "mvnas.db", home / "фото $.db")
    front = [sys.executable, "-m", "mvnas.cli", "front", "фото $.db", "--device", "nowhere/фото"]
    done = subprocess.run(front, cwd=home, env=ascii_only, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.isascii() and "nowhere/\\u0444" in done.stderr and "Traceback" not in done.stderr
