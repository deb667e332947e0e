"""A controller follows the VPCs that have a port on its hosts, and no others: against a real server."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mapping import schema
from mapping.linked import Linked
from mapping.model import RowId
from mapping.replica import Replica
from mapping.working_set import Conditions, WorkingSet
from tests.build import (
    BLUE,
    DB,
    HOST_A,
    HOST_B,
    HOST_C,
    MAPPINGS,
    RED,
    SPY,
    TWO_HOSTS,
    WEB,
    mapping,
    port,
    snapshot,
    vpc,
)
from tests.database import Database, Operation

WITHIN_MS = 5000

GREEN = vpc("green", 5003)
FAR = port("far", GREEN, "02:00:00:00:00:04", HOST_C)
WORLD = snapshot(HOST_A, HOST_B, HOST_C, BLUE, RED, GREEN, WEB, DB, SPY, FAR, MAPPINGS[:3], mapping("10.0.0.20", FAR))


@pytest.fixture(params=["standalone", "clustered"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A cluster's member remembers transactions, and after a reconnect sends only what came since; the other all."""
    database = Database(tmp_path / "mapping")
    if request.param == "clustered":
        database.file.unlink()
        place = [str(database.file), str(schema.SCHEMA_FILE), f"unix:{tmp_path}/raft"]
        subprocess.run(["ovsdb-tool", "create-cluster", *place], check=True)
    with database:
        yield database


@pytest.fixture
def replica(database: Database) -> Iterator[Replica]:
    following = Replica([database.remote], hosts=())
    yield following
    following.session.close()


def known(replica: Replica) -> dict[str, set[str]]:
    """The names of what has been taken in; of mappings, their addresses."""
    parsed = replica.linked.parsed
    return {
        table: {getattr(row, "name", None) or row.ip for row in parsed(table).values()}
        for table in ("Host", "Vpc", "Port", "Mapping")
    }


def row_id(replica: Replica, name: str) -> RowId:
    return next(host.uuid for host in replica.linked.hosts.values() if host.name == name)


def follow(replica: Replica, database: Database, *names: str) -> None:
    """Follow these hosts, and wait until everything is there."""
    assert replica.wait_until(lambda: replica.current and replica.config_seq == database.config_seq, WITHIN_MS)
    hosts = [row_id(replica, name) for name in names]
    replica.follow(hosts)
    assert replica.wait_until(lambda: all(map(replica.ready, hosts)), WITHIN_MS)


def bind(name: str, host: list[Any]) -> Operation:
    return {"op": "update", "table": "Port", "where": [["name", "==", name]], "row": {"host": host}}


def caught_up(replica: Replica, database: Database) -> None:
    assert replica.wait_until(lambda: replica.config_seq == database.config_seq, WITHIN_MS)


HOSTS = {"host-a", "host-b", "host-c"}


def test_without_a_host_only_hosts_are_known(database: Database, replica: Replica) -> None:
    database.write(WORLD)
    caught_up(replica, database)
    assert known(replica) == {"Host": HOSTS, "Vpc": set(), "Port": set(), "Mapping": set()}


def test_what_is_needed_is_worked_out_anew_when_a_port_comes_or_leaves_and_not_else(
    database: Database, replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.write(WORLD)
    follow(replica, database, "host-a")
    adjusted = 0
    adjust = WorkingSet.adjust

    def counted(self: WorkingSet, linked: Linked) -> Conditions:
        nonlocal adjusted
        adjusted += 1
        return adjust(self, linked)

    monkeypatch.setattr(WorkingSet, "adjust", counted)
    mac = {"op": "update", "table": "Port", "where": [["name", "==", "web"]], "row": {"mac": "02:00:00:00:00:99"}}
    database.transact([mac])
    caught_up(replica, database)
    assert not adjusted
    database.transact([bind("db", ["set", []])])
    caught_up(replica, database)
    assert adjusted


def test_a_host_needs_its_ports_and_the_whole_of_their_vpcs(database: Database, replica: Replica) -> None:
    database.write(WORLD)
    follow(replica, database, "host-a")
    assert known(replica) == {
        "Host": HOSTS,
        "Vpc": {"blue"},
        "Port": {"web", "db"},
        "Mapping": {"10.0.0.11", "10.0.0.12"},
    }
    follow(replica, database, "host-a", "host-b")
    assert known(replica)["Port"] == {"web", "db", "spy"}
    assert len(replica.linked.parsed("Mapping")) == 3
    follow(replica, database, "host-c")
    assert known(replica) == {"Host": HOSTS, "Vpc": {"green"}, "Port": {"far"}, "Mapping": {"10.0.0.20"}}


def test_a_vpc_comes_with_its_first_port_here_and_leaves_with_its_last(database: Database, replica: Replica) -> None:
    database.write(WORLD)
    follow(replica, database, "host-a")
    database.transact([bind("far", ["uuid", row_id(replica, "host-a")])])
    # Before the change counts as taken in, so are the addresses that it made us need.
    caught_up(replica, database)
    assert known(replica)["Vpc"] == {"blue", "green"}
    assert known(replica)["Mapping"] == {"10.0.0.11", "10.0.0.12", "10.0.0.20"}
    for name in ("web", "far"):
        database.transact([bind(name, ["set", []])])
    caught_up(replica, database)
    assert known(replica) == {"Host": HOSTS, "Vpc": set(), "Port": set(), "Mapping": set()}


def test_what_other_vpcs_do_is_not_heard(database: Database, replica: Replica) -> None:
    database.write(WORLD)
    follow(replica, database, "host-a")
    heard: list[str] = []
    run = replica.session.run

    def spy() -> list[dict[str, object]]:
        messages = run()
        heard.extend(str(message) for message in messages)
        return messages

    replica.session.run = spy  # type: ignore[method-assign]
    database.transact(
        [{"op": "update", "table": "Mapping", "where": [["ip", "==", "10.0.0.20"]], "row": {"ip": "10.0.0.77"}}]
    )
    caught_up(replica, database)
    assert heard
    assert "10.0.0.77" not in "".join(heard)


def test_after_a_lost_connection_no_row_is_missing(database: Database, replica: Replica) -> None:
    """Also when rows were asked for, and had not come."""
    database.write(WORLD)
    follow(replica, database, "host-a")
    replica.follow([row_id(replica, name) for name in ("host-b", "host-c")])
    replica.session.drop("as the test wishes")
    assert not replica.ready(row_id(replica, "host-c"))
    assert replica.wait_until(lambda: replica.ready(row_id(replica, "host-b")), WITHIN_MS)
    assert known(replica) == {
        "Host": HOSTS,
        "Vpc": {"blue", "red", "green"},
        "Port": {"web", "db", "spy", "far"},
        "Mapping": {"10.0.0.11", "10.0.0.12", "10.0.0.20"},
    }


def test_the_flows_of_a_host_are_those_that_the_whole_database_would_make(database: Database, replica: Replica) -> None:
    database.write(TWO_HOSTS)
    follow(replica, database, "host-a")
    whole = Replica([database.remote])
    try:
        caught_up(whole, database)
        for name, there in (("vpcs", replica.snapshot.vpcs), ("mappings", replica.snapshot.mappings)):
            every = getattr(whole.snapshot, name)
            assert there == {uuid: row for uuid, row in every.items() if uuid in there}
        blue = next(row for row in whole.snapshot.vpcs.values() if row.name == "blue")
        assert set(replica.snapshot.mappings) == {
            one.uuid for one in whole.snapshot.mappings.values() if one.vpc == blue.uuid
        }
    finally:
        whole.session.close()
