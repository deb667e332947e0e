"""The schema as data, and the document that describes it."""

import json
import re
from pathlib import Path

import pytest

from mapping import history, rows, schema
from mapping.model import VNI_MAX

TABLES = json.loads(schema.SCHEMA_FILE.read_text())["tables"]
OURS = [table for table in TABLES if not table.startswith("RBAC_")]
"""ovsdb-server reads the others itself."""
DOCUMENT = (Path(__file__).parents[2] / "docs" / "database.md").read_text()


@pytest.mark.parametrize("table", TABLES)
def test_every_column_is_described(table: str) -> None:
    section = DOCUMENT.partition(f"\n## {table}\n")[2].partition("\n## ")[0]
    described = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert described == list(TABLES[table]["columns"])


def test_every_table_described_exists() -> None:
    assert set(re.findall(r"^## ((?:RBAC_)?[A-Z]\w+)$", DOCUMENT, re.MULTILINE)) == set(TABLES)


@pytest.mark.parametrize("table", OURS)
def test_every_column_is_read_by_somebody(table: str) -> None:
    on_demand = {rows.PORT_COUNTERS} if table == "Host" else set()
    read = {*{"History": history.COLUMNS, **rows.READ_COLUMNS}.get(table, ()), *rows.STATUS_COLUMNS.get(table, ())}
    assert read | on_demand == set(TABLES[table]["columns"])


def test_limits_are_those_of_the_model() -> None:
    assert TABLES["Vpc"]["columns"]["vni"]["type"]["key"]["maxInteger"] == VNI_MAX


def test_defaults_and_composites() -> None:
    assert schema.default("Host", "applied_seq") == 0
    assert schema.default("Host", "drops") == ["map", []]
    assert schema.default("Port", "host") == ["set", []]
    assert schema.default("Vpc", "router_mac") == ""
    assert schema.is_composite("Vpc", "subnets")
    assert not schema.is_composite("Port", "host")
