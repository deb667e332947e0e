"""Rules of br-guest for what a port may send from besides its own addresses: single addresses, and networks.

Allowed is not mapped: nothing is delivered to the port for it. Two ports may be allowed one address, of which the
mapping gives it to one: the other may be about to take it over. So a guest that looks for a double of an allowed
address, before it takes it, is told of none; and what it announces changes nothing: the mapping says who is who.
"""

from __future__ import annotations

from collections.abc import Iterator

from flows import guest_ipv6
from flows.fields import ARP_SHA, ARP_SPA, ARP_TPA, ETH_TYPE, IN_PORT, IP_SRC, EthType, mac, prefix
from flows.flow import FieldMatch, Flow, Goto, drop, flow
from flows.pipeline import BR_GUEST, TABLES, Reason
from flows.priority import ALLOWED, ALLOWED_OWN
from mapping.model import IPNetwork, Port

ARP_GUARD, IP_GUARD = (TABLES[BR_GUEST][name] for name in ("ARP_GUARD", "IP_GUARD"))


def of_port(port: Port, device: int) -> Iterator[Flow]:
    """What a port whose device is this OpenFlow port may send from."""
    for net in port.allowed:
        of_net = _ipv4 if net.version == 4 else guest_ipv6.of_allowed
        yield from of_net(net, mac(port.mac), device)


def _ipv4(net: IPNetwork, own: int, device: int) -> Iterator[Flow]:
    within = prefix(net)
    yield flow(IP_GUARD, ALLOWED, {IN_PORT: device, ETH_TYPE: EthType.IPV4, IP_SRC: within}, [Goto("SELF_GUARD")])
    arp: FieldMatch = {IN_PORT: device, ETH_TYPE: EthType.ARP}
    yield flow(ARP_GUARD, ALLOWED, {**arp, ARP_SHA: own, ARP_SPA: within}, [Goto("ARP_REPLY")])
    yield flow(ARP_GUARD, ALLOWED_OWN, {**arp, ARP_SPA: 0, ARP_TPA: within}, drop(Reason.ARP_OWN_ADDRESS))
    # Of a network that cannot be matched: that sender and target are one. The mapping then answers, for whom it has.
    if not isinstance(within, tuple):
        announces: FieldMatch = {**arp, ARP_SPA: within, ARP_TPA: within}
        yield flow(ARP_GUARD, ALLOWED_OWN, announces, drop(Reason.ARP_OWN_ADDRESS))
