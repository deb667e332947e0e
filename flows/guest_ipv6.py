"""Rules of br-guest for IPv6: only what is the port's own gets past; neighbour discovery (RFC 4861) is answered here.

A guest may have any link-local address (RFC 4291, RFC 7217): it may ask for neighbours, and for its configuration
(`guest_dhcp`), from it, and ping its router, because the answer goes back to its own port alone, and nobody else ever
sees the address.
Whatever else it sends from there ends here. So do all other messages that never leave a link (MLD, advertisements,
redirects): neighbours, routers and receivers are told by the mapping.

Which messages these are, protocol number and type say, and Open vSwitch would look at the number exactly, of whatever
a guest sends and to whomever: a cached flow for each number and destination that it invents. So a frame to all is not
looked at: IPv6 knows none (RFC 2464, 7). The filter ahead of the port (`topo.port_filter`) has all that is no
neighbour discovery come in such frames, and nothing that is. Where it is missing, neighbour discovery in a frame to all
gets past, and ends at the port of the one whom it is for (`guest_link`).
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv6Address, IPv6Network
from typing import Final

from flows.fields import (
    ETH_DST,
    ETH_SRC,
    ETH_TYPE,
    ICMPV6_CODE,
    ICMPV6_TYPE,
    IN_PORT,
    IP_PROTO,
    IPV6_DST,
    IPV6_SRC,
    ND_FLAGS,
    ND_OPTION,
    ND_SLL,
    ND_TARGET,
    ND_TLL,
    ROUTER,
    SCRATCH,
    VNI,
    EthType,
    Icmpv6,
    IpProto,
    mac,
    prefix,
)
from flows.flow import Action, Copy, FieldMatch, Flow, Goto, OutputInPort, SetField, drop, flow
from flows.pipeline import BR_GUEST, TABLES, Reason
from flows.priority import ALLOWED, ALLOWED_OWN, BEFORE_LINK, LINK, NAMED_MISS, OWN, PASS
from flows.wrong_bits import wrong_bits
from mapping.model import IPNetwork

IPV6_GUARD, FROM_LINK, ND_GUARD, ND_REPLY, ND_ANSWER, SELF_GUARD = (
    TABLES[BR_GUEST][name] for name in ("IPV6_GUARD", "FROM_LINK", "ND_GUARD", "ND_REPLY", "ND_ANSWER", "SELF_GUARD")
)

ROUTER_LINK_LOCAL: Final = IPv6Address("fe80::1")
"""The router's address on every link: the one that its advertisements come from, RFC 4861, 4.2."""

_LINK_LOCAL_NET: Final = IPv6Network("fe80::/10")
LINK_LOCAL: Final = int(_LINK_LOCAL_NET.network_address), int(_LINK_LOCAL_NET.netmask)
_NOBODY: Final = 0
"""The unspecified address: a guest has none yet."""
_ALL_NODES: Final = int(IPv6Address("ff02::1"))
_BROADCAST: Final = (mac("81:00:00:00:00:00"),) * 2
"""Two bits that a frame to all has, and neither one to a neighbour nor one to a multicast address of IPv6."""
_ALL_NODES_MAC: Final = mac("33:33:00:00:00:01")

_NO_OPTION: Final = 0
_SOURCE_MAC: Final = 1
_TARGET_MAC: Final = 2
"""Types of options, RFC 4861, 4.6.1."""

_SOLICITED_OVERRIDE: Final = 0x60000000
_IS_ROUTER: Final = 0x80000000
"""Flags of an advertisement, RFC 4861, 4.4."""

ENDS_HERE: Final = {
    Icmpv6.MLD_QUERY: Reason.MLD,
    Icmpv6.MLD_REPORT: Reason.MLD,
    Icmpv6.MLD_DONE: Reason.MLD,
    Icmpv6.MLD2_REPORT: Reason.MLD,
    Icmpv6.ROUTER_ADVERTISEMENT: Reason.ROUTER_POSED,
    Icmpv6.REDIRECT: Reason.ROUTER_POSED,
    Icmpv6.NEIGHBOUR_ADVERTISEMENT: Reason.ND_ADVERTISED,
}


def icmpv6(message: Icmpv6) -> FieldMatch:
    """Such messages."""
    return {ETH_TYPE: EthType.IPV6, IP_PROTO: IpProto.ICMPV6, ICMPV6_TYPE: message}


_SOLICITATION: Final[FieldMatch] = {**icmpv6(Icmpv6.NEIGHBOUR_SOLICITATION), ICMPV6_CODE: 0}
_ADVERTISEMENT: Final[FieldMatch] = {**icmpv6(Icmpv6.NEIGHBOUR_ADVERTISEMENT), ICMPV6_CODE: 0}


def of_host() -> Iterator[Flow]:
    """What every host has, besides the misses."""
    on_link: tuple[tuple[int | tuple[int, int], Reason], ...] = (
        (LINK_LOCAL, Reason.LINK_LOCAL),
        (_NOBODY, Reason.SPOOFED_IP),
    )
    for source, reason in on_link:
        match: FieldMatch = {ETH_TYPE: EthType.IPV6, IPV6_SRC: source}
        yield flow(IPV6_GUARD, PASS, match, [Goto(FROM_LINK.name)])
        yield flow(SELF_GUARD, LINK, match, drop(reason))
    to_router: FieldMatch = {ETH_TYPE: EthType.IPV6, IPV6_SRC: LINK_LOCAL, IPV6_DST: int(ROUTER_LINK_LOCAL)}
    yield flow(SELF_GUARD, BEFORE_LINK, to_router, [Goto("ROUTER")])
    yield flow(FROM_LINK, BEFORE_LINK, {ETH_DST: _BROADCAST, ETH_TYPE: EthType.IPV6}, [Goto(SELF_GUARD.name)])
    yield flow(FROM_LINK, LINK, icmpv6(Icmpv6.NEIGHBOUR_SOLICITATION), [Goto(ND_GUARD.name)])
    for message, reason in ENDS_HERE.items():
        yield flow(FROM_LINK, LINK, icmpv6(message), drop(reason))
    yield flow(FROM_LINK, PASS, {ETH_TYPE: EthType.IPV6}, [Goto(SELF_GUARD.name)])
    yield flow(ND_REPLY, NAMED_MISS, {**_SOLICITATION, ND_TARGET: LINK_LOCAL}, drop(Reason.LINK_LOCAL))
    yield from _answers()


