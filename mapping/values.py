"""Text to value, for every field a person or a database row can get wrong.

Each parser takes the text as written and returns the value, or raises ValueError with one line that names the text
and the mend. Canonical form is demanded, not repaired: the database's unique indexes compare text, so two spellings
of one address would be two addresses.
"""

from __future__ import annotations

import itertools
import re
import socket
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Final

from mapping.model import DEVICE_MAX, VNI_MAX, Encap, IPAddress, IPNetwork, Limits

_MAC = re.compile(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}")
_DEVICE = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9_.-]{{0,{DEVICE_MAX - 1}}}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_NUMBER = re.compile(r"[1-9][0-9]{0,8}")
_FILE = re.compile(r"[!-~]{1,127}")
_BMC = re.compile(r"https://[^\s@/?#]+/redfish/v1/Systems/[^\s@?#/]+|lab:[A-Za-z0-9_./-]{1,200}")
_DATAPATH = re.compile(r"[0-9a-f]{16}")


def _shown(text: str) -> str:
    """The text in a message, cut where it would fill the screen."""
    return repr(text if len(text) <= 70 else f"{text[:64]}[...]")


def parse_name(text: str) -> str:
    """A row's name: 1 to 63 letters, digits, `_`, `.`, `-`, not starting with a sign."""
    if not _NAME.fullmatch(text):
        raise ValueError(f"name {_shown(text)}: use 1 to 63 letters, digits, '_', '.', '-', a letter or digit first")
    return text


def parse_mac(text: str) -> str:
    """A unicast MAC address in lower case with colons."""
    if not _MAC.fullmatch(text):
        raise ValueError(f"MAC {_shown(text)}: write six pairs of lower case hex digits, like 02:00:00:00:00:01")
    if int(text[:2], 16) & 1:
        raise ValueError(f"MAC {_shown(text)} is a multicast address: make the first pair even, like 02")
    if text == "00:00:00:00:00:00":
        raise ValueError(f"MAC {_shown(text)} is nobody's: give the port's own, like 02:00:00:00:00:01")
    return text


def packed_ip(text: str) -> bytes:
    """An address in its one canonical spelling, of IPv6 that of RFC 5952, in network order."""
    if ":" in text:
        return _packed_ipv6(text)
    try:
        return socket.inet_pton(socket.AF_INET, text)  # strict about leading zeros, and fast: there are many of these
    except (OSError, ValueError):
        raise ValueError(
            f"address {_shown(text)}: write four numbers up to 255, no leading zeros, like 10.0.0.1, or IPv6"
        ) from None


def _packed_ipv6(text: str) -> bytes:
    try:
        packed = socket.inet_pton(socket.AF_INET6, text)
    except (OSError, ValueError):
        raise ValueError(f"address {_shown(text)}: write an IPv6 address, like fd00::12, without a zone") from None
    if not packed[0]:
        raise ValueError(f"address {_shown(text)} is in ::/8, which is reserved (RFC 4291): choose another")
    if (canonical := socket.inet_ntop(socket.AF_INET6, packed)) != text:
        raise ValueError(f"address {_shown(text)}: write it as {canonical}")
    return packed


def parse_ip(text: str) -> IPAddress:
    """An address in its one canonical spelling."""
    packed = packed_ip(text)
    return IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed)


def parse_vtep_ip(text: str) -> IPAddress:
    """A host's address on the substrate: unicast, not loopback, and of IPv6 not link-local."""
    ip = parse_ip(text)
    nobodys = ip.is_multicast or ip.is_loopback or ip.is_unspecified or ip.is_reserved
    if nobodys or (ip.version == 6 and ip.is_link_local):
        raise ValueError(f"VTEP address {_shown(text)} is no host's: give the host's own address on the substrate")
    return ip


def _network(text: str) -> IPNetwork | None:
    """A network that is written with its prefix length, in whatever spelling; None: it is none."""
    try:
        return ip_network(text, strict=False) if "/" in text and "%" not in text else None
    except ValueError:
        return None


