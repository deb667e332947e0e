"""Three members, TLS everywhere, a steady write load, traffic between guests, and one fault after another.

2 hosts, 1 VPC, 1 guest on each host; 3 members; a controller for each host. Each transaction of the load writes two
rows.

LOCKGATE_FAULT_SECONDS (`make fault`) makes it long: each kind of fault once, in an order by chance, and then any, until
the time is over. Without, each of a few comes once. LOCKGATE_FAULT_SEED repeats the order, and the choice of members.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any, Self

import pytest

from flows.desired import desired
from flows.pipeline import BR_GUEST, BR_NIC
from flows.view import view
from mapping import cluster, maintenance
from mapping.errors import MappingError
from mapping.replica import Replica
from mapping.writer import Writer
from tests.conftest import Figure
from topo import netns
from topo.host import Host
from topo.lab import Lab
from topo.members import Member
from topo.pings import pinging
from topo.ryu_manager import RyuManager
from topo.spec import CONTROL_IP
from topo.waiting import wait_until

BRIDGES = (BR_GUEST, BR_NIC)
SECONDS = float(os.environ.get("LOCKGATE_FAULT_SECONDS", "0"))
GONE_SECONDS = 60 if SECONDS else 5
WITHIN = 60
METRICS_PORT = 9464
METRICS = f"{CONTROL_IP}:{METRICS_PORT}"
DISK = 32 << 20
"""Bytes of the small disk that each member is given."""

FILE = """\
vpcs:
  red: {vni: 5001, subnets: [10.0.0.0/16]}
hosts:
  h1: {vtep: 192.0.2.1}
  h2: {vtep: 192.0.2.2, encap: geneve}
ports:
  a: {vpc: red, host: h1, mac: "02:00:00:00:00:0a", addresses: [10.0.0.10]}
  b: {vpc: red, host: h2, mac: "02:00:00:00:00:0b", addresses: [10.0.0.11]}
