"""DHCPv6 for a guest (RFC 8415): its request -> the answer, by the mapping alone, as `controller.dhcp4` does it.

A guest is given the addresses that it names if they are mapped to its port, else its lowest that it has not been given
in the same message. It is told that a prefix is for its own use by nobody: none is delegated.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable, Iterator
from ipaddress import IPv6Address
from typing import Final, NamedTuple

from controller import frames
from controller.guest_config import LEASE, GuestConfig
from flows.guest_ipv6 import ROUTER_LINK_LOCAL

CLIENT_PORT, SERVER_PORT = 546, 547

_OPTION: Final = struct.Struct("!HH")
_IA: Final = struct.Struct("!4sII")
_ADDRESS: Final = struct.Struct("!16sII")
_DUID_LL: Final = b"\x00\x03\x00\x01"
"""What makes a name of a server out of its MAC, RFC 8415, 11.4."""
_T1, _T2 = LEASE // 2, LEASE * 4 // 5
_HTTP: Final = b"HTTPClient"


class Kind(enum.IntEnum):
    """Messages, RFC 8415, 7.3."""

    SOLICIT = 1
    ADVERTISE = 2
    REQUEST = 3
    CONFIRM = 4
    RENEW = 5
    REBIND = 6
    REPLY = 7
    RELEASE = 8
    DECLINE = 9
    INFORMATION_REQUEST = 11


class Option(enum.IntEnum):
    """Options, RFC 8415, 21, unless said otherwise."""

    CLIENT = 1
    SERVER = 2
    IA_NA = 3
    IA_TA = 4
    ADDRESS = 5
    STATUS = 13
    RAPID_COMMIT = 14
    VENDOR_CLASS = 16
    DNS = 23  # RFC 3646
    IA_PD = 25
    BOOT_FILE = 59  # RFC 5970
    ARCHITECTURE = 61  # RFC 5970


class Status(enum.IntEnum):
    """Codes, RFC 8415, 21.13."""

    SUCCESS = 0
    NO_ADDRESSES = 2
    NOT_ON_LINK = 4
    NO_PREFIX = 6


_TO_ANY_SERVER: Final = {Kind.SOLICIT, Kind.CONFIRM, Kind.REBIND}
_TO_ONE_SERVER: Final = {Kind.REQUEST, Kind.RENEW, Kind.RELEASE, Kind.DECLINE}
_RENEWS: Final = {Kind.RENEW, Kind.REBIND}
_GIVES: Final = {Kind.SOLICIT, Kind.REQUEST, *_RENEWS}

Options = list[tuple[int, bytes]]


class _Request(NamedTuple):
    kind: int
    transaction: bytes
    options: Options

    def first(self, option: Option) -> bytes | None:
        return next((value for code, value in self.options if code == option), None)


def answer(frame: bytes, guest: GuestConfig) -> bytes | None:
    """The answer to a frame of this guest's; None if it asks nothing, or what it asks is not ours to answer."""
    packet = frames.read(frame)
    data = packet.udp(CLIENT_PORT, SERVER_PORT) if packet and isinstance(packet.src, IPv6Address) else None
    request = _parse(data) if data else None
    if packet is None or request is None or packet.mac != guest.mac or not guest.ipv6 or not packet.src.is_link_local:
        return None
    if not _is_ours(request, guest) or (told := _told(request, guest)) is None:
        return None
    rapid = request.first(Option.RAPID_COMMIT) is not None
    kind = Kind.ADVERTISE if request.kind == Kind.SOLICIT and not rapid else Kind.REPLY
    if request.kind == Kind.SOLICIT and rapid:
        told.append((Option.RAPID_COMMIT, b""))
    client = request.first(Option.CLIENT)
    names = [(Option.CLIENT, client)] if client else []
    message = bytes([kind]) + request.transaction + _pack([*names, (Option.SERVER, _server(guest)), *told])
    ends = frames.Ends(guest.router_mac, guest.mac, ROUTER_LINK_LOCAL, packet.src)
    return frames.udp(ends, SERVER_PORT, CLIENT_PORT, message)


def _is_ours(request: _Request, guest: GuestConfig) -> bool:
    """Whether it names who it is from and for as its kind must, RFC 8415, 16."""
    server = request.first(Option.SERVER)
    if request.kind == Kind.INFORMATION_REQUEST:
        asks_address = any(code in (Option.IA_NA, Option.IA_TA, Option.IA_PD) for code, _ in request.options)
        return server in (None, _server(guest)) and not asks_address
    if not request.first(Option.CLIENT):
        return False
    if request.kind in _TO_ANY_SERVER:
        return server is None
    return request.kind in _TO_ONE_SERVER and server == _server(guest)


