"""What the router of a VPC tells a guest of a packet that it cannot forward, or that was for itself."""

from __future__ import annotations

from collections.abc import Iterator

from controller import icmp
from controller.icmp import Problem
from controller.punted import Punted
from flows.guest_ipv6 import ROUTER_LINK_LOCAL
from mapping.model import IPAddress, Vpc


def time_exceeded(punted: Punted) -> Iterator[bytes]:
    """Its hops are used up: what traceroute looks for."""
    yield from _say(punted, Problem.TIME_EXCEEDED)


def too_big(punted: Punted) -> Iterator[bytes]:
    """It is larger than the MTU of the VPC's guests, which is told.

    RFC 1812, 4.2.2.7, would have a packet that may be fragmented be fragmented. Open vSwitch cannot, and what passes by
    the controller is not data: so the guest is told in any case, as of IPv6, and stock kernels then make fragments.
    """
    yield from _say(punted, Problem.TOO_BIG, punted.linked.guest_mtu(punted.vpc))


def port_unreachable(punted: Punted) -> Iterator[bytes]:
    """The router has no UDP port."""
    yield from _say(punted, Problem.PORT_UNREACHABLE)


def _say(punted: Punted, problem: Problem, mtu: int = 0) -> Iterator[bytes]:
    about = icmp.read(punted.frame)
    sender = router_for(punted.vpc, about.source) if about else None
    if about and sender:
        yield icmp.error(about, problem, sender, (punted.vpc.router_mac, punted.port.mac), mtu)


def router_for(vpc: Vpc, source: IPAddress) -> IPAddress | None:
    """The router's address on the subnet, or link, of this source or, if it is of none, on the first of its family."""
    routers = [(subnet, router) for subnet, router in zip(vpc.subnets, vpc.routers(), strict=True)]
    of_family = [router for subnet, router in routers if subnet.version == source.version]
    if source.version == 6 and source.is_link_local and of_family:
        return ROUTER_LINK_LOCAL
    on_link = [router for subnet, router in routers if source in subnet]
    return next(iter([*on_link, *of_family]), None)
