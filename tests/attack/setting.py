"""Where the attacks take place: names, addresses and legitimate packets, the same in every run.

    host-a  192.0.2.1  VXLAN    web 10.0.0.11, near 10.0.0.14      red-web 10.0.0.11
    host-b  192.0.2.2  Geneve   db  10.0.0.12                      red-db  10.0.0.12
    host-c  192.0.2.3  GRE      log 10.0.0.13                      red-log 10.0.0.50
                                VPC blue, VNI 5001                 VPC red, VNI 5002
    neighbour  192.0.2.66       on the substrate, no host of the mapping

Each guest has an IPv6 address, too, that ends like its IPv4 address: web fd00::11, red-log fd00::50.
The malicious guest is web, which may also send from 10.0.0.128/28 and fd00::c0/124; the neighbour sends to host-b,
unless a case says otherwise.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Any, Final

from scapy.contrib.geneve import GENEVE
from scapy.contrib.lldp import LLDPDU, LLDPDUChassisID, LLDPDUEndOfLLDPDU, LLDPDUPortID, LLDPDUTimeToLive
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import ICMPv6EchoReply, IPv6
from scapy.layers.l2 import GRE, Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet
from scapy.pton_ntop import inet_ntop, inet_pton
from scapy.utils6 import in6_getnsma, in6_mactoifaceid

from mapping.model import Encap

MAPPING: Final = """\
vpcs:
  blue: {vni: 5001, subnets: [10.0.0.0/24, 10.9.0.0/24, "fd00::/64", "fd00:9::/64"]}
  red: {vni: 5002, subnets: [10.0.0.0/24, "fd00::/64"]}
hosts:
  host-a: {vtep: 192.0.2.1, encap: vxlan}
  host-b: {vtep: 192.0.2.2, encap: geneve}
  host-c: {vtep: 192.0.2.3, encap: gre}
groups:
  vault:
    vpc: blue
    rules:
      - to_guest tcp 80 from any
      - to_guest tcp 443 from group vault
      - to_guest icmp from 10.0.0.13
      - to_guest icmp from fd00::13
ports:
  web:
    {vpc: blue, host: host-a, mac: "02:00:00:00:00:11", addresses: [10.0.0.11, "fd00::11"],
     allowed: [10.0.0.128/28, "fd00::c0/124"]}
  db: {vpc: blue, host: host-b, mac: "02:00:00:00:00:12", addresses: [10.0.0.12, "fd00::12"]}
  log: {vpc: blue, host: host-c, mac: "02:00:00:00:00:13", addresses: [10.0.0.13, "fd00::13"]}
  near: {vpc: blue, host: host-a, mac: "02:00:00:00:00:14", addresses: [10.0.0.14, "fd00::14"]}
  vault: {vpc: blue, host: host-b, mac: "02:00:00:00:00:15", addresses: [10.0.0.15, "fd00::15"], groups: [vault]}
  red-web: {vpc: red, host: host-a, mac: "02:00:00:00:00:21", addresses: [10.0.0.11, "fd00::11"]}
  red-db: {vpc: red, host: host-b, mac: "02:00:00:00:00:22", addresses: [10.0.0.12, "fd00::12"]}
  red-log: {vpc: red, host: host-c, mac: "02:00:00:00:00:23", addresses: [10.0.0.50, "fd00::50"]}
