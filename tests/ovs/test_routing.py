"""Between the subnets of a VPC, to its router, and of a size that the substrate does not carry: byte for byte.

web (10.0.0.11, fd00::11) is on host-a; db (10.0.0.12, 10.0.1.12, fd00::12, fd00:0:0:1::12) on host-b; one VPC, two
subnets of each family.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_network

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6PacketTooBig,
    ICMPv6TimeExceeded,
    IPv6,
)
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from tests.build import BLUE, DB, HOST_A, HOST_B, MAPPINGS, RED, SPY, WEB, mapping, snapshot
from tests.ovs.conftest import World, running
from tests.ovs.test_forwarding import ROUTER, Wires
from topo.waiting import wait_until

SUBNETS = ("10.0.0.0/24", "10.0.1.0/24", "fd00::/64", "fd00:0:0:1::/64")
TWO_SUBNETS = replace(BLUE, subnets=tuple(map(ip_network, SUBNETS)))
ALSO = [mapping("10.0.1.12", DB), mapping("fd00:0:0:1::12", DB)]
MTU = 1450
TTLS = range(256)
FEW = 28
"""Cached flows of one pair of addresses for all TTLs that there are."""

UP, DOWN = (WEB.mac, ROUTER), (ROUTER, WEB.mac)
FAMILIES = {"IPv4": ("10.0.0.11", "10.0.1.12", "10.0.0.1"), "IPv6": ("fd00::11", "fd00:0:0:1::12", "fd00::1")}
"""Family -> web, db on the other subnet, the router."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    rows = snapshot(HOST_A, HOST_B, TWO_SUBNETS, RED, WEB, DB, SPY, [*MAPPINGS, *ALSO])
    with running(tmp_path_factory.mktemp("lg"), rows) as world:
        yield world


@pytest.fixture
def wires(world: World) -> Wires:
    return Wires(world)


def frame(src: str, dst: str, ttl: int, what: Packet, macs: tuple[str, str] = UP) -> Packet:
    ip = IPv6(src=src, dst=dst, hlim=ttl, tc=8) if ":" in src else IP(src=src, dst=dst, ttl=ttl, tos=8, id=77)
    return Ether(src=macs[0], dst=macs[1]) / ip / what


def datagram(size: int = 40) -> Packet:
    return UDP(sport=5, dport=6) / Raw(bytes(size))


def answers(wires: Wires, sent: Packet) -> list[bytes]:
    """What web is told of what it has sent, once the controller has said it. Nobody else sees anything."""
    before = len(wires.world.a.sent("web"))
    wires.world.a.receive("web", bytes(sent))
    wait_until(lambda: len(wires.world.a.sent("web")) > before, 10, "an answer")
    return wires.world.a.sent("web")[before:]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_ttl_is_one_less_on_another_subnet_and_takes_few_cached_flows(world: World, family: str) -> None:
    web, db, _ = FAMILIES[family]
    world.a.ovs.appctl("revalidator/purge")
    before = len(world.b.sent("db"))
    expected = []
    for ttl in TTLS[2:]:
        sent = frame(web, db, ttl, datagram() / Raw(bytes([ttl])), (WEB.mac, DB.mac if ttl % 2 else ROUTER))
        world.a.receive("web", bytes(sent))
        expected.append(bytes(frame(web, db, ttl - 1, datagram() / Raw(bytes([ttl])), (ROUTER, DB.mac))))
    wait_until(lambda: len(world.b.sent("db")) >= before + len(expected), 10, "all to arrive")
    assert world.b.sent("db")[before:] == expected
    dumped = world.a.ovs.appctl("dpctl/dump-flows", "--names")
    kind = "eth_type(0x0800)" if family == "IPv4" else "eth_type(0x86dd)"
    cached = [line for line in dumped.splitlines() if "in_port(web)" in line and kind in line]
    assert len(cached) <= FEW, dumped
    masks = {re.search(r"(?:ttl|hlimit)=\w+(/\w+)?", line)[1] for line in cached}  # type: ignore[index]
    assert masks <= {"/0x7", "/0x3f", None}


@pytest.mark.parametrize(("src", "dst"), [("10.0.0.11", "10.0.0.12"), ("fd00::11", "fd00::12")])
def test_within_a_subnet_nothing_is_routed(wires: Wires, src: str, dst: str) -> None:
    sent = frame(src, dst, 1, datagram())
    assert wires.after(sent, "web")["db"] == [bytes(frame(src, dst, 1, datagram(), (WEB.mac, DB.mac)))]


@pytest.mark.parametrize("ttl", [0, 1])
def test_a_packet_without_a_hop_left_is_told_of(wires: Wires, ttl: int) -> None:
    before = wires.world.drops()
    for web, db, router in FAMILIES.values():
        sent = frame(web, db, ttl, datagram(2000 if ttl else 40))
        error = ICMPv6TimeExceeded() if ":" in web else ICMP(type=11, code=0)
        assert answers(wires, sent) == [told(router, web, error, sent)]
    assert (wires.world.drops() - before)["ttl_expired"] == 2


