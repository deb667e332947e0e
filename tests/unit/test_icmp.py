"""ICMP errors: what they say, about what nothing is said, and that any bits are borne."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoRequest,
    ICMPv6ND_Redirect,
    ICMPv6PacketTooBig,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
)
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet, Raw

from controller import icmp
from controller.icmp import Problem
from controller.router import router_for
from tests.build import WEB, vpc

ROUTER_MAC = "0a:00:5e:00:00:01"
ETH = Ether(src=WEB.mac, dst=ROUTER_MAC)
FOUR, SIX = ETH / IP(src="10.0.0.11", dst="10.0.1.12"), ETH / IPv6(src="fd00::11", dst="fd00:0:0:1::12")
NOBODY = str(IPv4Address(0))
MACS = (ROUTER_MAC, WEB.mac)
CASES: dict[str, tuple[Problem, Packet, Packet]] = {
    "IPv4 time exceeded": (Problem.TIME_EXCEEDED, FOUR, ICMP(type=11, code=0)),
    "IPv4 too big": (Problem.TOO_BIG, FOUR, ICMP(type=3, code=4, nexthopmtu=1450)),
    "IPv4 port unreachable": (Problem.PORT_UNREACHABLE, FOUR, ICMP(type=3, code=3)),
    "IPv6 time exceeded": (Problem.TIME_EXCEEDED, SIX, ICMPv6TimeExceeded(code=0)),
    "IPv6 too big": (Problem.TOO_BIG, SIX, ICMPv6PacketTooBig(mtu=1450)),
    "IPv6 port unreachable": (Problem.PORT_UNREACHABLE, SIX, ICMPv6DestUnreach(code=4)),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("size", [0, 100, 5000])
def test_an_error_is_what_scapy_makes_of_it_and_quotes_as_much_as_fits(name: str, size: int) -> None:
    problem, head, message = CASES[name]
    about = head / UDP(sport=1, dport=2) / Raw(bytes(size))
    # A short frame is padded, and the padding is no part of the packet.
    read = icmp.read(bytes(about) + b"padding")
    assert read
    is_v4 = read.source.version == 4
    sender = ip_address("10.0.0.1" if is_v4 else "fd00::1")
    made = icmp.error(read, problem, sender, MACS, 1450 if problem is Problem.TOO_BIG else 0)
    outer = IP(src="10.0.0.1", dst="10.0.0.11", ttl=64, id=0) if is_v4 else IPv6(src="fd00::1", dst="fd00::11", hlim=64)
    expected = Ether(src=ROUTER_MAC, dst=WEB.mac) / outer / message
    quoted = bytes(about)[14:][: 548 if is_v4 else 1232]
    assert made == bytes(expected / Raw(quoted))
    assert len(made) - 14 <= (576 if is_v4 else 1280)


UNSPEAKABLE = {
    "an error": FOUR / ICMP(type=3, code=1),
    "a type that nobody knows": FOUR / ICMP(type=77),
    "ICMP without a type": ETH / IP(src="10.0.0.11", dst="10.0.1.12", proto=1),
    "a redirect": FOUR / ICMP(type=5),
    "a later fragment": ETH / IP(src="10.0.0.11", dst="10.0.1.12", frag=5) / UDP(),
    "from nobody": ETH / IP(src=NOBODY, dst="10.0.1.12") / UDP(),
    "from loopback": ETH / IP(src="127.0.0.1", dst="10.0.1.12") / UDP(),
    "from multicast": ETH / IP(src="224.0.0.5", dst="10.0.1.12") / UDP(),
    "from class E": ETH / IP(src="240.0.0.5", dst="10.0.1.12") / UDP(),
    "to multicast": ETH / IP(src="10.0.0.11", dst="224.0.0.5") / UDP(),
    "to broadcast": ETH / IP(src="10.0.0.11", dst="255.255.255.255") / UDP(),
    "an IPv6 error": SIX / ICMPv6TimeExceeded(),
    "an IPv6 error behind headers": SIX / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / ICMPv6DestUnreach(),
    "an IPv6 error in a fragment": SIX / IPv6ExtHdrFragment(m=1) / ICMPv6DestUnreach(),
    "an IPv6 redirect": SIX / ICMPv6ND_Redirect(),
    "a later IPv6 fragment": SIX / IPv6ExtHdrFragment(offset=5, nh=17) / UDP(),
    "IPv6 from nobody": ETH / IPv6(src="::", dst="fd00::12") / UDP(),
    "IPv6 to multicast": ETH / IPv6(src="fd00::11", dst="ff02::1") / UDP(),
    "neither": ETH / Dot1Q() / FOUR[IP] / UDP(),
}


@pytest.mark.parametrize("name", UNSPEAKABLE)
def test_about_what_must_not_be_spoken_of_nothing_is_said(name: str) -> None:
    assert icmp.read(bytes(UNSPEAKABLE[name])) is None


@pytest.mark.parametrize(
    "packet", [FOUR / ICMP(), FOUR / TCP(), SIX / ICMPv6EchoRequest(), SIX / IPv6ExtHdrFragment(m=1, nh=17) / UDP()]
)
def test_about_what_may_be_spoken_of_something_is_said(packet: Packet) -> None:
    assert icmp.read(bytes(packet)) is not None


HEADS = [b"", bytes(FOUR), bytes(SIX), bytes(SIX)[:20] + b"\x00" + bytes(SIX)[21:]]


@given(
    head=st.sampled_from(HEADS), cut=st.integers(0, 60), rest=st.binary(max_size=120), problem=st.sampled_from(Problem)
)
def test_any_bits_are_borne(head: bytes, cut: int, rest: bytes, problem: Problem) -> None:
    frame = head[: len(head) - cut] + rest
    about = icmp.read(frame)
    if about is not None:
        sender = IPv4Address("10.0.0.1") if about.source.version == 4 else IPv6Address("fd00::1")
        answer = icmp.error(about, problem, sender, MACS, 1450)
        assert answer[14 + (28 if about.source.version == 4 else 48) :] in frame
        assert icmp.read(answer) is None, "an error about an error"


def test_the_router_speaks_from_the_senders_subnet() -> None:
    two = vpc("two", 1, "10.0.0.0/24", "10.0.1.0/24", "fd00::/64")
    assert router_for(two, ip_address("10.0.1.9")) == ip_address("10.0.1.1")
    assert router_for(two, ip_address("198.51.100.9")) == ip_address("10.0.0.1")
    assert router_for(two, ip_address("fd00::9")) == ip_address("fd00::1")
    assert router_for(vpc("four", 1, "10.0.0.0/24"), ip_address("fd00::9")) is None
