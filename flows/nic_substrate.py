"""Rules of br-nic for what passes between the uplink and LOCAL, where the VTEP address is.

An outer packet crosses CLASSIFY on its way between the tunnel port and the uplink: nothing but tunnel packets between
known hosts, and ARP or neighbour discovery for the VTEP, passes. All of a host is of one version of IP, that of its
VTEP: hosts of different versions are nothing to each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from ipaddress import IPv4Address
from typing import Final

from flows.fields import (
    ARP_SPA,
    ARP_TPA,
    ETH_DST,
    ETH_TYPE,
    FAMILIES,
    HOP_LIMIT,
    ICMPV6_CODE,
    ICMPV6_TYPE,
    IN_PORT,
    IP_FRAG,
    IP_PROTO,
    IPV6_DST,
    IPV6_SRC,
    ND_TARGET,
    UDP_DST,
    UNTAGGED,
    VLAN,
    WHOLE,
    EthType,
    Icmpv6,
    IpProto,
    mac,
)
from flows.flow import FieldMatch, Flow, Output, drop, flow
from flows.pipeline import BR_NIC, TABLES, Reason
from flows.ports import LOCAL, UPLINK
from flows.priority import NAMED_MISS, NEIGHBOUR, PASS, VAGUE_MISS
from flows.wrong_bits import wrong_bits
from mapping.model import Encap, Host, IPAddress

CLASSIFY: Final = TABLES[BR_NIC]["CLASSIFY"]

OUTER: Final[dict[Encap, FieldMatch]] = {
    Encap.VXLAN: {IP_PROTO: IpProto.UDP, UDP_DST: 4789},  # RFC 7348
    Encap.GENEVE: {IP_PROTO: IpProto.UDP, UDP_DST: 6081},  # RFC 8926
    Encap.GRE: {IP_PROTO: IpProto.GRE},  # RFC 2784, key by RFC 2890
}
"""How the outer header of each encapsulation is told from others, besides its addresses."""


_ALL: Final = mac("ff:ff:ff:ff:ff:ff")


def vtep_mac(vtep_ip: IPAddress) -> str:
    """The MAC that a VTEP has: of local scope, and only its own.

    With IPv6, where it is made of 40 bits of the address's hash, it is most probably only its own.
    """
    if vtep_ip.version == 4:
        return f"0a:6e:{vtep_ip.packed.hex(':')}"
    return f"0e:{blake2b(vtep_ip.packed, digest_size=5).digest().hex(':')}"


def of_host(host: Host) -> Iterator[Flow]:
    """How the VTEP finds its neighbours, and what does not belong here."""
    own, own_mac = int(host.vtep_ip), mac(vtep_mac(host.vtep_ip))
    yield from _arp(own, own_mac) if isinstance(host.vtep_ip, IPv4Address) else _nd(own)
    outer = FAMILIES[host.vtep_ip.version]
    to_us: FieldMatch = {IN_PORT: UPLINK, VLAN: UNTAGGED, ETH_TYPE: outer.eth_type, outer.dst: int(host.vtep_ip)}
    # A switch that has forgotten where a MAC is sends its frames everywhere.
    yield from wrong_bits(CLASSIFY, to_us, ETH_DST, own_mac, Reason.NOT_TUNNEL)
    yield flow(CLASSIFY, NAMED_MISS, {**to_us, **OUTER[host.encap], IP_FRAG: WHOLE}, drop(Reason.UNKNOWN_VTEP))
    yield flow(CLASSIFY, VAGUE_MISS, {IN_PORT: UPLINK}, drop(Reason.NOT_TUNNEL))
    yield flow(CLASSIFY, VAGUE_MISS, {IN_PORT: LOCAL}, drop(Reason.LOCAL_NOT_TUNNEL))


def of_peer(host: Host, peer: Host) -> Iterator[Flow]:
    """Tunnel packets to a peer go in the encapsulation that the peer wants, those from it come in our own.

    They come whole: Open vSwitch takes no header off a fragment, and would hand it to the host's kernel.
    """
    outer = FAMILIES[host.vtep_ip.version]
    for in_port, source, target, out_port in ((LOCAL, host, peer, UPLINK), (UPLINK, peer, host, LOCAL)):
        match: FieldMatch = {IN_PORT: in_port, VLAN: UNTAGGED, ETH_TYPE: outer.eth_type}
        match |= {outer.src: int(source.vtep_ip), outer.dst: int(target.vtep_ip), **OUTER[target.encap]}
        if in_port == UPLINK:
            match[IP_FRAG] = WHOLE
        yield flow(CLASSIFY, PASS, match, [Output(out_port)])


def _arp(own: int, own_mac: int) -> Iterator[Flow]:
    arp: FieldMatch = {VLAN: UNTAGGED, ETH_TYPE: EthType.ARP}
    yield flow(CLASSIFY, PASS, {IN_PORT: LOCAL, **arp, ARP_SPA: own}, [Output(UPLINK)])
    for to in (own_mac, _ALL):
        yield flow(CLASSIFY, PASS, {IN_PORT: UPLINK, **arp, ARP_TPA: own, ETH_DST: to}, [Output(LOCAL)])


def _nd(own: int) -> Iterator[Flow]:
    """Out: who is asked for from the VTEP address, and that it is ours. In: who asks for it, and who answers it.

    What comes from beyond the link has lost some of its hop limit. The host's kernel would not believe it, but Open
    vSwitch would (RFC 4861, 7.1).
    """
    for kind, out, back in (
        (Icmpv6.NEIGHBOUR_SOLICITATION, {IPV6_SRC: own}, {ND_TARGET: own}),
        (Icmpv6.NEIGHBOUR_ADVERTISEMENT, {ND_TARGET: own}, {IPV6_DST: own}),
    ):
        nd: FieldMatch = {VLAN: UNTAGGED, ETH_TYPE: EthType.IPV6, IP_PROTO: IpProto.ICMPV6}
        nd |= {HOP_LIMIT: 255, ICMPV6_TYPE: kind, ICMPV6_CODE: 0}
        yield flow(CLASSIFY, NEIGHBOUR, {IN_PORT: LOCAL, **nd, **out}, [Output(UPLINK)])
        yield flow(CLASSIFY, NEIGHBOUR, {IN_PORT: UPLINK, **nd, **back}, [Output(LOCAL)])
