"""What security groups let pass, packet by packet, through two real switches and their connection trackers.

web (10.0.0.11, on host-a) has group front, db (10.0.0.12, on host-b) has group back. UDP port 7 is open everywhere, for
the marks that tell that a frame has had its time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPerror, UDPerror, fragment
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from mapping.model import Snapshot
from tests.build import BLUE, DB, RED, SPY, TWO_HOSTS, WEB, group, having
from tests.ovs.conftest import World
from tests.ovs.test_forwarding import ROUTER, Wires, assert_counted_once

MARKS = "to_guest udp 7 from any"
FRONT = group("front", BLUE, MARKS)
BACK = [MARKS, "to_guest tcp 443 from group front", "to_guest udp 8000-8100 from 10.0.0.8/29"]


def world_with(*back: str, stateless: bool = False, front: bool = True) -> Snapshot:
    groups = [group("back", BLUE, *back, stateless=stateless), *([FRONT] if front else [])]
    ports = [having(WEB, FRONT) if front else WEB, having(DB, groups[0])]
    kept = {uuid: port for uuid, port in TWO_HOSTS.ports.items() if uuid not in (WEB.uuid, DB.uuid)}
    ports_now = {**kept, **{port.uuid: port for port in ports}}
    return replace(TWO_HOSTS, ports=ports_now, groups={each.uuid: each for each in groups})


@pytest.fixture(scope="module")
def wires(world: World) -> Iterator[Wires]:
    yield Wires(world)
    world.write(TWO_HOSTS)


def to_db(layer: Packet) -> Packet:
    return Ether(src=WEB.mac, dst=ROUTER) / IP(src="10.0.0.11", dst="10.0.0.12") / layer / Raw(b"x" * 20)


def to_web(layer: Packet) -> Packet:
    return Ether(src=DB.mac, dst=ROUTER) / IP(src="10.0.0.12", dst="10.0.0.11") / layer / Raw(b"x" * 20)


def tcp(source: int, target: int, flags: str) -> Packet:
    return TCP(sport=source, dport=target, flags=flags, seq=100, ack=0 if flags == "S" else 101)


def assert_arrives(wires: Wires, frame: Packet, at: str) -> None:
    left = wires.after(frame, "web" if at == "db" else "db")
    assert set(left) == {at, "uplink-a" if at == "db" else "uplink-b"}


def assert_refused(wires: Wires, frame: Packet, at: str, reason: str) -> None:
    """No guest gets it; nor does it leave its sender's host, when it is the sender that must not."""
    before = wires.world.drops()
    crosses = {"web": "uplink-a", "db": "uplink-b"}[at]
    assert set(wires.after(frame, at)) == ({crosses} if reason == "group_to_guest" else set())
    assert_counted_once(wires, before, reason)


def test_a_connection_and_its_replies_pass_until_the_rule_goes(wires: Wires) -> None:
    wires.world.write(world_with(*BACK))
    assert_arrives(wires, to_db(tcp(5000, 443, "S")), "db")
    assert_arrives(wires, to_web(tcp(443, 5000, "SA")), "web")
    assert_arrives(wires, to_db(tcp(5000, 443, "A")), "db")
    # A rule more, and a rule less: what goes on is not touched.
    wires.world.write(world_with(*BACK[:2], "to_guest tcp 22 from any"))
    assert_arrives(wires, to_web(tcp(443, 5000, "A")), "web")
    wires.world.write(world_with(MARKS))
    assert_refused(wires, to_db(tcp(5000, 443, "A")), "web", "group_to_guest")
    assert_refused(wires, to_web(tcp(443, 5000, "PA")), "db", "group_from_guest")
    wires.world.write(world_with(*BACK))
    assert_arrives(wires, to_web(tcp(443, 5000, "PA")), "web")


def test_a_peer_that_leaves_the_group_is_cut_off(wires: Wires) -> None:
    wires.world.write(world_with(*BACK))
    assert_arrives(wires, to_db(tcp(5001, 443, "S")), "db")
    wires.world.write(world_with(*BACK, front=False))
    assert_refused(wires, to_db(tcp(5001, 443, "A")), "web", "group_to_guest")


def test_what_no_rule_allows_is_dropped_at_the_receiver(wires: Wires) -> None:
    wires.world.write(world_with(*BACK))
    for layer in (tcp(6000, 80, "S"), tcp(6000, 442, "S"), UDP(sport=443, dport=443), ICMP(id=9)):
        assert_refused(wires, to_db(layer), "web", "group_to_guest")
    assert_refused(wires, to_db(UDP(sport=1, dport=7999)), "web", "group_to_guest")
    assert_refused(wires, to_db(UDP(sport=1, dport=8101)), "web", "group_to_guest")
    for port in (8000, 8063, 8100):
        assert_arrives(wires, to_db(UDP(sport=2, dport=port)), "db")
    # Nobody may open a connection to web, from whichever port.
    assert_refused(wires, to_web(tcp(443, 6001, "S")), "db", "group_to_guest")


