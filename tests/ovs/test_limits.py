"""A port sends and receives what its limits say, by meters of a real switch.

web (10.0.0.11, VPC blue) is on host-a, db (10.0.0.12, VPC blue) on host-b.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw

from flows.pipeline import BR_GUEST, BR_NIC
from mapping.model import UNLIMITED, Limits, Port
from tests.build import BLUE, DB, HOST_A, HOST_B, MAPPINGS, RED, SPY, TWO_HOSTS, WEB, snapshot
from tests.ovs.conftest import World
from topo.waiting import wait_until

MANY = 200
BATCH = 50
"""A dummy interface has room for 100 frames."""
AT_ONCE = 20
"""What a meter of 1 packet/s lets through at once."""

ARP_REQUEST = Ether(src=WEB.mac, dst="ff:ff:ff:ff:ff:ff") / ARP(hwsrc=WEB.mac, psrc="10.0.0.11", pdst="10.0.0.12")


def limit(world: World, web: Limits = UNLIMITED, db: Limits = UNLIMITED) -> None:
    ports: list[Port] = [replace(WEB, limits=web), replace(DB, limits=db), SPY]
    world.write(snapshot(HOST_A, HOST_B, BLUE, RED, *ports, MAPPINGS))


@pytest.fixture
def unlimited(world: World) -> Iterator[World]:
    yield world
    world.write(TWO_HOSTS)


def to_db(mark: bytes) -> Packet:
    return Ether(src=WEB.mac, dst=DB.mac) / IP(src="10.0.0.11", dst="10.0.0.12") / UDP(sport=7, dport=7) / Raw(mark)


def flood(world: World, frame: Packet) -> None:
    """Have web send this many times, and wait until all of it is done with."""
    for _ in range(MANY // BATCH):
        world.a.receive("web", *[bytes(frame)] * BATCH)
    end = b"end %d" % len(world.a.sent("web"))
    world.b.receive("db", bytes(Ether(src=DB.mac, dst=WEB.mac) / IP(src="10.0.0.12", dst="10.0.0.11") / UDP() / end))
    wait_until(lambda: any(end in frame for frame in world.a.sent("web")), 10, "a packet the other way")


def passed(world: World, mark: bytes) -> int:
    """How many of many equal packets, that web sends to db at once, arrive."""
    flood(world, to_db(mark))
    found = 0

    def no_more() -> bool:
        nonlocal found
        before, found = found, sum(mark in frame for frame in world.b.sent("db"))
        return found == before > 0

    wait_until(no_more, 10, "the packets to arrive")
    return found


@pytest.mark.parametrize("limits", [(Limits(from_guest_pps=1), UNLIMITED), (UNLIMITED, Limits(to_guest_pps=1))])
def test_packets_beyond_the_limit_are_dropped_both_ways(unlimited: World, limits: tuple[Limits, Limits]) -> None:
    assert passed(unlimited, b"unlimited" + repr(limits).encode()) == MANY
    limit(unlimited, *limits)
    unlimited.assert_as_desired()
    assert AT_ONCE <= passed(unlimited, b"few" + repr(limits).encode()) < MANY / 2
    limit(unlimited)
    unlimited.assert_as_desired()
    assert passed(unlimited, b"again" + repr(limits).encode()) == MANY


@pytest.mark.parametrize("limits", [(Limits(from_guest_kbps=1), UNLIMITED), (UNLIMITED, Limits(to_guest_kbps=1))])
def test_bits_beyond_the_limit_are_dropped_both_ways(unlimited: World, limits: tuple[Limits, Limits]) -> None:
    limit(unlimited, *limits)
    # 1100 kbit at once: 98 packets of 1,400 bytes.
    assert 90 <= passed(unlimited, (b"kbps" + repr(limits).encode()).ljust(1358)) < 120


def test_what_is_answered_on_the_bridge_counts_as_well(unlimited: World) -> None:
    limit(unlimited, Limits(from_guest_pps=1))
    before = len(unlimited.a.sent("web"))
    flood(unlimited, ARP_REQUEST)
    assert AT_ONCE <= len(unlimited.a.sent("web")) - before < MANY / 2


def test_a_limit_that_changes_is_another_meter_and_no_other_flow(unlimited: World) -> None:
    limit(unlimited, Limits(5000, 6000, 700, 800))
    unlimited.assert_as_desired()
    meters, flows = unlimited.a.meters(BR_GUEST), installed(unlimited)
    limit(unlimited, Limits(9000, 6000, 700, 800))
    unlimited.assert_as_desired()
    changed = unlimited.a.meters(BR_GUEST).items() ^ meters.items()
    assert sorted((meter.unit, meter.rate) for _, meter in changed) == [("kbps", 5000), ("kbps", 9000)]
    assert installed(unlimited) == flows


def installed(world: World) -> set[str]:
    """Every flow of host-a, with how many packets it has seen."""
    dumps = [world.a.ovs.ofctl("dump-flows", bridge) for bridge in (BR_GUEST, BR_NIC)]
    return set(re.findall(r"cookie=0x[0-9a-f]+", "".join(dumps)))
