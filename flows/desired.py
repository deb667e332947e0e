"""A snapshot to the flows that a host's bridges should hold: the pure function that everything else must agree with."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping as MappingABC
from typing import Final, Protocol

from flows import drops, guest_bridge, nic_bridge
from flows.flow import Flow, drop, flow
from flows.guest_groups import Groups
from flows.meter import Meter, Meters
from flows.pipeline import BR_GUEST, BR_NIC, TABLES
from flows.priority import MISS
from flows.view import FarPort, HostView, Location
from mapping.model import Host, Port, Vpc

Flows = dict[int, Flow]
"""Cookie -> flow."""


Source = Host | Vpc | Port | Location | None
"""What a flow is made from."""

Ofports = MappingABC[str, int]
"""A bridge's port name -> OpenFlow port number, as the switch reported them."""


class Rules(Protocol):
    """What a bridge's module makes of each thing that a host knows of."""

    def of_host(self, host: Host, /) -> Iterator[Flow]: ...

    def of_peer(self, host: Host, peer: Host, /) -> Iterator[Flow]: ...

    def of_vpc(self, vpc: Vpc, fleet_mtu: int, /) -> Iterator[Flow]: ...

    def of_port(self, port: Port, vpc: Vpc, ofports: Ofports, /) -> Iterator[Flow]: ...

    def of_far_port(self, host: Host, far: FarPort, vpc: Vpc, /) -> Iterator[Flow]: ...

    def of_groups(self, port: Port, vpc: Vpc, groups: Groups, ofports: Ofports, /) -> Iterator[Flow]: ...

    def meters(self, port: Port, ofports: Ofports, /) -> Iterator[tuple[int, Meter]]: ...

    def of_address(self, host: Host, location: Location, ofports: Ofports, /) -> Iterator[Flow]: ...


RULES: Final[dict[str, Rules]] = {BR_GUEST: guest_bridge, BR_NIC: nic_bridge}


def desired(bridge: str, view: HostView, ofports: Ofports) -> Flows:
    """Every flow that `bridge` (its role: "br-guest" or "br-nic") of the host should hold."""
    return {flow.cookie: flow for _, flows in by_source(bridge, view, ofports) for flow in flows}


def by_source(bridge: str, view: HostView, ofports: Ofports) -> Iterator[tuple[Source, Iterator[Flow]]]:
    """The same, with what each is made from; None: nothing of the mapping, every such bridge has it."""
    rules = RULES[bridge]
    yield None, misses(bridge)
    yield view.host, rules.of_host(view.host)
    for peer in view.peers:
        yield peer, rules.of_peer(view.host, peer)
    for vpc in view.vpcs.values():
        yield vpc, rules.of_vpc(vpc, view.fleet_mtu)
    for port in view.ports:
        yield port, rules.of_port(port, view.vpcs[port.vpc], ofports)
        yield port, rules.of_groups(port, view.vpcs[port.vpc], view.groups[port.uuid], ofports)
    for far in view.far:
        yield far.port, rules.of_far_port(view.host, far, view.vpcs[far.port.vpc])
    for location in (*view.local, *view.remote):
        yield location, rules.of_address(view.host, location, ofports)


def meters(bridge: str, view: HostView, ofports: Ofports) -> Meters:
    """Every meter that `bridge` of the host should have."""
    return {meter_id: meter for port in view.ports for meter_id, meter in RULES[bridge].meters(port, ofports)}


def misses(bridge: str) -> Iterator[Flow]:
    """The miss of every table, and the DROP table's one flow for each reason."""
    for table in TABLES[bridge].values():
        if table.miss:
            yield flow(table, MISS, {}, drop(table.miss))
    yield from drops.of_host(bridge)
