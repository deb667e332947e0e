"""Rules of br-nic, the part of the NIC that pushes and pops tunnel headers.

The VTEP address sits on the bridge's LOCAL port, so an outer packet crosses CLASSIFY too, on its way between the tunnel
port and the uplink: nothing but tunnel packets between known hosts, and ARP for the VTEP, passes the uplink.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping as MappingABC
from typing import Final

from flows.fields import (
    ARP_SPA,
    ARP_TPA,
    ETH_DST,
    ETH_TYPE,
    FAMILIES,
    IN_PORT,
    IP_DST,
    IP_PROTO,
    IP_SRC,
    TAGGED,
    TUN_DST,
    TUN_ID,
    TUN_SRC,
    UDP_DST,
    UNTAGGED,
    VLAN,
    EthType,
    IpProto,
    mac,
)
from flows.flow import Action, FieldMatch, Flow, Goto, Output, SetField, drop, flow
from flows.pipeline import BR_NIC, TABLES, Reason
from flows.ports import LOCAL, TUNNEL, UPLINK, nic_patch
from flows.priority import NAMED_MISS, OWN, PASS, TAG, VAGUE_MISS
from flows.view import Location
from mapping.model import Encap, Host, Port, Vpc

CLASSIFY, PUSH, SOURCE_GUARD, DELIVER = (
    TABLES[BR_NIC][name] for name in ("CLASSIFY", "PUSH", "SOURCE_GUARD", "DELIVER")
)

PROBE_VNI: Final = 0
"""No VPC has it: a tunnel packet with it only makes the way to a host known."""

_OUTER: Final[dict[Encap, FieldMatch]] = {
    Encap.VXLAN: {IP_PROTO: IpProto.UDP, UDP_DST: 4789},  # RFC 7348
    Encap.GENEVE: {IP_PROTO: IpProto.UDP, UDP_DST: 6081},  # RFC 8926
    Encap.GRE: {IP_PROTO: IpProto.GRE},  # RFC 2784, key by RFC 2890
}


Ofports = MappingABC[str, int]


def of_host(host: Host) -> Iterator[Flow]:
    """What comes from the tunnel, and what does not belong on uplink and VTEP."""
    tunnel, own = TUNNEL[host.encap], int(host.vtep_ip)
    yield flow(CLASSIFY, TAG, {VLAN: (TAGGED, TAGGED)}, drop(Reason.VLAN_TAGGED))
    yield flow(CLASSIFY, OWN, {IN_PORT: tunnel, TUN_ID: PROBE_VNI}, drop(Reason.NEIGHBOUR_PROBE))
    yield flow(CLASSIFY, PASS, {IN_PORT: tunnel, VLAN: UNTAGGED}, [Goto(SOURCE_GUARD.name)])
    arp: FieldMatch = {VLAN: UNTAGGED, ETH_TYPE: EthType.ARP}
    yield flow(CLASSIFY, PASS, {IN_PORT: LOCAL, **arp, ARP_SPA: own}, [Output(UPLINK)])
    yield flow(CLASSIFY, PASS, {IN_PORT: UPLINK, **arp, ARP_TPA: own}, [Output(LOCAL)])
    outer = {IN_PORT: UPLINK, VLAN: UNTAGGED, ETH_TYPE: EthType.IPV4, IP_DST: own, **_OUTER[host.encap]}
    yield flow(CLASSIFY, NAMED_MISS, outer, drop(Reason.UNKNOWN_VTEP))
    yield flow(CLASSIFY, VAGUE_MISS, {IN_PORT: UPLINK}, drop(Reason.NOT_TUNNEL))
    yield flow(CLASSIFY, VAGUE_MISS, {IN_PORT: LOCAL}, drop(Reason.LOCAL_NOT_TUNNEL))


def of_peer(host: Host, peer: Host) -> Iterator[Flow]:
    """Tunnel packets to a peer go in the encapsulation that the peer wants, those from it come in our own."""
    for in_port, source, target, out_port in ((LOCAL, host, peer, UPLINK), (UPLINK, peer, host, LOCAL)):
        match: FieldMatch = {IN_PORT: in_port, VLAN: UNTAGGED, ETH_TYPE: EthType.IPV4}
        match |= {IP_SRC: int(source.vtep_ip), IP_DST: int(target.vtep_ip), **_OUTER[target.encap]}
        yield flow(CLASSIFY, PASS, match, [Output(out_port)])


def of_vpc(_: Vpc) -> Iterator[Flow]:
    """Nothing: a VPC is its addresses."""
    yield from ()


def of_port(port: Port, vpc: Vpc, ofports: Ofports) -> Iterator[Flow]:
    """A port of this host: its patch fixes the VPC. While the patch is not there, it has none."""
    patch = ofports.get(nic_patch(port.device))
    if patch is not None:
        yield flow(CLASSIFY, PASS, {IN_PORT: patch, VLAN: UNTAGGED}, [SetField(TUN_ID, vpc.vni), Goto(PUSH.name)])


def of_address(host: Host, location: Location, ofports: Ofports) -> Iterator[Flow]:
    """An address of a VPC that has a port here: the way to it and, from elsewhere, back through the mapping."""
    if location.host != host:
        yield _push(location)
        yield _source_guard(location)
        return
    patch = ofports.get(nic_patch(location.port.device))
    if patch is not None:
        for table in (PUSH, DELIVER):
            yield flow(table, PASS, _inner_dst(location), [SetField(ETH_DST, mac(location.port.mac)), Output(patch)])


def _inner_dst(location: Location) -> FieldMatch:
    inner = FAMILIES[location.ip.version]
    return {TUN_ID: location.vpc.vni, ETH_TYPE: inner.eth_type, inner.dst: int(location.ip)}


def _push(location: Location) -> Flow:
    return flow(
        PUSH,
        PASS,
        _inner_dst(location),
        [
            SetField(ETH_DST, mac(location.port.mac)),
            SetField(TUN_DST, int(location.host.vtep_ip)),
            Output(TUNNEL[location.host.encap]),
        ],
    )


def _source_guard(location: Location) -> Flow:
    match: FieldMatch = {TUN_ID: location.vpc.vni, TUN_SRC: int(location.host.vtep_ip)}
    inner = FAMILIES[location.ip.version]
    match |= {ETH_TYPE: inner.eth_type, inner.src: int(location.ip)}
    return flow(SOURCE_GUARD, PASS, match, [Goto(DELIVER.name)])


def probe(target: Host) -> list[Action]:
    """The actions that send a packet to `target`'s VTEP and so make the host learn the way.

    It is routed, resolved and wrapped as a guest's would be, and dropped there as NEIGHBOUR_PROBE.
    """
    return [SetField(TUN_ID, PROBE_VNI), SetField(TUN_DST, int(target.vtep_ip)), Output(TUNNEL[target.encap])]
