"""Each kind of packet that the controller gets, flooded alone: its sender's meter bounds it, and another is heard.

db (10.0.0.12, fd00::12, VPC blue, two subnets of each family) and spy (VPC red) are on host-b; db floods.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from functools import partial

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from flows.guest_bridge import PUNTED
from flows.meter import MeterKind, meter_id
from tests.build import DB, HOST_A, HOST_B, MAPPINGS, RED, SPY, WEB, snapshot
from tests.ovs.conftest import World, running
from tests.ovs.test_dhcp import answers, request, rs, solicit
from tests.ovs.test_forwarding import ROUTER
from tests.ovs.test_routing import TWO_SUBNETS
from topo.waiting import wait_until

AT_ONCE, TIMES = 80, 3
"""A dummy interface has room for 100 frames."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    rows = snapshot(HOST_A, HOST_B, TWO_SUBNETS, RED, WEB, DB, SPY, MAPPINGS)
    with running(tmp_path_factory.mktemp("lg"), rows) as world:
        yield world


def udp(dst: str, ttl: int = 64, size: int = 8) -> Packet:
    ip = IPv6(src="fd00::12", dst=dst, hlim=ttl) if ":" in dst else IP(src="10.0.0.12", dst=dst, ttl=ttl)
    return Ether(src=DB.mac, dst=ROUTER) / ip / UDP(sport=5, dport=6) / Raw(bytes(size))


def of_db(frame: Packet) -> Packet:
    frame.src = DB.mac
    return frame


PUNTS = {
    "DHCP": ("DHCP", request("discover", mac=DB.mac)),
    "DHCP, renewed": ("DHCP", request("request", "10.0.0.12", "10.0.0.1", DB.mac)),
    "DHCPv6": ("DHCP", of_db(solicit())),
    "router solicitation": ("DHCP", of_db(rs())),
    "UDP to the router": ("ROUTER", udp("10.0.0.1")),
    "UDP to the router over IPv6": ("ROUTER", udp("fd00::1")),
    "no hop left": ("TTL_EXPIRED", udp("10.0.1.99", ttl=1)),
    "no hop left over IPv6": ("TTL_EXPIRED", udp("fd00:0:0:1::99", ttl=1)),
    "too big": ("FIT", udp("10.0.0.11", size=2000)),
    "too big over IPv6": ("FIT", udp("fd00::11", size=2000)),
}
"""Kind -> the table that hands it over, and such a frame of db's."""


def test_these_are_all_tables_that_hand_over(world: World) -> None:
    found = re.findall(r'table="?(\w+)"?,.*CONTROLLER', world.b.ovs.ofctl("dump-flows", "br-guest"))
    assert {table for table, _ in PUNTS.values()} == set(found)


def metered(world: World, guest: str) -> tuple[int, int]:
    """How many packets the guest's meter has seen, and dropped."""
    meter = meter_id(world.b.ofport(guest), MeterKind.PUNT)
    said = world.b.ovs.ofctl("meter-stats", "br-guest", f"meter={meter}")
    ((seen, dropped),) = re.findall(r"packet_in_count:(\d+)[^:]*(?:.|\n)*?packet_count:(\d+)", said)
    return int(seen), int(dropped)


def has_met(world: World, count: int) -> bool:
    return metered(world, "db")[0] == count


@pytest.mark.parametrize("kind", PUNTS)
def test_a_flood_of_one_kind_reaches_the_controller_as_the_meter_lets_and_another_guest_is_served(
    world: World, kind: str
) -> None:
    _, frame = PUNTS[kind]
    seen, dropped = metered(world, "db")
    told, served = len(world.b.sent("db")), answers(world.b, "spy", 8)
    started = time.monotonic()
    for sent in range(AT_ONCE, TIMES * AT_ONCE + 1, AT_ONCE):
        world.b.ovs.appctl("netdev-dummy/receive", "db", *[bytes(frame).hex()] * AT_ONCE)
        wait_until(partial(has_met, world, seen + sent), 10, "all to have met the meter")
    took = time.monotonic() - started
    world.b.receive("spy", bytes(request("discover", mac=SPY.mac, xid=8)))
    passed = TIMES * AT_ONCE - (metered(world, "db")[1] - dropped)
    assert 0 < passed <= PUNTED.burst + PUNTED.rate * took + 1
    wait_until(lambda: answers(world.b, "spy", 8) > served, 10, "the other guest to be answered")
    assert len(world.b.sent("db")) - told <= passed
