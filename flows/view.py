"""What one host needs of a snapshot: its own ports, the VPCs they are in, and where each address of those is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from collections.abc import Mapping as MappingABC
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from typing import NamedTuple

from mapping.model import (
    Host,
    IPAddress,
    Port,
    RowId,
    SecurityGroup,
    Snapshot,
    Vpc,
    fleet_mtu,
    groups_of,
    peer_groups,
    peer_names,
)


@dataclass(frozen=True, slots=True)
class Location:
    """One mapping, followed to its end: this address of this VPC is this port, on this host."""

    vpc: Vpc
    ip: IPAddress
    port: Port
    host: Host
    peer_groups: tuple[str, ...] = ()
    """The names of the port's groups that rules of the VPC name as peers, sorted."""


class FarPort(NamedTuple):
    """A port that may send from other hosts than where this host takes its addresses to be, or more than from these."""

    port: Port
    seat: Host
    """Where this host takes it to be: see `Port.seat`."""
    others: tuple[Host, ...]
    """The other hosts that it may send from."""
    addresses: tuple[IPAddress, ...]
    left: bool
    """Whether it has just moved away from this host."""


def far_port(
    port: Port, own: RowId, hosts: MappingABC[RowId, Host], addresses: Callable[[], Iterable[str]]
) -> FarPort | None:
    """What there is to do at `own` for a port because it moves, or is elsewhere and allowed more; None: nothing."""
    seat, others = port.seat(own), port.hosts - {own}
    if seat is None or not (port.moves or (port.allowed and others)):
        return None
    known = tuple(map(ip_address, sorted(addresses()))) if port.moves else ()
    return FarPort(
        port, hosts[seat], tuple(hosts[each] for each in sorted(others)), known, port.previous_host == own != seat
    )


@dataclass(frozen=True, slots=True)
class HostView:
    """The part of a snapshot that decides one host's flows."""

    host: Host
    ports: tuple[Port, ...]
    """Ports bound to this host."""
    groups: dict[RowId, tuple[SecurityGroup | None, ...]]
    """Their security groups."""
    vpcs: dict[RowId, Vpc]
    """VPCs that have a port on this host: the only ones whose mappings it learns."""
    local: tuple[Location, ...]
    """Addresses of this host's own ports."""
    remote: tuple[Location, ...]
    """Addresses, in those VPCs, that are on another host."""
    far: tuple[FarPort, ...]
    peers: tuple[Host, ...]
    """The hosts to which, and from which, tunnel packets may go, by name."""
    fleet_mtu: int
    """See `mapping.model.fleet_mtu`."""


def view(snapshot: Snapshot, host: Host) -> HostView:
    """The part of `snapshot` that decides the flows of `host`."""
    ports = tuple(port for port in snapshot.ports.values() if port.seat(host.uuid) == host.uuid)
    vpcs = {port.vpc: snapshot.vpcs[port.vpc] for port in snapshot.ports.values() if host.uuid in port.hosts}
    groups = {port.uuid: groups_of(port, snapshot.groups) for port in ports}
    named = peer_groups(snapshot.groups.values())
    local: list[Location] = []
    remote: list[Location] = []
    for mapping in snapshot.mappings.values():
        port = snapshot.ports[mapping.port]
        seat = port.seat(host.uuid)
        if mapping.vpc in vpcs and seat is not None:
            peer = peer_names(port, snapshot.groups, named.get(mapping.vpc, frozenset()))
            there = vpcs[mapping.vpc], ip_address(mapping.ip), port, snapshot.hosts[seat]
            location = Location(*there, tuple(sorted(peer)))
            (local if seat == host.uuid else remote).append(location)
    addresses: defaultdict[RowId, list[str]] = defaultdict(list)
    for mapping in snapshot.mappings.values():
        if snapshot.ports[mapping.port].moves:
            addresses[mapping.port].append(mapping.ip)
    far = tuple(
        found
        for port in snapshot.ports.values()
        if port.vpc in vpcs
        and (found := far_port(port, host.uuid, snapshot.hosts, partial(addresses.__getitem__, port.uuid)))
    )
    others = {location.host for location in remote} | {there for each in far for there in each.others}
    peers = sorted((peer for peer in others if host.reaches(peer)), key=lambda peer: peer.name)
    mtu = fleet_mtu(each.carries for each in snapshot.hosts.values())
    return HostView(host, ports, groups, vpcs, tuple(local), tuple(remote), far, tuple(peers), mtu)
