"""What the rules make of an address, worked out once for each kind of place, and then filled in.

The rules (`of_address` of each bridge) are written for readers, and take some 30 us an address. What they make differs
between two addresses of one kind only in numbers: so they are asked twice, with numbers that occur nowhere else, and
where each number turns up again is remembered. Filling in takes a tenth of the time. The tests hold it against the
rules.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from ipaddress import IPv4Address, IPv6Address
from operator import itemgetter
from typing import Final, NamedTuple

from flows.desired import RULES, Ofports
from flows.fields import mac
from flows.flow import Flow, Shape, cookie, filled
from flows.pipeline import BR_GUEST, BR_NIC
from flows.ports import guest_patch, nic_patch
from flows.view import Location
from mapping.model import Encap, Host, IPAddress, Port, RowId, Vpc

Peers = tuple[str, ...]
"""As `Location.peer_groups`."""
_Numbers = tuple[int, ...]
"""VNI, MAC, VTEP address, OpenFlow port of the device, of its patch; then the address itself."""

_STRANGE: Final[tuple[_Numbers, _Numbers]] = (
    (0xA1B2C3, 0x02A1B2C3D4E5, 0xC6A1B2C3, 0xA1B2C301, 0xA1B2C302, 0xC6D4E5F6),
    (0x5E4D3C, 0x025E4D3C2B1A, 0xC65E4D3C, 0x5E4D3C01, 0x5E4D3C02, 0xC62B1A09),
)
"""Of either family: what is an IPv4 address is an IPv6 address, too, as a number."""
_ADDRESS: Final = 5
"""Where the address is among them. In a place's numbers the constants stand there, and the address comes last."""
_PATCH: Final = {BR_GUEST: guest_patch, BR_NIC: nic_patch}
_ADDRESS_OF: Final[dict[int, type[IPAddress]]] = {4: IPv4Address, 6: IPv6Address}


Part = tuple[Shape, Callable[[_Numbers], _Numbers]]
"""A flow's shape, and what picks its values from a place's numbers with the address at their end."""


class Pattern(NamedTuple):
    """The flows of an address at one kind of place."""

    parts: tuple[Part, ...]
    """One for each flow."""
    constants: _Numbers
    """What a place's own numbers are followed by."""


class Place(NamedTuple):
    """Where a port's addresses of one family are, as far as the flows of one bridge depend on it."""

    port: RowId
    host: RowId
    pattern: Pattern
    numbers: _Numbers

    def flows(self, ip: int) -> list[Flow]:
        """The flows of an address of this port."""
        numbers = (*self.numbers, ip)
        return [filled(shape, pick(numbers)) for shape, pick in self.pattern.parts]

    def cookies(self, ip: int) -> list[int]:
        """Theirs alone."""
        numbers = (*self.numbers, ip)
        return [cookie(shape, pick(numbers)) for shape, pick in self.pattern.parts]

    def differing(self, after: Place) -> tuple[Part, ...]:
        """What of the pattern, which `after` has too, makes other flows there, whatever the address."""
        olds, news = (*self.numbers, 0), (*after.numbers, 0)
        return tuple(part for part in self.pattern.parts if part[1](olds) != part[1](news))


class Bridge(NamedTuple):
    """A bridge, by its role, of this host: whose flows are meant."""

    role: str
    host: Host
    ofports: Ofports

    def place(self, port: Port, vpc: Vpc, host: Host, version: int, peers: Peers = ()) -> Place:
        """Where the addresses of `port`, which is on `host`, are: those of this version of IP."""
        here, device, patch = host.uuid == self.host.uuid, None, None
        if here:
            device, patch = self.ofports.get(port.device), self.ofports.get(_PATCH[self.role](port.device))
        vteps = self.host.vtep_ip.version, host.vtep_ip.version
        kind = _Kind(self.role, version, here, vteps, host.encap, device is not None, patch is not None, peers)
        pattern = _pattern(kind)
        numbers = (vpc.vni, mac(port.mac), int(host.vtep_ip), device or 0, patch or 0, *pattern.constants)
        return Place(port.uuid, host.uuid, pattern, numbers)


class _Kind(NamedTuple):
    """What decides the shapes of an address's flows."""

    bridge: str
    version: int
    here: bool
    vteps: tuple[int, int]
    """Versions of IP that the bridge's host, and the address's, have on the substrate."""
    encap: Encap
    device: bool
    patch: bool
    peer_groups: tuple[str, ...]


@cache
def _pattern(kind: _Kind) -> Pattern:
    one, other = (_ask(kind, numbers) for numbers in _STRANGE)
    constants: list[int] = []
    parts = []
    for flow, twin in zip(one, other, strict=True):
        if flow.shape is not twin.shape:
            raise AssertionError(f"the shape of {flow} depends on the address")
        indices = []
        for value, second in zip(flow.values, twin.values, strict=True):
            if value == second:
                indices.append(_ADDRESS + len(constants))
                constants.append(value)
            else:
                index = _STRANGE[0].index(value)
                if _STRANGE[1].index(second) != index:
                    raise AssertionError(f"{flow} has numbers of the address, changed")
                indices.append(-1 if index == _ADDRESS else index)
        parts.append((flow.shape, itemgetter(*indices)))
    return Pattern(tuple(parts), tuple(constants))


def _ask(kind: _Kind, numbers: _Numbers) -> list[Flow]:
    """The rules' own answer, for an address with these numbers."""
    vni, eth, vtep, device, patch, ip = numbers
    vpc = Vpc("vpc", "vpc", vni, (), "", 0)
    own, there = kind.vteps
    host = Host("host", "host", _ADDRESS_OF[there](vtep), kind.encap, 1, 2)
    away = Host("away", "away", _ADDRESS_OF[own](0), kind.encap, 1, 2)
    port = Port("port", "port", "vpc", eth.to_bytes(6).hex(":"), "host", "port")
    ports = {"port": (kind.device, device), _PATCH[kind.bridge]("port"): (kind.patch, patch)}
    ofports = {name: number for name, (is_there, number) in ports.items() if is_there}
    location = Location(vpc, _ADDRESS_OF[kind.version](ip), port, host, kind.peer_groups)
    return list(RULES[kind.bridge].of_address(host if kind.here else away, location, ofports))
