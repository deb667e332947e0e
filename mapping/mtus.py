"""Whether the MTU of a VPC's guests fits what the hosts carry."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping as MappingABC
from typing import Any, Final, NamedTuple

from mapping.model import SUBSTRATE_MTU, Encap, fleet_mtu
from mapping.values import IPV6_MTU

_LEAST: Final = 1
"""What guests without IPv6 must at least be able to send."""


class Misfit(NamedTuple):
    """What a row breaks: `table` is Vpc or Host."""

    table: str
    key: tuple[str, ...]
    column: str
    text: str


def check(wanted: MappingABC[str, Any], result: MappingABC[str, Any]) -> Iterator[Misfit]:
    """What is wrong with the wanted rows of VPCs and hosts in a database that then holds `result`.

    A VPC that nobody touches, and that did not fit without the hosts that are touched, is left in peace.
    """
    carried = {key: _carries(row) for key, row in result["Host"].items() if "vtep_ip" in row and "encap" in row}
    touched = {key: carries for key, carries in carried.items() if key in wanted["Host"]}
    if not carried:
        return
    mtu = fleet_mtu(carried.values())
    before = fleet_mtu(carries for key, carries in carried.items() if key not in touched)
    for key, row in result["Vpc"].items():
        own = row.get("mtu")
        has_ipv6 = any(":" in str(subnet) for subnet in row.get("subnets", ()))
        needed = own or (IPV6_MTU if has_ipv6 else _LEAST)
        if needed <= mtu:
            continue
        if key in wanted["Vpc"]:
            yield Misfit("Vpc", key, "mtu" if own else "subnets", _of_vpc(own, mtu))
        elif touched and (needed <= before or len(touched) == len(carried)):
            least = min(touched, key=lambda each: touched[each][0] - touched[each][1])
            yield Misfit("Host", least, "substrate_mtu", _of_host(key[0], needed, mtu))


def _carries(row: MappingABC[str, Any]) -> tuple[int, int]:
    header = Encap(row["encap"]).overhead(6 if ":" in row["vtep_ip"] else 4)
    return row.get("substrate_mtu") or SUBSTRATE_MTU, header


def _of_vpc(own: int | None, mtu: int) -> str:
    if own:
        return f"MTU {own} is more than the hosts carry with their tunnel headers: choose at most {mtu}, or none"
    return (
        f"guests would have an MTU of {mtu}, all that the hosts carry, and IPv6 needs {IPV6_MTU}:"
        " give the hosts a larger substrate_mtu, or have no IPv6 subnet"
    )


def _of_host(vpc: str, needed: int, mtu: int) -> str:
    return f"VPC {vpc} needs an MTU of {needed}, and with this host {mtu} is carried: give it a larger substrate_mtu"
