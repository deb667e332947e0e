"""DHCP for a guest (RFC 2131): its request -> the answer, by the mapping alone.

Nothing is leased and nothing remembered: an address is a port's for as long as it is mapped to it, so an offer, a
renewal and the confirmation of what a guest had before it started again are one question, "is this address mapped to
the very port that asks?", and any controller gives the same answer. A guest may have several addresses; it is offered
the one that it asks for by name, else its lowest.

The server is the router of the address's subnet. Relays have no business here: what they write is not looked at.
"""

from __future__ import annotations

import enum
import struct
from ipaddress import IPv4Address, IPv4Interface
from typing import Final, NamedTuple

from controller import frames
from controller.guest_config import LEASE, GuestConfig

CLIENT_PORT, SERVER_PORT = 68, 67

_HEAD: Final = struct.Struct("!BBBBIHH4s4s4s4s16s64s128sI")
_REQUEST, _REPLY, _ETHERNET = 1, 2, 1
_COOKIE: Final = 0x63825363
_BROADCAST_FLAG: Final = 0x8000
_LEAST_REPLY: Final = 300
"""Bytes that a reply has at least, RFC 1542, 2.1."""
_EVERYBODY: Final = IPv4Address("255.255.255.255")
_NOBODY: Final = IPv4Address(0)
LEAST_LEASE: Final = 10
"""Seconds. A guest may ask for less than it would get, down to this."""
_PXE, _HTTP, _IPXE = b"PXEClient", b"HTTPClient", b"iPXE"
_BIOS: Final = 0


class Kind(enum.IntEnum):
    """Messages, RFC 2132, 9.6."""

    DISCOVER = 1
    OFFER = 2
    REQUEST = 3
    DECLINE = 4
    ACK = 5
    NAK = 6
    RELEASE = 7
    INFORM = 8


class Option(enum.IntEnum):
    """Options, RFC 2132 unless said otherwise."""

    PAD = 0
    MASK = 1
    ROUTER = 3
    DNS = 6
    MTU = 26
    BROADCAST = 28
    REQUESTED = 50
    LEASE = 51
    KIND = 53
    SERVER = 54
    T1 = 58
    T2 = 59
    VENDOR_CLASS = 60
    CLIENT = 61
    TFTP_SERVER = 66
    BOOT_FILE = 67
    USER_CLASS = 77  # RFC 3004
    ARCHITECTURE = 93  # RFC 4578
    MACHINE = 97  # RFC 4578
    ROUTES = 121  # RFC 3442
    END = 255


Options = dict[int, bytes]


class _Request(NamedTuple):
    xid: int
    flags: int
    ciaddr: IPv4Address
    chaddr: bytes
    options: Options

    @property
    def kind(self) -> int | None:
        kind = self.options.get(Option.KIND, b"")
        return kind[0] if len(kind) == 1 else None

    def address(self, option: Option) -> IPv4Address | None:
        data = self.options.get(option, b"")
        return IPv4Address(data) if len(data) == 4 else None


class _Answer(NamedTuple):
    """`address` is what the guest is given; none when it is refused, or has one and only wants to know the rest."""

    kind: Kind
    server: IPv4Address
    address: IPv4Address
    options: Options


def answer(frame: bytes, guest: GuestConfig) -> bytes | None:
    """The answer to a frame of this guest's; None if it asks nothing, or what it asks is not ours to answer."""
    packet = frames.read(frame)
    data = packet.udp(CLIENT_PORT, SERVER_PORT) if packet and packet.src.version == 4 else None
    request = _parse(data) if data else None
    if packet is None or request is None or not packet.mac == request.chaddr == guest.mac:
        return None
    decided = _decide(request, guest)
    return _frame(decided, request, guest) if decided else None


def _decide(request: _Request, guest: GuestConfig) -> _Answer | None:
    own = {address.ip: address for address in guest.ipv4}
    server = request.address(Option.SERVER)
    if not own or server not in {None, *map(_router, guest.ipv4)}:
        return None
    wanted = request.ciaddr if request.ciaddr != _NOBODY else request.address(Option.REQUESTED)
    match request.kind:
        case Kind.DISCOVER:
            return _grant(Kind.OFFER, own.get(wanted or _NOBODY, guest.ipv4[0]), request, guest)
        case Kind.REQUEST if wanted in own:
            return _grant(Kind.ACK, own[wanted], request, guest)
        case Kind.REQUEST if wanted:
            # What it has is not its own: it is to begin again.
            return _Answer(Kind.NAK, server or _router(guest.ipv4[0]), _NOBODY, {})
        case Kind.INFORM if request.ciaddr in own:
            return _grant(Kind.ACK, own[request.ciaddr], request, guest)
    return None


def _router(address: IPv4Interface) -> IPv4Address:
    """The router on the subnet of an address: see `Vpc.routers`."""
    return address.network[1]


def _parse(data: bytes) -> _Request | None:
    if len(data) < _HEAD.size:
        return None
    op, hardware, length, _, xid, _, flags, ciaddr, _, _, _, chaddr, _, _, cookie = _HEAD.unpack_from(data)
    options = _options(data[_HEAD.size :])
    if (op, hardware, length, cookie) != (_REQUEST, _ETHERNET, 6, _COOKIE) or options is None:
        return None
    return _Request(xid, flags, IPv4Address(ciaddr), chaddr[:6], options)


