"""The networks that Lockgate and OVN are both given: the same ports and addresses, one of them on this host."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from bench.client import Operation, insert
from bench.content import Content

_FIRST: Final = int(IPv4Address("10.0.0.0"))
_BATCH: Final = 1000
SPREAD: Final = 250
"""Ports of one switch, where there are many."""


@dataclass(frozen=True)
class Layout:
    """So many ports, in subnets of `each` ports; the first port is on this host. One address a port."""

    ports: int
    each: int

    @property
    def words(self) -> str:
        """For a row's name."""
        if self.each >= self.ports:
            return f"{self.ports} ports on one switch"
        return f"{self.ports} ports, {self.each} a switch, one router"

    @cached_property
    def subnets(self) -> Sequence[IPv4Network]:
        """One for each switch: the lower half for its ports, the upper one for the addresses that changes give."""
        size = 1 << (2 * self.each + 1).bit_length()
        count = -(-self.ports // self.each)
        return [IPv4Network((_FIRST + index * size, 33 - size.bit_length())) for index in range(count)]

    def gateway(self, subnet: IPv4Network) -> IPv4Address:
        """The router's address."""
        return subnet[1]

    def ip(self, port: int) -> IPv4Address:
        """A port's address."""
        return self.subnets[port // self.each][2 + port % self.each]

    def changed_ip(self, port: int) -> IPv4Address:
        """The address that a change gives the port."""
        subnet = self.subnets[port // self.each]
        return subnet[subnet.num_addresses // 2 + port % self.each]

    def changing(self, count: int) -> Sequence[int]:
        """Ports to change, spread over all switches; not this host's."""
        step = max(1, (self.ports - 1) // count)
        return range(1, self.ports, step)[:count]


def content(layout: Layout) -> Content:
    """The layout as Lockgate has it, without ports: one VPC, with a subnet for each switch."""
    made = Content()
    made.vpc("layout", [str(subnet) for subnet in layout.subnets])
    return made


def port_operations(layout: Layout, made: Content, numbers: Iterable[int]) -> Iterator[Operation]:
    """What adds ports, with a mapping each, to a database with that content."""
    vpc = ["uuid", made.vpcs["layout"]]
    for number in numbers:
        name, host = f"p{number}", made.there if number else made.here
        row = {"name": name, "device": name, "mac": mac(number), "vpc": vpc, "host": ["uuid", host]}
        yield insert("Port", name, **row)
        yield insert("Mapping", vpc=vpc, ip=str(layout.ip(number)), port=["named-uuid", name])


def mac(port: int) -> str:
    """A port's MAC."""
    return (0x02 << 40 | port).to_bytes(6).hex(":")


def batches(layout: Layout) -> Iterator[range]:
    """The ports, by a thousand."""
    for start in range(0, layout.ports, _BATCH):
        yield range(start, min(start + _BATCH, layout.ports))
