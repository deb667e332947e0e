"""Two dummy hosts, a mapping database and ryu-manager, for the tests of one module."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from flows.desired import desired, meters
from flows.meter import Meters
from flows.pipeline import BR_GUEST, BR_NIC
from flows.view import view
from mapping import rows
from mapping.model import Snapshot
from mapping.replica import Replica
from mapping.rows import READ_COLUMNS, STATUS_COLUMNS
from tests import site
from tests.build import HOST_A, HOST_B, TWO_HOSTS
from tests.database import Database
from tests.ovs.dummy import LOOPBACK, Controller, DummyHost
from topo.waiting import wait_until


@dataclass
class World:
    """Everything that runs."""

    a: DummyHost
    b: DummyHost
    database: Database
    controller: Controller

    def __post_init__(self) -> None:
        columns = {table: (*names, *STATUS_COLUMNS.get(table, ())) for table, names in READ_COLUMNS.items()}
        self._replica = Replica([self.database.remote], columns)

    def wait_applied(self) -> None:
        """Wait until both hosts have confirmed what the database has said last."""

        def applied() -> bool:
            hosts = self._replica.tables["Host"].values()
            seen = self._replica.current and self._replica.snapshot.config_seq == self.database.config_seq
            return seen and all(row["applied_seq"] == self.database.config_seq for row in hosts)

        assert self._replica.wait_until(applied, 20_000), self.controller.log.read_text()

    def snapshot(self) -> Snapshot:
        """What the database says now."""

        def current() -> bool:
            return self._replica.current and self._replica.snapshot.config_seq == self.database.config_seq

        assert self._replica.wait_until(current, 5000)
        return self._replica.snapshot

    def drops(self) -> Counter[str]:
        """Packets dropped so far by both hosts, by reason, as the switches count them."""
        return self.a.drops() + self.b.drops()

    def reported_drops(self) -> Counter[str]:
        """The same, as the controller last wrote it into the database."""
        self._replica.run()
        total: Counter[str] = Counter()
        for row in self._replica.tables["Host"].values():
            total.update(rows.as_dict(row["drops"]))
        return total

    def write(self, world: Snapshot) -> None:
        """Make the database hold this, and wait until the switches do."""
        self.database.write(world)
        self.wait_applied()

    def desired(self, host: DummyHost, bridge: str) -> tuple[set[int], Meters]:
        """The pure functions' answer for the database's content and the bridge's ports now: cookies and meters."""
        snapshot = self.snapshot()
        row = next(row for row in snapshot.hosts.values() if row.name == host.host.name)
        lines = host.ovs.ofctl("show", bridge).splitlines()
        names = [line.split("(")[1].split(")")[0] for line in lines if "addr:" in line]
        ofports = {name: host.ofport(name) for name in names}
        known = view(snapshot, row)
        return set(desired(bridge, known, ofports)), meters(bridge, known, ofports)

    def assert_as_desired(self) -> None:
        """Every bridge holds exactly what the pure function says."""
        for host in (self.a, self.b):
            for bridge in (BR_GUEST, BR_NIC):
                as_desired = partial(self._is_as_desired, host, bridge)
                wait_until(as_desired, 10, f"{host.host.name} {bridge} to hold what is desired")

    def _is_as_desired(self, host: DummyHost, bridge: str) -> bool:
        return (host.cookies(bridge), host.meters(bridge)) == self.desired(host, bridge)


def free_port() -> int:
    """A port of the loopback interface."""
    return site.free_port(LOOPBACK)


@contextmanager
def running(folder: Path, rows: Snapshot, app: str = "controller.app") -> Iterator[World]:
    """Both hosts, the database and the controller, programmed with what these rows say; web on a, db and spy on b."""
    port = free_port()
    wire, target = f"{folder}/wire.sock", f"tcp:{LOOPBACK}:{port}"
    host_a, host_b = (rows.hosts[uuid] for uuid in (HOST_A.uuid, HOST_B.uuid))
    a = DummyHost(folder / "a", host_a, target, f"options:pstream=punix:{wire}", host_b)
    b = DummyHost(folder / "b", host_b, target, f"options:stream=unix:{wire}", host_a)
    with ExitStack() as stack:
        database = stack.enter_context(Database(folder / "mapping"))
        controller = Controller(folder, database.remote, port, free_port())
        controller.app = app
        for host in (a, b):
            stack.callback(host.ovs.stop)
            host.start()
        a.plug("web")
        b.plug("db")
        b.plug("spy")
        stack.callback(controller.stop)
        controller.start()
        running = World(a, b, database, controller)
        running.write(rows)
        running.assert_as_desired()
        yield running


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Web on host-a (VXLAN); db (VPC blue) and spy (VPC red, db's addresses) on host-b (Geneve): programmed."""
    with running(tmp_path_factory.mktemp("lg"), TWO_HOSTS) as world:
        yield world
