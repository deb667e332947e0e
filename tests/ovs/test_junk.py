"""What whoever holds a key can send to the ports that listen, past the handshake: no crash, and others are served.

Without a key nobody gets so far: `test_roles.py`, `test_identity.py`.
"""

from __future__ import annotations

import json
import os
import random
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from flows.pipeline import BR_NIC
from mapping.tls import Identity
from tests.build import HOST_A, HOST_B, TWO_HOSTS
from tests.database import clear, insert
from tests.ovs.conftest import free_port
from tests.ovs.dummy import LOOPBACK, Controller, DummyHost
from tests.ovs.test_maintenance import Served
from tests.site import FRONTS, Site, shake_hands, transact
from topo.waiting import wait_until

MEMORY = 300 << 20
SELECT = {"op": "select", "table": "Host", "where": []}
EVERYTHING: dict[str, object] = {table: [{}] for table in ("Global", "Host", "Vpc", "Port", "Mapping")}


def asked(method: str, params: list[object]) -> bytes:
    return json.dumps({"id": 1, "method": method, "params": params}).encode()


JUNK = {
    "random bytes": random.Random(1).randbytes(1 << 18),
    "truncated JSON": asked("transact", ["Lockgate_Mapping", SELECT])[:-20],
    "nested without end": b'{"a":' * 100_000,
    "not an object": b"[1,2,3]",
    "no method": b'{"id":1}',
    "unknown method": asked("\0junk", [None]),
    "wrong parameters": asked("transact", [{"a": 1}, 5, None]),
    "a million operations": asked("transact", ["Lockgate_Mapping", *[{"op": "abort"}] * 100_000]),
    "HTTP": b"GET / HTTP/1.1\r\n\r\n",
}


