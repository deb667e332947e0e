"""Rules of br-guest for the router of each VPC: between subnets, to itself, and of the size that its guests may send.

Whether a packet is routed its addresses decide alone, not the MAC that it is sent to: a guest may invent MACs without
end, and each that a rule looked at would fill the datapath's cache.

The same holds for the TTL. Open vSwitch's own `dec_ttl` looks at all of it, so that of each pair of addresses 254 flows
could be cached. But to subtract one changes no bit above the lowest 1, so no more bits need be looked at:

    .......1 -> .......0      ......10 -> ......01      .....100 -> .....011     and so on

An odd TTL is also looked at up to its next 1, which tells it from the TTL of 1, that expires. It is done in steps of
three, three and two bits, of which most packets (64, 128) need all, and 255 the first: 28 flows at most.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from flows.fields import (
    ETH_DST,
    ETH_SRC,
    ETH_TYPE,
    FAMILIES,
    HOP_LIMIT,
    ICMP_CODE,
    ICMP_TYPE,
    ICMPV6_CODE,
    ICMPV6_TYPE,
    IN_PORT,
    IP_PROTO,
    IPV6_DST,
    SUBNET,
    TOO_BIG,
    TTL,
    VNI,
    EthType,
    Field,
    Icmp,
    Icmpv6,
    IpProto,
    mac,
)
from flows.flow import (
    Action,
    CheckLarger,
    Copy,
    FieldMatch,
    Flow,
    Goto,
    OutputInPort,
    SetField,
    ToController,
    UseMeter,
    drop,
    flow,
)
from flows.guest_ipv6 import ROUTER_LINK_LOCAL
from flows.meter import MeterKind, meter_id
from flows.pipeline import BR_GUEST, TABLES, Reason, Table
from flows.priority import NAMED_MISS, OWN, PASS
from mapping.model import IPAddress, Vpc

ROUTE, ROUTER, ON_LINK, TTL_LOW, TTL_MIDDLE, TTL_HIGH, TTL_EXPIRED, SIZE, FIT = (
    TABLES[BR_GUEST][name]
    for name in ("ROUTE", "ROUTER", "ON_LINK", "TTL_LOW", "TTL_MIDDLE", "TTL_HIGH", "TTL_EXPIRED", "SIZE", "FIT")
)

_STEPS: Final = ((TTL_LOW, range(3)), (TTL_MIDDLE, range(3, 6)), (TTL_HIGH, range(6, 8)))
"""Which bits of the TTL each table adds to those that are known."""

_ETHERNET: Final = 14
"""Bytes of a frame before its IP packet: there are no tags here."""


class _Echo(NamedTuple):
    """How a version of IP writes a ping."""

    protocol: IpProto
    type: Field
    code: Field
    request: int
    reply: int


_ECHO: Final = {
    4: _Echo(IpProto.ICMP, ICMP_TYPE, ICMP_CODE, Icmp.ECHO_REQUEST, Icmp.ECHO_REPLY),
    6: _Echo(IpProto.ICMPV6, ICMPV6_TYPE, ICMPV6_CODE, Icmpv6.ECHO_REQUEST, Icmpv6.ECHO_REPLY),
}


def of_host() -> Iterator[Flow]:
    """What every host has, besides the misses: TTLs are the same everywhere."""
    for family in FAMILIES.values():
        for index, (table, bits) in enumerate(_STEPS):
            for bit in bits:
                if bit:
                    yield from _decrement(table, family.eth_type, bit)
            following = _STEPS[index + 1 :]
            on = _look_at(*following[0]) if following else [Goto(TTL_EXPIRED.name)]
            yield flow(table, NAMED_MISS, {ETH_TYPE: family.eth_type}, on)
    yield flow(FIT, PASS, {TOO_BIG: 0}, [Goto("TO_NIC")])


def _look_at(table: Table, bits: range) -> list[Action]:
    return [Copy(HOP_LIMIT, TTL, bits.start, len(bits)), Goto(table.name)]


def _decrement(table: Table, eth_type: EthType, bit: int) -> Iterator[Flow]:
    """TTLs whose lowest 1, or lowest but that of an odd one, is this bit."""
    for ttl in (1 << bit, 1 << bit | 1):
        match: FieldMatch = {ETH_TYPE: eth_type, TTL: (ttl, (2 << bit) - 1)}
        yield flow(table, PASS, match, [SetField(TTL, ttl - 1), Copy(TTL, HOP_LIMIT, 0, bit + 1), Goto(SIZE.name)])


def of_port(device: int) -> Iterator[Flow]:
    """What the controller has to answer to a port of this host, as far as the port's meter lets it through."""
    punt: list[Action] = [UseMeter(meter_id(device, MeterKind.PUNT)), ToController()]
    for family in FAMILIES.values():
        udp: FieldMatch = {IN_PORT: device, ETH_TYPE: family.eth_type, IP_PROTO: IpProto.UDP}
        yield flow(ROUTER, PASS, udp, [*punt, *drop(Reason.TO_ROUTER)])
    yield flow(TTL_EXPIRED, PASS, {IN_PORT: device}, [*punt, *drop(Reason.TTL_EXPIRED)])
    # Not counted as a drop: what fits would be, too. See `CheckLarger`.
    yield flow(FIT, PASS, {IN_PORT: device, TOO_BIG: 1}, punt)