"""


@dataclass(frozen=True, slots=True)
class HostAt:
    """A host: its VTEP, and the encapsulation that it wants."""

    vtep: str
    encap: Encap

    @property
    def mac(self) -> str:
        """Of the VTEP: flows/nic_substrate.py makes it from the address."""
        return "0a:6e:" + ":".join(f"{int(part):02x}" for part in self.vtep.split("."))


@dataclass(frozen=True, slots=True)
class GuestAt:
    """A guest: its VNI, host, MAC and addresses."""

    vni: int
    host: str
    mac: str
    ip: str
    ipv6: str

    @property
    def link_local(self) -> str:
        """The IPv6 address that its kernel makes of its MAC."""
        return str(IPv6Address(f"fe80::{in6_mactoifaceid(self.mac)}"))


BLUE, RED = 5001, 5002
HOSTS: Final = {
    "host-a": HostAt("192.0.2.1", Encap.VXLAN),
    "host-b": HostAt("192.0.2.2", Encap.GENEVE),
    "host-c": HostAt("192.0.2.3", Encap.GRE),
}
GUESTS: Final = {
    "web": GuestAt(BLUE, "host-a", "02:00:00:00:00:11", "10.0.0.11", "fd00::11"),
    "db": GuestAt(BLUE, "host-b", "02:00:00:00:00:12", "10.0.0.12", "fd00::12"),
    "log": GuestAt(BLUE, "host-c", "02:00:00:00:00:13", "10.0.0.13", "fd00::13"),
    "near": GuestAt(BLUE, "host-a", "02:00:00:00:00:14", "10.0.0.14", "fd00::14"),
    "vault": GuestAt(BLUE, "host-b", "02:00:00:00:00:15", "10.0.0.15", "fd00::15"),
    "red-web": GuestAt(RED, "host-a", "02:00:00:00:00:21", "10.0.0.11", "fd00::11"),
    "red-db": GuestAt(RED, "host-b", "02:00:00:00:00:22", "10.0.0.12", "fd00::12"),
    "red-log": GuestAt(RED, "host-c", "02:00:00:00:00:23", "10.0.0.50", "fd00::50"),
}
WEB, DB, LOG, NEAR, VAULT, RED_DB, RED_LOG = (
    GUESTS[name] for name in ("web", "db", "log", "near", "vault", "red-db", "red-log")
)
A, B, C = HOSTS.values()

CONTROL: Final = "198.51.100.1"
CONTROL_OF: Final = {"host-a": "198.51.100.10", "host-b": "198.51.100.11", "host-c": "198.51.100.12"}
OTHER_SUBNET, OTHER_SUBNET_IPV6 = "10.9.0.9", "fd00:9::9"
"""In a subnet of VPC blue where nobody is."""
ROUTER, ROUTER_IPV6, ROUTER_MAC = "10.0.0.1", "fd00::1", "0a:00:5e:00:00:01"
ROUTER_LINK_LOCAL: Final = "fe80::1"
UNMAPPED, UNMAPPED_IPV6 = "10.0.0.99", "fd00::99"
MTU: Final = 1450
"""Of guests: what a substrate of 1500 leaves beside Geneve's or VXLAN's header."""
BROADCAST: Final = "ff:ff:ff:ff:ff:ff"
NEIGHBOUR, NEIGHBOUR_MAC = "192.0.2.66", "0a:00:00:00:00:66"

ECHO_REPLY: Final = ICMP(type="echo-reply", id=7, seq=7)
ECHO_REPLY6: Final = ICMPv6EchoReply(id=7, seq=7)
"""What a guest takes without an answer, also over IPv6."""


def ip(src: str = WEB.ip, dst: str = DB.ip, **fields: Any) -> Packet:
    """An IPv4 header, by default from web to db."""
    return IP(src=src, dst=dst, **fields)


def ip6(src: str = WEB.ipv6, dst: str = DB.ipv6, **fields: Any) -> Packet:
    """An IPv6 header, by default from web to db."""
    return IPv6(src=src, dst=dst, **fields)


def solicited_node(target: str) -> str:
    """The multicast address at which who has `target` listens, RFC 4291, 2.7.1."""
    return str(inet_ntop(socket.AF_INET6, in6_getnsma(inet_pton(socket.AF_INET6, target))))


def eth(dst: str = ROUTER_MAC, src: str = WEB.mac, **fields: Any) -> Packet:
    """An Ethernet header, by default from web to its router: which MAC it is sent to decides nothing."""
    return Ether(dst=dst, src=src, **fields)


def header(encap: Encap, vni: int = BLUE) -> Packet:
    """What stands between the outer IP header and the inner frame."""
    match encap:
        case Encap.VXLAN:
            return UDP(sport=50000, dport=4789, chksum=0) / VXLAN(flags=8, vni=vni)
        case Encap.GENEVE:
            return UDP(sport=50000, dport=6081, chksum=0) / GENEVE(vni=vni, proto=0x6558)
        case Encap.GRE:
            return GRE(key_present=1, key=vni, proto=0x6558)


def lldp(mac: str) -> Packet:
    """An LLDP announcement."""
    identity = LLDPDUChassisID(subtype=4, id=mac) / LLDPDUPortID(subtype=3, id=mac)
    return LLDPDU() / identity / LLDPDUTimeToLive(ttl=120) / LLDPDUEndOfLLDPDU()


def bare(src: HostAt = A, dst: HostAt = B, *, claims: str = "", **fields: Any) -> Packet:
    """Outer Ethernet and IP header, by default as host-a sends to host-b; `claims` is another outer source."""
    return Ether(src=src.mac, dst=dst.mac) / IP(src=claims or src.vtep, dst=dst.vtep, **fields)


def wrapped(inner: Packet | bytes, src: HostAt = A, dst: HostAt = B, vni: int = BLUE, *, claims: str = "") -> Packet:
    """A tunnel packet as `src` would send it to `dst`."""
    return bare(src, dst, claims=claims) / header(dst.encap, vni) / inner


def inner(src: GuestAt = WEB, dst: GuestAt = DB, **fields: Any) -> Packet:
    """What one guest sends another, as it is on the substrate."""
    return Ether(src=src.mac, dst=dst.mac) / IP(src=src.ip, dst=dst.ip, **fields) / ECHO_REPLY


def inner6(src: GuestAt = WEB, dst: GuestAt = DB) -> Packet:
    """The same over IPv6."""
    return Ether(src=src.mac, dst=dst.mac) / IPv6(src=src.ipv6, dst=dst.ipv6) / ECHO_REPLY6
