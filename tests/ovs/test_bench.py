"""The benchmark program, at sizes that say nothing about speed: that it runs, and what it hands on."""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from pathlib import Path

import pytest

from bench import __main__ as program
from bench import process
from bench.layout import SPREAD, Layout
from bench.results import Row
from bench.run import QUICK, BenchError, percentile

TINY = replace(
    QUICK,
    mappings=300,
    batch=100,
    changes=5,
    growth=(50, 100, 200),
    growth_changes=3,
    busy_seconds=0.5,
    busy_rate=500,
    busy_batch=10,
    busy_mappings=50,
    everyone=300,
    ours=100,
    hosts=4,
    commits=3,
)
COLUMNS = {
    "name",
    "value",
    "unit",
    "reference",
    "reference_is",
    "ratio",
    "target",
    "at_least",
    "met",
    "note",
    "group",
    "failed",
}
GROUPS = ["load", "growth", "busy", "working-set", "fanout"]


def test_every_row_has_its_columns_and_stands_in_table_and_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(program, "QUICK", TINY)
    file = tmp_path / "results.json"
    assert program.main(["--quick", "--results", str(file), *GROUPS]) == 0
    rows = json.loads(file.read_text())
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert [*dict.fromkeys(row["group"] for row in rows)] == GROUPS
    for row in rows:
        assert set(row) == COLUMNS
        assert isinstance(row["value"], (int, float)), row
        assert row["value"] >= 0 or "linear" in row["name"], row  # a step between tiny loads may be less than none
        assert (row["reference"] is None) == (not row["reference_is"]), row
        assert (row["met"] is None) == (row["target"] is None), row
        assert row["unit"] in shown
        assert row["name"].split()[0] in shown
    flows = {row["name"]: row["value"] for row in rows if row["name"].startswith("flows of a mapping")}
    assert flows == {
        "flows of a mapping on br-nic": pytest.approx(2, abs=0.1),
        "flows of a mapping on br-guest": pytest.approx(1),
    }
    lossless = {row["name"]: row["met"] for row in rows if row["target"] == 0}
    assert lossless == {
        "the same: flows that the restart touched": True,
        "connections lost during that load": True,
    }


def test_a_target_bounds_the_ratio_where_there_is_a_reference_else_the_value() -> None:
    assert Row("", 5, "s", 2, "peer", 2.5).met
    assert not Row("", 5, "s", 1, "peer", 2.5).met
    assert Row("", 2, "s", target=2.5).met
    assert Row("", 0, "", target=0).met
    assert Row("", 1, "s").met is None
    assert Row("", 1, "Gbit/s", 1, "peer", 0.98, at_least=True).met
    assert not Row("", 1, "Gbit/s", 2, "peer", 0.98, at_least=True).met
    assert not Row("", 1, "s", 0, "peer", 1).met
    assert Row("", math.inf, "s").as_json()["value"] is None


def test_percentiles() -> None:
    assert percentile(range(1, 102), 50) == 51
    assert percentile(range(1, 102), 99) == 100
    assert percentile([3], 99) == 3


@pytest.mark.parametrize("layout", [Layout(1000, 1000), Layout(1000, SPREAD), Layout(10_000, SPREAD)])
def test_no_address_of_a_shape_is_given_twice(layout: Layout) -> None:
    ports = range(layout.ports)
    addresses = [layout.ip(port) for port in ports] + [layout.changed_ip(port) for port in ports]
    addresses += [layout.gateway(subnet) for subnet in layout.subnets]
    assert len(set(addresses)) == len(addresses)
    for subnet, last in zip(layout.subnets, layout.subnets[1:], strict=False):
        assert not subnet.overlaps(last)


def test_a_program_that_is_missing_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", os.devnull)
    monkeypatch.setattr(process, "OVN", tmp_path)
    monkeypatch.setattr(process, "SYSTEM", ())
    with pytest.raises(BenchError, match=r"ovn-northd is not there: install Debian's package ovn-central"):
        process.find("ovn-northd")


def test_an_unknown_group_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        program.main(["speed"])
    assert "no group speed: there are load, growth" in capsys.readouterr().err
