"""What the malicious guest tries with its VPC's router: to reach it, and to have it answer without end or to others."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from scapy.layers.inet import ICMP, TCP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6EchoRequest, ICMPv6PacketTooBig, IPv6ExtHdrFragment
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from flows.pipeline import Reason
from tests.attack.case import ATTACKER, Fate, Sight, at_guest, guest, marker, told
from tests.attack.setting import (
    BROADCAST,
    ECHO_REPLY,
    ECHO_REPLY6,
    MTU,
    OTHER_SUBNET,
    OTHER_SUBNET_IPV6,
    ROUTER,
    ROUTER_IPV6,
    ROUTER_LINK_LOCAL,
    WEB,
    eth,
    ip,
    ip6,
)

_ICMP_IN_IPV4, _ICMP_IN_IPV6 = slice(34, 36), slice(54, 56)


def _told(reason: Reason, ipv4: bytes, ipv6: bytes) -> Fate:
    """Counted, and the sender alone is told, by an ICMP error of this type and code that quotes the packet."""

    def seen(frame: bytes) -> list[Sight]:
        def tells(reply: bytes) -> bool:
            kind = reply[_ICMP_IN_IPV4] == ipv4 if frame[12:14] == b"\x08\x00" else reply[_ICMP_IN_IPV6] == ipv6
            return kind and reply.endswith(frame[14:])

        return [(ATTACKER, tells)]

    return replace(at_guest(reason), seen=seen)


def _far(packet: Packet, ttl: int = 1) -> Packet:
    return eth() / ip(dst=OTHER_SUBNET, ttl=ttl) / packet


def _far6(packet: Packet, hlim: int = 1) -> Packet:
    return eth() / ip6(dst=OTHER_SUBNET_IPV6, hlim=hlim) / packet


def _of_size(packet: Packet, size: int) -> bytes:
    """The packet, filled up to this size of IP packet. A cable lets 4 bytes more through than its MTU, for a tag."""
    end = marker("larger than the MTU")
    filler = bytes(len(Ether()) + size - len(packet) - len(end)) + end
    return bytes(packet / Raw(filler))


def _tells_the_mtu(reply: Packet) -> bool:
    if ICMPv6PacketTooBig in reply:
        return bool(reply[ICMPv6PacketTooBig].mtu == MTU)
    return ICMP in reply and (reply[ICMP].type, reply[ICMP].code, reply[ICMP].nexthopmtu) == (3, 4, MTU)


ROUTING: Final = [
    guest(
        "to the router",
        at_guest(Reason.TO_ROUTER),
        *(eth() / ip(dst=ROUTER) / each for each in (TCP(flags="S"), ECHO_REPLY, ICMP(type=13), ICMP(type=5))),
        eth(BROADCAST) / ip(dst=ROUTER, proto=89),
        *(
            eth() / ip6(src, dst) / each
            for src, dst in ((WEB.ipv6, ROUTER_IPV6), (WEB.link_local, ROUTER_LINK_LOCAL))
            for each in (TCP(flags="S"), ECHO_REPLY6, ICMPv6EchoRequest(code=1))
        ),
        eth() / ip6(dst=ROUTER_LINK_LOCAL) / ECHO_REPLY6,
        eth() / ip6("fe80::1", "fe80::1") / ECHO_REPLY6,
    ),
    guest(
        "UDP to the router",
        _told(Reason.TO_ROUTER, b"\x03\x03", b"\x01\x04"),
        *(eth() / ip(dst=ROUTER, ttl=ttl) / UDP(sport=9, dport=53) for ttl in (1, 64)),
        *(eth() / ip6(dst=ROUTER_IPV6, hlim=hlim) / UDP(sport=9, dport=53) for hlim in (1, 64)),
    ),
    guest("fragments of UDP to the router", at_guest(Reason.TO_ROUTER), eth() / ip(dst=ROUTER, frag=5) / UDP()),
    guest(
        "no hop left",
        _told(Reason.TTL_EXPIRED, b"\x0b\x00", b"\x03\x00"),
        *(_far(each, ttl) for each in (UDP(), ECHO_REPLY) for ttl in (0, 1)),
        *(_far6(each, hlim) for each in (UDP(), ECHO_REPLY6) for hlim in (0, 1)),
    ),
    guest(
        "no hop left, about which nothing must be said",
        at_guest(Reason.TTL_EXPIRED),
        _far(ICMP(type=3, code=1)),
        eth() / ip(dst=OTHER_SUBNET, ttl=1, frag=5) / UDP(),
        _far6(ICMPv6DestUnreach()),
        _far6(IPv6ExtHdrFragment(offset=5, nh=17) / UDP()),
    ),
    guest(
        "larger than the MTU",
        told(_tells_the_mtu),
        *(_of_size(eth() / head / UDP(), MTU + more) for head in (ip(), ip(flags="DF"), ip6()) for more in (1, 4)),
        mtu=9000,
    ),
]