def of_port(own: int, device: int) -> Iterator[Flow]:
    """A port with this MAC may solicit from a link-local address, and from none: RFC 4862 looks for doubles so."""
    solicits: FieldMatch = {IN_PORT: device, **_SOLICITATION}
    yield from wrong_bits(ND_GUARD, {**solicits, ND_OPTION: _SOURCE_MAC}, ND_SLL, own, Reason.SPOOFED_ND)
    yield _sender(device, own, LINK_LOCAL)
    nobody: FieldMatch = {**solicits, IPV6_SRC: _NOBODY, ND_OPTION: _NO_OPTION}
    yield flow(ND_GUARD, PASS, nobody, [Goto(ND_REPLY.name)])


def of_own_address(ip: int, own: int, device: int) -> Iterator[Flow]:
    """An address that is mapped to a port with this MAC: leave to send from it."""
    yield flow(IPV6_GUARD, PASS, {IN_PORT: device, ETH_TYPE: EthType.IPV6, IPV6_SRC: ip}, [Goto(FROM_LINK.name)])
    yield flow(SELF_GUARD, OWN, {IN_PORT: device, ETH_TYPE: EthType.IPV6, IPV6_DST: ip}, drop(Reason.TO_ITSELF))
    yield _sender(device, own, ip)
    # An answer would tell the guest of a double.
    itself: FieldMatch = {IN_PORT: device, **_SOLICITATION, ND_TARGET: ip}
    yield flow(ND_REPLY, OWN, itself, drop(Reason.ND_OWN_ADDRESS))


def of_allowed(net: IPNetwork, own: int, device: int) -> Iterator[Flow]:
    """A network that a port with this MAC may send from besides its own addresses: see `guest_allowed`."""
    within = prefix(net)
    yield flow(IPV6_GUARD, ALLOWED, {IN_PORT: device, ETH_TYPE: EthType.IPV6, IPV6_SRC: within}, [Goto(FROM_LINK.name)])
    yield _sender(device, own, within, ALLOWED)
    looks_for_double: FieldMatch = {IN_PORT: device, **_SOLICITATION, IPV6_SRC: 0, ND_TARGET: within}
    yield flow(ND_REPLY, ALLOWED_OWN, looks_for_double, drop(Reason.ND_OWN_ADDRESS))


def _sender(device: int, own: int, ip: int | tuple[int, int], priority: int = PASS) -> Flow:
    match: FieldMatch = {IN_PORT: device, **_SOLICITATION, IPV6_SRC: ip, ND_OPTION: _SOURCE_MAC, ND_SLL: own}
    return flow(ND_GUARD, priority, match, [Goto(ND_REPLY.name)])


def reply(vni: int, ip: int, eth: int, *, router: bool = False) -> Flow:
    """The answer to who has `ip`: `eth`. It is written as sender, and the type already as that of the answer.

    The answer's own fields can be set only where a flow matches its type.
    """
    actions: list[Action] = [Copy(ETH_SRC, ETH_DST), SetField(ETH_SRC, eth)]
    if router:
        actions.append(SetField(ROUTER, 1))
    actions += [SetField(ICMPV6_TYPE, Icmpv6.NEIGHBOUR_ADVERTISEMENT), Goto(ND_ANSWER.name)]
    return flow(ND_REPLY, PASS, {VNI: vni, **_SOLICITATION, ND_TARGET: ip}, actions)


def _answers() -> Iterator[Flow]:
    """RFC 4861, 7.2.4: to who asked or, if it has no address yet, to all nodes.

    The latter has no option, and keeps the flags 0: to write either, Open vSwitch (3.1, `packet_set_nd_ext`) writes the
    type of the first option even if there is none, beyond the packet's end.

    Flags and option are copied from a register: over the kernel's datapath, which cannot set them, Open vSwitch refuses
    a flow that sets them, and takes one that copies. It carries out either by itself, as all of these answers.
    """
    for router in (False, True):
        flags = _SOLICITED_OVERRIDE | (_IS_ROUTER if router else 0)
        yield flow(
            ND_ANSWER,
            PASS,
            {ROUTER: int(router), **_ADVERTISEMENT, ND_OPTION: _SOURCE_MAC},
            [
                Copy(IPV6_SRC, IPV6_DST),
                Copy(ND_TARGET, IPV6_SRC),
                SetField(SCRATCH, flags),
                Copy(SCRATCH, ND_FLAGS),
                SetField(SCRATCH, _TARGET_MAC),
                Copy(SCRATCH, ND_OPTION),
                Copy(ETH_SRC, ND_TLL),
                OutputInPort(),
            ],
        )
    yield flow(
        ND_ANSWER,
        PASS,
        {**_ADVERTISEMENT, ND_OPTION: _NO_OPTION},
        [
            SetField(ETH_DST, _ALL_NODES_MAC),
            SetField(IPV6_DST, _ALL_NODES),
            Copy(ND_TARGET, IPV6_SRC),
            OutputInPort(),
        ],
    )