def told(router: str, guest: str, error: Packet, about: Packet) -> bytes:
    """An ICMP error as the router sends it."""
    head = Ether(src=ROUTER, dst=WEB.mac)
    if ":" in guest:
        return bytes(head / IPv6(src=router, dst=guest, hlim=64) / error / Raw(bytes(about)[14:][:1232]))
    return bytes(head / IP(src=router, dst=guest, ttl=64, id=0) / error / Raw(bytes(about)[14:][:548]))


@pytest.mark.parametrize(
    ("web", "router"),
    [
        *(("10.0.0.11", router) for router in ("10.0.0.1", "10.0.1.1")),
        *(("fd00::11", router) for router in ("fd00::1", "fd00:0:0:1::1", "fe80::1")),
        ("fe80::5", "fe80::1"),
    ],
)
def test_the_router_answers_pings_on_each_subnet_and_link_and_on_the_spot(wires: Wires, web: str, router: str) -> None:
    six = ":" in router
    ping = ICMPv6EchoRequest(id=5, seq=6, data=b"to and fro") if six else ICMP(id=5, seq=6) / Raw(b"to and fro")
    pong = ICMPv6EchoReply(id=5, seq=6, data=b"to and fro") if six else ICMP(type=0, id=5, seq=6) / Raw(b"to and fro")
    sent, back = frame(web, router, 9, ping), frame(router, web, 9, pong, DOWN)
    assert wires.after(sent, "web") == {"web": [bytes(back)]}


def test_the_router_has_no_port_and_says_so_of_udp_alone(wires: Wires) -> None:
    before = wires.world.drops()
    on_link = ("fe80::5", "", "fe80::1")
    for web, _, router in (*FAMILIES.values(), on_link):
        sent = frame(web, router, 1, datagram())
        error = ICMPv6DestUnreach(code=4) if ":" in web else ICMP(type=3, code=3)
        assert answers(wires, sent) == [told(router, web, error, sent)]
        assert wires.after(frame(web, router, 64, TCP()), "web") == {}
    assert (wires.world.drops() - before)["to_router"] == 6


@pytest.mark.parametrize("same_subnet", [True, False])
def test_what_is_as_large_as_the_mtu_passes_and_one_byte_more_is_told_of(wires: Wires, *, same_subnet: bool) -> None:
    for web, db, router in FAMILIES.values():
        to = db.replace("0:0:1::", ":").replace("0.1.12", "0.0.12") if same_subnet else db
        head = len(frame(web, to, 64, datagram(0))) - 14
        fits, more = (frame(web, to, 64, datagram(MTU - head + extra)) for extra in (0, 1))
        assert [len(frame) for frame in wires.after(fits, "web")["db"]] == [MTU + 14]
        passed = len(wires.world.b.sent("db"))
        error = ICMPv6PacketTooBig(mtu=MTU) if ":" in web else ICMP(type=3, code=4, nexthopmtu=MTU)
        # Told about as it was sent; of IPv4 whether or not it may be fragmented.
        about = more if same_subnet else frame(web, to, 63, datagram(MTU - head + 1))
        assert answers(wires, more) == [told(router, web, error, about)]
        assert len(wires.world.b.sent("db")) == passed


def carry(world: World, mtu: int) -> None:
    """Say what the substrate of host-b carries."""
    update = {"op": "update", "table": "Host", "where": [["name", "==", "host-b"]], "row": {"substrate_mtu": mtu}}
    world.database.transact([update])
    world.wait_applied()


def test_a_host_that_carries_less_lowers_the_mtu_at_once(world: World, wires: Wires) -> None:
    try:
        carry(world, 1400)
        sent = frame("10.0.0.11", "10.0.0.12", 64, datagram(1323))
        assert answers(wires, sent) == [told("10.0.0.1", "10.0.0.11", ICMP(type=3, code=4, nexthopmtu=1350), sent)]
        world.assert_as_desired()
    finally:
        carry(world, 1500)


def test_a_flood_of_what_the_controller_answers_is_cut_by_the_ports_meter(world: World) -> None:
    before = len(world.a.sent("web"))
    expired, large = frame("10.0.0.11", "10.0.1.12", 1, datagram()), frame("fd00::11", "fd00::12", 9, datagram(3000))
    # All at once: the meter lets more through as time passes.
    flood = [bytes(each).hex() for each in (expired, large)] * 50
    world.a.ovs.appctl("netdev-dummy/receive", "web", *flood)
    world.a.receive("web", bytes(frame("10.0.0.11", "10.0.0.1", 9, ICMP(id=99))))
    pong = bytes(frame("10.0.0.1", "10.0.0.11", 9, ICMP(type=0, id=99), DOWN))
    wait_until(lambda: pong in world.a.sent("web"), 10, "the router, which is not metered")
    told_of = len(world.a.sent("web")) - before - 1
    assert told_of < 80
    meters = world.a.ovs.ofctl("meter-stats", "br-guest", "-O", "OpenFlow15")
    (cut,) = re.findall(r"band.*\n?.*packet_count:(\d+)", meters)
    assert int(cut) > 20
