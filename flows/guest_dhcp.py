"""Rules of br-guest for what a guest asks to be told its configuration: DHCP, DHCPv6, router solicitations.

They go to the controller (`controller.answers`), and nobody else ever sees them: from the port itself, that is, from
none of its addresses yet, a link-local one or its own, and as often as the port's meter lets them. All that a guest can
vary is matched in addresses, whose prefixes are tracked, and in both UDP ports, which Open vSwitch tracks
likewise: what it invents makes few entries in the datapath's cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from flows.fields import (
    ETH_TYPE,
    FAMILIES,
    IN_PORT,
    IP_DST,
    IP_PROTO,
    IP_SRC,
    IPV6_DST,
    IPV6_SRC,
    UDP_DST,
    UDP_SRC,
    VNI,
    EthType,
    Icmpv6,
    IpProto,
)
from flows.flow import FieldMatch, Flow, Goto, ToController, UseMeter, flow
from flows.guest_ipv6 import FROM_LINK, IPV6_GUARD, LINK_LOCAL, icmpv6
from flows.meter import MeterKind, meter_id
from flows.pipeline import BR_GUEST, TABLES
from flows.priority import LINK, PASS
from mapping.model import IPAddress, Vpc

IP_GUARD, DHCP_GUARD, DHCP = (TABLES[BR_GUEST][name] for name in ("IP_GUARD", "DHCP_GUARD", "DHCP"))

_EVERYBODY: Final = int(IPv4Address("255.255.255.255"))
_ALL_SERVERS: Final = int(IPv6Address("ff02::1:2"))
"""All_DHCP_Relay_Agents_and_Servers, RFC 8415, 7.1."""
_DHCP: Final[FieldMatch] = {ETH_TYPE: EthType.IPV4, IP_PROTO: IpProto.UDP, UDP_SRC: 68, UDP_DST: 67}
_DHCPV6: Final[FieldMatch] = {ETH_TYPE: EthType.IPV6, IP_PROTO: IpProto.UDP, UDP_SRC: 546, UDP_DST: 547}


def of_host() -> Iterator[Flow]:
    """What every host has: what is sent to all servers or routers, there being one."""
    asks = [Goto(DHCP_GUARD.name)]
    yield flow(IP_GUARD, LINK, {**_DHCP, IP_DST: _EVERYBODY}, asks)
    yield flow(IPV6_GUARD, LINK, {**_DHCPV6, IPV6_DST: _ALL_SERVERS}, asks)
    yield flow(FROM_LINK, LINK, icmpv6(Icmpv6.ROUTER_SOLICITATION), asks)


def of_vpc(vpc: Vpc) -> Iterator[Flow]:
    """A guest renews what it has with the server itself, which is the router of its subnet: RFC 2131, 4.3.6."""
    for router in vpc.routers():
        if router.version == 4:
            yield flow(IP_GUARD, LINK, {VNI: vpc.vni, **_DHCP, IP_DST: int(router)}, [Goto(DHCP_GUARD.name)])


def of_port(device: int) -> Iterator[Flow]:
    """A port may ask from no address and, over IPv6, from any link-local one."""
    senders: tuple[FieldMatch, ...] = (
        {ETH_TYPE: EthType.IPV4, IP_SRC: 0},
        {ETH_TYPE: EthType.IPV6, IPV6_SRC: 0},
        {ETH_TYPE: EthType.IPV6, IPV6_SRC: LINK_LOCAL},
    )
    for sender in senders:
        yield _sender(device, sender)
    yield flow(DHCP, PASS, {IN_PORT: device}, [UseMeter(meter_id(device, MeterKind.PUNT)), ToController()])


def of_own_address(ip: IPAddress, device: int) -> Iterator[Flow]:
    """An address that is mapped to a port: leave to ask from it."""
    family = FAMILIES[ip.version]
    yield _sender(device, {ETH_TYPE: family.eth_type, family.src: int(ip)})


def _sender(device: int, sender: FieldMatch) -> Flow:
    return flow(DHCP_GUARD, PASS, {IN_PORT: device, **sender}, [Goto(DHCP.name)])
