"""What the malicious guest tries to get past another's security groups.

They let everybody at TCP port 80 of vault, only members at port 443, and pings from log alone. What is refused has got
as far as vault's host.
"""

from __future__ import annotations

from typing import Any, Final

from scapy.layers.inet import ICMP, TCP, UDP, IPerror, IPOption_NOP, TCPerror, UDPerror
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoRequest,
    IPerror6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.sctp import SCTP
from scapy.packet import Packet, Raw

from flows.pipeline import Reason
from tests.attack.case import at_guest, at_receiver, delivered, guest, marker
from tests.attack.setting import ECHO_REPLY, ECHO_REPLY6, LOG, VAULT, WEB, eth, ip, ip6

_REFUSED = at_receiver(Reason.GROUP_TO_GUEST, "vault")
_OPEN, _CLOSED = 80, 443
_TO_CLOSED, _TO_OPEN = (TCP(sport=40001, dport=port, flags="S") for port in (_CLOSED, _OPEN))
_QUOTED: Final = TCPerror(sport=_OPEN, dport=40010)
"""Of the connection that log has to vault: `World`."""


def _to(what: Packet, **fields: Any) -> Packet:
    return eth() / ip(dst=VAULT.ip, **fields) / what


def _to6(what: Packet) -> Packet:
    return eth() / ip6(dst=VAULT.ipv6) / what


_FIRST: Final = 1312
"""Bytes of a first fragment that the tracker takes: it puts none together that are smaller (1280 bytes of IPv6)."""
_PROTOCOLS: Final = {TCP: 6, UDP: 17, ICMP: 1, ICMPv6EchoRequest: 58}


