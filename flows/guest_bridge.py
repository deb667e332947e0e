"""Rules of br-guest, the virtual image of the NIC: only what is the port's own gets past; ARP is answered here.

Those for IPv6 alone are in `guest_ipv6`, those for DHCP in `guest_dhcp`, the VPC's router and MTU in `guest_router`.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping as MappingABC
from typing import Final

from flows import drops, guest_allowed, guest_dhcp, guest_groups, guest_ipv6, guest_limits, guest_link, guest_router
from flows.fields import (
    ARP_OP,
    ARP_SHA,
    ARP_SPA,
    ARP_THA,
    ARP_TPA,
    ETH_DST,
    ETH_SRC,
    ETH_TYPE,
    IN_PORT,
    IP_DST,
    IP_SRC,
    SCRATCH,
    TAGGED,
    UNTAGGED,
    VLAN,
    VNI,
    ArpOp,
    EthType,
    mac,
)
from flows.flow import Copy, FieldMatch, Flow, Goto, Output, OutputInPort, SetField, drop, flow
from flows.guest_groups import Groups
from flows.meter import Meter, MeterKind, meter_id
from flows.pipeline import BR_GUEST, TABLES, Reason
from flows.ports import guest_patch
from flows.priority import NAMED_MISS, OWN, PASS, TAG
from flows.view import FarPort, Location
from flows.wrong_bits import wrong_bits
from mapping.model import Host, IPAddress, Port, Vpc

CLASSIFY, ARP_GUARD, IP_GUARD, ARP_REPLY, ARP_ANSWER, SELF_GUARD, TO_NIC, TO_GUEST = (
    TABLES[BR_GUEST][name]
    for name in ("CLASSIFY", "ARP_GUARD", "IP_GUARD", "ARP_REPLY", "ARP_ANSWER", "SELF_GUARD", "TO_NIC", "TO_GUEST")
)

PUNTED: Final = Meter("pktps", 20, 20)
"""How many packets of one guest the controller sees in a second, and at once."""

Ofports = MappingABC[str, int]


def of_host(_: Host) -> Iterator[Flow]:
    """What every host has, besides the misses."""
    yield flow(CLASSIFY, TAG, {VLAN: (TAGGED, TAGGED)}, drop(Reason.VLAN_TAGGED))
    yield flow(ARP_REPLY, NAMED_MISS, {ETH_TYPE: EthType.ARP, ARP_OP: ArpOp.REQUEST}, drop(Reason.ARP_UNMAPPED))
    yield _arp_answer()
    for eth_type in (EthType.IPV4, EthType.IPV6):
        yield flow(SELF_GUARD, PASS, {ETH_TYPE: eth_type}, [Goto("FROM_TRACK")])
    yield from guest_ipv6.of_host()
    yield from guest_dhcp.of_host()
    yield from guest_link.of_host()
    yield from guest_router.of_host()


def of_peer(_host: Host, _peer: Host) -> Iterator[Flow]:
    """Nothing: br-guest knows of no other host."""
    yield from ()


def of_vpc(vpc: Vpc, fleet_mtu: int) -> Iterator[Flow]:
    """The router of a VPC that has a port here, and who its MAC is on each subnet."""
    for router in vpc.routers():
        yield _reply(vpc, router, vpc.router_mac, router=True)
    if any(subnet.version == 6 for subnet in vpc.subnets):
        yield _reply(vpc, guest_ipv6.ROUTER_LINK_LOCAL, vpc.router_mac, router=True)
    yield from guest_dhcp.of_vpc(vpc)
    yield from guest_router.of_vpc(vpc, fleet_mtu)


def of_port(port: Port, vpc: Vpc, ofports: Ofports) -> Iterator[Flow]:
    """A port of this host. While its device or patch is not there, it has none."""
    device, patch = ofports.get(port.device), ofports.get(guest_patch(port.device))
    if device is not None and patch is not None:
        yield from _classify(port, vpc, device, patch)
        yield from drops.of_port(BR_GUEST, device)


def of_far_port(_host: Host, _far: FarPort, _vpc: Vpc) -> Iterator[Flow]:
    """Nothing: of what is elsewhere br-guest knows the addresses alone."""
    yield from ()


def of_groups(port: Port, vpc: Vpc, groups: Groups, ofports: Ofports) -> Iterator[Flow]:
    """What the security groups of a port of this host allow."""
    device, patch = ofports.get(port.device), ofports.get(guest_patch(port.device))
    if device is not None and patch is not None:
        yield from guest_groups.of_port(vpc.vni, groups, device, patch)


def meters(port: Port, ofports: Ofports) -> Iterator[tuple[int, Meter]]:
    """The meters of a port of this host."""
    device = ofports.get(port.device)
    if device is not None:
        yield meter_id(device, MeterKind.PUNT), PUNTED
        yield from guest_limits.of_port(port, device)


def of_address(host: Host, location: Location, ofports: Ofports) -> Iterator[Flow]:
    """An address of a VPC that has a port here: its MAC to who asks and, when it is here, leave to send from it."""
    yield _reply(location.vpc, location.ip, location.port.mac)
    yield from guest_groups.of_peer(location)
    if location.host == host:
        device, patch = ofports.get(location.port.device), ofports.get(guest_patch(location.port.device))
        if device is not None and patch is not None:
            if location.ip.version == 6:
                yield from guest_ipv6.of_own_address(int(location.ip), mac(location.port.mac), device)
            else:
                yield from _own_address(location, device)
            yield from guest_dhcp.of_own_address(location.ip, device)


def _classify(port: Port, vpc: Vpc, device: int, patch: int) -> Iterator[Flow]:
    own = mac(port.mac)
    from_guest, to_guest = (guest_limits.pass_through(port, device, way) for way in ("from_guest", "to_guest"))
    yield flow(CLASSIFY, PASS, {IN_PORT: patch}, [Goto(guest_link.LINK_GUARD.name)])
    yield flow(TO_GUEST, PASS, {IN_PORT: patch}, [*to_guest, Output(device)])
    yield flow(TO_NIC, PASS, {IN_PORT: device}, [Output(patch)])
    yield from wrong_bits(CLASSIFY, {IN_PORT: device}, ETH_SRC, own, Reason.SPOOFED_MAC)
    guards = ((EthType.ARP, ARP_GUARD), (EthType.IPV4, IP_GUARD), (EthType.IPV6, guest_ipv6.IPV6_GUARD))
    for eth_type, guard in guards:
        yield flow(
            CLASSIFY,
            PASS,
            {IN_PORT: device, VLAN: UNTAGGED, ETH_SRC: own, ETH_TYPE: eth_type},
            [*from_guest, SetField(VNI, vpc.vni), Goto(guard.name)],
        )
    yield flow(CLASSIFY, NAMED_MISS, {IN_PORT: device}, drop(Reason.UNKNOWN_ETHERTYPE))
    arp: FieldMatch = {IN_PORT: device, ETH_TYPE: EthType.ARP}
    yield from wrong_bits(ARP_GUARD, arp, ARP_SHA, own, Reason.SPOOFED_ARP)
    # RFC 5227: a guest that is about to use an address asks for it with no sender address.
    yield _arp_sender(device, own, 0)
    yield from guest_ipv6.of_port(own, device)
    yield from guest_dhcp.of_port(device)
    yield from guest_allowed.of_port(port, device)
    yield from guest_router.of_port(device)


def _own_address(location: Location, device: int) -> Iterator[Flow]:
    own, ip = mac(location.port.mac), int(location.ip)
    yield flow(IP_GUARD, PASS, {IN_PORT: device, ETH_TYPE: EthType.IPV4, IP_SRC: ip}, [Goto(SELF_GUARD.name)])
    yield flow(SELF_GUARD, OWN, {IN_PORT: device, ETH_TYPE: EthType.IPV4, IP_DST: ip}, drop(Reason.TO_ITSELF))
    yield _arp_sender(device, own, ip)
    # Announcements and RFC 5227 probes of the port's own address: an answer would tell the guest of a double.
    for sender in (ip, 0):
        asks_itself: FieldMatch = {IN_PORT: device, ETH_TYPE: EthType.ARP, ARP_SPA: sender, ARP_TPA: ip}
        yield flow(ARP_GUARD, OWN, asks_itself, drop(Reason.ARP_OWN_ADDRESS))


def _arp_sender(device: int, own: int, ip: int) -> Flow:
    match: FieldMatch = {
        IN_PORT: device,
        ETH_TYPE: EthType.ARP,
        ARP_SHA: own,
        ARP_SPA: ip,
    }
    return flow(ARP_GUARD, PASS, match, [Goto(ARP_REPLY.name)])


def _reply(vpc: Vpc, ip: IPAddress, eth: str, *, router: bool = False) -> Flow:
    if ip.version == 6:
        return guest_ipv6.reply(vpc.vni, int(ip), mac(eth), router=router)
    match: FieldMatch = {VNI: vpc.vni, ETH_TYPE: EthType.ARP, ARP_OP: ArpOp.REQUEST, ARP_TPA: int(ip)}
    return flow(ARP_REPLY, PASS, match, [SetField(ETH_SRC, mac(eth)), Goto(ARP_ANSWER.name)])


def _arp_answer() -> Flow:
    """RFC 826: the reply names who was asked as sender, and who asked as target. `dl_src` is the MAC asked for."""
    return flow(
        ARP_ANSWER,
        PASS,
        {ETH_TYPE: EthType.ARP},
        [
            Copy(ARP_SHA, ETH_DST),
            Copy(ARP_SHA, ARP_THA),
            Copy(ETH_SRC, ARP_SHA),
            Copy(ARP_SPA, SCRATCH),
            Copy(ARP_TPA, ARP_SPA),
            Copy(SCRATCH, ARP_TPA),
            SetField(ARP_OP, ArpOp.REPLY),
            OutputInPort(),
        ],
    )
