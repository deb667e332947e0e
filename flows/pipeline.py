r"""Where does the packet go: every table of both bridges, in order, and every reason to drop.

    guest port -> br-guest: CLASSIFY -> IP_GUARD ----> SELF_GUARD -> (1) -> ROUTE -> ... -> SIZE -> FIT -> TO_NIC
                                    \-> IPV6_GUARD -> FROM_LINK -/               -> br-nic: CLASSIFY -> PUSH -> tunnel
                                                              \-> ND_GUARD -> ND_REPLY -> ND_ANSWER -> back to the guest
                                    \-> ARP_GUARD -> ARP_REPLY -> ARP_ANSWER -> back to the guest
          IP_GUARD, IPV6_GUARD, FROM_LINK \-> DHCP_GUARD -> DHCP -> controller
    guest port <- br-guest: TO_GUEST <- (2) <- LINK_GUARD <- CLASSIFY <- br-nic: DELIVER <- SOURCE_GUARD <- tunnel

(1) FROM_TRACK -> FROM_RULES -> FROM_ADMIT and (2) TO_ADMIT <- TO_RULES <- TO_TRACK are for ports with security groups.

A packet that no rule lets on meets its table's miss: its reason is written into a register, and the DROP table, with
a flow for each reason, counts it. Nothing floods, and nothing is sent to the controller but what a port's meter lets
through.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from flows.fields import (
    ARP_OP,
    ARP_SHA,
    ARP_SPA,
    ARP_TPA,
    CONJUNCTION,
    CT_STATE,
    ETH_DST,
    ETH_SRC,
    ETH_TYPE,
    HOP_LIMIT,
    ICMP_CODE,
    ICMP_TYPE,
    ICMPV6_CODE,
    ICMPV6_TYPE,
    IN_PORT,
    IP_DST,
    IP_FRAG,
    IP_PROTO,
    IP_SRC,
    IPV6_DST,
    IPV6_SRC,
    ND_OPTION,
    ND_SLL,
    ND_TARGET,
    REASON,
    ROUTER,
    SCTP_DST,
    SCTP_SRC,
    SUBNET,
    TCP_DST,
    TCP_SRC,
    TOO_BIG,
    TTL,
    TUN_FLAGS,
    TUN_ID,
    TUN_IPV6_SRC,
    TUN_SRC,
    UDP_DST,
    UDP_SRC,
    VLAN,
    VNI,
    Field,
)


class Reason(enum.Enum):
    """Why a packet is dropped: (number in the register, what it means to an operator)."""

    UNKNOWN_PORT = 1, "came from a port that no mapping names"
    VLAN_TAGGED = 2, "a VLAN tag where none is allowed"
    SPOOFED_MAC = 3, "a guest sent from a MAC that is not its port's"
    SPOOFED_IP = 4, "a guest sent from an IP address that is neither mapped to its port nor allowed it"
    SPOOFED_ARP = 5, "a guest's ARP named a sender that is not its port"
    UNKNOWN_ETHERTYPE = 6, "a guest sent something that is neither ARP nor IP"
    ARP_OWN_ADDRESS = 7, "a guest asked for its own address, to announce it or to look for a double: harmless"
    ARP_UNMAPPED = 8, "a guest asked for an address that its VPC does not map"
    ARP_NOT_REQUEST = 9, "a guest sent ARP that asks nothing"
    NO_MAPPING = 10, "a guest sent to an address that its VPC does not map"
    NOT_TUNNEL = 11, "the substrate brought something that is no tunnel packet for this host"
    UNKNOWN_VTEP = (
        12,
        "a tunnel packet from an address that is no host's, or of a host that shares no VPC with this one",
    )
    SOURCE_NOT_MAPPED = (
        13,
        "the inner source address is neither mapped to the host that sent the packet, in that VPC, nor allowed there",
    )
    NOT_HERE = 14, "the inner destination address is not mapped to a port of this host"
    NEIGHBOUR_PROBE = 15, "another host's probe, sent to learn the way here before a guest needs it: harmless"
    LOCAL_NOT_TUNNEL = 16, "the host itself sent something to the substrate that is no tunnel packet"
    TO_ITSELF = 17, "a guest sent to an address of its own port"
    LINK_LOCAL = 18, "a guest used a link-local address for more than neighbours and its router: harmless"
    MLD = 19, "a guest said which IPv6 multicast it listens to, and none is carried: harmless"
    ROUTER_POSED = 21, "a guest posed as a router: it sent a router advertisement or a redirect"
    SPOOFED_ND = 22, "a guest's neighbour solicitation named a sender that is not its port"
    ND_OWN_ADDRESS = 23, "a guest solicited its own address, to look for a double: harmless"
    ND_UNMAPPED = 24, "a guest solicited an address that its VPC does not map"
    ND_ADVERTISED = 25, "a guest advertised a neighbour, itself or another: the mapping says who is who"
    VTEP_MISMATCH = (
        26,
        "a guest sent to a host whose VTEP is of the other IP version: no tunnel leads there",
    )
    DHCP_POSED = 27, "somebody posed as a DHCP server to a guest: what a server sends comes from the controller alone"
    LINK_ONLY = 28, "what never leaves a link came for a guest from another one: neighbour discovery and the like"
    TUNNEL_CONTROL = 29, "a tunnel packet for the tunnel's own operation (Geneve OAM), which no host of ours sends"
    GROUP_FROM_GUEST = 40, "a guest sent what no rule of its security groups allows"
    GROUP_TO_GUEST = 41, "somebody sent a guest what no rule of its security groups allows"

    ASKED_TOO_MUCH = 48, "a guest asked the controller more than its port may: configuration, or to be told of errors"
    FROM_GUEST_LIMIT = 49, "a guest sent more than its port's limits let it"
    TO_GUEST_LIMIT = 50, "a guest was sent more than its port's limits let it receive"
    FILTER_TYPES = 51, "ahead of its port: neither ARP nor IP"
    FILTER_HIDDEN = (
        52,
        "ahead of its port: neighbour discovery, or a UDP port, hidden in fragments, or too many IPv6 headers",
    )
    FILTER_NEIGHBOURS = 53, "ahead of its port: more ARP and neighbour discovery than a port may send"
    FILTER_PROTOCOLS = 54, "ahead of its port: more IP protocols that are new than a port may use"
    FILTER_CONVERSATIONS = 55, "ahead of its port: more conversations that are new than a port may have"
    FILTER_FRAMES = 56, "ahead of its port: more frames than the port may send"
    FILTER_TUNNELS = (
        57,
        "ahead of the uplink: a tunnel packet whose header is none that a host writes: options, flags, another kind",
    )
    FILTER_DHCP = 58, "ahead of its port: posed as a DHCP server, or sent to the port that its clients listen at"
    FILTER_UPLINK_TYPES = 59, "ahead of the uplink: neither ARP nor IP, nor for this end of the cable alone"

    TTL_EXPIRED = 31, "a guest's packet had no hop left to its VPC's router: it is told, as far as its meter allows"
    TO_ROUTER = 30, "a guest sent something other than a ping to its router"

    @property
    def number(self) -> int:
        """The value in the `REASON` register."""
        return self.value[0]

    @property
    def meaning(self) -> str:
        """One line for an operator."""
        return self.value[1]

    @property
    def harmless(self) -> bool:
        """Whether guests that mean no harm do it all the time."""
        return self.meaning.endswith(": harmless")

    @property
    def label(self) -> str:
        """The name under which it is counted and shown."""
        return self.name.lower()


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """One flow table, which the flows in it are checked against.

    `match` are the fields that it may match on; `exits` the tables that it may go on to, besides DROP; `outputs`
    whether it may output; `miss` why a packet that no rule takes is dropped; `named_misses` the reasons that its own
    rules give.
    """

    bridge: str
    number: int
    name: str
    job: str
    match: frozenset[Field]
    exits: frozenset[str]
    outputs: bool
    miss: Reason | None
    named_misses: frozenset[Reason]

    @property
    def prefixes(self) -> tuple[Field, ...]:
        """The addresses of whose misses Open vSwitch is to look at no more bits than tell; none: as it does anyway.

        It does so for IPv4 unless told otherwise, and for three fields at most.
        """
        matched = [field for field in (IP_SRC, IPV6_SRC, IP_DST, IPV6_DST) if field in self.match]
        return tuple(matched[:3]) if self.match & {IPV6_SRC, IPV6_DST} else ()


def _bridge(bridge: str, *rows: tuple[str, str, set[Field], set[str], bool, Reason | None, set[Reason]]) -> list[Table]:
    return [
        Table(bridge, number, name, job, frozenset(match), frozenset(exits), outputs, miss, frozenset(named))
        for number, (name, job, match, exits, outputs, miss, named) in enumerate(rows)
    ]


R = Reason
METERED: Final = frozenset({R.ASKED_TOO_MUCH, R.FROM_GUEST_LIMIT, R.TO_GUEST_LIMIT})
"""Reasons for which meters of br-guest drop, and count, what no table then does."""
FILTERED: Final = (
    *(R.FILTER_TYPES, R.FILTER_HIDDEN, R.FILTER_DHCP, R.FILTER_NEIGHBOURS, R.FILTER_PROTOCOLS),
    *(R.FILTER_CONVERSATIONS, R.FILTER_FRAMES),
)
"""Reasons for which the filter ahead of a guest's port (`topo.port_filter`) drops, before Open vSwitch."""
UPLINK_FILTERED: Final = (R.FILTER_TUNNELS, R.FILTER_UPLINK_TYPES)
"""Likewise ahead of the uplink (`topo.uplink_filter`)."""
TRACKED: Final = (IN_PORT, VNI, CT_STATE, CONJUNCTION, ETH_TYPE, IP_PROTO, IP_FRAG)
"""What rules of groups match on each way, besides the peer and the ports."""
ND: Final = (ETH_TYPE, IP_PROTO, ICMPV6_TYPE, ICMPV6_CODE)
"""What a match on a field of neighbour discovery requires."""
PAST_GROUPS: Final = "ROUTE"
"""The table to which a packet goes that is its port's own, and let out by its groups."""
BR_GUEST: Final = "br-guest"
BR_NIC: Final = "br-nic"
BR_CTL: Final = "br-ctl"