def parse_subnet(text: str) -> IPNetwork:
    """A subnet of a VPC, /1 to /30 or, of IPv6, to /126, of addresses that a guest may have."""
    net = _network(text)
    if net is None:
        raise ValueError(
            f"subnet {_shown(text)}: write a network and its prefix length, like 10.0.0.0/24 or fd00:0:0:1::/64"
        )
    longest = net.max_prefixlen - 2
    if not 1 <= net.prefixlen <= longest:
        raise ValueError(f"subnet {_shown(text)}: choose a prefix of /1 to /{longest}: router and guests must fit")
    return _for_guests(net, f"subnet {_shown(text)}", text)


def _for_guests(net: IPNetwork, what: str, text: str) -> IPNetwork:
    """The network, of addresses that guests may have, in its one canonical spelling."""
    for name, taken in _NOT_FOR_GUESTS.items():
        if net.overlaps(taken):
            raise ValueError(f"{what} overlaps {taken} ({name}): choose another")
    if str(net) != text:
        raise ValueError(f"{what}: write it as {net}")
    return net


_NOT_FOR_GUESTS: Final[dict[str, IPNetwork]] = {
    "this network, RFC 791": IPv4Network("0.0.0.0/8"),
    "loopback, RFC 1122": IPv4Network("127.0.0.0/8"),
    "multicast, RFC 5771": IPv4Network("224.0.0.0/4"),
    "reserved, RFC 1112": IPv4Network("240.0.0.0/4"),
    # Unspecified, loopback, and what stands for IPv4 addresses are in it, RFC 4291.
    "reserved, RFC 4291": IPv6Network("::/8"),
    "link-local, RFC 4291": IPv6Network("fe80::/10"),
    "multicast, RFC 4291": IPv6Network("ff00::/8"),
}


def in_order(subnets: Iterable[IPNetwork]) -> tuple[IPNetwork, ...]:
    """Subnets sorted, IPv4 first."""
    return tuple(sorted(subnets, key=lambda net: (net.version, net.network_address.packed, net.prefixlen)))


def check_subnets(subnets: tuple[IPNetwork, ...]) -> None:
    """Raise ValueError unless there is a subnet, and no two overlap."""
    if not subnets:
        raise ValueError("no subnets: name at least one, like 10.0.0.0/24")
    for low, high in itertools.pairwise(in_order(subnets)):
        if low.overlaps(high):
            raise ValueError(f"subnets {low} and {high} overlap: remove one")


def in_family_order(addresses: Iterable[IPAddress]) -> tuple[IPAddress, ...]:
    """Addresses sorted, IPv4 first."""
    return tuple(sorted(addresses, key=lambda ip: (ip.version, ip.packed)))


def check_mtu(mtu: int | None, subnets: tuple[IPNetwork, ...]) -> None:
    """Raise ValueError unless guests with addresses of these subnets may have this MTU: IPv6 needs 1280, RFC 8200."""
    if mtu is not None and mtu < IPV6_MTU and any(subnet.version == 6 for subnet in subnets):
        raise ValueError(f"MTU {mtu} is too small for IPv6: choose at least {IPV6_MTU}, or have no IPv6 subnet")


IPV6_MTU: Final = 1280
"""The least that a link must carry of IPv6, in bytes: RFC 8200, 5."""


def parse_route(text: str) -> tuple[IPNetwork, IPAddress]:
    """A destination and the next hop to it, written "10.9.0.0/16=10.0.0.254"."""
    destination, _, hop = text.partition("=")
    net = _network(destination)
    if net is None or not hop:
        raise ValueError(f"route {_shown(text)}: write a network and the next hop to it, like 10.9.0.0/16=10.0.0.254")
    if str(net) != destination:
        raise ValueError(f"route to {_shown(destination)}: write it as {net}")
    ip = parse_ip(hop)
    if ip.version != net.version:
        raise ValueError(f"route to {net}: its next hop {ip} is of the other IP version: name one of the same")
    return net, ip


