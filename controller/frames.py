"""Frames of guests taken apart, and answers put together: Ethernet, IPv4 or IPv6, UDP or ICMPv6.

A guest sends any bits, so whatever is not whole is None, and nothing raises. Checksums are not looked at: a wrong one
harms only who sent it, and gets its sender a wrong answer at worst.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple

from flows.fields import EthType, IpProto
from mapping.model import IPAddress

BROADCAST_MAC: Final = b"\xff" * 6

_ETHERNET: Final = struct.Struct("!6s6sH")
_IPV4: Final = struct.Struct("!BBHHHBBH4s4s")
_IPV6: Final = struct.Struct("!IHBB16s16s")
_UDP: Final = struct.Struct("!HHHH")
_FRAGMENT: Final = 0x3FFF
"""More fragments, and the offset, RFC 791, 3.1."""
_TTL: Final = 64
_LARGEST: Final = 1514
"""Bytes of a frame. It bounds how much is done about one, and how long an answer can be."""


class Packet(NamedTuple):
    """An IP packet as it came: no fragment, no extension header; `payload` is as long as the header says."""

    mac: bytes
    """Of the sender."""
    src: IPAddress
    dst: IPAddress
    hops: int
    protocol: int
    payload: bytes

    def udp(self, source: int, target: int) -> bytes | None:
        """What a UDP datagram between these ports carries; None if it is no such datagram."""
        if self.protocol != IpProto.UDP or len(self.payload) < _UDP.size:
            return None
        ports_and_length = _UDP.unpack_from(self.payload)[:3]
        length = ports_and_length[2]
        if ports_and_length[:2] != (source, target) or not _UDP.size <= length <= len(self.payload):
            return None
        return self.payload[_UDP.size : length]


class Ends(NamedTuple):
    """From whom to whom: MACs and addresses."""

    eth_src: bytes
    eth_dst: bytes
    src: IPAddress
    dst: IPAddress


def read(frame: bytes) -> Packet | None:
    """The IP packet in an untagged frame; None if there is no whole one, or more of it than any client asks with."""
    if not _ETHERNET.size <= len(frame) <= _LARGEST:
        return None
    _, mac, eth_type = _ETHERNET.unpack_from(frame)
    body = frame[_ETHERNET.size :]
    if eth_type == EthType.IPV4 and len(body) >= _IPV4.size:
        version, _, length, _, fragment, ttl, protocol, _, src, dst = _IPV4.unpack_from(body)
        start = 4 * (version & 0xF)
        if version >> 4 == 4 and _IPV4.size <= start <= length <= len(body) and not fragment & _FRAGMENT:
            return Packet(mac, IPv4Address(src), IPv4Address(dst), ttl, protocol, body[start:length])
    elif eth_type == EthType.IPV6 and len(body) >= _IPV6.size:
        version, length, protocol, hops, src6, dst6 = _IPV6.unpack_from(body)
        end = _IPV6.size + length
        if version >> 28 == 6 and end <= len(body):
            return Packet(mac, IPv6Address(src6), IPv6Address(dst6), hops, protocol, body[_IPV6.size : end])
    return None


def udp(ends: Ends, source: int, target: int, data: bytes) -> bytes:
    """A frame that carries `data` from one UDP port to another."""
    length = _UDP.size + len(data)
    sum_ = _checksum(_pseudo_header(ends, IpProto.UDP, length), _UDP.pack(source, target, length, 0), data)
    # Zero would say that there is no checksum, RFC 768.
    return _frame(ends, IpProto.UDP, _TTL, _UDP.pack(source, target, length, sum_ or 0xFFFF) + data)


def icmpv6(ends: Ends, kind: int, body: bytes) -> bytes:
    """A frame that carries a message of neighbour discovery: `body` is all that follows its checksum."""
    head = struct.Struct("!BBH")
    sum_ = _checksum(_pseudo_header(ends, IpProto.ICMPV6, head.size + len(body)), head.pack(kind, 0, 0), body)
    return _frame(ends, IpProto.ICMPV6, 255, head.pack(kind, 0, sum_) + body)


def multicast_mac(group: IPv6Address) -> bytes:
    """The MAC that an IPv6 multicast group has on Ethernet, RFC 2464, 7."""
    return b"\x33\x33" + group.packed[-4:]


def _frame(ends: Ends, protocol: int, hops: int, payload: bytes) -> bytes:
    if ends.src.version == 4:
        fields = (0x45, 0, _IPV4.size + len(payload), 0, 0, hops, protocol)
        unsummed = _IPV4.pack(*fields, 0, ends.src.packed, ends.dst.packed)
        head = _IPV4.pack(*fields, _checksum(unsummed), ends.src.packed, ends.dst.packed)
        eth_type = EthType.IPV4
    else:
        head = _IPV6.pack(6 << 28, len(payload), protocol, hops, ends.src.packed, ends.dst.packed)
        eth_type = EthType.IPV6
    return _ETHERNET.pack(ends.eth_dst, ends.eth_src, eth_type) + head + payload


def _pseudo_header(ends: Ends, protocol: int, length: int) -> bytes:
    """What checksums cover besides, RFC 8200, 8.1; summed up, the shorter one of RFC 768 is the same."""
    return ends.src.packed + ends.dst.packed + struct.pack("!II", length, protocol)


def _checksum(*parts: bytes) -> int:
    """RFC 1071."""
    data = b"".join(parts)
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
