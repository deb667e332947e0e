"""The packet fields and registers that flows match and set, each under one name.

Names and notation are those of ovs-fields(7), so that what this code prints is what `ovs-ofctl` prints and reads.
"""

from __future__ import annotations

import enum
import socket
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple

from flows.ports import LOCAL
from mapping.model import IPNetwork


def _mac(value: int) -> str:
    return ":".join(f"{byte:02x}" for byte in value.to_bytes(6))


def mac(text: str) -> int:
    """A MAC address as the number its six bytes are."""
    return int.from_bytes(bytes.fromhex(text.replace(":", "")))


def address(text: str) -> int:
    """A canonical IPv4 or IPv6 address as the number its bytes are."""
    return int.from_bytes(socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text))


def prefix(net: IPNetwork) -> int | tuple[int, int]:
    """What a field must be to be an address of this network: the one that it has, or (value, mask)."""
    first = int(net.network_address)
    return first if net.prefixlen == net.max_prefixlen else (first, int(net.netmask))


def _ipv4(value: int) -> str:
    return str(IPv4Address(value))


def _ipv6(value: int) -> str:
    return str(IPv6Address(value))


def port(number: int) -> str:
    """A port number as ovs-ofctl writes it."""
    return "LOCAL" if number == LOCAL else str(number)


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """One field. `oxm` is its name in Ryu's tables; `notation` writes a value as ovs-ofctl does."""

    name: str
    oxm: str
    bits: int
    notation: Callable[[int], str]

    @property
    def is_address(self) -> bool:
        """Whether the notation is an address, rather than a number."""
        return self.notation in (_mac, _ipv4, _ipv6)

    @property
    def ones(self) -> int:
        """The mask that matches the field exactly."""
        return (1 << self.bits) - 1

    def __repr__(self) -> str:
        return self.name


IN_PORT: Final = Field("in_port", "in_port", 32, port)
TUN_ID: Final = Field("tun_id", "tunnel_id", 64, hex)
TUN_SRC: Final = Field("tun_src", "tun_ipv4_src", 32, _ipv4)
TUN_DST: Final = Field("tun_dst", "tun_ipv4_dst", 32, _ipv4)
TUN_IPV6_SRC: Final = Field("tun_ipv6_src", "tun_ipv6_src", 128, _ipv6)
TUN_IPV6_DST: Final = Field("tun_ipv6_dst", "tun_ipv6_dst", 128, _ipv6)
ETH_SRC: Final = Field("eth_src", "eth_src", 48, _mac)
ETH_DST: Final = Field("eth_dst", "eth_dst", 48, _mac)
ETH_TYPE: Final = Field("eth_type", "eth_type", 16, hex)
VLAN: Final = Field("vlan_vid", "vlan_vid", 13, hex)
IP_PROTO: Final = Field("nw_proto", "ip_proto", 8, str)
IP_SRC: Final = Field("nw_src", "ipv4_src", 32, _ipv4)
IP_DST: Final = Field("nw_dst", "ipv4_dst", 32, _ipv4)
IPV6_SRC: Final = Field("ipv6_src", "ipv6_src", 128, _ipv6)
IPV6_DST: Final = Field("ipv6_dst", "ipv6_dst", 128, _ipv6)
IP_FRAG: Final = Field("ip_frag", "ip_frag", 8, hex)
TUN_FLAGS: Final = Field("tun_flags", "tun_flags", 16, hex)
HOP_LIMIT: Final = Field("nw_ttl", "nw_ttl", 8, str)
"""TTL, or hop limit. Cannot be matched under a mask: see `guest_router`."""
ICMP_TYPE: Final = Field("icmp_type", "icmpv4_type", 8, str)
ICMP_CODE: Final = Field("icmp_code", "icmpv4_code", 8, str)
UDP_SRC: Final = Field("udp_src", "udp_src", 16, str)
UDP_DST: Final = Field("udp_dst", "udp_dst", 16, str)
ARP_OP: Final = Field("arp_op", "arp_op", 16, str)
ARP_SPA: Final = Field("arp_spa", "arp_spa", 32, _ipv4)
ARP_TPA: Final = Field("arp_tpa", "arp_tpa", 32, _ipv4)
ARP_SHA: Final = Field("arp_sha", "arp_sha", 48, _mac)
ARP_THA: Final = Field("arp_tha", "arp_tha", 48, _mac)
ICMPV6_TYPE: Final = Field("icmpv6_type", "icmpv6_type", 8, str)
ICMPV6_CODE: Final = Field("icmpv6_code", "icmpv6_code", 8, str)
ND_TARGET: Final = Field("nd_target", "ipv6_nd_target", 128, _ipv6)
ND_SLL: Final = Field("nd_sll", "ipv6_nd_sll", 48, _mac)
ND_TLL: Final = Field("nd_tll", "ipv6_nd_tll", 48, _mac)
ND_FLAGS: Final = Field("nd_reserved", "nd_reserved", 32, str)
"""The word of a neighbour advertisement that has the flags, RFC 4861, 4.4."""
ND_OPTION: Final = Field("nd_options_type", "nd_options_type", 8, str)
"""Type of the first option that has a link-layer address; 0 if there is none. Matched only; see `guest_ipv6`."""