class Ports:
    """A member with small fronts, as `lockgate mapping serve` runs them, and a controller with one host."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.site = site = Site(folder, LOOPBACK)
        site.remotes = {role: f"ssl:{LOOPBACK}:{free_port()}" for role in FRONTS}
        words = [word for role in FRONTS for word in (f"--{role}s", self.place(role))]
        # The member's own: Raft among members, relays, and the unix socket.
        self.raft, relays = (f"ssl:{LOOPBACK}:{free_port()}" for _ in range(2))
        site.remotes |= {"relays": relays, "unix": f"unix:{folder}/db/mapping.sock"}
        words += ["--cluster", self.raft, "--listen", self.place("relays"), "--listen", f"p{site.remotes['unix']}"]
        self.served = Served(folder / "db", site.member.folder, *words)
        self.served._env["LOCKGATE_FRONT_BYTES"] = str(MEMORY)
        self.served.start()
        stack.callback(self.served.stop)
        site.socket = site.remotes["unix"]
        transact(site.socket, None, *clear(), {"op": "insert", "table": "Global", "row": {}}, *insert(TWO_HOSTS))
        port, identity = free_port(), site.issue("controller", "c1")
        self.openflow = f"ssl:{LOOPBACK}:{port}"
        self.controller = Controller(folder, site.remotes["controller"], port, free_port(), identity.folder)
        stack.callback(self.controller.stop)
        self.controller.start()
        tls = site.issue("host", "host-a").folder
        self.a = DummyHost(folder / "a", HOST_A, self.openflow, "external_ids:x=y", HOST_B, tls=tls)
        stack.callback(self.a.ovs.stop)
        self.a.start()
        wait_until(lambda: len(self.a.cookies(BR_NIC)) > 5, 30, "host-a to be served")

    def place(self, role: str) -> str:
        _, host, port = self.site.remotes[role].split(":")
        return f"pssl:{port}:{host}"


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ports]:
    with ExitStack() as stack:
        yield Ports(tmp_path_factory.mktemp("junk"), stack)


@pytest.mark.parametrize("place", [*FRONTS, "relays", "raft", "openflow"])
def test_who_has_no_key_takes_nothing(ports: Ports, place: str) -> None:
    """What is no handshake, or a handshake that is never ended, at every port that speaks TLS."""
    remote = {"raft": ports.raft, "openflow": ports.openflow}.get(place) or ports.site.remotes[place]
    _, host, port = remote.split(":")
    hello = bytes.fromhex("16030100f1010000ed0303")
    with ExitStack() as stack:
        for junk in [*JUNK.values(), b"", hello, hello + bytes(1 << 16), *[hello] * 100]:
            connection = stack.enter_context(socket.create_connection((host, int(port)), timeout=5))
            with suppress(OSError):
                connection.sendall(junk)
        # All of them are still there.
        served(ports)
    assert "is started again" not in ports.served.log.read_text()


@pytest.mark.parametrize("place", [*FRONTS, "relays", "raft", "openflow"])
def test_tls_before_1_2_is_refused(ports: Ports, place: str) -> None:
    """With the right certificate, by whoever can still speak it; the same with 1.2 is let in."""
    remote = {"raft": ports.raft, "openflow": ports.openflow}.get(place) or ports.site.remotes[place]
    role = {"raft": "member", "relays": "member", "openflow": "host"}.get(place, place)
    identity = ports.site.issue(role, "host-b")
    shake_hands(remote, identity).close()
    with pytest.warns(DeprecationWarning, match="TLSv1_1"), pytest.raises(OSError, match="ALERT_PROTOCOL_VERSION"):
        shake_hands(remote, identity, ssl.TLSVersion.TLSv1_1)


def served(ports: Ports) -> None:
    """Each role is answered by its front, and a flow that somebody deletes is put back."""
    for role in FRONTS:
        assert transact(ports.site.remotes[role], ports.site.issue(role, "host-a"), SELECT)[0]["rows"]
    wanted = ports.a.cookies(BR_NIC)
    ports.a.ovs.ofctl("del-flows", BR_NIC)
    wait_until(lambda: ports.a.cookies(BR_NIC) == wanted, 30, "the flows of host-a")


@pytest.mark.parametrize("place", ["relays", "raft", "unix"])
def test_junk_at_the_members_own_ports(ports: Ports, place: str) -> None:
    """From another member, or from root on its machine."""
    thief = ports.site.issue("member", "m9")
    before = resident(ports, "mapping")
    for junk in JUNK.values():
        with connect(ports, place, thief) as connection, suppress(OSError):
            connection.sendall(junk)
            connection.settimeout(0.2)
            connection.recv(100)
    with ExitStack() as stack:
        for _ in range(50):
            connection = stack.enter_context(connect(ports, place, thief))
            connection.settimeout(0.2)
            with suppress(OSError):
                connection.sendall(JUNK["truncated JSON"])
        served(ports)
    assert resident(ports, "mapping") < before + (100 << 20)


def connect(ports: Ports, place: str, identity: Identity) -> socket.socket:
    if place != "unix":
        return shake_hands(ports.raft if place == "raft" else ports.site.remotes[place], identity)
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(5)
    connection.connect(ports.site.socket.removeprefix("unix:"))
    return connection


@pytest.mark.parametrize("role", FRONTS)
def test_junk_at_the_database(ports: Ports, role: str) -> None:
    remote, thief = ports.site.remotes[role], ports.site.issue(role, "host-b")
    for name, junk in JUNK.items():
        with shake_hands(remote, thief) as connection, suppress(OSError):
            connection.sendall(junk)
            # The other end answers, or ends it, or waits for more.
            connection.settimeout(0.2)
            connection.recv(100)
        assert transact(remote, ports.site.issue(role, "host-a"), SELECT)[0]["rows"], name
    assert "is started again" not in ports.served.log.read_text()


def test_rows_that_are_too_large_are_refused(ports: Ports) -> None:
    remote, thief = ports.site.remotes["host"], ports.site.issue("host", "host-b")
    for row in (
        {"status": ["map", [["problem", "x" * (10 << 20)]]]},
        {"status": ["map", [[str(number), ""] for number in range(100_000)]]},
        {"drops": ["map", [["x" * 1000, 1]]]},
    ):
        update = {"op": "update", "table": "Host", "where": [["name", "==", "host-b"]], "row": row}
        (result, *_) = transact(remote, thief, update)
        assert result["error"] in ("constraint violation", "syntax error"), result


@pytest.mark.parametrize("place", [*FRONTS, "relays", "unix", "raft"])
def test_readers_that_do_not_read_take_nothing(ports: Ports, place: str) -> None:
    """Each asks for everything many times over and reads none of it: what waits for them is not kept without bound."""
    role = place if place in FRONTS else "member"
    server, thief = place if place in FRONTS else "mapping", ports.site.issue(role, "host-b")
    before = resident(ports, server)
    with ExitStack() as stack:
        for _ in range(5):
            connection = stack.enter_context(connect(ports, place, thief))
            connection.settimeout(1)
            # Raft ends what is no message of its own.
            with suppress(TimeoutError, ConnectionError, ssl.SSLError):
                for number in range(20_000):
                    connection.sendall(asked("monitor_cond", ["Lockgate_Mapping", number, EVERYTHING]))
        served(ports)
        assert resident(ports, server) < before + (100 << 20)


def test_a_switch_that_does_not_read_holds_up_no_other(ports: Ports) -> None:
    """It asks the controller for echoes without end, and reads none."""
    thief = ports.site.issue("host", "host-b")
    echo = bytes([6, 2, 0xFF, 0xF8]) + bytes(0xFFF8 - 4)
    assert ports.controller._process
    pid = ports.controller._process.pid
    before = memory(pid)
    with ExitStack() as stack:
        for _ in range(5):
            connection = stack.enter_context(shake_hands(ports.openflow, thief))
            connection.settimeout(1)
            with suppress(TimeoutError, ConnectionError, ssl.SSLError):
                connection.sendall(bytes([6, 0, 0, 8, 0, 0, 0, 1]))
                for _ in range(2000):
                    connection.sendall(echo)
        served(ports)
        assert memory(pid) < before + (100 << 20)


def resident(ports: Ports, role: str) -> int:
    """Bytes of memory that a front has, or the member."""
    file = str(ports.served.folder / f"{role}.db").encode()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            if file in words and words[0].endswith(b"ovsdb-server"):
                return memory(int(process.name))
    raise AssertionError(role)


def memory(pid: int) -> int:
    """Bytes of memory that a process has."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_message_without_end_ends_one_front_which_comes_back(ports: Ports) -> None:
    remote, thief = ports.site.remotes["host"], ports.site.issue("host", "host-b")
    with shake_hands(remote, thief) as connection, pytest.raises(OSError, match=r"."):  # noqa: PT012
        connection.sendall(b'{"id":1,"method":"')
        for _ in range(2 * MEMORY >> 20):
            connection.sendall(b"a" * (1 << 20))
    # The others, and the member, never noticed.
    assert transact(ports.site.remotes["controller"], ports.site.issue("controller", "c2"), SELECT)[0]["rows"]
    wait_until(lambda: "host: the front has ended" in ports.served.log.read_text(), 20, "it to be said")
    wait_until(lambda: serves(remote, ports.site.issue("host", "host-a")), 20, "the front to be back")


def serves(remote: str, identity: Identity) -> bool:
    with suppress(ConnectionError, TimeoutError):
        return bool(transact(remote, identity, SELECT)[0].get("rows"))
    return False


def test_junk_at_the_openflow_port(ports: Ports) -> None:
    thief = ports.site.issue("host", "host-b")
    hello = bytes([6, 0, 0, 8, 0, 0, 0, 1])
    for junk in (
        JUNK["random bytes"],
        JUNK["HTTP"],
        bytes(1 << 16),
        hello + bytes([6, 6, 0, 0]) * 1000,  # a features reply of no length
        hello + bytes([6, 6, 0xFF, 0xFF]) + bytes(100),  # of which the end never comes
        hello * 10_000,
    ):
        with shake_hands(ports.openflow, thief) as connection, suppress(OSError):
            connection.sendall(junk)
            connection.settimeout(0.2)
            while connection.recv(1000):
                pass
    where = [["name", "==", "host-a"]]
    served(ports)
    (row,) = transact(ports.site.socket, None, {**SELECT, "where": where})
    assert dict(row["rows"][0]["status"][1])["nic"] == "connected"
