"""What one host needs of a snapshot: its own ports, the VPCs they are in, and where each address of those is."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address

from mapping.model import Host, IPAddress, Port, RowId, Snapshot, Vpc


@dataclass(frozen=True, slots=True)
class Location:
    """One mapping, followed to its end: this address of this VPC is this port, on this host."""

    vpc: Vpc
    ip: IPAddress
    port: Port
    host: Host


@dataclass(frozen=True, slots=True)
class HostView:
    """The part of a snapshot that decides one host's flows."""

    host: Host
    ports: tuple[Port, ...]
    """Ports bound to this host."""
    vpcs: dict[RowId, Vpc]
    """VPCs that have a port on this host: the only ones whose mappings it learns."""
    local: tuple[Location, ...]
    """Addresses of this host's own ports."""
    remote: tuple[Location, ...]
    """Addresses, in those VPCs, that are on another host."""
    far: tuple[tuple[Port, Host], ...]
    """Ports of other hosts in those VPCs that are allowed more than their own addresses, and where they are."""
    peers: tuple[Host, ...]
    """The hosts to which, and from which, tunnel packets may go, by name."""


def view(snapshot: Snapshot, host: Host) -> HostView:
    """The part of `snapshot` that decides the flows of `host`."""
    ports = tuple(port for port in snapshot.ports.values() if port.host == host.uuid)
    vpcs = {port.vpc: snapshot.vpcs[port.vpc] for port in ports}
    local: list[Location] = []
    remote: list[Location] = []
    for mapping in snapshot.mappings.values():
        port = snapshot.ports[mapping.port]
        if mapping.vpc in vpcs and port.host is not None:
            location = Location(vpcs[mapping.vpc], ip_address(mapping.ip), port, snapshot.hosts[port.host])
            (local if port.host == host.uuid else remote).append(location)
    far = tuple(
        (port, snapshot.hosts[port.host])
        for port in snapshot.ports.values()
        if port.allowed and port.vpc in vpcs and port.host not in (None, host.uuid)
    )
    others = {location.host for location in remote} | {there for _, there in far}
    peers = sorted((peer for peer in others if host.reaches(peer)), key=lambda peer: peer.name)
    return HostView(host, ports, vpcs, tuple(local), tuple(remote), far, tuple(peers))
