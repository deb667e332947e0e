"""Rules of br-nic, the part of the NIC that pushes and pops tunnel headers.

Those for packets that have a tunnel header, between uplink and VTEP, are in `nic_substrate`.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping as MappingABC
from ipaddress import ip_network
from typing import Final

from flows import drops, nic_substrate
from flows.fields import (
    ETH_DST,
    ETH_TYPE,
    FAMILIES,
    IN_PORT,
    OAM,
    TAGGED,
    TUN_FLAGS,
    TUN_ID,
    UNTAGGED,
    VLAN,
    mac,
    prefix,
)
from flows.flow import Action, FieldMatch, Flow, Goto, Output, OutputInPort, SetField, drop, flow
from flows.guest_groups import Groups
from flows.meter import Meter
from flows.pipeline import BR_NIC, TABLES, Reason
from flows.ports import TUNNEL, nic_patch
from flows.priority import ALLOWED, LINK, OWN, PASS, TAG
from flows.view import FarPort, Location
from mapping.model import Host, IPAddress, IPNetwork, Port, Vpc

CLASSIFY, PUSH, SOURCE_GUARD, DELIVER = (
    TABLES[BR_NIC][name] for name in ("CLASSIFY", "PUSH", "SOURCE_GUARD", "DELIVER")
)

PROBE_VNI: Final = 0
"""No VPC has it: a tunnel packet with it only makes the way to a host known."""

Ofports = MappingABC[str, int]


def of_host(host: Host) -> Iterator[Flow]:
    """What comes from the tunnel, and what does not belong on uplink and VTEP."""
    tunnel = TUNNEL[host.encap]
    yield flow(CLASSIFY, TAG, {VLAN: (TAGGED, TAGGED)}, drop(Reason.VLAN_TAGGED))
    yield flow(CLASSIFY, OWN, {IN_PORT: tunnel, TUN_ID: PROBE_VNI}, drop(Reason.NEIGHBOUR_PROBE))
    yield flow(CLASSIFY, LINK, {IN_PORT: tunnel, TUN_FLAGS: OAM}, drop(Reason.TUNNEL_CONTROL))
    yield flow(CLASSIFY, PASS, {IN_PORT: tunnel, VLAN: UNTAGGED}, [Goto(SOURCE_GUARD.name)])
    yield from nic_substrate.of_host(host)


def of_peer(host: Host, peer: Host) -> Iterator[Flow]:
    """Tunnel packets to a peer, and from it."""
    yield from nic_substrate.of_peer(host, peer)


def of_vpc(_vpc: Vpc, _fleet_mtu: int) -> Iterator[Flow]:
    """Nothing: a VPC is its addresses."""
    yield from ()


def of_port(port: Port, vpc: Vpc, ofports: Ofports) -> Iterator[Flow]:
    """A port of this host: its patch fixes the VPC. While the patch is not there, it has none."""
    patch = ofports.get(nic_patch(port.device))
    if patch is not None:
        yield flow(CLASSIFY, PASS, {IN_PORT: patch, VLAN: UNTAGGED}, [SetField(TUN_ID, vpc.vni), Goto(PUSH.name)])
        yield from drops.of_port(BR_NIC, patch)


def of_far_port(host: Host, far: FarPort, vpc: Vpc) -> Iterator[Flow]:
    """A port that moves, or is elsewhere and allowed more than its own addresses; its VPC has a port here."""
    for there in far.others:
        if host.reaches(there):
            for net in far.port.allowed:
                yield _source_guard(ALLOWED, vpc, net, there)
            for ip in far.addresses:
                if there != far.seat:
                    # Not as PASS: where the address was, its own flow may be, that is still to go.
                    yield _source_guard(ALLOWED, vpc, ip_network(ip), there)
                if far.seat == host:
                    yield _sent_on(vpc, ip, there)
    if far.left and host.reaches(far.seat):
        for ip in far.addresses:
            yield _send_on(host, far, vpc, ip)


def _sent_on(vpc: Vpc, ip: IPAddress, there: Host) -> Flow:
    """What the port's other host sends on to it here: from whom it is, that host has looked at."""
    inner, vtep = FAMILIES[ip.version], there.vtep_ip
    match: FieldMatch = {TUN_ID: vpc.vni, FAMILIES[vtep.version].tun_src: int(vtep)}
    match |= {ETH_TYPE: inner.eth_type, inner.dst: int(ip)}
    return flow(SOURCE_GUARD, PASS, match, [Goto(DELIVER.name)])


