"""ICMP errors about packets of guests: RFC 792, RFC 1191 and RFC 1812, 4.3.2; RFC 4443, 2.4 and 3.

A guest may have put any bits into the packet, and none is answered about which nothing must be said.
"""

from __future__ import annotations

import enum
import struct
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple

from ryu.lib.packet import ethernet, icmp, icmpv6, ipv4, ipv6, packet

from flows.fields import EthType, IpProto
from mapping.model import IPAddress


class Problem(enum.Enum):
    """What is wrong with a packet: (type, code) of ICMP, and of ICMPv6."""

    TIME_EXCEEDED = (11, 0), (3, 0)
    TOO_BIG = (3, 4), (2, 0)
    PORT_UNREACHABLE = (3, 3), (1, 4)


class About(NamedTuple):
    """A packet of which an error may speak."""

    source: IPAddress
    packet: bytes
    """From its IP header on, as far as it is there."""


_ETHERNET: Final = 14
_IPV4: Final = struct.Struct("!BxH2xHxB2x4s4s")
_IPV6: Final = struct.Struct("!B3xHBx16s16s")
_TTL: Final = 64

_QUOTED_IPV4: Final = 576 - 20 - 8
"""RFC 1812, 4.3.2.3: the error as a whole has no more than 576 bytes."""
_QUOTED_IPV6: Final = 1280 - 40 - 8
"""RFC 4443, 2.4 (c): no more than the smallest MTU there is."""

_ICMP_QUERIES: Final = frozenset({0, 8, 9, 10, 13, 14, 15, 16, 17, 18, 42, 43})
"""Types of ICMP that are no errors: about an error, or what may be one, nothing is said."""
_ICMPV6_QUERY: Final = 128
"""From here on a type of ICMPv6 is no error."""
_ICMPV6_REDIRECT: Final = 137
_FRAGMENT: Final = 44
_AUTHENTICATION: Final = 51
_EXTENSIONS: Final = frozenset({0, 43, 60, 135, 139, 140, _FRAGMENT, _AUTHENTICATION})
"""IPv6 extension headers whose length is known, RFC 7045."""
_OFFSET: Final = 0x1FFF
"""Bits of the fragment offset in an IPv4 header."""


def read(frame: bytes) -> About | None:
    """The packet in this Ethernet frame; None if no error must be sent about it, or it is no whole packet."""
    eth_type = int.from_bytes(frame[12:14])
    # Whom the frame was for says nothing: the filter ahead of the port writes all to everybody (`topo.port_filter`).
    if len(frame) < _ETHERNET:
        return None
    if eth_type == EthType.IPV4:
        return _read_ipv4(frame[_ETHERNET:])
    return _read_ipv6(frame[_ETHERNET:]) if eth_type == EthType.IPV6 else None


def _read_ipv4(data: bytes) -> About | None:
    if len(data) < _IPV4.size:
        return None
    version, length, fragment, protocol, src, dst = _IPV4.unpack_from(data)
    header = 4 * (version & 0xF)
    source, target = IPv4Address(src), IPv4Address(dst)
    if version >> 4 != 4 or not _IPV4.size <= header <= length or len(data) < header or fragment & _OFFSET:
        return None
    if not _is_host(source) or not _is_host(target):
        return None
    if protocol == IpProto.ICMP and data[header : header + 1] not in map(_byte, _ICMP_QUERIES):
        return None
    return About(source, data[:length])


def _read_ipv6(data: bytes) -> About | None:
    if len(data) < _IPV6.size:
        return None
    version, length, following, src, dst = _IPV6.unpack_from(data)
    source, target = IPv6Address(src), IPv6Address(dst)
    if version >> 4 != 6 or not _is_host(source) or not _is_host(target):
        return None
    at = _IPV6.size
    while following in _EXTENSIONS:
        extension = data[at : at + 8]
        if len(extension) < 8 or (following == _FRAGMENT and int.from_bytes(extension[2:4]) >> 3):
            return None
        # RFC 4302, 2.2: the length of this one is in units of four bytes, and is two less.
        words = 4 * (extension[1] + 2) if following == _AUTHENTICATION else 8 * (extension[1] + 1)
        at += 8 if following == _FRAGMENT else words
        following = extension[0]
    if following == IpProto.ICMPV6 and (
        not data[at : at + 1] or data[at] < _ICMPV6_QUERY or data[at] == _ICMPV6_REDIRECT
    ):
        return None
    return About(source, data[: _IPV6.size + length])


def _byte(value: int) -> bytes:
    return bytes([value])


def _is_host(ip: IPAddress) -> bool:
    """Whether it may be one host's address; which broadcasts there are is no matter, for none is mapped."""
    return not (ip.is_multicast or ip.is_unspecified or ip.is_loopback or (ip.version == 4 and ip.is_reserved))


def error(about: About, problem: Problem, sender: IPAddress, macs: tuple[str, str], mtu: int = 0) -> bytes:
    """The frame that tells of it: from `sender`, between these MACs; `mtu`, in bytes of IP packet, if it is too big."""
    answer = packet.Packet()
    (kind, code), (kind6, code6) = problem.value
    eth_type = EthType.IPV4 if about.source.version == 4 else EthType.IPV6
    answer.add_protocol(ethernet.ethernet(macs[1], macs[0], eth_type))
    if about.source.version == 4:
        answer.add_protocol(ipv4.ipv4(proto=IpProto.ICMP, src=str(sender), dst=str(about.source), ttl=_TTL))
        quoted = about.packet[:_QUOTED_IPV4]
        unreachable = icmp.dest_unreach(mtu=mtu, data=quoted)
        body = icmp.TimeExceeded(data=quoted) if problem is Problem.TIME_EXCEEDED else unreachable
        answer.add_protocol(icmp.icmp(kind, code, data=body))
    else:
        answer.add_protocol(
            ipv6.ipv6(nxt=IpProto.ICMPV6, src=str(sender), dst=str(about.source), hop_limit=_TTL, ext_hdrs=[])
        )
        answer.add_protocol(icmpv6.icmpv6(kind6, code6, data=struct.pack("!I", mtu) + about.packet[:_QUOTED_IPV6]))
    answer.serialize()
    return bytes(answer.data)
