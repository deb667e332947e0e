"""Rules of br-guest for what comes for a guest: nothing of a link reaches it from another guest, wherever that is.

A guest's own switch has refused it already. But a peer may be rogue, and a DHCP server is told apart here alone: a rule
that looked at protocol and port where a guest's packets come in would have the datapath cache them for each of the
destinations that the guest invents. Here the destination is one that is mapped.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from flows.fields import ETH_TYPE, IP_PROTO, UDP_SRC, EthType, Icmpv6, IpProto
from flows.flow import FieldMatch, Flow, Goto, drop, flow
from flows.guest_ipv6 import ENDS_HERE, icmpv6
from flows.pipeline import BR_GUEST, TABLES, Reason
from flows.priority import LINK, PASS

LINK_GUARD: Final = TABLES[BR_GUEST]["LINK_GUARD"]

_SERVES_FROM: Final = {EthType.IPV4: 67, EthType.IPV6: 547}
"""The UDP port that DHCP servers and relays send from: RFC 2131, 4.1; RFC 8415, 7.2."""


def of_host() -> Iterator[Flow]:
    """What every host has."""
    for eth_type, udp_src in _SERVES_FROM.items():
        ip: FieldMatch = {ETH_TYPE: eth_type}
        yield flow(LINK_GUARD, PASS, ip, [Goto("TO_TRACK")])
        yield flow(LINK_GUARD, LINK, {**ip, IP_PROTO: IpProto.UDP, UDP_SRC: udp_src}, drop(Reason.DHCP_POSED))
    for message in (Icmpv6.NEIGHBOUR_SOLICITATION, Icmpv6.ROUTER_SOLICITATION, *ENDS_HERE):
        yield flow(LINK_GUARD, LINK, icmpv6(message), drop(Reason.LINK_ONLY))
