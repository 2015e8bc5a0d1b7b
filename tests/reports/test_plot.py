"""The picture holds what it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mvnas.errors import TableError
from mvnas.latency import DEFAULT_TABLE
from mvnas.latency.estimate import Estimate
from mvnas.latency.table import Table
from mvnas.measuring.holdout import by_system, shares, unseen
from mvnas.reports.plot import draw
from mvnas.reports.plot_table import KINDS, draw_table, plot_table
from mvnas.spaces.space import Space
from mvnas.studies.score import Frontier, Quality, Score

ARCH = Space.load("mobilevit_xxs").arch()


def score(number: int, accuracy: float, ms: float, name: str = "") -> Score:
    return Score(ARCH, Quality(accuracy), {"latency": Estimate(ms, 0.9 * ms, 1.1 * ms, "ms")}, number, name)


SCORES = [
    score(0, 0.5, 5.0, "mobilevit_xxs"),
    score(1, 0.7, 9.0),
    score(2, 0.6, 12.0, "mobilevit_xs"),
    score(3, 0.8, 20.0),
]


def test_picture_shows_every_score_the_step_the_intervals_and_the_names() -> None:
    (axes,) = draw(SCORES, title="4 networks within 6M-params", device="somewhere").axes
    clouds = [c for c in axes.collections if hasattr(c, "get_offsets") and len(c.get_offsets())]
    shown = {tuple(point) for cloud in clouds for point in cloud.get_offsets()}
    frontier = Frontier.of(SCORES).scores
    steps = next(line for line in axes.lines if line.get_drawstyle() == "steps-post")
    assert {(s.costs["latency"].value, 100 * s.quality.value) for s in SCORES if s not in frontier} <= shown
    assert list(zip(steps.get_xdata(), steps.get_ydata(), strict=True))[:-1] == [
        (s.costs["latency"].value, pytest.approx(100 * s.quality.value)) for s in frontier
    ]
    (bars,) = axes.containers
    spans = [segment[:, 0].tolist() for segment in bars.lines[2][0].get_segments()]
    assert spans == [[pytest.approx(s.costs["latency"].low), pytest.approx(s.costs["latency"].high)] for s in frontier]
    texts = [text.get_text() for text in axes.texts]
    assert {"mobilevit_xxs", "mobilevit_xs", "knee"} == set(texts)
    assert "ms" in axes.get_xlabel()
    assert "somewhere" in axes.get_xlabel()
    assert "%" in axes.get_ylabel()


def test_one_score_is_a_picture_too() -> None:
    assert draw(SCORES[:1], title="", device="").axes


def test_a_table_of_one_system_is_drawn_without_systems() -> None:
    table = Table.load("genoa-2t")
    assert len(draw_table(table).axes) == 2
    assert by_system(table) == []


def test_picture_of_a_table_shows_every_network_and_what_takes_most_time(tmp_path: Path) -> None:
    table = Table.load(DEFAULT_TABLE)
    figure = draw_table(table)
    left, middle, right = figure.axes
    assert sum(len(bars.lines[0].get_xdata()) for bars in left.containers) == len(table.passes)
    row, told = unseen(table), {quality.name: quality for quality in by_system(table)}
    assert [label.get_text() for label in middle.get_yticklabels()] == list(told)
    shown = np.concatenate([cloud.get_offsets() for cloud in middle.collections])
    for place, quality in enumerate(told.values()):
        errors = np.abs(shown[shown[:, 1] == place, 0]) / 100
        assert quality.name.endswith(f"({len(errors)})") and errors.mean() == pytest.approx(quality.mape)
    assert sorted(shown[:, 0]) == pytest.approx(sorted(100 * (row.ms / row.truth - 1)))
    spent = shares(table)
    assert [label.get_text() for label in right.get_yticklabels()] == list(spent)[:KINDS][::-1]
    assert f"{len(spent) - KINDS} others take {sum(list(spent.values())[KINDS:]):.0%}" in right.get_title()
    assert sum(spent.values()) == pytest.approx(1)
    plot_table(table, tmp_path / "trust.png")
    assert (tmp_path / "trust.png").stat().st_size > 30_000
    with pytest.raises(TableError, match="must end in"):
        plot_table(table, tmp_path / "trust.gif")
