"""What each Mininet topology is made of, as plain values: pure, without Mininet.

Guests are named by letters, and dealt out to the hosts in turn: of a VPC, guest_a is on host1, guest_b on host2.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from string import ascii_lowercase
from typing import Final

from mapping.model import SUBSTRATE_MTU, Encap, default_datapaths
from topo.spec import CONTROL_NETWORK, GuestSpec, HostSpec, LabError

_VTEPS: Final = IPv4Network("192.0.2.0/24")
_SHARED: Final = IPv4Network("10.0.0.0/24")
_MTU: Final = SUBSTRATE_MTU - max(encap.overhead(4) for encap in Encap)
_FIRST_CONTROL: Final = 10
_FIRST_GUEST: Final = 11
_FIRST_VNI: Final = 5001
_DELAY: Final = re.compile(r"[0-9]+(\.[0-9]+)?(us|ms|s)")
MAX_HOSTS: Final = 64
MAX_GUESTS: Final = 200


@dataclass(frozen=True, slots=True)
class Plan:
    """One topology. `cables` join hosts to switches of the substrate, and switches to each other.

    The first switch is the root of the spanning tree, if there are loops.
    `loss` is percent of the packets that a cable loses in each direction; `delay` is how long each takes, like "5ms".
    `subnets` are those of each VPC, and say which VPCs there are.
    """

    hosts: list[HostSpec]
    guests: list[GuestSpec]
    switches: list[str]
    cables: list[tuple[str, str]]
    subnets: dict[str, list[str]]
    encap: str = "vxlan"
    loss: float = 0
    delay: str | None = None

    def document(self) -> str:
        """The mapping, as a file for `lockgate apply`: JSON, which is YAML."""
        return json.dumps(
            {
                "vpcs": {
                    vpc: {"vni": _FIRST_VNI + number, "subnets": subnets}
                    for number, (vpc, subnets) in enumerate(self.subnets.items())
                },
                "hosts": {host.name: {"vtep": host.vtep.split("/")[0], "encap": self.encap} for host in self.hosts},
                "ports": {
                    guest.name: {
                        "vpc": guest.vpc,
                        "mac": guest.mac,
                        "host": guest.host,
                        "addresses": [address.split("/")[0] for address in guest.addresses],
                    }
                    for guest in self.guests
                },
            },
            indent=1,
        )

    def expected_loss(self, one: str, other: str) -> float:
        """Percent of pings between guests of two hosts that are lost: each way crosses each host's cable, or more."""
        if one == other:
            return 0
        crossings = 2 * self._distance(one, other)
        return 100 * (1 - (1 - self.loss / 100) ** crossings)

    def _distance(self, one: str, other: str) -> int:
        """How many cables lie between two hosts."""
        reached, steps = {one}, 0
        while other not in reached:
            steps += 1
            reached |= {end for cable in self.cables if reached & set(cable) for end in cable}
        return steps


def baremetal(  # noqa: PLR0913  # what a user may set
    hosts: int = 2, guests: int = 1, *, vpcs: int = 1, encap: str = "vxlan", loss: float = 0, delay: str | None = None
) -> Plan:
    """Hosts on one switch; `guests` on each host for each of `vpcs` VPCs, which all use the same addresses."""
    cables = [(name, "sub1") for name in _host_names(hosts)]
    return _plan(hosts, guests, vpcs, ["sub1"], cables, encap=encap, loss=loss, delay=delay)


def leafspine(  # noqa: PLR0913  # what a user may set
    hosts: int = 4,
    guests: int = 1,
    *,
    leaves: int = 2,
    spines: int = 2,
    encap: str = "vxlan",
    loss: float = 0,
    delay: str | None = None,
) -> Plan:
    """Hosts dealt out to leaves, and every leaf joined to every spine."""
    for what, number in (("leaves", leaves), ("spines", spines)):
        if not 1 <= number <= MAX_HOSTS:
            raise LabError(f"{what}={number}: use 1 to {MAX_HOSTS}")
    leaf_names = [f"leaf{number + 1}" for number in range(leaves)]
    spine_names = [f"spine{number + 1}" for number in range(spines)]
    cables = [(name, leaf_names[number % leaves]) for number, name in enumerate(_host_names(hosts))]
    cables += [(leaf, spine) for leaf in leaf_names for spine in spine_names]
    return _plan(hosts, guests, 1, [*spine_names, *leaf_names], cables, encap=encap, loss=loss, delay=delay)


def _plan(  # noqa: PLR0913  # pieces of a plan
    hosts: int,
    guests: int,
    vpcs: int,
    switches: list[str],
    cables: list[tuple[str, str]],
    *,
    encap: str,
    loss: float,
    delay: str | None,
) -> Plan:
    names = ["guest"] if vpcs == 1 else ["blue", "green", *(f"vpc{number + 1}" for number in range(2, vpcs))][:vpcs]
    if not 1 <= hosts * guests <= MAX_GUESTS:
        raise LabError(f"guests={guests} on each of {hosts} hosts: use 1 to {MAX_GUESTS} in all")
    if not 1 <= vpcs <= 200:
        raise LabError(f"vpcs={vpcs}: use 1 to 200")
    if not 0 <= loss <= 100:
        raise LabError(f"loss={loss}: use 0 to 100 percent")
    if delay is not None and not _DELAY.fullmatch(str(delay)):
        raise LabError(f"delay={delay}: give a number and its unit, like 5ms")
    # A packet to an address that only another VPC has leaves the guest by its router, and has to be dropped there.
    own = {name: IPv4Network(f"10.{number + 1}.0.0/24") for number, name in enumerate(names)}
    return Plan(
        [_host(number, name) for number, name in enumerate(_host_names(hosts))],
        [
            _guest(vpc, number, index, f"host{index % hosts + 1}", own[vpc] if vpcs > 1 else None)
            for number, vpc in enumerate(names)
            for index in range(hosts * guests)
        ],
        switches,
        cables,
        {vpc: [str(_SHARED), *([str(own[vpc])] if vpcs > 1 else [])] for vpc in names},
        encap,
        loss,
        delay,
    )


def _host_names(hosts: int) -> list[str]:
    if not 1 <= hosts <= MAX_HOSTS:
        raise LabError(f"hosts={hosts}: use 1 to {MAX_HOSTS}")
    return [f"host{number + 1}" for number in range(hosts)]


def _host(number: int, name: str) -> HostSpec:
    vtep: IPv4Address = _VTEPS[number + 1]
    control = f"{CONTROL_NETWORK[_FIRST_CONTROL + number]}/{CONTROL_NETWORK.prefixlen}"
    return HostSpec(name, number, f"{vtep}/{_VTEPS.prefixlen}", control, *default_datapaths(vtep))


def _guest(vpc: str, number: int, index: int, host: str, own: IPv4Network | None) -> GuestSpec:
    name = f"{vpc}_{_letters(index)}"
    networks = [_SHARED, *([own] if own else [])]
    addresses = [f"{network[_FIRST_GUEST + index]}/{network.prefixlen}" for network in networks]
    mac = f"02:00:00:00:{number + 1:02x}:{_FIRST_GUEST + index:02x}"
    return GuestSpec(name, host, name, vpc, mac, addresses, str(_SHARED[1]), _MTU)


def _letters(index: int) -> str:
    """As the columns of a table: a to z, aa, ab, ..."""
    letters = ascii_lowercase[index % 26]
    return _letters(index // 26 - 1) + letters if index >= 26 else letters
