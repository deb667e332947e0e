"""The mapping, as frozen values.

A *mapping* is (VPC, inner IP) -> (the port's MAC, its host's VTEP). Rows of the database become these values in
`mapping.rows`; everything downstream (flows, the controller, the command) reads these and nothing else.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from collections.abc import Mapping as MappingABC
from dataclasses import dataclass, field
from hashlib import blake2b
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any, Final, NamedTuple

RowId = str
"""A row's uuid as the database writes it. Interned text: the uuid module's objects are hashed and compared in Python,
which was a third of the cost of a hundred thousand mappings."""

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network

VNI_MAX = (1 << 24) - 1
"""Largest VNI: 24 bits on the wire in VXLAN (RFC 7348) and Geneve (RFC 8926)."""

DEVICE_MAX = 13
"""Longest device name, in characters: its patch ports are named "g-" and "n-" plus this, and an OpenFlow port name
holds 15 characters (struct ofp_port, name[16] with its NUL)."""

ROUTER_MAC = "0a:00:5e:00:00:01"
"""MAC of every VPC's router unless the VPC names another: locally administered, the same everywhere."""

SUBSTRATE_MTU = 1500
"""Largest IP packet that the substrate carries from and to a host that says nothing else, in bytes."""


class Encap(enum.StrEnum):
    """How a host wants the packets that are sent to it wrapped."""

    VXLAN = "vxlan"
    GENEVE = "geneve"
    GRE = "gre"

    def overhead(self, version: int) -> int:
        """Bytes that it adds to an inner IP packet, on a substrate of this version of IP.

        These are the inner Ethernet header, its own (of GRE with the key, RFC 2890), UDP's unless it is GRE, and IP's.
        """
        return 14 + (8 if self is Encap.GRE else 16) + (20 if version == 4 else 40)


@dataclass(frozen=True, slots=True)
class Host:
    """A bare-metal host: where it is on the substrate, and the two bridges that are its NIC."""

    uuid: RowId
    name: str
    vtep_ip: IPAddress
    encap: Encap
    guest_datapath: int
    nic_datapath: int
    substrate_mtu: int = SUBSTRATE_MTU
    """Largest IP packet that the substrate carries to and from here, in bytes."""
    bmc: str = ""
    """What turns the machine on and off: see `mapping.values.parse_bmc`. Never with a password."""

    @property
    def carries(self) -> tuple[int, int]:
        """What decides the MTU of guests: its substrate's, and what its encapsulation adds, in bytes."""
        return self.substrate_mtu, self.encap.overhead(self.vtep_ip.version)

    def reaches(self, other: Host) -> bool:
        """Whether a tunnel can lead there: both VTEPs must be of one version of IP."""
        return self.vtep_ip.version == other.vtep_ip.version


@dataclass(frozen=True, slots=True)
class Vpc:
    """A tenant's network."""

    uuid: RowId
    name: str
    vni: int
    subnets: tuple[IPNetwork, ...]
    router_mac: str
    mtu: int | None
    """Of its guests, in bytes of IP packet; None: see `fleet_mtu`."""
    dns: tuple[IPAddress, ...] = ()
    """The servers that guests are to ask for names, IPv4 first."""
    routes: tuple[tuple[IPNetwork, IPAddress], ...] = ()
    """What guests are told beyond their subnets: destination, and the next hop, which is in one of the subnets."""
    guest_ranges: tuple[tuple[int, int], ...] = field(init=False, repr=False, compare=False)
    """First and last address, as numbers, that guests may have in each subnet: not its own, the router's, broadcast.

    IPv6 has no broadcast. Its subnets are not in ::/8, so no number is an address of both families.
    """

    def __post_init__(self) -> None:
        bounds = tuple((int(net[2]), int(net[-1]) - (net.version == 4)) for net in self.subnets)
        object.__setattr__(self, "guest_ranges", bounds)

    def routers(self) -> Iterator[IPAddress]:
        """The router's address on each subnet: the first host address."""
        for subnet in self.subnets:
            yield subnet.network_address + 1


class Limits(NamedTuple):
    """How much a port may send and receive; 0: as much as there is."""

    from_guest_kbps: int = 0
    to_guest_kbps: int = 0
    """Thousand bits a second."""
    from_guest_pps: int = 0
    to_guest_pps: int = 0
    """Packets a second."""


UNLIMITED: Final = Limits()


class Rule(NamedTuple):
    """What one rule of a security group allows; how it is written: `mapping.security_rules`."""

    to_guest: bool
    """Who opens the connection: the peer, or else the guest."""
    protocol: str
    """A name, a number as text, or "any"."""
    ports: tuple[int, int] | None
    """First and last destination port; None: whichever."""
    peer: IPNetwork | str | None
    """A network, the name of a group of the same VPC, or None: anyone."""


