"""A port that moves live from host-b to host-a, step by step: db (10.0.0.12), plugged on both; web stays on host-a.

Frames are put in as the other host would have sent them before it knew.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet

from flows.pipeline import Reason
from mapping.model import Encap, Host
from tests.build import BLUE, DB, HOST_A, HOST_B, MAPPINGS, RED, SPY, TWO_HOSTS, WEB, snapshot
from tests.ovs.conftest import World
from tests.ovs.dummy import vtep_mac
from tests.ovs.test_forwarding import outer
from topo import bridges
from topo.waiting import wait_until

READY = replace(DB, moving_to=HOST_A.uuid)
TURNED = replace(DB, host=HOST_A.uuid, previous_host=HOST_B.uuid)
DONE = replace(DB, host=HOST_A.uuid)


@pytest.fixture(scope="module")
def both(world: World) -> Iterator[World]:
    world.a.plug("db")
    yield world
    bridges.unplug(world.a.ovs.vsctl, "db")
    world.write(TWO_HOSTS)
    world.assert_as_desired()


def step(world: World, port: object, encap: Encap = Encap.VXLAN) -> None:
    host_a: Host = replace(HOST_A, encap=encap)
    world.write(snapshot(host_a, HOST_B, BLUE, RED, WEB, port, SPY, MAPPINGS))  # type: ignore[arg-type]
    world.assert_as_desired()


def to_db(mark: bytes) -> Packet:
    return Ether(src=WEB.mac, dst=DB.mac) / IP(src="10.0.0.11", dst="10.0.0.12") / UDP(sport=7, dport=7) / mark


def from_db(mark: bytes) -> bytes:
    """As host-b sends what comes from db, by VXLAN, which host-a wants."""
    head = Ether(src=vtep_mac(HOST_B), dst=vtep_mac(HOST_A)) / IP(src="192.0.2.2", dst="192.0.2.1", ttl=64)
    inner = Ether(src=DB.mac, dst=WEB.mac) / IP(src="10.0.0.12", dst="10.0.0.11") / UDP(sport=7, dport=7) / mark
    return bytes(head / UDP(sport=50000, dport=4789) / VXLAN(vni=BLUE.vni) / inner)


def arrives(world: World, mark: bytes) -> str:
    """The device that a frame with this mark comes out of, in the end."""
    devices = {"a:web": (world.a, "web"), "a:db": (world.a, "db"), "b:db": (world.b, "db")}

    def where() -> list[str]:
        return [name for name, (host, device) in devices.items() if any(mark in each for each in host.sent(device))]

    (found,) = wait_until(where, 10, f"{mark!r} to arrive")
    return found


def test_before_it_turns_packets_go_to_the_old_host_and_are_taken_from_both(both: World) -> None:
    step(both, READY)
    # Guests of host-a see it there already.
    both.a.receive("web", bytes(to_db(b"to ready, from a")))
    assert arrives(both, b"to ready, from a") == "a:db"
    both.b.receive("uplink", bytes(outer(to_db(b"to ready, from elsewhere"))))
    assert arrives(both, b"to ready, from elsewhere") == "b:db"
    both.a.receive("uplink", from_db(b"from ready, by b"))
    assert arrives(both, b"from ready, by b") == "a:web"
    both.a.receive("db", bytes(Ether(src=DB.mac, dst=WEB.mac) / IP(src="10.0.0.12", dst="10.0.0.11") / b"by a"))
    assert arrives(both, b"by a") == "a:web"


@pytest.mark.parametrize("encap", [Encap.VXLAN, Encap.GENEVE, Encap.GRE])
def test_once_it_turned_the_old_host_sends_on_what_still_arrives(both: World, encap: Encap) -> None:
    """Host-b wants Geneve: what it sends on to host-a leaves by the tunnel that it came by, or by another."""
    step(both, TURNED, encap)
    mark = b"late, to " + encap.value.encode()
    both.b.receive("uplink", bytes(outer(to_db(mark))))
    assert arrives(both, mark) == "a:db"


def test_what_was_under_way_from_the_old_host_is_still_taken(both: World) -> None:
    step(both, TURNED)
    both.a.receive("uplink", from_db(b"late, from db"))
    assert arrives(both, b"late, from db") == "a:web"


def test_when_it_is_done_the_old_host_knows_nothing(both: World) -> None:
    step(both, DONE)
    before = both.drops()
    both.b.receive("uplink", bytes(outer(to_db(b"too late"))))
    both.a.receive("uplink", from_db(b"far too late"))

    def dropped() -> bool:
        counted = both.drops() - before
        return counted[Reason.SOURCE_NOT_MAPPED.label] + counted[Reason.UNKNOWN_VTEP.label] >= 2

    wait_until(dropped, 10, "both to be dropped")
    both.a.receive("web", bytes(to_db(b"after the move")))
    assert arrives(both, b"after the move") == "a:db"