_DNS_MAX: Final = 8
_ROUTES_MAX: Final = 24
"""What fits one option of DHCP, 255 bytes, with the way by default: clients differ in whether they join several."""


def check_dns(dns: Sequence[IPAddress]) -> None:
    """Raise ValueError unless a guest can be told of all these servers."""
    if len(dns) > _DNS_MAX:
        raise ValueError(f"{len(dns)} name servers: name at most {_DNS_MAX}")


def check_routes(routes: Sequence[tuple[IPNetwork, IPAddress]], subnets: tuple[IPNetwork, ...]) -> None:
    """Raise ValueError unless guests of these subnets can reach each route's next hop, and be told of all."""
    if len(routes) > _ROUTES_MAX:
        raise ValueError(f"{len(routes)} routes: give at most {_ROUTES_MAX}")
    for net, hop in routes:
        if not any(hop in subnet for subnet in subnets):
            raise ValueError(
                f"route to {net}: its next hop {hop} is outside the subnets ({', '.join(map(str, subnets))}): "
                "choose one inside"
            )


def parse_allowed(text: str) -> IPNetwork:
    """What a guest may send from besides its own addresses: an address, or a network, of no host and no multicast."""
    if "/" not in text:
        return ip_network(parse_ip(text))
    net = _network(text)
    if net is None or not 1 <= net.prefixlen < net.max_prefixlen:
        raise ValueError(f"allowed {_shown(text)}: write an address, like 10.0.0.9, or a network, like 10.0.1.0/28")
    return _for_guests(net, f"allowed {_shown(text)}", text)


def check_allowed(
    allowed: tuple[IPNetwork, ...],
    subnets: tuple[IPNetwork, ...],
    routes: Iterable[tuple[IPNetwork, IPAddress]],
) -> None:
    """Raise ValueError unless a guest of a VPC with these subnets and routes may be allowed all this at once.

    Each must be of addresses that guests may have in a subnet, or that a route leads to: these are behind a guest.
    """
    for low, high in itertools.pairwise(in_order(allowed)):
        if low.overlaps(high):
            raise ValueError(f"allowed {show_allowed(low)} and {show_allowed(high)} overlap: remove one")
    behind = [net for net, _ in routes]
    for net in allowed:
        met = next((subnet for subnet in subnets if subnet.overlaps(net)), None)
        if met is None:
            if not any(_within(net, route) for route in behind):
                nets = ", ".join(map(str, (*subnets, *behind)))
                raise ValueError(
                    f"allowed {show_allowed(net)} is outside its VPC's subnets and routes ({nets}): choose one inside"
                )
            continue
        for ip in (met[0], met[1], *((met[-1],) if met.version == 4 else ())):
            if ip in net:
                text = "the router" if ip == met[1] else "no guest's address"
                raise ValueError(f"allowed {show_allowed(net)} holds {ip}, {text} of {met}: choose one without it")


def _within(net: IPNetwork, other: IPNetwork) -> bool:
    return net.version == other.version and net.subnet_of(other)  # type: ignore[arg-type]


def show_allowed(net: IPNetwork) -> str:
    """The text that `parse_allowed` takes."""
    return str(net.network_address if net.prefixlen == net.max_prefixlen else net)


def parse_limit(text: str) -> tuple[str, int]:
    """One limit of a port, by its name in `mapping.model.Limits`, written "from_guest_kbps=1000"."""
    word, _, number = text.partition("=")
    if word not in Limits._fields:
        raise ValueError(f"limit {_shown(word)}: choose {', '.join(Limits._fields)}")
    if not _NUMBER.fullmatch(number):
        raise ValueError(f"limit {word} {_shown(number)}: choose a whole number from 1 to 999999999")
    return word, int(number)


BOOT: Final = ("next_server", "bios", "uefi-x64", "uefi-arm64", "uefi-http-x64", "uefi-http-arm64", "ipxe")
"""What `Port.boot` may name: the server that has the files, an IPv4 address, and the file for each kind of client.

The kinds are those of RFC 4578 (2.1) and its registry: 0, 7 and 9, 11, 16, 19; and a client that is iPXE already.
"""


