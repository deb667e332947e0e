"""What the router of a guest's link says (RFC 4861): that it is there, and that addresses are to be asked for.

No address is made from a prefix alone, for none of those would be mapped: `A` is never set, and `M` says that DHCPv6
has them.
"""

from __future__ import annotations

import struct
from ipaddress import IPv6Address
from typing import Final

from controller import frames
from controller.guest_config import LEASE, GuestConfig
from flows.fields import Icmpv6, IpProto
from flows.guest_ipv6 import ROUTER_LINK_LOCAL

ALL_NODES: Final = IPv6Address("ff02::1")

ROUTER_LIFETIME: Final = 0xFFFF
"""Seconds, the most that there can be (RFC 8319): for so long a guest keeps its way out without any controller."""

_HOP_LIMIT: Final = 64
_MANAGED_AND_OTHER: Final = 0xC0
_ON_LINK: Final = 0x80
_HEAD: Final = struct.Struct("!BBHII")
_SOURCE_MAC, _PREFIX, _MTU, _DNS = 1, 3, 5, 25
"""Types of options: RFC 4861, 4.6; RFC 8106, 5.1."""


def advertisement(guest: GuestConfig, to: IPv6Address = ALL_NODES) -> bytes:
    """The frame that tells a guest which has an IPv6 address of its router."""
    subnets = dict.fromkeys(address.network for address in guest.ipv6)
    options = [
        _option(_SOURCE_MAC, guest.router_mac),
        _option(_MTU, struct.pack("!HI", 0, guest.mtu)),
        *(
            _option(_PREFIX, struct.pack("!BBIII", net.prefixlen, _ON_LINK, LEASE, LEASE, 0) + net[0].packed)
            for net in subnets
        ),
    ]
    if servers := guest.dns_servers(6):
        options.append(_option(_DNS, struct.pack("!HI", 0, ROUTER_LIFETIME) + servers))
    body = _HEAD.pack(_HOP_LIMIT, _MANAGED_AND_OTHER, ROUTER_LIFETIME, 0, 0) + b"".join(options)
    eth_dst = frames.multicast_mac(to) if to.is_multicast else guest.mac
    return frames.icmpv6(
        frames.Ends(guest.router_mac, eth_dst, ROUTER_LINK_LOCAL, to), Icmpv6.ROUTER_ADVERTISEMENT, body
    )


def answer(frame: bytes, guest: GuestConfig) -> bytes | None:
    """The advertisement that a solicitation of this guest's asks for; None if it is none, RFC 4861, 6.1.1."""
    packet = frames.read(frame)
    if packet is None or not isinstance(packet.src, IPv6Address) or packet.mac != guest.mac or not guest.ipv6:
        return None
    message = packet.payload
    solicits = packet.protocol == IpProto.ICMPV6 and message[:2] == bytes([Icmpv6.ROUTER_SOLICITATION, 0])
    if not solicits or packet.hops != 255 or len(message) < 8:
        return None
    return advertisement(guest, ALL_NODES if packet.src.is_unspecified else packet.src)


def _option(kind: int, body: bytes) -> bytes:
    return bytes([kind, (2 + len(body)) // 8]) + body
