"""Floods of random headers, as values: which bytes of a guest's frame are random."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from scapy.layers.inet import TCP
from scapy.layers.inet6 import ICMPv6ND_NS, ICMPv6ND_RA, ICMPv6NDOptSrcLLAddr
from scapy.layers.l2 import ARP, Dot1Q
from scapy.packet import Packet, Raw

from tests.attack.case import ATTACKER
from tests.attack.setting import (
    BROADCAST,
    DB,
    ECHO_REPLY,
    ECHO_REPLY6,
    UNMAPPED,
    UNMAPPED_IPV6,
    WEB,
    eth,
    ip,
    ip6,
    solicited_node,
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
    Flood("IPv4 protocol", eth() / ip(proto=253), ((23, 24),), seen=(*TO_DB, *FROM_DB)),
    Flood("IPv6 protocol", eth() / ip6(nh=253), ((20, 21),), seen=(*TO_DB, *FROM_DB)),
    Flood("IPv6 protocol and destination", eth() / ip6(nh=253), ((20, 21), (38, 54))),
    Flood("IPv6 protocol and source", eth() / ip6(nh=253), ((20, 21), (22, 38))),
    Flood("everything after the source MAC", eth(type=0x0800) / Raw(bytes(60)), ((0, 6), (12, 74))),
    Flood("everything", eth(type=0x0800) / Raw(bytes(60)), ((0, 74),)),
]
_FILTERED: Final = re.compile(r"ARP|solicitation|advertisement|type|VLAN|protocol|everything")
STORMS: Final = {
    "of every kind": FLOODS,
    "of addresses": [flood for flood in FLOODS if not flood.seen and not _FILTERED.search(flood.name)],
    "that is delivered": [flood for flood in FLOODS if flood.seen == TO_DB],
    "of one flow": [Flood("one flow", _PING, ())],
}
"""What a guest floods with at full speed. The last two are what it may do: send to another, as fast as its port may."""
