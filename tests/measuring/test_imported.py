"""Laws of imported timings: every network becomes a pass of its own, and nothing is taken for what it is not."""

from __future__ import annotations

import json
from math import isnan
from pathlib import Path
from typing import Any

import pytest
from xcode import write_report

from mvnas.cli import main
from mvnas.cli.network import named_arch
from mvnas.errors import TableError
from mvnas.latency import DEFAULT_TABLE
from mvnas.latency.table import Table
from mvnas.measuring.imported import import_networks
from mvnas.spaces.space import Space

XS, S = (Space.load(f"mobilevit_{size}").arch() for size in ("xs", "s"))


def test_each_row_of_a_csv_is_a_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "s.json").write_text(json.dumps(S.to_json()))
    file = tmp_path / "timed.csv"
    file.write_text(f"network,ms,who\nmobilevit_xs,5.5,me\n{tmp_path / 's.json'},9,me\nmobilevit_xs,5.25,you\n")
    command = ["measure", "--import", str(file), "--table", str(tmp_path / "t"), "--like", DEFAULT_TABLE]
    assert main(command) == 0
    assert "took 3 networks from timed.csv; 2 in 3 passes in all" in capsys.readouterr().out
    table = Table.load(tmp_path / "t")
    assert {arch: [row.min_ms for row in rows] for arch, rows in table.passes.items()} == {XS: [5.5, 5.25], S: [9]}
    assert all(isnan(row.reference_ms) and row.runs == 1 for rows in table.passes.values() for row in rows)
    assert (table.device["like"], len(table.ops)) == (DEFAULT_TABLE, 0)
    assert main(command) == 0
    table = Table.load(tmp_path / "t")
    assert [len(rows) for rows in table.passes.values()] == [4, 2]
    assert [source["file"] for source in table.device["imported"]] == ["timed.csv"] * 2


def test_a_report_of_xcode_tells_the_network_its_runs_and_the_device(tmp_path: Path) -> None:
    table = import_networks(write_report(tmp_path / "a.mlperf"), tmp_path / "t", named_arch, like=DEFAULT_TABLE)
    (timing,) = table.passes[XS]
    assert (timing.min_ms, timing.median_ms, timing.runs) == (2, 3, 3)
    told = {key: table.device[key] for key in ("backend", "cpu", "system", "units")}
    assert told == {"backend": "coreml", "cpu": "iPhone 16", "system": "iOS 26.3.1", "units": "cpu-ane"}


def test_a_csv_may_name_the_networks_of_reports(tmp_path: Path) -> None:
    write_report(tmp_path / "a.mlperf", modelMetadata={"fileName": "trial7"})
    (tmp_path / "reports.csv").write_text("network,ms\nmobilevit_s,a.mlperf\n")
    assert (
        import_networks(tmp_path / "reports.csv", tmp_path / "t", named_arch, like=DEFAULT_TABLE).networks[S].min_ms
        == 2
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("net,ms\nmobilevit_s,1\n", "must have the columns network, ms"),
        ("network,ms\n", "must hold networks, but has none"),
        ("network,ms\nmobilvit_s,1\n", "row 2, column network: .*did you mean 'mobilevit_s'"),
        ("network,ms\nmobilevit_s,1\nmobilevit_xs,fast\n", "row 3, column ms: must be a positive number .*'fast'"),
        ("network,ms\nmobilevit_s,-1\n", "column ms: must be a positive number"),
        ("network,ms\nmobilevit_s\n", "column ms: must be a positive number"),
        ("network,ms\nmobilevit_s,no.mlperf\n", "no.mlperf must be an Xcode performance report"),
    ],
)
def test_what_cannot_be_read_is_named_and_nothing_is_written(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "timed.csv").write_text(text)
    with pytest.raises(TableError, match=told):
        import_networks(tmp_path / "timed.csv", tmp_path / "t", named_arch, like=DEFAULT_TABLE)
    assert not (tmp_path / "t").exists()


@pytest.mark.parametrize(
    "change",
    [{"samples": []}, {"samples": [0.002, 0]}, {"samples": None}, {"deviceInfo": {}}, {"computeUnit": 9}],
    ids=str,
)
def test_a_report_of_another_form_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(TableError, match="must be an Xcode performance report"):
        import_networks(write_report(tmp_path / "a.mlperf", **change), tmp_path / "t", named_arch, like=DEFAULT_TABLE)


def test_networks_of_another_device_are_not_mixed(tmp_path: Path) -> None:
    import_networks(write_report(tmp_path / "a.mlperf"), tmp_path / "t", named_arch, like=DEFAULT_TABLE)
    other = write_report(tmp_path / "b.mlperf", computeUnit=0)
    with pytest.raises(TableError, match="units was cpu-ane and is cpu"):
        import_networks(other, tmp_path / "t", named_arch)
    with pytest.raises(TableError, match="must be like another"):
        import_networks(other, tmp_path / "new", named_arch)