def of_vpc(vpc: Vpc, fleet_mtu: int) -> Iterator[Flow]:
    """The subnets of a VPC that has a port here, its router's addresses, and its guests' MTU."""
    for number, (subnet, router) in enumerate(zip(vpc.subnets, vpc.routers(), strict=True), 1):
        family = FAMILIES[subnet.version]
        net: tuple[int, int] = int(subnet.network_address), int(subnet.netmask)
        here: FieldMatch = {VNI: vpc.vni, ETH_TYPE: family.eth_type}
        yield flow(ROUTE, OWN, {**here, family.dst: int(router)}, [Goto(ROUTER.name)])
        yield flow(ROUTE, PASS, {**here, family.dst: net}, [SetField(SUBNET, number), Goto(ON_LINK.name)])
        same: FieldMatch = {VNI: vpc.vni, SUBNET: number, ETH_TYPE: family.eth_type, family.src: net}
        yield flow(ON_LINK, PASS, same, [Goto(SIZE.name)])
        yield _pong(vpc, router)
    if any(subnet.version == 6 for subnet in vpc.subnets):
        on_link: FieldMatch = {VNI: vpc.vni, ETH_TYPE: EthType.IPV6, IPV6_DST: int(ROUTER_LINK_LOCAL)}
        yield flow(ROUTE, OWN, on_link, [Goto(ROUTER.name)])
        yield _pong(vpc, ROUTER_LINK_LOCAL)
    # Elsewhere is for br-nic, which has mappings, or has none.
    yield flow(ROUTE, NAMED_MISS, {VNI: vpc.vni}, [Goto(SIZE.name)])
    for version in sorted({subnet.version for subnet in vpc.subnets}):
        routed: FieldMatch = {VNI: vpc.vni, ETH_TYPE: FAMILIES[version].eth_type}
        yield flow(ON_LINK, NAMED_MISS, routed, [SetField(ETH_SRC, mac(vpc.router_mac)), *_look_at(*_STEPS[0])])
    mtu = fleet_mtu if vpc.mtu is None else vpc.mtu
    yield flow(SIZE, PASS, {VNI: vpc.vni}, [CheckLarger(mtu + _ETHERNET, TOO_BIG), Goto(FIT.name)])


def _pong(vpc: Vpc, router: IPAddress) -> Flow:
    """RFC 1812, 4.3.3.6, and RFC 4443, 4.2: the router's answer to a ping.

    It keeps the TTL: to write another, Open vSwitch would look at all of it.
    """
    family, echo = FAMILIES[router.version], _ECHO[router.version]
    ping: FieldMatch = {VNI: vpc.vni, ETH_TYPE: family.eth_type, family.dst: int(router)}
    ping |= {IP_PROTO: echo.protocol, echo.type: echo.request, echo.code: 0}
    return flow(
        ROUTER,
        PASS,
        ping,
        [
            Copy(ETH_SRC, ETH_DST),
            SetField(ETH_SRC, mac(vpc.router_mac)),
            Copy(family.src, family.dst),
            SetField(family.src, int(router)),
            SetField(echo.type, echo.reply),
            OutputInPort(),
        ],
    )