def _send_on(host: Host, far: FarPort, vpc: Vpc, ip: IPAddress) -> Flow:
    """What still arrives for a port that has moved away: on to its host, by the tunnel that it came by if it fits."""
    inner, vtep = FAMILIES[ip.version], far.seat.vtep_ip
    match: FieldMatch = {TUN_ID: vpc.vni, ETH_TYPE: inner.eth_type, inner.dst: int(ip)}
    out = OutputInPort() if far.seat.encap is host.encap else Output(TUNNEL[far.seat.encap])
    to = SetField(ETH_DST, mac(far.port.mac)), SetField(FAMILIES[vtep.version].tun_dst, int(vtep))
    return flow(DELIVER, PASS, match, [*to, out])


def of_groups(_port: Port, _vpc: Vpc, _groups: Groups, _ofports: Ofports) -> Iterator[Flow]:
    """Nothing: groups are br-guest's."""
    yield from ()


def meters(_port: Port, _ofports: Ofports) -> Iterator[tuple[int, Meter]]:
    """None."""
    yield from ()


def of_address(host: Host, location: Location, ofports: Ofports) -> Iterator[Flow]:
    """An address of a VPC that has a port here: the way to it and, from elsewhere, back through the mapping."""
    if location.host != host:
        if host.reaches(location.host):
            yield _push(location)
            yield _source_guard(PASS, location.vpc, ip_network(location.ip), location.host)
        else:
            yield flow(PUSH, PASS, _inner_dst(location), drop(Reason.VTEP_MISMATCH))
        return
    patch = ofports.get(nic_patch(location.port.device))
    if patch is not None:
        for table in (PUSH, DELIVER):
            yield flow(table, PASS, _inner_dst(location), [SetField(ETH_DST, mac(location.port.mac)), Output(patch)])


def _inner_dst(location: Location) -> FieldMatch:
    inner = FAMILIES[location.ip.version]
    return {TUN_ID: location.vpc.vni, ETH_TYPE: inner.eth_type, inner.dst: int(location.ip)}


def _push(location: Location) -> Flow:
    return flow(PUSH, PASS, _inner_dst(location), [SetField(ETH_DST, mac(location.port.mac)), *_to_vtep(location.host)])


def _source_guard(priority: int, vpc: Vpc, net: IPNetwork, there: Host) -> Flow:
    inner, vtep = FAMILIES[net.version], there.vtep_ip
    match: FieldMatch = {TUN_ID: vpc.vni, FAMILIES[vtep.version].tun_src: int(vtep)}
    match |= {ETH_TYPE: inner.eth_type, inner.src: prefix(net)}
    return flow(SOURCE_GUARD, priority, match, [Goto(DELIVER.name)])


def _to_vtep(host: Host) -> tuple[Action, ...]:
    vtep = host.vtep_ip
    return SetField(FAMILIES[vtep.version].tun_dst, int(vtep)), Output(TUNNEL[host.encap])


def probe(target: Host) -> list[Action]:
    """The actions that send a packet to `target`'s VTEP and so make the host learn the way.

    It is routed, resolved and wrapped as a guest's would be, and dropped there as NEIGHBOUR_PROBE.
    """
    return [SetField(TUN_ID, PROBE_VNI), *_to_vtep(target)]
