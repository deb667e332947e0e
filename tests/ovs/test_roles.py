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


def within(operation: Operation, where: list[Any]) -> Operation:
    """The same on these rows alone."""
    return {**operation, "where": where}


def test_a_host_writes_of_its_own_row_what_it_reports_and_no_more(site: Site, content: dict[str, Any]) -> None:
    """Asked for its own row alone, nobody else's is a reason to refuse: each column, each way to write it."""
    thief, remote = site.issue("host", "host-a"), site.remotes["host"]
    (own,) = (row for row in content["Host"].values() if row["name"] == "host-a")
    allowed = set()
    for where in (MINE, [["_uuid", "==", own["_uuid"]]], [["vtep_ip", "==", own["vtep_ip"]]]):
        for column, described in SCHEMA["Host"]["columns"].items():
            new = value(described["type"], own["_uuid"][1])
            writes: list[Operation] = [{"op": "update", "row": {column: new}}]
            if column not in ("encap", "name", "vtep_ip", "guest_datapath", "nic_datapath"):
                # What a set, a map or a number takes; texts take no mutation at all.
                number = ["+=", 1] if isinstance(described["type"], str) else ["insert", own[column]]
                writes.append({"op": "mutate", "mutations": [[column, *number]]})
            for write in writes:
                (result, *_) = transact(remote, thief, {**within(write, where), "table": "Host"})
                assert result in ({"count": 1}, {**result, "error": "permission error"}), (column, write, result)
                if result == {"count": 1}:
                    allowed.add(column)
        (result, *_) = transact(remote, thief, {"op": "delete", "table": "Host", "where": where})
        assert result.get("error") == "permission error"
    assert allowed == set(REPORTED_COLUMNS)
    # A second row of its name, also one that would not collide with the first, which goes in the same transaction.
    row = {column: own[column] for column in own if not column.startswith("_")}
    others = {"vtep_ip": "192.0.2.99", "guest_datapath": "00000000000000fe", "nic_datapath": "00000000000000ff"}
    for new in (row, row | others, row | others | {"name": "host-z"}):
        insert = {"op": "insert", "table": "Host", "row": new}
        for operations in ([insert], [{"op": "delete", "table": "Host", "where": MINE}, insert]):
            results = transact(remote, thief, *operations)
            assert "permission error" in [result.get("error") for result in results]
    after = everything(site)["Host"]
    assert after.keys() == content["Host"].keys()
    kept = [column for column in own if column not in (*REPORTED_COLUMNS, "_version")]
    assert {column: after[own["_uuid"][1]][column] for column in kept} == {column: own[column] for column in kept}


@pytest.mark.parametrize("table", [name for name in SCHEMA if name != "Host"])
def test_a_host_writes_no_row_of_another_table_that_names_it(site: Site, content: dict[str, Any], table: str) -> None:
    """Row by row, not only all of them: nor where the row is about its own host, or its own ports."""
    thief, remote = site.issue("host", "host-a"), site.remotes["host"]
    for row in content[table].values():
        where = [["_uuid", "==", row["_uuid"]]]
        for _, _, operation in attempts(content, {table: SCHEMA[table]}):
            if operation["table"] == table and operation["op"] != "insert":
                (result, *_) = transact(remote, thief, within(operation, where))
                assert result.get("error") == "permission error", operation
    assert everything(site) == content


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


@pytest.mark.usefixtures("content")
def test_an_operator_signs_history_as_himself_and_touches_nobody_elses(site: Site) -> None:
    """Ann has moved an address. Ben, an operator as well, tries to have done it in her name, or to hide it."""
    ann, ben, remote = site.issue("operator", "ann"), site.issue("operator", "ben"), site.remotes["operator"]
    for number, identity in ((78, ann), (79, ben)):
        rows = document.read(EXAMPLE.replace(b"[10.0.0.12]", b"[10.0.0.%d]" % number, 1), "f.yaml").rows
        with Writer([remote], identity=identity) as writer:
            writer.carry_out(lambda tables, rows=rows: plan.make(rows, tables), Cause("operator ann at x", "a lie"))  # type: ignore[misc]
    before = everything(site)["History"]
    (hers,) = (row for row in before.values() if row["certificate"] == "ann")
    (his,) = (row for row in before.values() if row["certificate"] == "ben")
    assert his["who"] == hers["who"], "what a client says of itself is worth nothing"
    her_entry = [["_uuid", "==", hers["_uuid"]]]
    forged = {column: hers[column] for column in hers if not column.startswith("_")}
    tries: list[Operation] = [{"op": "insert", "row": forged}, {"op": "insert", "row": forged | {"certificate": ""}}]
    tries += [{"op": "delete", "where": where} for where in ([], her_entry, [["certificate", "==", "ann"]])]
    for where in ([], her_entry, [["_uuid", "==", his["_uuid"]]]):
        tries += [{"op": "update", "where": where, "row": {column: forged[column]}} for column in forged]
        tries.append({"op": "mutate", "where": where, "mutations": [["config_seq", "+=", 1]]})
    for each in tries:
        (result, *_) = transact(remote, ben, {**each, "table": "History"})
        assert result.get("error") == "permission error", each
    # Nor in steps of one transaction: an entry of his own that becomes hers.
    own = {"op": "insert", "table": "History", "row": forged | {"certificate": "ben", "command": "stolen"}}
    hers_now = {
        "op": "update",
        "table": "History",
        "where": [["command", "==", "stolen"]],
        "row": {"certificate": "ann"},
    }
    assert "permission error" in [each.get("error") for each in transact(remote, ben, own, hers_now)]
    assert everything(site)["History"] == before
    # What he can: delete his own, which leaves a gap in the numbers.
    mine = {"op": "delete", "table": "History", "where": [["certificate", "==", "ben"]]}
    assert transact(remote, ben, mine)[0] == {"count": 1}


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
