"""What each port sends, receives and has refused: counted by the switches, summed up by the controller, shown."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.l2 import Ether

from mapping import rows
from mapping.model import UNLIMITED, Limits
from mapping.writer import Writer
from tests.build import DB, SPY, WEB
from tests.ovs.conftest import World
from tests.ovs.test_cli import Lockgate
from tests.ovs.test_limits import MANY, limit, passed, to_db
from topo import bridges
from topo.waiting import wait_until

ROUTER = "0a:00:5e:00:00:01"
PING = bytes(Ether(src=WEB.mac, dst=ROUTER) / IP(src="10.0.0.11", dst="10.0.0.12") / ICMP() / b"counted")
SPOOFED = bytes(Ether(src=WEB.mac, dst=ROUTER) / IP(src="10.0.0.66", dst="10.0.0.12") / ICMP())
UNMAPPED = bytes(Ether(src=WEB.mac, dst=ROUTER) / IP(src="10.0.0.11", dst="10.0.0.99") / ICMP() / b"far")
SPIED = bytes(Ether(src=SPY.mac, dst=ROUTER) / IP(src="10.0.0.12", dst="10.0.0.99") / ICMP())

# The counters of ports are reported every ten seconds, and read every two.
REPORTED = 60


@pytest.fixture
def lockgate(world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Lockgate:
    monkeypatch.setenv("LOCKGATE_DB", world.database.remote)
    return Lockgate(monkeypatch, capsys, world.database.remote)


def traffic(lockgate: Lockgate, port: str) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = lockgate("--json", "port", "show", port).json["traffic"]
    return found


def eventually(lockgate: Lockgate, port: str, right: Callable[[dict[str, Any]], bool]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}

    def is_right() -> bool:
        nonlocal found
        found = traffic(lockgate, port)
        return right(found)

    wait_until(is_right, REPORTED, f"the counters of {port}")
    return found


def received(frames: list[bytes]) -> dict[str, int]:
    return {"packets": len(frames), "bytes": sum(map(len, frames))}


def test_packets_and_bytes_by_port_and_by_reason(lockgate: Lockgate, world: World) -> None:
    before = world.drops()
    for frame, count in ((PING, 5), (SPOOFED, 3), (UNMAPPED, 2)):
        for _ in range(count):
            world.a.receive("web", frame)
    world.b.receive("spy", SPIED)
    caused = world.drops() - before
    assert (caused["spoofed_ip"], caused["no_mapping"]) == (3, 3)

    # A report may come while frames are still on their way: what is waited for is the whole.
    wanted = {
        "spoofed_ip": {"packets": 3, "bytes": 3 * len(SPOOFED)},
        "no_mapping": {"packets": 2, "bytes": 2 * len(UNMAPPED)},
        "from_guest": {"packets": 10, "bytes": 5 * len(PING) + 3 * len(SPOOFED) + 2 * len(UNMAPPED)},
    }
    eventually(lockgate, "web", lambda found: found.items() >= wanted.items())
    db = eventually(lockgate, "db", lambda found: found.get("to_guest") == received(world.b.all_sent("db")))
    assert received(world.b.sent("db")) == {"packets": 5, "bytes": 5 * len(PING)}
    assert not {"spoofed_ip", "no_mapping"} & db.keys(), "counted for a port that did not send it"
    spy = eventually(lockgate, "spy", lambda found: "no_mapping" in found)
    assert spy["no_mapping"]["packets"] == 1

    shown = lockgate("port", "show", "web").out.splitlines()
    assert shown[0] == f"port web of VPC blue (VNI 5001): {WEB.mac}, 10.0.0.11, fd00::11"
    assert ["dropped,", "spoofed_ip", "3", str(3 * len(SPOOFED))] in [line.split() for line in shown]
    said = r"host-a: (\d+) packet\(s\) at port web of VPC blue dropped as spoofed_ip: a guest sent from an IP address"
    log = world.controller.log
    wait_until(lambda: sum(map(int, re.findall(said, log.read_text()))) == 3, REPORTED, "the log to say all three")


LIMITS = {
    "from_guest_limit": ("web", Limits(from_guest_pps=1), UNLIMITED),
    "to_guest_limit": ("db", UNLIMITED, Limits(to_guest_pps=1)),
}


@pytest.mark.parametrize("reason", LIMITS)
def test_what_is_beyond_a_ports_limit_is_counted_for_it(lockgate: Lockgate, world: World, reason: str) -> None:
    port, *limits = LIMITS[reason]
    assert reason not in traffic(lockgate, port)
    limit(world, *limits)
    try:
        dropped = MANY - passed(world, reason.encode())
        assert dropped > 0
        wanted = {"packets": dropped, "bytes": dropped * len(to_db(reason.encode()))}
        eventually(lockgate, port, lambda found: found.get(reason) == wanted)
        assert reason not in traffic(lockgate, "db" if port == "web" else "web")
    finally:
        limit(world)


def test_sums_do_not_shrink_when_flows_go(lockgate: Lockgate, world: World) -> None:
    """A device that is numbered anew has other flows, which begin at nothing."""

    def total() -> int:
        return world.reported_drops()["spoofed_ip"]

    world.a.receive("web", SPOOFED)
    counted = wait_until(total, REPORTED, "a first count")
    bridges.unplug(world.a.ovs.vsctl, "web")
    unplugged = "host host-a: port(s) web without an interface on br-guest: plug the guest in"
    wait_until(lambda: unplugged in lockgate("status").out, REPORTED, "it to be said")
    world.a.plug("web")
    world.assert_as_desired()
    world.a.receive("web", SPOOFED)
    wait_until(lambda: total() == counted + 1, REPORTED, "the count to go on")
    wait_until(lambda: "without an interface" not in lockgate("status").out, REPORTED, "all to be well")


def test_a_port_that_is_nowhere_or_not_there(lockgate: Lockgate, world: World) -> None:
    lockgate("port", "unbind", "spy")
    try:
        found = lockgate("--json", "port", "show", "spy").json
        assert (found["host"], found["live"], found["traffic"]) == (None, False, {})
        assert "its addresses map nowhere" in lockgate("port", "show", "spy").out
    finally:
        lockgate("port", "move", "spy", "--host", "host-b")
    assert lockgate("port", "show", "sky", code=1).err == "there is no port sky: did you mean 'spy'?\n"
    with Writer([world.database.remote]) as writer:
        ((host,),) = writer.select(("Host", [["name", "==", "host-b"]], ["port_counters"]))
    assert {key.partition("/")[0] for key in rows.as_dict(host["port_counters"])} <= {DB.name, SPY.name}
