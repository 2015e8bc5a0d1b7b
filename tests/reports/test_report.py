"""Laws of what is told of tables."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from mvnas.latency.table import Table, shipped
from mvnas.reports.lines import cautions


@pytest.fixture
def table() -> Table:
    loaded = Table.load("genoa-1t")
    return replace(loaded, device=dict(loaded.device) | {"versions": {}})


def test_nothing_speaks_against_a_calm_table(table: Table) -> None:
    assert cautions(table) == []


@pytest.mark.parametrize("name", shipped())
def test_the_shipped_tables_were_measured_on_a_calm_machine(name: str) -> None:
    loaded = Table.load(name)
    assert cautions(replace(loaded, device=dict(loaded.device) | {"versions": {}})) == []


def test_another_version_of_the_runtime_is_named(table: Table) -> None:
    (told,) = cautions(replace(table, device={"versions": {"numpy": "0.1", "a-package-that-is-not-here": "1"}}))
    assert "numpy 0.1, but " in told


def test_a_slow_machine_is_told(table: Table) -> None:
    ops = {
        kernel: replace(timing, reference_ms=timing.reference_ms * (2 if place % 5 == 0 else 1))
        for place, (kernel, timing) in enumerate(table.ops.items())
    }
    (told,) = cautions(replace(table, ops=ops, passes={}))
    share = re.search(r"^(\d+)% of genoa-1t was measured while its machine was 10% slower", told)
    assert share and 20 <= int(share[1]) < 25  # a few were slow in truth


def test_a_restless_machine_is_told(table: Table) -> None:
    passes = {
        arch: tuple(replace(timing, min_ms=timing.min_ms * (1 + place % 2)) for place, timing in enumerate(timings))
        for arch, timings in table.passes.items()
    }
    (told,) = cautions(replace(table, passes=passes))
    assert "from pass to pass" in told