TCP_SRC: Final = Field("tcp_src", "tcp_src", 16, str)
TCP_DST: Final = Field("tcp_dst", "tcp_dst", 16, str)
SCTP_SRC: Final = Field("sctp_src", "sctp_src", 16, str)
SCTP_DST: Final = Field("sctp_dst", "sctp_dst", 16, str)
CT_STATE: Final = Field("ct_state", "ct_state", 32, hex)
"""What the connection tracker said of the packet, bits of `CtState`."""
CONJUNCTION: Final = Field("conj_id", "conj_id", 32, str)
"""Which of `flow.Conjunction` has all its clauses matched."""

VNI: Final = Field("reg0", "reg0", 32, hex)
"""br-guest: the VPC of the guest port that the packet came from or, at its groups, goes to. On br-nic: `tun_id`."""
REASON: Final = Field("reg1", "reg1", 32, hex)
"""Why the packet is dropped, on its way to the DROP table."""
SCRATCH: Final = Field("reg2", "reg2", 32, hex)
"""Holds one address while two are swapped."""
ROUTER: Final = Field("reg3", "reg3", 32, hex)
"""1 if the neighbour that a guest solicits is its router: an answer must say so."""
SUBNET: Final = Field("reg4", "reg4", 32, hex)
"""Which of its VPC's subnets, from 1 on, a guest's packet is for."""
TTL: Final = Field("reg5", "reg5", 32, hex)
"""As many of the lowest bits of a packet's TTL as have been looked at."""
TOO_BIG: Final = Field("reg6", "reg6", 32, hex)
"""1 if the packet is larger than the VPC's guests may send."""

UNTAGGED: Final = 0
"""VLAN value of a frame without a tag (OFPVID_NONE)."""
TAGGED: Final = 0x1000
"""VLAN bit that every tagged frame has (OFPVID_PRESENT), as value and mask."""

WHOLE: Final = 0, 3
"""IP fragment bits of a packet that is none, as value and mask."""
FRAGMENT: Final = 1, 1
"""The same of any fragment, of which Open vSwitch shows no ports."""
OAM: Final = 1, 1
"""Tunnel flag of Geneve's operations packets (RFC 8926, 3.4), as value and mask."""
WORDS: Final = {(IP_FRAG, *WHOLE): "no", (IP_FRAG, *FRAGMENT): "yes", (TUN_FLAGS, *OAM): "+oam"}
"""Field, value and mask -> the word by which ovs-ofctl reads and writes it."""


class EthType(enum.IntEnum):
    """Ethertypes that are let through, and nothing else."""

    IPV4 = 0x0800
    ARP = 0x0806
    IPV6 = 0x86DD


class Family(NamedTuple):
    """What the two versions of IP have each of their own."""

    eth_type: EthType
    src: Field
    dst: Field
    tun_src: Field
    tun_dst: Field


FAMILIES: Final = {
    4: Family(EthType.IPV4, IP_SRC, IP_DST, TUN_SRC, TUN_DST),
    6: Family(EthType.IPV6, IPV6_SRC, IPV6_DST, TUN_IPV6_SRC, TUN_IPV6_DST),
}
"""Version of IP -> its fields."""


class IpProto(enum.IntEnum):
    """IP protocol numbers that carry tunnels, look for neighbours, or that security groups know of."""

    ICMP = 1
    TCP = 6
    UDP = 17
    GRE = 47
    ICMPV6 = 58
    SCTP = 132


class CtState(enum.IntFlag):
    """Bits of `CT_STATE`, ovs-fields(7)."""

    NEW = 0x01
    EST = 0x02
    REL = 0x04
    RPL = 0x08
    INV = 0x10
    TRK = 0x20


class ArpOp(enum.IntEnum):
    """ARP operations, RFC 826."""

    REQUEST = 1
    REPLY = 2


class Icmp(enum.IntEnum):
    """ICMP messages, RFC 792."""

    ECHO_REPLY = 0
    ECHO_REQUEST = 8


class Icmpv6(enum.IntEnum):
    """ICMPv6 messages: echo (RFC 4443), and those that never leave a link: MLD (RFC 2710, RFC 3810), ND (RFC 4861)."""

    ECHO_REQUEST = 128
    ECHO_REPLY = 129
    MLD_QUERY = 130
    MLD_REPORT = 131
    MLD_DONE = 132
    ROUTER_SOLICITATION = 133
    ROUTER_ADVERTISEMENT = 134
    NEIGHBOUR_SOLICITATION = 135
    NEIGHBOUR_ADVERTISEMENT = 136
    REDIRECT = 137
    MLD2_REPORT = 143
