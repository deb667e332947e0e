"""Frames as bytes: what is in them, and tunnel packets as a forger would make them. Nothing here is from the switch."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final, Self

from mapping.model import Encap

_ETHERNET_BYTES: Final = 14
_IPV4: Final = struct.Struct("!BBHHHBBH4s4s")
_IPV4_TYPE: Final = 0x0800
_ARP_TYPE: Final = 0x0806
_TEB: Final = 0x6558
"""Transparent Ethernet bridging: what follows is an Ethernet frame (Geneve, GRE)."""
_ICMP, _UDP, _GRE = 1, 17, 47
_UDP_PORT: Final = {Encap.VXLAN: 4789, Encap.GENEVE: 6081}
_ECHO_REQUEST: Final = 8


@dataclass(frozen=True, slots=True)
class Packet:
    """An Ethernet frame, and the IPv4 packet in it."""

    eth_src: str
    eth_dst: str
    src: IPv4Address
    dst: IPv4Address
    proto: int
    payload: bytes
    payload_at: int
    """Where the payload starts in the frame."""

    @classmethod
    def read(cls, frame: bytes) -> Self | None:
        """The packet in a frame; None if it is not IPv4, or tagged."""
        if len(frame) < _ETHERNET_BYTES + _IPV4.size or frame[12:14] != _IPV4_TYPE.to_bytes(2):
            return None
        length, _, total, _, _, _, proto, _, src, dst = _IPV4.unpack_from(frame, _ETHERNET_BYTES)
        start = _ETHERNET_BYTES + (length & 0xF) * 4
        payload = frame[start : _ETHERNET_BYTES + total]
        return cls(frame[6:12].hex(":"), frame[:6].hex(":"), IPv4Address(src), IPv4Address(dst), proto, payload, start)

    @property
    def is_echo_request(self) -> bool:
        """Whether it is a ping."""
        return self.proto == _ICMP and self.payload[:1] == bytes([_ECHO_REQUEST])


@dataclass(frozen=True, slots=True)
class Tunnelled:
    """A tunnel packet: its outer packet, what the tunnel header says, and the inner frame."""

    outer: Packet
    encap: Encap
    vni: int
    inner: bytes
    inner_at: int
    """Where the inner frame starts in the outer one."""

    @classmethod
    def read(cls, frame: bytes) -> Self | None:
        """The tunnel packet in a frame, or None."""
        outer = Packet.read(frame)
        if outer is None:
            return None
        data, skip = outer.payload, 0
        if outer.proto == _UDP:
            port = int.from_bytes(data[2:4])
            encap = next((encap for encap, number in _UDP_PORT.items() if number == port), None)
            data, skip = data[8:], 8
        else:
            encap = Encap.GRE if outer.proto == _GRE else None
        if encap is None or len(data) < 8:
            return None
        match encap:
            case Encap.VXLAN:  # RFC 7348, 5
                header, vni = 8, int.from_bytes(data[4:7])
            case Encap.GENEVE:  # RFC 8926, 3.4: the options' length is counted in words
                header, vni = 8 + (data[0] & 0x3F) * 4, int.from_bytes(data[4:7])
            case Encap.GRE:  # RFC 2890, 2: the key, with neither checksum nor sequence number
                if data[:4] != struct.pack("!HH", 0x2000, _TEB):
                    return None
                header, vni = 8, int.from_bytes(data[4:8])
        return cls(outer, encap, vni, data[header:], outer.payload_at + skip + header)


def echo_request(eth_src: str, eth_dst: str, src: str, dst: str, marker: bytes) -> bytes:
    """A ping that carries `marker`, as a frame."""
    body = struct.pack("!BBHHH", _ECHO_REQUEST, 0, 0, 0x10C6, 1) + marker
    icmp = body[:2] + _checksum(body).to_bytes(2) + body[4:]
    return _ethernet(eth_src, eth_dst, _IPV4_TYPE) + _ipv4(src, dst, _ICMP, icmp)


def arp_request(eth_src: str, src: str, dst: str) -> bytes:
    """A question for the MAC of `dst`."""
    sender, target = IPv4Address(src).packed, IPv4Address(dst).packed
    body = struct.pack("!HHBBH6s4s6s4s", 1, _IPV4_TYPE, 6, 4, 1, _mac(eth_src), sender, bytes(6), target)
    return _ethernet(eth_src, "ff:ff:ff:ff:ff:ff", _ARP_TYPE) + body


def tunnelled(eth: tuple[str, str], ip: tuple[str, str], encap: Encap, vni: int, inner: bytes) -> bytes:
    """A frame wrapped in outer headers that say whatever the caller wants; `eth` and `ip` are (source, destination)."""
    match encap:
        case Encap.VXLAN:
            data = struct.pack("!II", 0x08 << 24, vni << 8) + inner
        case Encap.GENEVE:
            data = struct.pack("!HHI", 0, _TEB, vni << 8) + inner
        case Encap.GRE:
            data = struct.pack("!HHI", 0x2000, _TEB, vni) + inner
    proto = _GRE
    if encap in _UDP_PORT:
        # A UDP checksum of 0 is none.
        proto, data = _UDP, struct.pack("!HHHH", 0xC000, _UDP_PORT[encap], len(data) + 8, 0) + data
    return _ethernet(*eth, _IPV4_TYPE) + _ipv4(*ip, proto, data)


def _ethernet(src: str, dst: str, eth_type: int) -> bytes:
    return _mac(dst) + _mac(src) + eth_type.to_bytes(2)


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def _ipv4(src: str, dst: str, proto: int, payload: bytes) -> bytes:
    addresses = (IPv4Address(src).packed, IPv4Address(dst).packed)
    start = (0x45, 0, _IPV4.size + len(payload), 0, 0, 64, proto)
    return _IPV4.pack(*start, _checksum(_IPV4.pack(*start, 0, *addresses)), *addresses) + payload


def _checksum(data: bytes) -> int:
    """The Internet checksum, RFC 1071."""
    total: int = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
