"""What each certificate may do at each front, on a real server: every table, every column, every operation."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mapping import document, plan, schema, service
from mapping.history import Cause
from mapping.rows import REPORTED_COLUMNS
from mapping.tls import Identity
from mapping.writer import Writer
from tests.ovs.dummy import LOOPBACK
from tests.site import FRONTS, Operation, Site, ask, transact

EXAMPLE = (Path(__file__).parents[2] / "examples" / "two-hosts.yaml").read_bytes()
SCHEMA = json.loads(schema.SCHEMA_FILE.read_text())["tables"]
FRONT = json.loads(schema.FRONT_SCHEMA_FILE.read_text())["tables"]
CAUSE = Cause("alice", "test")
MINE = [["name", "==", "host-a"]]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("roles"), LOOPBACK)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def content(site: Site) -> dict[str, Any]:
    """The example, written by an operator; what the database then holds."""
    rows = document.read(EXAMPLE, "f.yaml").rows
    with Writer([site.socket]) as writer:
        writer.carry_out(lambda tables: plan.make(rows, tables, absent=plan.left_out(rows, tables, prune=True)), CAUSE)
    return everything(site)


def everything(site: Site) -> dict[str, Any]:
    """Table -> row id -> row, of the whole database."""
    selects = [{"op": "select", "table": table, "where": []} for table in SCHEMA]
    found = transact(site.socket, None, *selects)
    return {
        table: {row["_uuid"][1]: row for row in result["rows"]} for table, result in zip(SCHEMA, found, strict=True)
    }


def value(kind: Any, uuid: str) -> Any:  # noqa: ANN401 - as the schema has it
    """A value that the column takes."""
    key = kind if isinstance(kind, str) else kind["key"]
    base = key if isinstance(key, str) else key["type"]
    if not isinstance(kind, str) and "value" in kind:
        return ["map", []]
    if not isinstance(key, str) and "enum" in key:
        return key["enum"][1][0]
    values = {"string": "0000000000000abc", "integer": 600, "boolean": True, "real": 1.0, "uuid": ["uuid", uuid]}
    return values[base]


def attempts(content: dict[str, Any], tables: dict[str, Any]) -> Iterator[tuple[str, str, Operation]]:
    """(table, column, operation) for all that can be tried."""
    for table, described in tables.items():
        rows = content.get(table, {})
        uuid = next(iter(rows), "00000000-0000-0000-0000-000000000001")
        for column, kind in described["columns"].items():
            yield (
                table,
                column,
                {"op": "update", "table": table, "where": [], "row": {column: value(kind["type"], uuid)}},
            )
        yield table, "*", {"op": "delete", "table": table, "where": []}
        row = {column: value(kind["type"], uuid) for column, kind in described["columns"].items()}
        yield table, "*", {"op": "insert", "table": table, "row": row}
    yield (
        "Global",
        "config_seq",
        {
            "op": "mutate",
            "table": "Global",
            "where": [],
            "mutations": [["config_seq", "+=", 1]],
        },
    )


@pytest.mark.parametrize("role", ["host", "controller"])
def test_a_stolen_key_tries_every_table_and_column(site: Site, content: dict[str, Any], role: str) -> None:
    thief, remote = site.issue(role, "host-a"), site.remotes[role]
    allowed = set()
    for table, column, operation in attempts(content, SCHEMA):
        (result, *_) = transact(remote, thief, operation)
        if result.get("error") != "permission error":
            allowed.add((table, column))
        elif role == "host" and table == "Host" and column in REPORTED_COLUMNS:
            # Of all hosts at once it may not; of its own it may.
            (result, *_) = transact(remote, thief, {**operation, "where": MINE})
            assert result == {"count": 1}
            allowed.add((table, column))
    assert allowed == {("Host", column) for column in REPORTED_COLUMNS}
    after = everything(site)
    changed = {
        (table, column)
        for table, rows in after.items()
        for uuid, row in rows.items()
        for column in row
        if row[column] != content[table].get(uuid, {}).get(column) and column != "_version"
    }
    assert changed <= allowed
    assert {table: rows.keys() for table, rows in after.items()} == {t: rows.keys() for t, rows in content.items()}
    if role == "host":
        other = next(uuid for uuid, row in content["Host"].items() if row["name"] == "host-b")
        assert after["Host"][other] == content["Host"][other]


def test_a_stolen_key_reads_everything(site: Site, content: dict[str, Any]) -> None:
    """So it is, whoever it is: OVSDB restricts writing alone, and a client chooses by itself what it follows."""
    thief, remote = site.issue("host", "host-a"), site.remotes["host"]
    read = transact(remote, thief, *({"op": "select", "table": table, "where": []} for table in SCHEMA))
    found = {table: {row["_uuid"][1] for row in each["rows"]} for table, each in zip(SCHEMA, read, strict=True)}
    assert found == {table: set(rows) for table, rows in content.items()}


@pytest.mark.parametrize("role", FRONTS)
def test_nobody_gets_at_the_roles_themselves(site: Site, content: dict[str, Any], role: str) -> None:
    thief, remote = site.issue(role, "host-a"), site.remotes[role]
    rules = {table: described for table, described in SCHEMA.items() if table.startswith("RBAC_")}
    for _, _, operation in list(attempts(content, rules))[:-1]:
        (result, *_) = transact(remote, thief, operation)
        assert result.get("error") == "permission error", operation
    for _, _, operation in list(attempts({}, FRONT))[:-1]:
        (result, *_) = transact(remote, thief, operation, database="Lockgate_Front")
        assert result.get("error") == "permission error", operation
    assert everything(site) == content


@pytest.mark.parametrize("role", FRONTS)
def test_nobody_converts_the_rules_away(site: Site, role: str) -> None:
    described = json.loads(schema.SCHEMA_FILE.read_text()) | {"version": "99.0.0"}
    tables = {table: columns for table, columns in described["tables"].items() if not table.startswith("RBAC_")}
    for database in (schema.DATABASE, "Lockgate_Front"):
        converted = described | {"name": database, "tables": tables}
        message = ask(site.remotes[role], site.issue(role, "host-a"), "convert", [database, converted])
        assert message["error"]["error"] == "permission error"


def test_an_operator_writes_mappings(site: Site, content: dict[str, Any]) -> None:
    alice = site.issue("operator", "alice")
    rows = document.read(EXAMPLE.replace(b"[10.0.0.12]", b"[10.0.0.77]", 1), "f.yaml").rows
    session = Writer([site.remotes["operator"]], identity=alice)
    with session as writer:
        done = writer.carry_out(lambda tables: plan.make(rows, tables), CAUSE)
    assert len(done.plan.edits) == 1
    assert any(row["ip"] == "10.0.0.77" for row in everything(site)["Mapping"].values())
    assert content["Mapping"] != everything(site)["Mapping"]


@pytest.mark.parametrize("role", FRONTS)
def test_a_front_lets_in_certificates_of_its_role_and_no_others(site: Site, role: str) -> None:
    select = {"op": "select", "table": "Global", "where": []}
    wrong = [site.issue(other, "host-a") for other in (*FRONTS, "member") if other != role]
    for identity in (*wrong, site.issue(role, "late", days=1, ago=2)):
        with pytest.raises(ConnectionError, match="it refuses the certificate of"):
            transact(site.remotes[role], identity, select)
    assert transact(site.remotes[role], site.issue(role, "host-a"), select)


@pytest.mark.parametrize(
    ("role", "name", "why"),
    [
        ("host", "host-late", "certificate expired"),
        ("operator", "host-wrong", "unknown ca"),
        ("host", "host-gone", "certificate unknown"),
    ],
    ids=["expired", "wrong authority", "revoked"],
)
def test_who_is_refused_names_its_certificate_and_the_server_the_reason(
    site: Site, role: str, name: str, why: str
) -> None:
    """Open vSwitch itself logs no more than the address and that; at its level of debugging also why, but no name."""
    select = {"op": "select", "table": "Global", "where": []}
    identity = site.issue(role, name, **({"days": 1, "ago": 2} if name == "host-late" else {}))
    if name == "host-gone":
        site.pki.revoke(role, name)
        site.pki.write_trust(site.member.folder)
    log = site.folder / "db" / "host.log"
    service.appctl(log.parent, "host", "vlog/set", "stream_ssl:file:dbg")
    begin = log.stat().st_size
    with pytest.raises(ConnectionError) as caught:
        transact(site.remotes["host"], identity, select)
    service.appctl(log.parent, "host", "vlog/set", "stream_ssl:file:info")
    assert f"it refuses the certificate of {role} {name}: " in str(caught.value)
    assert why in str(caught.value)
    said = log.read_text()[begin:]
    assert "|WARN|SSL_accept: " in said
    assert "certificate verify failed" in said
    assert re.search(r"\|WARN\|ssl:127\.0\.0\.1:[0-9]+: ", said)
    assert f"alert: fatal, {why.replace(' ', '_')}" in said
    assert name not in said


def test_a_front_that_is_no_member_is_not_believed(site: Site) -> None:
    """A stolen host key cannot pose as the database, nor can another database's."""
    stranger = Site(site.folder / "stranger", LOOPBACK)
    stranger.start()
    try:
        with pytest.raises(ConnectionError, match="its certificate is no good"):
            transact(stranger.remotes["host"], site.issue("host", "host-a"), {"op": "comment", "comment": ""})
    finally:
        stranger.stop()


def test_a_revoked_certificate_is_refused_without_a_restart_and_its_successor_is_not(site: Site) -> None:
    select = {"op": "select", "table": "Global", "where": []}
    stolen, other = site.issue("host", "host-r"), site.issue("host", "host-a")
    assert transact(site.remotes["host"], stolen, select)
    site.pki.revoke("host", "host-r")
    site.pki.write_trust(site.member.folder)
    with pytest.raises(ConnectionError, match="it refuses the certificate of host host-r"):
        transact(site.remotes["host"], stolen, select)
    assert transact(site.remotes["host"], other, select)
    assert transact(site.remotes["host"], site.issue("host", "host-r"), select)


def test_without_an_identity_it_is_said_what_to_do(site: Site) -> None:
    with pytest.raises(ConnectionError, match="set LOCKGATE_TLS to a folder that `lockgate pki issue` made"):
        transact(site.remotes["host"], None, {"op": "comment", "comment": ""})
    with pytest.raises(ConnectionError, match="no certificate that can be used"):
        transact(site.remotes["host"], Identity(site.folder), {"op": "comment", "comment": ""})
