"""Frames as values, which the oracle reads, and as bytes, which a switch reads: neither learns of the other's view."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

ETHER_TYPES: Final = {"arp": 0x0806, "ipv4": 0x0800, "ipv6": 0x86DD}
PROTOCOLS: Final = {"icmp": 1, "tcp": 6, "udp": 17, "gre": 47, "icmpv6": 58, "ospf": 89, "sctp": 132}
WITH_PORTS: Final = ("tcp", "udp", "sctp")
TUNNEL_PORTS: Final = {"vxlan": 4789, "geneve": 6081}
NS, NA = 135, 136
_FRAGMENT: Final = 44
_DESTINATION_OPTIONS: Final = 60


@dataclass(frozen=True)
class Frame:
    """What a guest sends, or what is in a tunnel. `kind` is a key of `ETHER_TYPES`, or an ethertype."""

    eth_src: str
    eth_dst: str
    kind: str | int
    src: str = ""
    """Of IP; of ARP the sender's."""
    dst: str = ""
    """Of IP; of ARP the target's."""
    tag: int = 0
    """The ethertype of the VLAN tag, if there is one."""
    op: int = 1
    sha: str = ""
    ttl: int = 64
    proto: str = "udp"
    sport: int = 0
    dport: int = 0
    icmp: tuple[int, int] = (0, 0)
    """Type and code."""
    target: str = ""
    """Of neighbour discovery."""
    option: str | None = None
    """The MAC that neighbour discovery names."""
    fragment: str = ""
    """"first", "later", or none."""
    options: bool = False
    """Whether an extension header, or an option of IPv4, comes before the payload."""
    size: int = 0
    """Of the IP packet, in bytes; 0: as large as it must be."""