def _options(data: bytes) -> Options | None:
    """None if they are cut off. One that comes more than once is one that was split, RFC 3396."""
    options: Options = {}
    at = 0
    while at < len(data) and (code := data[at]) != Option.END:
        at += 1
        if code == Option.PAD:
            continue
        if at == len(data) or at + 1 + data[at] > len(data):
            return None
        options[code] = options.get(code, b"") + data[at + 1 : at + 1 + data[at]]
        at += 1 + data[at]
    return options


def _grant(kind: Kind, address: IPv4Interface, request: _Request, guest: GuestConfig) -> _Answer:
    """The address, and all that goes with it."""
    network, router = address.network, _router(address)
    options: Options = {
        Option.MASK: network.netmask.packed,
        Option.BROADCAST: network.broadcast_address.packed,
        Option.ROUTER: router.packed,
        Option.DNS: guest.dns_servers(4),
        Option.MTU: guest.mtu.to_bytes(2),
        Option.ROUTES: _classless(guest, address),
        **_boot(request, guest),
    }
    if request.kind == Kind.INFORM:
        return _Answer(kind, router, _NOBODY, options)
    seconds = _lease(request)
    for option, time in ((Option.LEASE, seconds), (Option.T1, seconds // 2), (Option.T2, seconds * 7 // 8)):
        options[option] = time.to_bytes(4)
    return _Answer(kind, router, address.ip, options)


def _lease(request: _Request) -> int:
    wanted = request.options.get(Option.LEASE, b"")
    return max(LEAST_LEASE, min(LEASE, int.from_bytes(wanted))) if len(wanted) == 4 else LEASE


def _classless(guest: GuestConfig, address: IPv4Interface) -> bytes:
    """RFC 3442: those routes whose next hop is on the guest's link, and is not the guest itself.

    Who reads these does not look at the router option, so the way by default has to be among them.
    """
    ways = {
        (net.prefixlen, net.network_address.packed): hop.packed
        for net, hop in guest.routes
        if hop in address.network and hop != address.ip
    }
    if not ways:
        return b""
    ways.setdefault((0, _NOBODY.packed), _router(address).packed)
    return b"".join(bytes([length]) + net[: (length + 7) // 8] + hop for (length, net), hop in ways.items())


def _boot(request: _Request, guest: GuestConfig) -> Options:
    """What a guest that boots from the network loads, and from where."""
    vendor_class = request.options.get(Option.VENDOR_CLASS, b"")
    said = request.options.get(Option.ARCHITECTURE, b"")
    architectures = [int.from_bytes(said[at : at + 2]) for at in range(0, len(said) - 1, 2)]
    if not architectures and vendor_class.startswith(_PXE):
        architectures = [_BIOS]  # older than RFC 4578
    # It writes the class without the length that RFC 3004 has before it.
    ipxe = request.options.get(Option.USER_CLASS, b"").endswith(_IPXE)
    file = guest.boot_file(architectures, ipxe=ipxe)
    if file is None:
        return {}
    options: Options = {
        Option.BOOT_FILE: file.encode(),
        Option.TFTP_SERVER: guest.boot.get("next_server", "").encode(),
    }
    if vendor_class.startswith(_HTTP):
        options[Option.VENDOR_CLASS] = _HTTP  # or UEFI does not take it for an answer to its HTTP boot
    return options


def _frame(answer: _Answer, request: _Request, guest: GuestConfig) -> bytes:
    """Who boots finds the file and its server in options, and where BOOTP has them: firmware differs."""
    ciaddr = _NOBODY if answer.kind in (Kind.OFFER, Kind.NAK) else request.ciaddr
    next_server = IPv4Address(answer.options.get(Option.TFTP_SERVER, b"").decode() or 0)
    head = _HEAD.pack(
        *(_REPLY, _ETHERNET, 6, 0, request.xid, 0, request.flags & _BROADCAST_FLAG),
        *(ciaddr.packed, answer.address.packed, next_server.packed, _NOBODY.packed, guest.mac),
        *(b"", answer.options.get(Option.BOOT_FILE, b""), _COOKIE),
    )
    told = {Option.KIND: bytes([answer.kind]), Option.SERVER: answer.server.packed, **answer.options}
    # RFC 6842, RFC 4578: what a client calls itself, and its machine, is said back to it.
    told |= {each: request.options[each] for each in (Option.CLIENT, Option.MACHINE) if each in request.options}
    tail = b"".join(_option(code, value) for code, value in told.items() if value)
    data = (head + tail + bytes([Option.END])).ljust(_LEAST_REPLY, b"\0")
    # RFC 2131, 4.1: to its address once it has one; before, to the one that it is about to get, if it can hear so.
    has_none = request.ciaddr == _NOBODY
    eth_dst, dst = guest.mac, answer.address if has_none else request.ciaddr
    if answer.kind is Kind.NAK or (has_none and request.flags & _BROADCAST_FLAG):
        eth_dst, dst = frames.BROADCAST_MAC, _EVERYBODY
    return frames.udp(frames.Ends(guest.router_mac, eth_dst, answer.server, dst), SERVER_PORT, CLIENT_PORT, data)


def _option(code: int, value: bytes) -> bytes:
    """An option of more than 255 bytes is split, RFC 3396."""
    pieces = (value[at : at + 255] for at in range(0, len(value), 255))
    return b"".join(bytes([code, len(piece)]) + piece for piece in pieces)