def _told(request: _Request, guest: GuestConfig) -> Options | None:
    """All that an answer says, but who it is from and for."""
    if request.kind in (Kind.RELEASE, Kind.DECLINE):
        return [_status(Status.SUCCESS)]
    if request.kind == Kind.CONFIRM:
        has = [address for code, value in request.options if code == Option.IA_NA for address in _addresses(value)]
        own = {address.ip for address in guest.ipv6}
        return [_status(Status.SUCCESS if own.issuperset(has) else Status.NOT_ON_LINK)] if has else None
    told = list(_assignments(request, guest)) if request.kind in _GIVES else []
    if servers := guest.dns_servers(6):
        told.append((Option.DNS, servers))
    return told + _boot(request, guest)


def _assignments(request: _Request, guest: GuestConfig) -> Iterator[tuple[int, bytes]]:
    """What each of the request's identity associations is given."""
    own = [address.ip for address in guest.ipv6]
    asked = {address for code, value in request.options if code == Option.IA_NA for address in _addresses(value)}
    left = [address for address in own if address not in asked]
    for code, value in request.options:
        if code == Option.IA_NA and len(value) >= _IA.size:
            has = list(dict.fromkeys(_addresses(value)))
            good = [address for address in has if address in own] or left[:1]
            left = [address for address in left if address not in good]
            bad = [address for address in has if address not in own and request.kind in _RENEWS]
            yield code, _association(value[:4], good, bad)
        elif code == Option.IA_TA and len(value) >= 4:
            yield code, value[:4] + _pack([_status(Status.NO_ADDRESSES)])
        elif code == Option.IA_PD and len(value) >= _IA.size:
            yield code, _IA.pack(value[:4], 0, 0) + _pack([_status(Status.NO_PREFIX)])


def _association(name: bytes, good: Iterable[IPv6Address], bad: Iterable[IPv6Address]) -> bytes:
    """What is not the port's is to be given up at once: its lifetime is 0."""
    options = [(Option.ADDRESS, _ADDRESS.pack(address.packed, LEASE, LEASE)) for address in good]
    options += [(Option.ADDRESS, _ADDRESS.pack(address.packed, 0, 0)) for address in bad]
    return _IA.pack(name, _T1, _T2) + _pack(options or [_status(Status.NO_ADDRESSES)])


def _addresses(association: bytes) -> Iterator[IPv6Address]:
    for code, value in _options(association[_IA.size :]) or []:
        if code == Option.ADDRESS and len(value) >= _ADDRESS.size:
            yield IPv6Address(value[:16])


def _boot(request: _Request, guest: GuestConfig) -> Options:
    """What a guest that boots from the network loads. It is told a URL or nothing, RFC 5970, 3.1."""
    said = request.first(Option.ARCHITECTURE) or b""
    architectures = [int.from_bytes(said[at : at + 2]) for at in range(0, len(said) - 1, 2)]
    file = guest.boot_file(architectures, ipxe=False)
    if file is None or "://" not in file:
        return []
    vendor_class = request.first(Option.VENDOR_CLASS) or b""
    same = [(Option.VENDOR_CLASS, vendor_class)] if _HTTP in vendor_class else []
    return [(Option.BOOT_FILE, file.encode()), *same]


def _server(guest: GuestConfig) -> bytes:
    return _DUID_LL + guest.router_mac


def _status(status: Status) -> tuple[int, bytes]:
    return Option.STATUS, status.to_bytes(2)


def _parse(data: bytes) -> _Request | None:
    options = _options(data[4:])
    return None if len(data) < 4 or options is None else _Request(data[0], data[1:4], options)


def _options(data: bytes) -> Options | None:
    """None if they are cut off."""
    options: Options = []
    at = 0
    while at < len(data):
        if at + _OPTION.size > len(data):
            return None
        code, length = _OPTION.unpack_from(data, at)
        at += _OPTION.size + length
        if at > len(data):
            return None
        options.append((code, data[at - length : at]))
    return options


def _pack(options: Iterable[tuple[int, bytes]]) -> bytes:
    return b"".join(_OPTION.pack(code, len(value)) + value for code, value in options)
