"""What a lab is made of, worked out from the mapping: a pure function of a snapshot.

Hosts of the mapping become hosts of the lab, and ports that have a host become guests. Fields are plain, so that a
lab writes its own topology down as JSON, and a later `lockgate lab` reads what it has to do with.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from ipaddress import IPv4Network, ip_address
from typing import Final, Self

from flows.pipeline import BR_CTL, BR_GUEST, BR_NIC
from mapping.model import SUBSTRATE_MTU, IPAddress, Port, Snapshot, guest_mtu

CONTROL_NETWORK: Final = IPv4Network("198.51.100.0/24")
CONTROL_IP: Final = CONTROL_NETWORK[1]
DATABASE_PORT: Final = 6640
_FIRST_HOST: Final = 10
MAX_HOSTS: Final = CONTROL_NETWORK.num_addresses - _FIRST_HOST - 1

UPLINK: Final = "uplink"
MGMT: Final = "mgmt"
_TAKEN_DEVICES: Final = {UPLINK, MGMT, BR_GUEST, BR_NIC, BR_CTL, "lo", "ovs-netdev"}
"""Interfaces that a host of the lab has without any guest."""


class LabError(RuntimeError):
    """The lab cannot go on. Says why, to a person."""


@dataclasses.dataclass(frozen=True, slots=True)
class HostSpec:
    """A host. `vtep` and `control` are addresses with their prefix: on br-nic LOCAL and on br-ctl LOCAL."""

    name: str
    number: int
    vtep: str
    control: str
    guest_datapath: int
    nic_datapath: int


@dataclasses.dataclass(frozen=True, slots=True)
class GuestSpec:
    """A guest. `addresses` have the prefix of their subnet; of each family `gateway*` is the router of the first's."""

    name: str
    host: str
    device: str
    vpc: str
    mac: str
    addresses: list[str]
    gateway: str | None
    mtu: int
    gateway_ipv6: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Spec:
    """A whole lab."""

    hosts: list[HostSpec]
    guests: list[GuestSpec]
    substrate_mtu: int

    @classmethod
    def of(cls, snapshot: Snapshot) -> Self:
        """The lab that a mapping asks for.

        Raises:
            LabError: it asks for more than a lab has, or for what a lab has other uses for.
        """
        hosts = sorted(snapshot.hosts.values(), key=lambda host: host.name)
        if len(hosts) > MAX_HOSTS:
            raise LabError(f"{len(hosts)} hosts: a lab has at most {MAX_HOSTS}")
        prefixes = {
            version: _common_prefix([host.vtep_ip for host in hosts if host.vtep_ip.version == version])
            for version in (4, 6)
        }
        ports = sorted(snapshot.ports.values(), key=lambda port: port.name)
        return cls(
            [
                HostSpec(
                    host.name,
                    number,
                    f"{host.vtep_ip}/{prefixes[host.vtep_ip.version]}",
                    f"{CONTROL_NETWORK[_FIRST_HOST + number]}/{CONTROL_NETWORK.prefixlen}",
                    host.guest_datapath,
                    host.nic_datapath,
                )
                for number, host in enumerate(hosts)
            ],
            [guest_spec(snapshot, port, snapshot.hosts[port.host].name) for port in ports if port.host],
            max((host.substrate_mtu for host in hosts), default=SUBSTRATE_MTU),
        )

    def to_json(self) -> str:
        """As text, for `from_json`."""
        return json.dumps(dataclasses.asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What `to_json` wrote."""
        read = json.loads(text)
        hosts = [HostSpec(**host) for host in read["hosts"]]
        return cls(hosts, [GuestSpec(**guest) for guest in read["guests"]], read["substrate_mtu"])


def guest_spec(snapshot: Snapshot, port: Port, host: str) -> GuestSpec:
    """The guest of a port, on a host.

    Raises:
        LabError: its device cannot be in a lab.
    """
    if port.device in _TAKEN_DEVICES:
        raise LabError(f"port {port.name}: a lab's host has a device {port.device!r} already: name another")
    vpc = snapshot.vpcs[port.vpc]
    mapped = [ip_address(mapping.ip) for mapping in snapshot.mappings.values() if mapping.port == port.uuid]
    addresses: list[str] = []
    gateways: dict[int, str] = {}
    for address in sorted(mapped, key=lambda address: (address.version, address.packed)):
        subnet = next(subnet for subnet in vpc.subnets if address in subnet)
        addresses.append(f"{address}/{subnet.prefixlen}")
        gateways.setdefault(address.version, str(subnet[1]))
    mtu = guest_mtu(vpc, snapshot.hosts.values())
    return GuestSpec(port.name, host, port.device, vpc.name, port.mac, addresses, gateways.get(4), mtu, gateways.get(6))


def _common_prefix(vteps: Sequence[IPAddress]) -> int:
    """The VTEPs of a lab share one L2 network: /24 or, of IPv6, /64; or as much wider as it takes to hold all."""
    if not vteps:
        return 0
    numbers = [int(vtep) for vtep in vteps]
    differing = max(numbers) ^ min(numbers)
    usual = 24 if vteps[0].version == 4 else 64
    return min(usual, vteps[0].max_prefixlen - differing.bit_length())
