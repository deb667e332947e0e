"""Floods of random headers, as values: which bytes of a guest's or a neighbour's frame are random."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from scapy.layers.inet import TCP
from scapy.layers.inet6 import ICMPv6ND_NS, ICMPv6ND_RA, ICMPv6NDOptSrcLLAddr
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw

from tests.attack.case import ATTACKER
from tests.attack.setting import (
    BROADCAST,
    DB,
    ECHO_REPLY,
    ECHO_REPLY6,
    HOSTS,
    NEIGHBOUR_MAC,
    UNMAPPED,
    UNMAPPED_IPV6,
    WEB,
    B,
    eth,
    inner,
    ip,
    ip6,
    solicited_node,
    wrapped,
)

MARKER: Final = b"a flood of random headers"
FEW: Final = 100
RATED: Final = 300
"""Of what has a rate at the port: entries that are made until the first of them are forgotten."""


@dataclass(frozen=True, slots=True)
class Flood:
    """Frames like `frame`, but for some bytes, from `start` up to `end`, that are random.

    `most` is how many entries of the cache they take at most, however many they are; `seen` where they may be seen.
    """

    name: str
    frame: Packet
    spans: tuple[tuple[int, int], ...]
    most: int = FEW
    seen: tuple[str, ...] = ()

    def blank(self) -> bytes:
        """A frame, with nothing random yet."""
        return bytes(self.frame / Raw(MARKER))

    def frames(self, count: int) -> Iterator[bytes]:
        """Always the same ones."""
        chance = random.Random(self.name)
        for _ in range(count):
            frame = bytearray(self.blank())
            for start, end in self.spans:
                frame[start:end] = chance.randbytes(end - start)
            yield bytes(frame)


def summed_up(frame: bytes) -> bytes:
    """An IP packet with the checksums that it should have: the tracker makes nothing of others."""
    whole = bytearray(frame)
    begins, ends, proto = (
        (34, slice(26, 34), frame[23]) if frame[12:14] == b"\x08\x00" else (54, slice(22, 54), frame[20])
    )
    if begins == 34:
        whole[24:26] = bytes(2)
        whole[24:26] = _checksum(whole[14:34])
    if at := {6: 16, 17: 6}.get(proto):
        at += begins
        whole[at : at + 2] = bytes(2)
        pseudo = whole[ends] + len(whole[begins:]).to_bytes(4) + proto.to_bytes(4)
        whole[at : at + 2] = _checksum(pseudo + whole[begins:])
    return bytes(whole)


def _checksum(data: bytes | bytearray) -> bytes:
    """RFC 1071: words are added as the remainder of what they make together when it is divided by 65535."""
    return (0xFFFF - int.from_bytes(data + bytes(len(data) % 2)) % 0xFFFF).to_bytes(2)


TO_DB = ("db", "host-a uplink out", "host-b uplink in")
FROM_DB = ("db out", ATTACKER, "host-b uplink out", "host-a uplink in")
"""Its kernel says that it does not know a protocol."""
_PING = eth() / ip() / ECHO_REPLY
_ARP = eth(BROADCAST) / ARP(op=1, hwsrc=WEB.mac, psrc=WEB.ip, pdst=DB.ip)
_NS = (
    eth("33:33:ff:00:00:99")
    / ip6(dst=solicited_node(UNMAPPED_IPV6), hlim=255)
    / ICMPv6ND_NS(tgt=UNMAPPED_IPV6)
    / ICMPv6NDOptSrcLLAddr(lladdr=WEB.mac)
)
_ANSWERED = (
    eth("33:33:ff:00:00:12")
    / ip6("fe80::1", solicited_node(DB.ipv6), hlim=255)
    / ICMPv6ND_NS(tgt=DB.ipv6)
    / ICMPv6NDOptSrcLLAddr(lladdr=WEB.mac)
)
# Reset: no kernel answers it. Ethernet has 14 bytes, IPv4 20; in ARP the sender's MAC is at 22, addresses at 28 and 38.
# IPv6 has 40, addresses at 22 and 38; a solicitation has its target at 62, and the MAC of its option at 80.
FLOODS = [
    Flood("source MAC", _PING, ((6, 12),)),
    Flood("source MAC and ethertype", _PING, ((6, 14),)),
    Flood("ARP sender MAC", _ARP, ((22, 28),)),
    Flood("IPv4 source", _PING, ((26, 30),)),
    Flood("IPv4 destination", eth() / ip(dst=UNMAPPED) / ECHO_REPLY, ((30, 34),)),
    Flood("rest of the IPv4 header", _PING, ((15, 16), (18, 19), (22, 24)), seen=TO_DB),
    Flood("ports", eth() / ip() / TCP(flags="R"), ((34, 46),), seen=TO_DB),
    Flood("destination MAC", _PING, ((0, 6),), seen=TO_DB),
    Flood("destination MAC, to nobody", eth() / ip(dst=UNMAPPED) / ECHO_REPLY, ((0, 6),)),
    Flood("ethertype", eth(type=0x88B5), ((12, 14),)),
    Flood("VLAN id", eth() / Dot1Q() / ip() / ECHO_REPLY, ((14, 16),)),
    Flood("ARP sender address", _ARP, ((28, 32),), RATED),
    Flood("ARP target address", _ARP, ((38, 42),), RATED, seen=(ATTACKER,)),
    Flood("ARP operation", _ARP, ((20, 22),), seen=(ATTACKER,)),
    Flood("ARP destination MAC", _ARP, ((0, 6),), RATED, seen=(ATTACKER,)),
    Flood("IPv6 source", eth() / ip6() / ECHO_REPLY6, ((22, 38),)),
    Flood("IPv6 destination", eth() / ip6(dst=UNMAPPED_IPV6) / ECHO_REPLY6, ((38, 54),)),
    Flood("router advertisement", eth() / ip6(hlim=255) / ICMPv6ND_RA(), ((22, 54), (56, 70))),
    Flood("MAC in a solicitation", _NS, ((80, 86),)),
    Flood("target of a solicitation", _NS, ((62, 78),), RATED),
    Flood("link-local source of a solicitation", _ANSWERED, ((24, 38),), RATED, seen=(ATTACKER,)),
    Flood("reserved word of a solicitation", _ANSWERED, ((58, 62),), RATED, seen=(ATTACKER,)),
    Flood("link-local source and destination", eth() / ip6("fe80::", "fe80::") / ECHO_REPLY6, ((24, 38), (40, 54))),
    Flood("IPv4 protocol", eth() / ip(proto=253), ((23, 24),), seen=(*TO_DB, *FROM_DB)),
    Flood("IPv6 protocol", eth() / ip6(nh=253), ((20, 21),), seen=(*TO_DB, *FROM_DB)),
    Flood("IPv6 protocol and destination", eth() / ip6(nh=253), ((20, 21), (38, 54))),
    Flood("IPv6 protocol and source", eth() / ip6(nh=253), ((20, 21), (22, 38))),
    Flood("everything after the source MAC", eth(type=0x0800) / Raw(bytes(60)), ((0, 6), (12, 74))),
    Flood("everything", eth(type=0x0800) / Raw(bytes(60)), ((0, 74),)),
]

MANY: Final = 1000
"""Frames of a flood from the substrate."""
_EACH: Final = MANY + FEW
"""An entry for each: a limit of docs/security.md."""
_ON_WIRE: Final = ("host-b uplink in",)
_WRAPPED: Final = wrapped(inner())
# Of a Geneve packet over IPv4: outer source at 26, Geneve's header at 42, the VNI at 46; in it MACs at 50, IPv4 at 64.
FROM_SUBSTRATE = [
    Flood("outer ethertype", Ether(src=NEIGHBOUR_MAC, dst=B.mac, type=0x88B5) / Raw(bytes(46)), ((12, 14),)),
    Flood("outer source", _WRAPPED, ((26, 30),), seen=_ON_WIRE),
    Flood("outer destination MAC", _WRAPPED, ((0, 6),), seen=tuple(f"{name} uplink in" for name in HOSTS)),
    Flood("tunnel header", _WRAPPED, ((42, 50),)),
    Flood("VNI", _WRAPPED, ((46, 49),), _EACH, seen=_ON_WIRE),
    Flood("inner destination MAC", _WRAPPED, ((50, 56),), _EACH, seen=(*_ON_WIRE, "db")),
    Flood("inner source MAC", _WRAPPED, ((56, 62),), seen=(*_ON_WIRE, "db")),
    Flood("inner ethertype", _WRAPPED, ((62, 64),), _EACH, seen=_ON_WIRE),
    Flood("inner source", _WRAPPED, ((76, 80),), seen=_ON_WIRE),
    Flood("inner destination", _WRAPPED, ((80, 84),), seen=_ON_WIRE),
    Flood("rest of the inner IPv4 header", _WRAPPED, ((65, 66), (68, 69), (72, 73)), seen=(*_ON_WIRE, "db")),
    Flood("everything inside", _WRAPPED, ((50, 92),), _EACH, seen=_ON_WIRE),
]
"""What a neighbour on the substrate sends to host-b, as from host-a."""
_FILTERED: Final = re.compile(r"ARP|solicitation|advertisement|type|VLAN|protocol|everything")
STORMS: Final = {
    "of every kind": FLOODS,
    "of addresses": [flood for flood in FLOODS if not flood.seen and not _FILTERED.search(flood.name)],
    "that is delivered": [flood for flood in FLOODS if flood.seen == TO_DB],
    "of one flow": [Flood("one flow", _PING, ())],
}
"""What a guest floods with at full speed. The last two are what it may do: send to another, as fast as its port may."""
