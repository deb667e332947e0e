"""What a guest is told about its port, from the mapping alone, whichever protocol it asks by."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from collections.abc import Mapping as MappingABC
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface, ip_address
from typing import Final

from mapping.linked import Linked
from mapping.model import IPAddress, IPNetwork, Port, Vpc
from mapping.values import in_family_order

LEASE: Final = 86400
"""Seconds for which an address, a route or a prefix is good. An address is the port's for as long as it is mapped, so
this only says how long a guest goes on without any controller, and how soon it hears of another MTU or DNS server:
it asks again after half of it."""

_ARCHITECTURES: Final = {
    0: "bios",
    7: "uefi-x64",
    9: "uefi-x64",
    11: "uefi-arm64",
    16: "uefi-http-x64",
    19: "uefi-http-arm64",
}
"""What a client calls its architecture (RFC 4578, 2.1; the erratum to it swaps 7 and 9) -> its word in `Port.boot`."""


@dataclass(frozen=True, slots=True)
class GuestConfig:
    """A port as its guest has to know it.

    `addresses` have their subnet's prefix, the lowest first; `routes` are destination -> next hop; `boot` is the
    port's column.
    """

    mac: bytes
    router_mac: bytes
    ipv4: tuple[IPv4Interface, ...]
    ipv6: tuple[IPv6Interface, ...]
    dns: tuple[IPAddress, ...]
    mtu: int
    routes: tuple[tuple[IPNetwork, IPAddress], ...]
    boot: MappingABC[str, str]

    def dns_servers(self, version: int) -> bytes:
        """The addresses of the servers that speak this version of IP, one after the other."""
        return b"".join(address.packed for address in self.dns if address.version == version)

    def boot_file(self, architectures: Iterable[int], *, ipxe: bool) -> str | None:
        """What the first of these architectures that the port has a file for is to load.

        iPXE, which may have been loaded so, or be the card's own, gets a file of its own if there is one: a chain ends.
        """
        words = [*(["ipxe"] if ipxe else []), *(_ARCHITECTURES.get(each, "") for each in architectures)]
        return next((self.boot[word] for word in words if word in self.boot), None)


def guest_config(port: Port, vpc: Vpc, addresses: Iterable[str], mtu: int) -> GuestConfig:
    """What the guest of a port that has these addresses is told."""
    # It is answered ARP and neighbour discovery for the whole of a subnet, so that is what is on its link.
    own = list(_in_subnets(in_family_order(map(ip_address, addresses)), vpc.subnets))
    return GuestConfig(
        mac=bytes.fromhex(port.mac.replace(":", "")),
        router_mac=bytes.fromhex(vpc.router_mac.replace(":", "")),
        ipv4=tuple(address for address in own if isinstance(address, IPv4Interface)),
        ipv6=tuple(address for address in own if isinstance(address, IPv6Interface)),
        dns=vpc.dns,
        mtu=mtu,
        routes=vpc.routes,
        boot=dict(port.boot),
    )


def config_of(port: Port, linked: Linked) -> GuestConfig:
    """The same, by the rows that hold together now."""
    vpc = linked.vpcs[port.vpc]
    return guest_config(port, vpc, linked.addresses_of(port.uuid), linked.guest_mtu(vpc))


def _in_subnets(
    addresses: Iterable[IPAddress], subnets: Iterable[IPNetwork]
) -> Iterator[IPv4Interface | IPv6Interface]:
    for address in addresses:
        prefix = next(subnet.prefixlen for subnet in subnets if address in subnet)
        yield (IPv4Interface if address.version == 4 else IPv6Interface)((int(address), prefix))