@dataclass(frozen=True, slots=True)
class SecurityGroup:
    """Rules for the ports that have it."""

    uuid: RowId
    name: str
    vpc: RowId
    stateless: bool
    """Whether replies need rules of their own, because no connection is tracked."""
    rules: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class Port:
    """A guest's attachment to its VPC. While `host` is None it can neither send nor receive."""

    uuid: RowId
    name: str
    vpc: RowId
    mac: str
    host: RowId | None
    device: str
    allowed: tuple[IPNetwork, ...] = ()
    """What the guest may send from besides the addresses that are mapped to it: single addresses, and networks."""
    limits: Limits = UNLIMITED
    moving_to: RowId | None = None
    """The host that it is about to move to: all is ready for it there already, and packets still go to `host`."""
    previous_host: RowId | None = None
    """The host that it has just moved from: packets that still arrive there are sent on to `host`."""
    boot: tuple[tuple[str, str], ...] = ()
    """What a guest that boots over the network is told: see `mapping.values.parse_boot`."""
    groups: tuple[RowId, ...] = ()
    """The security groups whose rules it is subject to; none: it is open."""

    def seat(self, host: RowId) -> RowId | None:
        """Where `host` takes the port to be: itself, if the port is about to move there."""
        return host if self.moving_to == host else self.host

    @property
    def hosts(self) -> frozenset[RowId]:
        """The hosts that have something to do for it."""
        return frozenset(each for each in (self.host, self.moving_to, self.previous_host) if each)

    @property
    def moves(self) -> bool:
        """Whether a move has begun and is not done."""
        return bool(self.moving_to or self.previous_host)


class Mapping(NamedTuple):
    """One answer of the mapping service: this address of this VPC is at this port.

    There are a hundred times as many of these as of anything else, so the address stays the text that the database
    has: a third of the size of an `IPv4Address`, and two rows have the same one only if it is the same address.
    """

    uuid: RowId
    vpc: RowId
    ip: str
    """Canonical."""
    port: RowId


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be used: it maps nowhere, is logged and shown, and every other row still works."""

    table: str
    uuid: RowId
    name: str
    problem: str
    row: dict[str, Any] = field(default_factory=dict, hash=False, repr=False)
    """As the database has it, when it cannot be used by itself; empty when it only does not fit others."""

    def __str__(self) -> str:
        return f"{self.table} {self.name}: {self.problem}"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The whole database at one moment, valid rows only. Each map is by row uuid.

    Every reference in it resolves: a port's VPC and host, and a mapping's VPC and port, are in the snapshot;
    but for a port's groups, of which a bad one is missed: `groups_of` says so.
    """

    config_seq: int = 0
    hosts: MappingABC[RowId, Host] = field(default_factory=dict)
    vpcs: MappingABC[RowId, Vpc] = field(default_factory=dict)
    ports: MappingABC[RowId, Port] = field(default_factory=dict)
    mappings: MappingABC[RowId, Mapping] = field(default_factory=dict)
    bad: tuple[BadRow, ...] = ()
    groups: MappingABC[RowId, SecurityGroup] = field(default_factory=dict)


def groups_of(port: Port, groups: MappingABC[RowId, SecurityGroup]) -> tuple[SecurityGroup | None, ...]:
    """The groups of a port; None for each that cannot be used, or is of another VPC."""
    found = (groups.get(uuid) for uuid in port.groups)
    return tuple(group if group and group.vpc == port.vpc else None for group in found)


def peers_named(group: SecurityGroup) -> set[str]:
    """The names of groups that its rules name as peers."""
    return {rule.peer for rule in group.rules if isinstance(rule.peer, str)}


def peer_groups(groups: Iterable[SecurityGroup]) -> dict[RowId, frozenset[str]]:
    """VPC -> the names of groups that rules in it name as peers: of no others need it be known who is in them."""
    named: dict[RowId, set[str]] = {}
    for group in groups:
        named.setdefault(group.vpc, set()).update(peers_named(group))
    return {vpc: frozenset(names) for vpc, names in named.items() if names}


def peer_names(port: Port, groups: MappingABC[RowId, SecurityGroup], named: frozenset[str]) -> frozenset[str]:
    """The names of a port's groups that are among those named by its VPC's rules."""
    return frozenset(group.name for group in groups_of(port, groups) if group and group.name in named)


def guest_mtu(vpc: Vpc, hosts: Iterable[Host]) -> int:
    """The MTU of a VPC's guests, in bytes of IP packet: what the VPC says or, of all hosts there are, `fleet_mtu`."""
    return fleet_mtu(host.carries for host in hosts) if vpc.mtu is None else vpc.mtu


def fleet_mtu(carried: Iterable[tuple[int, int]]) -> int:
    """The largest inner IP packet, in bytes, that every host can send to every other: `carried` is what each carries.

    A guest's MTU must not depend on where it and its neighbours are, so the smallest substrate has to bear the largest
    header: what a host sends is wrapped as its receiver wants, but passes its own substrate as well.
    """
    substrates, headers = set[int](), set[int]()
    for substrate, header in carried:
        substrates.add(substrate)
        headers.add(header)
    return min(substrates, default=SUBSTRATE_MTU) - max(headers, default=Encap.VXLAN.overhead(6))


def default_datapaths(vtep_ip: IPAddress) -> tuple[int, int]:
    """Datapath ids (guest bridge, NIC bridge) of a host that names none, made from the VTEP, which is unique.

    0x67 is "g", 0x6e is "n". An IPv4 address stands in the lower half, and one of these in the upper. An IPv6 address
    is too long: one of these is the first byte, and 56 bits of the address's hash are the rest. Of a hundred thousand
    hosts two get the same with a probability of 1 to 14 million; the database then refuses the second, which must be
    given ids of its own.
    """
    if vtep_ip.version == 4:
        return 0x67 << 32 | int(vtep_ip), 0x6E << 32 | int(vtep_ip)
    digest = int.from_bytes(blake2b(vtep_ip.packed, digest_size=7).digest())
    return 0x67 << 56 | digest, 0x6E << 56 | digest