@dataclass(frozen=True)
class Outer:
    """A frame on the substrate. `kind` is the tunnel's: "vxlan", "geneve", "gre"; or "arp", "ns", "na", "other"."""

    kind: str
    src: str
    dst: str
    inner: Frame | None = None
    vni: int = 0
    tag: int = 0
    fragment: str = ""
    """"first", "later", or none."""
    oam: bool = False
    hops: int = 255
    """Of neighbour discovery."""
    target: str = ""
    """Of neighbour discovery, and of ARP."""


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def _checksum(data: bytes) -> int:
    total = sum(int.from_bytes(data[at : at + 2]) for at in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _ethernet(dst: str, src: str, tag: int, ether_type: int) -> bytes:
    tagged = struct.pack("!HH", tag, 7) if tag else b""
    return mac(dst) + mac(src) + tagged + struct.pack("!H", ether_type)


def frame_bytes(frame: Frame) -> bytes:
    ether_type = frame.kind if isinstance(frame.kind, int) else ETHER_TYPES[frame.kind]
    head = _ethernet(frame.eth_dst, frame.eth_src, frame.tag, ether_type)
    if frame.kind == "arp":
        return head + _arp(frame.op, frame.sha, frame.src, frame.dst)
    if frame.kind in ("ipv4", "ipv6"):
        payload = _payload(frame)
        return head + (_ipv4(frame, payload) if frame.kind == "ipv4" else _ipv6(frame, payload))
    return head + bytes(46)


def _arp(op: int, sha: str, spa: str, tpa: str) -> bytes:
    fixed = struct.pack("!HHBBH", 1, 0x0800, 6, 4, op)
    return fixed + mac(sha) + ip_address(spa).packed + bytes(6) + ip_address(tpa).packed


def _payload(frame: Frame) -> bytes:
    head = {"ipv4": 24 if frame.options else 20, "ipv6": 40 + 8 * (frame.options + bool(frame.fragment))}[
        str(frame.kind)
    ]
    if frame.fragment == "later":
        body = b"\xff" * 32
    elif frame.proto == "tcp":
        body = struct.pack("!HHIIBBHHH", frame.sport, frame.dport, 100, 101, 5 << 4, 0x10, 8192, 0, 0)
    elif frame.proto == "udp":
        body = struct.pack("!HHHH", frame.sport, frame.dport, max(8, frame.size - head), 0)
    elif frame.proto == "sctp":
        body = struct.pack("!HHII", frame.sport, frame.dport, 0, 0)
    elif frame.proto in ("icmp", "icmpv6"):
        body = struct.pack("!BBHI", *frame.icmp, 0, 0) + _neighbour(frame)
    else:
        body = bytes(16)
    return body + bytes(max(0, frame.size - head - len(body)))


def _neighbour(frame: Frame) -> bytes:
    if frame.proto != "icmpv6" or not frame.target:
        return b""
    kind = 1 if frame.icmp[0] == NS else 2
    named = bytes([kind, 1]) + mac(frame.option) if frame.option else b""
    return ip_address(frame.target).packed + named


def _ipv4(frame: Frame, payload: bytes) -> bytes:
    options = bytes([1, 1, 1, 0]) if frame.options else b""
    length = 20 + len(options) + len(payload)
    offset = {"": 0, "first": 0x2000, "later": 100}[frame.fragment]
    ends = ip_address(frame.src).packed + ip_address(frame.dst).packed
    proto = PROTOCOLS[frame.proto]

    def head(checksum: int) -> bytes:
        words = (0x45 + len(options) // 4, 0, length, 7, offset, frame.ttl, proto, checksum)
        return struct.pack("!BBHHHBBH", *words) + ends + options

    return head(_checksum(head(0))) + payload


def _ipv6(frame: Frame, payload: bytes) -> bytes:
    following, extensions = PROTOCOLS[frame.proto], b""
    if frame.fragment:
        offset = {"first": 1, "later": 100 << 3}[frame.fragment]
        extensions = struct.pack("!BBHI", following, 0, offset, 7)
        following = _FRAGMENT
    if frame.options:
        extensions = bytes([following, 0, 1, 4, 0, 0, 0, 0]) + extensions
        following = _DESTINATION_OPTIONS
    length = len(extensions) + len(payload)
    head = struct.pack("!IHBB", 6 << 28, length, following, frame.ttl)
    return head + ip_address(frame.src).packed + ip_address(frame.dst).packed + extensions + payload


def outer_bytes(outer: Outer, src_mac: str, dst_mac: str, inner: bytes = b"") -> bytes:
    """The frame, as it is on the cable; `inner` is what is in the tunnel, if that is not to be made of `outer`."""
    if outer.kind == "arp":
        return _ethernet(dst_mac, src_mac, outer.tag, 0x0806) + _arp(1, src_mac, outer.src, outer.target)
    kind = "ipv6" if ":" in outer.src else "ipv4"
    whole = Frame(src_mac, dst_mac, kind, outer.src, outer.dst, outer.tag, ttl=outer.hops, fragment=outer.fragment)
    if outer.kind in ("ns", "na"):
        number = NS if outer.kind == "ns" else NA
        nd = Frame(**{**vars(whole), "proto": "icmpv6", "icmp": (number, 0), "target": outer.target, "option": src_mac})
        return frame_bytes(nd)
    if outer.kind == "other":
        return frame_bytes(Frame(**{**vars(whole), "proto": "tcp", "sport": 40000, "dport": 22}))
    inner = inner or (frame_bytes(outer.inner) if outer.inner else b"")
    if outer.kind == "gre":
        proto, payload = "gre", struct.pack("!HHI", 0x2000, 0x6558, outer.vni << 0) + inner
    else:
        proto, payload = "udp", _udp(outer) + inner
    if outer.fragment == "later":
        payload = inner
    bare = Frame(**{**vars(whole), "proto": proto})
    head = _ethernet(dst_mac, src_mac, outer.tag, ETHER_TYPES[kind])
    return head + (_ipv4(bare, payload) if kind == "ipv4" else _ipv6(bare, payload))


def _udp(outer: Outer) -> bytes:
    first = (0x0800_0000 if outer.kind == "vxlan" else (0x80 if outer.oam else 0) << 16 | 0x6558) & 0xFFFFFFFF
    return struct.pack("!HHHHII", 50000, TUNNEL_PORTS[outer.kind], 0, 0, first, outer.vni << 8)