"""


class Load:
    """Writes pairs of mappings, one transaction after another, through whichever member answers."""

    def __init__(self, remotes: list[str]) -> None:
        self.acknowledged: set[int] = set()
        self.refused = 0
        self._remotes = remotes
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _write(self) -> None:
        number, turn = 0, 0
        while not self._stop.is_set():
            turn += 1
            places = self._remotes[turn % len(self._remotes) :] + self._remotes[: turn % len(self._remotes)]
            with suppress(MappingError), Writer(places, timeout_ms=3000) as writer:
                while not self._stop.wait(0.05):
                    number += 1
                    writer.transact(pair(number), "load")
                    self.acknowledged.add(number)
            self.refused += 1


def pair(number: int) -> list[dict[str, Any]]:
    """Two addresses more for the port of guest b."""
    where = {"op": "insert", "table": "Mapping"}
    refs = {"vpc": ["uuid", IDS["red"]], "port": ["uuid", IDS["b"]]}
    return [{**where, "row": {"ip": f"10.0.{block + number // 250}.{number % 250 + 1}", **refs}} for block in (1, 128)]


IDS: dict[str, str] = {}


class Faults:
    """What can be done to the members and the controllers, each undone before it returns."""

    def __init__(self, lab: Lab, controllers: dict[str, RyuManager], chosen: random.Random) -> None:
        assert lab.control.members
        self._chosen = chosen
        self._controllers = controllers
        self.lab = lab
        self.members = lab.control.members.all

    def leader(self) -> Member:
        """The one that leads. One that was paused or cut off may say so, too, until it hears of the other.

        Who joins by such a one is told that he is in, and is not (docs/control-network.md).
        """
        found: list[Member] = []

        def there() -> bool:
            found[:] = [each for each in self.members if each.runs and maintenance.look(each.remote).leader]
            return len(found) == 1

        wait_until(there, WITHIN, "a leader, and no other")
        return found[0]

    def follower(self) -> Member:
        leader = self.leader()
        return self._chosen.choice([each for each in self.members if each is not leader])

    def whole(self) -> None:
        def joined() -> bool:
            seen = [maintenance.look(each.remote) for each in self.members]
            return all(each.connected and not each.problem for each in seen)

        wait_until(joined, WITHIN, "all members to be together")

    def kill_leader(self) -> None:
        self._again(self.leader())

    def kill_follower(self) -> None:
        self._again(self.follower())

    def _again(self, member: Member) -> None:
        member.kill()
        time.sleep(1)  # for how long it is gone
        member.start()

    def pause_leader(self) -> None:
        leader = self.leader()
        leader.signal(signal.SIGSTOP)
        time.sleep(10 if SECONDS else 3)
        leader.signal(signal.SIGCONT)

    def partition_leader(self) -> None:
        self._cut_off(self.leader())

    def partition_follower(self) -> None:
        self._cut_off(self.follower())

    def _cut_off(self, member: Member) -> None:
        member.plug(into=False)
        time.sleep(5)
        member.plug(into=True)

    def fill_disk(self) -> None:
        member = self.follower()
        full = member.folder / "full"
        with full.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))
        time.sleep(3)
        full.unlink()
        # Open vSwitch 3.1 leaves out what it cannot write, and writes on when there is room: the file may have a hole.
        member.kill()
        self._join_again_if_damaged(member)

    def corrupt_file(self) -> None:
        member = self.follower()
        member.kill()
        file = member.folder / "mapping.db"
        content = bytearray(file.read_bytes())
        place = content.index(b"\n", len(content) // 2) + 200
        content[place : place + 64] = bytes(64)
        file.write_bytes(bytes(content))
        self._join_again_if_damaged(member)
        assert list(member.folder.glob("mapping.db.damaged-*")), "it was served as it was"

    def _join_again_if_damaged(self, member: Member) -> None:
        """As `lockgate mapping serve --join` does: nobody else has to do anything."""
        member.start(self.leader().raft)
        wait_until(lambda: cluster.settle(member.folder), WITHIN, "the member to be the only one at its place")

    def restart_all(self) -> None:
        for member in self.members:
            member.kill(signal.SIGTERM)
        for member in self.members:
            member.start()

    def kill_controller(self) -> None:
        """The load goes on meanwhile, and no flow of its host changes until there is another."""
        name = self._chosen.choice(sorted(self._controllers))
        controller, host = self._controllers[name], self.lab.hosts[name]
        controller.kill()
        before = installed(host)
        served = controller.log.read_text().count(SERVING)
        time.sleep(1)  # for how long it is gone
        assert installed(host) == before
        controller.start()
        serves = served + len(BRIDGES)
        wait_until(lambda: controller.log.read_text().count(SERVING) >= serves, WITHIN, f"{name} to be served")


SERVING = ": serving datapath "
SHORT = ("kill_leader", "partition_leader", "corrupt_file", "restart_all")
ALL = (*SHORT, "kill_follower", "pause_leader", "partition_follower", "fill_disk", "kill_controller")


@pytest.fixture
def cluster_lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    monkeypatch.setenv("LOCKGATE_METRICS", METRICS)
    file = tmp_path / "mapping.yaml"
    file.write_text(FILE)
    lab = Lab(f"t{os.getpid()}f", secure=True)
    assert lab.control.members
    mounted: list[Path] = []
    create = lab.control.members.create

    def create_on_small_disks() -> None:
        create()
        for member in lab.control.members.all if lab.control.members else ():
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(member.folder)], check=True)
            mounted.append(member.folder)

    lab.control.members.create = create_on_small_disks  # type: ignore[method-assign]
    try:
        lab.up(file)
        yield lab
    finally:
        for member in lab.control.members.all:
            member.kill()
        for folder in mounted:
            subprocess.run(["umount", str(folder)], check=True)
        lab.down()


@pytest.fixture
def controllers(cluster_lab: Lab) -> Iterator[dict[str, RyuManager]]:
    """Host -> its controller. The second host is given one of its own."""
    control = cluster_lab.control
    elsewhere = {"LOCKGATE_METRICS": f"{CONTROL_IP}:{METRICS_PORT + 1}"}
    second = RyuManager(control.namespace, control.folder, control.members, 2, elsewhere)
    try:
        second.start()
        for bridge in BRIDGES:
            cluster_lab.hosts["h2"].vsctl("set", "Controller", bridge, f'target="{second.target}"')
        wait_until(lambda: second.log.read_text().count(SERVING) == len(BRIDGES), WITHIN, "h2 to be served by its own")
        yield {"h1": control.controller, "h2": second}
    finally:
        second.kill()


def test_nothing_that_was_acknowledged_is_lost(
    cluster_lab: Lab, controllers: dict[str, RyuManager], figure: Figure
) -> None:
    seed = int(os.environ.get("LOCKGATE_FAULT_SEED") or random.randrange(1 << 32))
    figure("LOCKGATE_FAULT_SEED", seed, "")  # said also if it fails
    chosen = random.Random(seed)
    lab, faults = cluster_lab, Faults(cluster_lab, controllers, chosen)
    remotes = lab.control.remote.split(",")
    with Writer(remotes) as writer:
        tables = writer.read()
        IDS["red"], IDS["b"] = (
            next(uuid for uuid, row in tables[table].items() if row["name"] == name)
            for table, name in (("Vpc", "red"), ("Port", "b"))
        )
    done: list[str] = []
    with pinging(lab.guest("a"), lab.guest("b").ip) as pings:
        with Load(remotes) as load:
            deadline = time.monotonic() + SECONDS
            todo = chosen.sample(ALL, len(ALL)) if SECONDS else list(SHORT)
            while todo or time.monotonic() < deadline:
                name = todo.pop(0) if todo else chosen.choice(ALL)
                before = len(load.acknowledged)
                act: Callable[[], None] = getattr(faults, name)
                act()
                faults.whole()
                wait_until(lambda: len(load.acknowledged) > before + 5, WITHIN, f"writes after {name}")  # noqa: B023
                done.append(name)
        lab.control.wait_applied(WITHIN)
        assert_state(lab, load)
        all_gone(lab, faults)
    figure("faults", len(done), ", ".join(done))
    figure("transactions acknowledged", len(load.acknowledged), f"; the writer connected again {load.refused} times")
    assert pings.lost == 0, pings


def all_gone(lab: Lab, faults: Faults) -> None:
    """No member is left for a while: the last flows stay, it is said, and nobody has to do anything afterwards."""
    before = installed(*lab.hosts.values())
    log = lab.control.controller.log
    said_before = log.read_text().count(" lost (")
    for member in faults.members:
        member.kill()
    wait_until(lambda: log.read_text().count(" lost (") > said_before, WITHIN, "the controller to say so")
    argv = [sys.executable, "-m", "mapping.cli", "--db", lab.control.remote, "status"]
    said = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert said.returncode == 1
    assert said.stderr.startswith("no mapping database at")
    time.sleep(GONE_SECONDS)
    assert metric(lab, "lockgate_database_current") == 0
    assert metric(lab, "lockgate_database_lag_seconds") > GONE_SECONDS / 2
    assert metric(lab, "lockgate_in_sync") == 1
    assert installed(*lab.hosts.values()) == before
    for member in faults.members:
        member.start()
    faults.whole()
    with Writer(lab.control.remote.split(",")) as writer:
        writer.transact([], "after all were gone")
    lab.control.wait_applied(WITHIN)
    assert metric(lab, "lockgate_database_current") == 1


def metric(lab: Lab, name: str) -> float:
    """What the controller tells Prometheus now."""
    get = f"import urllib.request as r; print(r.urlopen('http://{METRICS}/metrics', timeout=20).read().decode())"
    said = netns.run(lab.control.namespace, [sys.executable, "-c", get])
    return float(next(line.split()[1] for line in said.splitlines() if line.startswith(f"{name} ")))


def assert_state(lab: Lab, load: Load) -> None:
    """All that was acknowledged is there, nothing is half there, and switches hold what the pure function says."""
    replica = Replica(lab.control.remote.split(","))
    with closing(replica.session):
        assert replica.wait_until(lambda: replica.current, WITHIN * 1000)
    snapshot = replica.snapshot
    there = {mapping.ip for mapping in snapshot.mappings.values()}
    for number in range(1, max(load.acknowledged) + 50):
        found = [operation["row"]["ip"] in there for operation in pair(number)]
        assert len(set(found)) == 1, f"transaction {number} is half there"
        assert found[0] or number not in load.acknowledged, f"transaction {number} was acknowledged, and is lost"
    for host in lab.hosts.values():
        row = next(row for row in snapshot.hosts.values() if row.name == host.name)
        for bridge in BRIDGES:
            lines = host.ofctl("show", bridge).splitlines()
            names = [line.split("(")[1].split(")")[0] for line in lines if "addr:" in line]
            ports = {name: int(host.vsctl("get", "Interface", name, "ofport")) for name in names}
            wanted = set(desired(bridge, view(snapshot, row), ports))
            wait_until(partial(holds, host, bridge, wanted), WITHIN, f"{host.name} {bridge} to hold what is desired")


def holds(host: Host, bridge: str, wanted: set[int]) -> bool:
    return cookies(host, bridge) == wanted


def installed(*hosts: Host) -> dict[tuple[str, str], set[int]]:
    """Host and bridge -> the cookies of the flows there."""
    return {(host.name, bridge): cookies(host, bridge) for host in hosts for bridge in BRIDGES}


def cookies(host: Host, bridge: str) -> set[int]:
    dump = host.ofctl("dump-flows", bridge, "--no-stats")
    return {int(line.split("cookie=")[1].split(",")[0], 16) for line in dump.splitlines() if "cookie=" in line}