def test_icmp_error_about_a_connection_passes_and_another_does_not(wires: Wires) -> None:
    wires.world.write(world_with(*BACK))
    assert_arrives(wires, to_db(UDP(sport=9000, dport=8050)), "db")

    def unreachable(port: int) -> Packet:
        about = IPerror(src="10.0.0.11", dst="10.0.0.12", proto=17, len=48, chksum=None) / UDPerror(
            sport=port, dport=8050, len=28
        )
        return to_web(ICMP(type=3, code=3) / about)

    assert_arrives(wires, Ether(bytes(unreachable(9000))), "web")
    # An error about nothing: the tracker can make nothing of it.
    assert_refused(wires, Ether(bytes(unreachable(9001))), "db", "group_from_guest")


def test_fragments_pass_of_a_connection_that_is_known_and_of_no_other(wires: Wires) -> None:
    wires.world.write(world_with(*BACK))

    def fragments(number: int, port: int) -> list[bytes]:
        whole = IP(src="10.0.0.11", dst="10.0.0.12", id=number) / UDP(sport=9100, dport=port) / Raw(b"x" * 3000)
        return [bytes(Ether(src=WEB.mac, dst=ROUTER) / each) for each in fragment(IP(bytes(whole)), 1400)]  # type: ignore[no-untyped-call]

    def arrive(frames: list[bytes]) -> list[bytes]:
        before = len(wires.world.b.sent("db"))
        wires.world.a.receive("web", *frames)
        assert_arrives(wires, to_db(UDP(sport=3, dport=7)), "db")  # has its time, and comes after them
        return [frame for frame in wires.world.b.sent("db")[before:] if len(frame) > 200]

    assert arrive(fragments(1, 8050)) == []
    assert_arrives(wires, to_db(UDP(sport=9100, dport=8050)), "db")
    assert_arrives(wires, to_web(UDP(sport=8050, dport=9100)), "web")
    known = fragments(2, 8050)
    assert [frame[14:] for frame in arrive(known)] == [frame[14:] for frame in known]
    assert arrive(fragments(3, 8101)) == []


def test_the_same_connection_in_another_vpc_opens_nothing(wires: Wires) -> None:
    """spy, in another VPC, has db's address, and is on db's host."""
    closed = group("closed", RED)
    rows = world_with(MARKS)
    ports = {**rows.ports, SPY.uuid: having(SPY, closed)}
    wires.world.write(replace(rows, ports=ports, groups={**rows.groups, closed.uuid: closed}))
    asks = (
        Ether(src=SPY.mac, dst=ROUTER)
        / IP(src="10.0.0.12", dst="10.0.0.11")
        / UDP(sport=9200, dport=53)
        / Raw(b"x" * 20)
    )
    wires.after(asks, "spy")
    assert "sport=9200" in wires.world.b.ovs.appctl("dpctl/dump-conntrack")
    # The answer, of the same addresses and ports, in the VPC where nobody has asked.
    assert_refused(wires, to_db(UDP(sport=53, dport=9200)), "web", "group_to_guest")


def test_who_may_send_only_some_things_sends_no_others(wires: Wires) -> None:
    wires.world.write(world_with(*BACK, "from_guest udp 7 to any", "from_guest tcp 25 to 10.0.0.11"))
    assert_refused(wires, to_web(ICMP(id=10)), "db", "group_from_guest")
    assert_refused(wires, to_web(tcp(1, 26, "S")), "db", "group_from_guest")
    # Its own group lets it, web's does not: both ends decide.
    assert_refused(wires, to_web(tcp(1, 25, "S")), "db", "group_to_guest")


def test_a_stateless_group_tracks_nothing_and_replies_need_rules(wires: Wires) -> None:
    rules = [MARKS, "to_guest tcp 443 from any", "from_guest udp 7 to any"]
    wires.world.write(world_with(*rules, stateless=True, front=False))
    wires.world.b.ovs.appctl("dpctl/flush-conntrack")
    assert_arrives(wires, to_db(tcp(5002, 443, "S")), "db")
    assert_refused(wires, to_web(tcp(443, 5002, "SA")), "db", "group_from_guest")
    assert wires.world.b.ovs.appctl("dpctl/dump-conntrack") == ""


def test_ipv6_has_the_same_rules(wires: Wires) -> None:
    wires.world.write(world_with(*BACK, "to_guest icmp from fd00::10/124"))
    there = Ether(src=WEB.mac, dst=ROUTER) / IPv6(src="fd00::11", dst="fd00::12")
    back = Ether(src=DB.mac, dst=ROUTER) / IPv6(src="fd00::12", dst="fd00::11")
    assert_refused(wires, back / ICMPv6EchoRequest(id=3), "db", "group_to_guest")
    assert_arrives(wires, there / ICMPv6EchoRequest(id=3), "db")
    assert_arrives(wires, back / ICMPv6EchoReply(id=3), "web")
    assert_arrives(wires, there / tcp(5003, 443, "S"), "db")
    assert_refused(wires, there / tcp(5003, 444, "S"), "web", "group_to_guest")


def test_a_world_without_groups_tracks_nothing(wires: Wires) -> None:
    wires.world.write(TWO_HOSTS)
    for host in (wires.world.a, wires.world.b):
        host.ovs.appctl("dpctl/flush-conntrack")
    assert_arrives(wires, to_db(tcp(5004, 9, "S")), "db")
    for host in (wires.world.a, wires.world.b):
        assert host.ovs.appctl("dpctl/dump-conntrack") == ""
        assert "ct(" not in host.ovs.ofctl("dump-flows", "br-guest")