def _fragment(what: Packet, number: int, start: int, end: int | None = None, *, six: bool = False) -> bytes:
    """Bytes of a large packet of this kind to vault, as a fragment; to the end, if no end is given."""
    head = ip6(dst=VAULT.ipv6) if six else ip(dst=VAULT.ip)
    whole = head / what / Raw(bytes(1400) + marker("in fragments"))
    body, nh = bytes(whole)[len(head) :][start:end], _PROTOCOLS[type(what)]
    if six:
        part = IPv6ExtHdrFragment(id=number, offset=start // 8, m=end is not None, nh=nh)
        return bytes(eth() / ip6(dst=VAULT.ipv6) / part / Raw(body))
    more = 0 if end is None else "MF"
    return bytes(eth() / ip(dst=VAULT.ip, id=number, frag=start // 8, flags=more, proto=nh) / Raw(body))


def _in_two(what: Packet, number: int, *, six: bool = False) -> list[bytes]:
    return [_fragment(what, number, 0, _FIRST, six=six), _fragment(what, number, _FIRST, six=six)]


GROUPS: Final = [
    guest(
        "to a port that is closed",
        _REFUSED,
        *(
            _to(each)
            for each in (_TO_CLOSED, UDP(dport=_OPEN), ICMP(), SCTP(dport=_OPEN), TCP(dport=79), TCP(dport=81))
        ),
        *(_to6(each) for each in (_TO_CLOSED, UDP(dport=_OPEN), ICMPv6EchoRequest(), TCP(dport=81))),
    ),
    guest(
        "to port 0", _REFUSED, *(_to(each) for each in (TCP(dport=0, flags="S"), UDP(dport=0), UDP(sport=0, dport=0)))
    ),
    guest(
        "of a connection that nobody opened",
        _REFUSED,
        *(_to(TCP(sport=40000, dport=_CLOSED, flags=flags)) for flags in ("A", "PA", "SA", "R", "FA", "FPU", "")),
        *(_to6(TCP(sport=40000, dport=_CLOSED, flags=flags)) for flags in ("A", "SA")),
    ),
    guest(
        "a reply that nobody asked for",
        _REFUSED,
        *(_to(UDP(sport=port, dport=40000)) for port in (53, 123, _CLOSED)),
        *(_to(TCP(sport=port, dport=40000, flags="SA")) for port in (_OPEN, _CLOSED)),
        *(_to(each) for each in (ECHO_REPLY, ICMP(type=14))),
        _to6(ECHO_REPLY6),
    ),
    guest(
        "an ICMP error about a connection that is not",
        _REFUSED,
        *(
            _to(ICMP(type=kind, code=code) / IPerror(src=VAULT.ip, dst=about) / inner)
            for kind, code in ((3, 3), (3, 4), (11, 0), (5, 1))
            for about in (WEB.ip, LOG.ip)
            for inner in (TCPerror(sport=_OPEN, dport=40000), UDPerror(sport=53, dport=53))
        ),
        _to6(ICMPv6DestUnreach() / IPerror6(src=VAULT.ipv6, dst=WEB.ipv6) / TCPerror(sport=_OPEN, dport=40000)),
    ),
    guest(
        "an ICMP error about another's connection",
        delivered("vault"),
        *(
            _to(ICMP(type=kind, code=code) / IPerror(src=VAULT.ip, dst=LOG.ip) / _QUOTED)
            for kind, code in ((3, 1), (3, 4), (5, 1))
        ),
        _to6(ICMPv6DestUnreach() / IPerror6(src=VAULT.ipv6, dst=LOG.ipv6) / _QUOTED),
        limit=True,
    ),
    guest(
        "in fragments of which the tracker makes nothing",
        _REFUSED,
        _to(Raw(bytes(_TO_CLOSED)[:8]), id=73, flags="MF", proto=6),
        _to(Raw(bytes(TCP(dport=_OPEN, flags="S"))), id=74, flags="MF", proto=6),
        _to6(IPv6ExtHdrFragment(id=75, m=1, nh=6) / Raw(bytes(_TO_CLOSED))),
    ),
    guest(
        "in fragments, to a port that is closed",
        _REFUSED,
        *_in_two(_TO_CLOSED, 80),
        *reversed(_in_two(_TO_CLOSED, 81)),
        *_in_two(UDP(sport=53, dport=_OPEN), 82),
        *_in_two(ICMP(), 83),
        *_in_two(_TO_CLOSED, 84, six=True),
        *reversed(_in_two(_TO_CLOSED, 85, six=True)),
        *_in_two(ICMPv6EchoRequest(), 86, six=True),
    ),
    guest(
        "in fragments, to a port that is open, but of no connection",
        _REFUSED,
        *_in_two(_TO_OPEN, 90),
        *_in_two(_TO_OPEN, 91, six=True),
    ),
    guest(
        "in tiny fragments",
        _REFUSED,
        *(_fragment(_TO_CLOSED, 92, *part) for part in ((0, 8), (8, 16), (16, 24))),
        *(_fragment(_TO_CLOSED, 93, *part, six=True) for part in ((0, 8), (8, 16), (16, 24))),
    ),
    guest(
        "in fragments that overlap, of which one names a port that is open",
        _REFUSED,
        _fragment(_TO_OPEN, 94, 0, _FIRST),
        _fragment(_TO_CLOSED, 94, 0, _FIRST),
        _fragment(_TO_OPEN, 94, _FIRST),
        _fragment(_TO_OPEN, 95, 0, _FIRST, six=True),
        _fragment(_TO_CLOSED, 95, 0, _FIRST, six=True),
        _fragment(_TO_OPEN, 95, _FIRST, six=True),
    ),
    guest(
        "behind options and extension headers, to a port that is closed",
        _REFUSED,
        _to(_TO_CLOSED, options=[IPOption_NOP()] * 4),
        *(
            _to6(header / _TO_CLOSED)
            for header in (
                IPv6ExtHdrHopByHop(),
                IPv6ExtHdrDestOpt(),
                IPv6ExtHdrRouting(),
                IPv6ExtHdrDestOpt() / IPv6ExtHdrDestOpt(),
                IPv6ExtHdrFragment(id=76, nh=6),
            )
        ),
    ),
    guest("as a member of the group", at_guest(Reason.SPOOFED_IP), eth() / ip(VAULT.ip, VAULT.ip) / _TO_CLOSED),
    guest("as whom a rule names", at_guest(Reason.SPOOFED_IP), eth() / ip(LOG.ip, VAULT.ip) / ICMP()),
]