# fmt: off
GUEST_TABLES: Final = _bridge(BR_GUEST,
    # name, job, matches on, goes on to, may output, miss, reasons its own rules tell apart
    ("CLASSIFY", "From a guest: its port's MAC, untagged, ARP or IP. From br-nic: for the guest.",
     {IN_PORT, VLAN, ETH_SRC, ETH_TYPE}, {"ARP_GUARD", "IP_GUARD", "IPV6_GUARD", "LINK_GUARD"}, False,
     R.UNKNOWN_PORT, {R.SPOOFED_MAC, R.VLAN_TAGGED, R.UNKNOWN_ETHERTYPE}),
    ("ARP_GUARD", "The ARP sender must be the port: its MAC, and an address mapped or allowed to it, or none yet.",
     {IN_PORT, ETH_TYPE, ARP_SHA, ARP_SPA, ARP_TPA}, {"ARP_REPLY"}, False,
     R.SPOOFED_ARP, {R.ARP_OWN_ADDRESS}),
    ("IP_GUARD", "The IPv4 source must be mapped or allowed to the port.",
     {IN_PORT, VNI, ETH_TYPE, IP_PROTO, IP_SRC, IP_DST, UDP_SRC, UDP_DST}, {"SELF_GUARD", "DHCP_GUARD"}, False,
     R.SPOOFED_IP, set()),
    ("ARP_REPLY", "Whose MAC is asked for: that of each mapped address of the VPC, and of its router.",
     {VNI, ETH_TYPE, ARP_OP, ARP_TPA}, {"ARP_ANSWER"}, False,
     R.ARP_NOT_REQUEST, {R.ARP_UNMAPPED}),
    ("ARP_ANSWER", "Turn the request into its reply, back to the port that asked.",
     {ETH_TYPE}, set(), True,
     R.ARP_NOT_REQUEST, set()),
    ("IPV6_GUARD", "The IPv6 source must be mapped or allowed to the port or, on the link, link-local or none.",
     {IN_PORT, ETH_TYPE, IP_PROTO, IPV6_SRC, IPV6_DST, UDP_SRC, UDP_DST}, {"FROM_LINK", "DHCP_GUARD"}, False,
     R.SPOOFED_IP, set()),
    ("FROM_LINK", "What stays on a link ends here: solicitations are answered, the rest is told apart.",
     {ETH_DST, ETH_TYPE, IP_PROTO, ICMPV6_TYPE}, {"ND_GUARD", "DHCP_GUARD", "SELF_GUARD"}, False,
     R.SPOOFED_IP, {R.MLD, R.ROUTER_POSED, R.ND_ADVERTISED}),
    ("ND_GUARD", "Who solicits must be the port: its MAC, and an address of its own, a link-local one, or none yet.",
     {IN_PORT, *ND, IPV6_SRC, ND_OPTION, ND_SLL}, {"ND_REPLY"}, False,
     R.SPOOFED_ND, set()),
    ("ND_REPLY", "Whose MAC is solicited: that of each mapped address of the VPC, and of its router.",
     {IN_PORT, VNI, *ND, IPV6_SRC, ND_TARGET}, {"ND_ANSWER"}, False,
     R.ND_UNMAPPED, {R.ND_OWN_ADDRESS, R.LINK_LOCAL}),
    ("ND_ANSWER", "Turn the solicitation into its advertisement, back to the port that asked.",
     {*ND, ND_OPTION, ROUTER}, set(), True,
     R.ND_UNMAPPED, set()),
    ("DHCP_GUARD", "Who asks for its configuration must be the port: from its address, a link-local one, or none yet.",
     {IN_PORT, ETH_TYPE, IP_SRC, IPV6_SRC}, {"DHCP"}, False,
     R.SPOOFED_IP, set()),
    ("DHCP", "To the controller, as often as the port's meter lets.",
     {IN_PORT}, set(), True,
     R.UNKNOWN_PORT, set()),
    ("SELF_GUARD", "Nothing goes to the port that it is from; from an address of its link, only to the router.",
     {IN_PORT, ETH_TYPE, IP_DST, IPV6_SRC, IPV6_DST}, {"FROM_TRACK", "ROUTER"}, False,
     R.SPOOFED_IP, {R.TO_ITSELF, R.LINK_LOCAL}),
    ("FROM_TRACK", "A port without security groups: on. With stateful ones: find the packet's connection.",
     {IN_PORT, ETH_TYPE}, {"FROM_RULES", PAST_GROUPS}, False,
     R.UNKNOWN_PORT, set()),
    ("FROM_RULES", "What the port's groups let out: connections that its guest opens, replies to those it may accept.",
     {*TRACKED, IP_DST, IPV6_DST, TCP_SRC, TCP_DST, UDP_SRC, UDP_DST, SCTP_SRC, SCTP_DST}, {"FROM_ADMIT"}, False,
     R.GROUP_FROM_GUEST, set()),
    ("FROM_ADMIT", "Remember a connection that is new.",
     {IN_PORT, ETH_TYPE, CT_STATE}, {PAST_GROUPS}, False,
     R.UNKNOWN_PORT, set()),
    ("ROUTE", "Whom is it for: the VPC's router, an address of one of its subnets, or neither.",
     {VNI, ETH_TYPE, IP_DST, IPV6_DST}, {"ROUTER", "ON_LINK", "SIZE"}, False,
     R.UNKNOWN_PORT, set()),
    ("ROUTER", "The router answers pings, and says that it has no UDP port; the latter by the controller.",
     {IN_PORT, VNI, ETH_TYPE, IP_DST, IPV6_DST, IP_PROTO, ICMP_TYPE, ICMP_CODE, ICMPV6_TYPE, ICMPV6_CODE}, set(), True,
     R.TO_ROUTER, set()),
    ("ON_LINK", "Is it from the same subnet? Then it is on its way; else it is routed, from the router's MAC.",
     {VNI, SUBNET, ETH_TYPE, IP_SRC, IPV6_SRC}, {"TTL_LOW", "SIZE"}, False,
     R.UNKNOWN_PORT, set()),
    ("TTL_LOW", "Decrement the TTL, if its lowest three bits say how.",
     {ETH_TYPE, TTL}, {"TTL_MIDDLE", "SIZE"}, False,
     R.UNKNOWN_ETHERTYPE, set()),
    ("TTL_MIDDLE", "The same by the lowest six bits.",
     {ETH_TYPE, TTL}, {"TTL_HIGH", "SIZE"}, False,
     R.UNKNOWN_ETHERTYPE, set()),
    ("TTL_HIGH", "The same by all bits.",
     {ETH_TYPE, TTL}, {"TTL_EXPIRED", "SIZE"}, False,
     R.UNKNOWN_ETHERTYPE, set()),
    ("TTL_EXPIRED", "No hop is left: the controller says so to the guest.",
     {IN_PORT}, set(), True,
     R.UNKNOWN_PORT, {R.TTL_EXPIRED}),
    ("SIZE", "Is it larger than the MTU of the VPC's guests?",
     {VNI}, {"FIT"}, False,
     R.UNKNOWN_PORT, set()),
    ("FIT", "What fits goes on. What does not is for the controller, which tells the guest the MTU.",
     {IN_PORT, TOO_BIG}, {"TO_NIC"}, True,
     R.UNKNOWN_PORT, set()),
    ("TO_NIC", "Out by the port's own patch, which tells br-nic whose it is.",
     {IN_PORT}, set(), True,
     R.UNKNOWN_PORT, set()),
    ("LINK_GUARD", "Nothing that stays on a link reaches a guest from another, nor what only DHCP servers send.",
     {ETH_TYPE, IP_PROTO, UDP_SRC, ICMPV6_TYPE}, {"TO_TRACK"}, False,
     R.LINK_ONLY, {R.DHCP_POSED}),
    ("TO_TRACK", "To a port without security groups: on. With stateful ones: find the packet's connection.",
     {IN_PORT, ETH_TYPE}, {"TO_RULES", "TO_GUEST"}, False,
     R.UNKNOWN_PORT, set()),
    ("TO_RULES", "What the port's groups let in: connections that it may accept, replies to those its guest opened.",
     {*TRACKED, IP_SRC, IPV6_SRC, TCP_SRC, TCP_DST, UDP_SRC, UDP_DST, SCTP_SRC, SCTP_DST}, {"TO_ADMIT"}, False,
     R.GROUP_TO_GUEST, set()),
    ("TO_ADMIT", "Remember a connection that is new.",
     {IN_PORT, ETH_TYPE, CT_STATE}, {"TO_GUEST"}, False,
     R.UNKNOWN_PORT, set()),
    ("TO_GUEST", "Out by the port that the patch belongs to.",
     {IN_PORT}, set(), True,
     R.UNKNOWN_PORT, set()),
    ("DROP", "Count by reason, for each port of a guest and for the rest, and drop.",
     {REASON, IN_PORT}, set(), False, None, set()),
)

