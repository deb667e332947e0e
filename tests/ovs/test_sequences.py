"""The flows are a function of the database's present content, never of how it came to be.

A handful of states, taken in many orders and broken into many kinds of transactions, in a real database; the flows are
followed incrementally, as the controller does, on a table that behaves as a switch's. In the end, and on the way, they
are those of the pure function.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from flows.change import Change
from flows.desired import Flows, desired
from flows.flow import Flow
from flows.incremental import BridgeFlows
from flows.pipeline import BR_GUEST, BR_NIC
from flows.view import view
from mapping.linked import Linked, Touched
from mapping.model import Encap, Snapshot
from mapping.replica import Replica
from tests.build import (
    BLUE,
    DB,
    HOST_A,
    HOST_B,
    HOST_B6,
    MAPPINGS,
    RED,
    SPY,
    TWO_HOSTS,
    WEB,
    host,
    mapping,
    port,
    snapshot,
    vpc,
)
from tests.conftest import Figure
from tests.database import Database, Operation, clear, insert

MOVED = replace(DB, host=HOST_A.uuid)
UNBOUND = replace(WEB, host=None)
ONE_MORE = port("more", BLUE, "02:00:00:00:00:09", HOST_B)

STATES: dict[str, Snapshot] = {
    "empty": snapshot(),
    "hosts": snapshot(HOST_A, HOST_B),
    "two hosts": TWO_HOSTS,
    "db has moved": snapshot(HOST_A, HOST_B, BLUE, RED, WEB, MOVED, SPY, MAPPINGS),
    "web is bound nowhere": snapshot(HOST_A, HOST_B, BLUE, RED, UNBOUND, DB, SPY, MAPPINGS),
    "addresses exchanged": snapshot(
        HOST_A, HOST_B, BLUE, RED, WEB, DB, SPY, mapping("10.0.0.12", WEB), mapping("10.0.0.11", DB), MAPPINGS[2]
    ),
    "another encapsulation": snapshot(
        HOST_A,
        replace(HOST_B, encap=Encap.GRE),
        BLUE,
        RED,
        WEB,
        DB,
        SPY,
        ONE_MORE,
        MAPPINGS,
        mapping("10.0.0.13", ONE_MORE),
    ),
    "VTEPs of two IP versions": snapshot(HOST_A, HOST_B6, BLUE, RED, WEB, DB, SPY, MAPPINGS),
    "another VNI and VTEP": snapshot(
        host("host-a", "192.0.2.9"), HOST_B, vpc("blue", 77, "10.0.0.0/16", "172.16.0.0/24"), WEB, DB, MAPPINGS[:2]
    ),
}

# An expander takes the operations that insert a state's rows, and returns transactions that put it in place of any.
Expander = Callable[[list[Operation], random.Random], list[list[Operation]]]


def at_once(rows: list[Operation], _: random.Random) -> list[list[Operation]]:
    return [[*clear(), *rows]]


def delete_then_add(rows: list[Operation], _: random.Random) -> list[list[Operation]]:
    return [clear(), rows]


def with_a_detour(rows: list[Operation], _: random.Random) -> list[list[Operation]]:
    return [[*clear(), *rows], [*clear(), *rows], clear(), rows]


def shuffled(rows: list[Operation], rng: random.Random) -> list[list[Operation]]:
    """Operations of one transaction may refer to rows that are inserted after them."""
    rows = list(rows)
    rng.shuffle(rows)
    return [[*clear(), *rows]]


def bound_last(rows: list[Operation], _: random.Random) -> list[list[Operation]]:
    """Ports and mappings first, without a host; the hosts come after, and then each port gets its own."""
    hosts = {row["uuid-name"]: row["row"]["name"] for row in rows if row["table"] == "Host"}
    unbound = [
        {**row, "row": {name: value for name, value in row["row"].items() if name != "host"}}
        for row in rows
        if row["table"] != "Host"
    ]
    bind = [
        [*([row] if row["table"] == "Host" else []), *_bindings(rows, row["uuid-name"])]
        for row in rows
        if row["uuid-name"] in hosts
    ]
    return [[*clear(), *unbound], *bind]


def _bindings(rows: list[Operation], host_name: str) -> list[Operation]:
    return [
        {
            "op": "update",
            "table": "Port",
            "where": [["name", "==", row["row"]["name"]]],
            "row": {"host": ["named-uuid", host_name]},
        }
        for row in rows
        if row["table"] == "Port" and row["row"].get("host") == ["named-uuid", host_name]
    ]


def mappings_one_by_one(rows: list[Operation], rng: random.Random) -> list[list[Operation]]:
    """Each mapping in a transaction of its own, in any order."""
    others = [row for row in rows if row["table"] != "Mapping"]
    mappings = [row for row in rows if row["table"] == "Mapping"]
    rng.shuffle(mappings)
    return [[*clear(), *others], *([row] for row in mappings)]


EXPANDERS: list[Expander] = [at_once, delete_then_add, with_a_detour, shuffled, bound_last, mappings_one_by_one]


class Table:
    """One bridge of one host: the flows as a switch keeps them, one for each table, priority and match."""

    def __init__(self, host_name: str, bridge: str) -> None:
        self.flows: dict[tuple[Any, ...], Flow] = {}
        self._host_name = host_name
        self._bridge = bridge
        self._source: BridgeFlows | None = None

    def follow(self, linked: Linked, touched: Touched) -> None:
        host = next((host for host in linked.hosts.values() if host.name == self._host_name), None)
        if host is None:
            self._source, self.flows = None, {}
            return
        if self._source is None or self._source.host != host.uuid:
            # The row is another: what the switch holds is read back.
            self._source = BridgeFlows(self._bridge, host.uuid, linked)
            self._source.update(Touched(), OFPORTS, 1)
            while self._source.busy:
                self._source.update(Touched(), OFPORTS, 1)
            for change in self._source.mend([flow.cookie for flow in self.flows.values()]):
                self._make(change)
        else:
            self._make(self._source.update(touched, OFPORTS, 1))
            while self._source.busy:
                self._make(self._source.update(Touched(), OFPORTS, 1))

    def _make(self, change: Change) -> None:
        self.flows = {key: flow for key, flow in self.flows.items() if flow.cookie not in change.delete}
        for flow in change.add:
            self.flows[flow.key] = flow


OFPORTS = {
    f"{prefix}{each.name}": ord(each.name[0]) for each in (WEB, DB, SPY, ONE_MORE) for prefix in ("", "g-", "n-")
}
BRIDGES = [(name, bridge) for name in ("host-a", "host-b") for bridge in (BR_GUEST, BR_NIC)]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with Database(tmp_path_factory.mktemp("mapping")) as database:
        yield database


def wanted(world: Snapshot, host_name: str, bridge: str) -> Flows:
    row = next((row for row in world.hosts.values() if row.name == host_name), None)
    return desired(bridge, view(world, row), OFPORTS) if row else {}


def texts(flows: Flows) -> set[str]:
    return {str(flow) for flow in flows.values()}


def test_every_path_through_the_states_ends_in_the_flows_of_its_end(database: Database, figure: Figure) -> None:
    rng = random.Random(20240229)
    replica = Replica([database.remote])
    tables = {key: Table(*key) for key in BRIDGES}
    sequences = transactions = 0
    for expander in EXPANDERS:
        for _ in range(8):
            names = list(STATES)
            rng.shuffle(names)
            for name in names:
                for operations in expander(insert(STATES[name]), rng):
                    database.transact(operations)
                    transactions += 1
                    assert replica.wait_until(lambda: replica.snapshot.config_seq == database.config_seq, 5000)
                    touched = replica.take_touched()
                    for table in tables.values():
                        table.follow(replica.linked, touched)
                sequences += 1
                assert not replica.snapshot.bad
                for key, table in tables.items():
                    held = {str(flow) for flow in table.flows.values()}
                    assert held == texts(wanted(STATES[name], *key)), f"{expander.__name__} to {name!r}: {key}"
    replica.session.close()
    figure("paths to a state", sequences, f"in {transactions} transactions")
    assert sequences >= 300