def parse_boot(text: str) -> tuple[str, str]:
    """One thing that a guest is told which boots over the network, by its name in `BOOT`: "bios=undionly.kpxe"."""
    word, _, value = text.partition("=")
    if word not in BOOT:
        raise ValueError(f"boot {_shown(word)}: choose {', '.join(BOOT)}")
    if word == "next_server":
        if parse_ip(value).version != 4:
            raise ValueError(f"boot next_server {_shown(value)}: write an IPv4 address: BOOTP has no room for another")
    elif not _FILE.fullmatch(value):
        raise ValueError(f"boot {word} {_shown(value)}: write a file's name or URL, 1 to 127 visible ASCII characters")
    return word, value


def check_guest_ip(ip: IPAddress, subnets: tuple[IPNetwork, ...]) -> None:
    """Raise ValueError unless a guest of a VPC with these subnets may have this address."""
    for subnet in subnets:
        if ip in subnet:
            if ip == subnet[1]:
                raise ValueError(f"address {ip} is the router of {subnet}: choose another")
            if ip == subnet[0] or (ip.version == 4 and ip == subnet[-1]):
                word = "network or broadcast address" if ip.version == 4 else "routers' anycast address"
                raise ValueError(f"address {ip} is the {word} of {subnet}: choose another")
            return
    raise ValueError(f"address {ip} is outside its VPC's subnets ({', '.join(map(str, subnets))}): choose one inside")


def parse_device(text: str) -> str:
    """A guest interface's name on br-guest, short enough for its patch ports to be named after it."""
    if not _DEVICE.fullmatch(text):
        raise ValueError(f"device {_shown(text)}: use 1 to {DEVICE_MAX} letters, digits, '_', '.' or '-'")
    if text.startswith(_OWN_PORTS):
        raise ValueError(f"device {_shown(text)}: {', '.join(_OWN_PORTS)} begin the bridges' own: choose another")
    return text


_OWN_PORTS = ("br-", "g-", "n-", "t-", "ovs-")
"""Beginnings of the names of bridges, patches and tunnels: port names are unique over all bridges of a host."""


def parse_bmc(text: str) -> str:
    """What turns a machine on and off: its system at a Redfish service, over HTTPS, or a guest of the lab."""
    if not _BMC.fullmatch(text):
        raise ValueError(
            f"BMC {_shown(text)}: write the system's URL, like https://198.51.100.9/redfish/v1/Systems/1, without "
            "user or password, or lab:NAME"
        )
    return text


def parse_datapath(text: str) -> int:
    """A bridge's datapath id: 16 lower case hex digits, as `ovs-vsctl get bridge NAME datapath_id` prints it."""
    if not _DATAPATH.fullmatch(text) or int(text, 16) == 0:
        raise ValueError(f"datapath id {_shown(text)}: write 16 lower case hex digits, not all zero")
    return int(text, 16)


def parse_vni(text: str) -> int:
    """A VNI, 1 to 2^24-1."""
    if not _NUMBER.fullmatch(text) or not 1 <= int(text) <= VNI_MAX:
        raise ValueError(f"VNI {_shown(text)}: choose a whole number from 1 to {VNI_MAX}")
    return int(text)


def parse_mtu(text: str) -> int:
    """A guest's MTU in bytes of IP packet, 576 (RFC 791) to 9216."""
    if not _NUMBER.fullmatch(text) or not 576 <= int(text) <= 9216:
        raise ValueError(f"MTU {_shown(text)}: choose a whole number of bytes from 576 to 9216")
    return int(text)


def parse_flag(text: str) -> bool:
    """Yes or no, as YAML 1.2 and JSON write it."""
    if text not in ("true", "false"):
        raise ValueError(f"{_shown(text)}: write true or false")
    return text == "true"


def parse_encap(text: str) -> Encap:
    """An encapsulation's name."""
    try:
        return Encap(text)
    except ValueError:
        raise ValueError(f"encapsulation {_shown(text)}: choose {', '.join(Encap)}") from None