NIC_TABLES: Final = _bridge(BR_NIC,
    ("CLASSIFY", "From a guest: into its VPC. From the tunnel: to be checked. Uplink and VTEP: tunnels, ARP, ND only.",
     {IN_PORT, VLAN, ETH_DST, *ND, IP_SRC, IP_DST, IPV6_SRC, IPV6_DST, IP_FRAG, HOP_LIMIT, UDP_DST, ARP_SPA, ARP_TPA,
      ND_TARGET, TUN_ID, TUN_FLAGS},
     {"PUSH", "SOURCE_GUARD"}, True,
     R.UNKNOWN_PORT, {R.VLAN_TAGGED, R.NOT_TUNNEL, R.UNKNOWN_VTEP, R.NEIGHBOUR_PROBE, R.LOCAL_NOT_TUNNEL,
                      R.TUNNEL_CONTROL}),
    ("PUSH", "Map the inner destination; push the outer header towards its host, or hand over to a port of this one.",
     {TUN_ID, ETH_TYPE, IP_DST, IPV6_DST}, set(), True,
     R.NO_MAPPING, {R.VTEP_MISMATCH}),
    ("SOURCE_GUARD", "The outer source must be the host of the port that the inner source is mapped, or allowed, to.",
     {TUN_ID, TUN_SRC, TUN_IPV6_SRC, ETH_TYPE, IP_SRC, IPV6_SRC, IP_DST, IPV6_DST}, {"DELIVER"}, False,
     R.SOURCE_NOT_MAPPED, set()),
    ("DELIVER", "Map the inner destination to a port of this host, and address the frame to it.",
     {TUN_ID, ETH_TYPE, IP_DST, IPV6_DST}, set(), True,
     R.NOT_HERE, set()),
    ("DROP", "Count by reason, for each port of a guest and for the rest, and drop.",
     {REASON, IN_PORT}, set(), False, None, set()),
)
# fmt: on

TABLES: Final = {
    bridge: {table.name: table for table in tables}
    for bridge, tables in ((BR_GUEST, GUEST_TABLES), (BR_NIC, NIC_TABLES))
}
"""Bridge name -> table name -> table."""


def reasons(bridge: str) -> list[Reason]:
    """Every reason for which a bridge drops, in order of number."""
    used = {reason for table in TABLES[bridge].values() for reason in (table.miss, *table.named_misses) if reason}
    return sorted(used, key=lambda reason: reason.number)
