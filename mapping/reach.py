"""Which hosts cannot reach each other although a VPC has ports on both: those whose VTEPs are of different IP versions.

It is no fault: a substrate that changes its version does so host by host. But it is to be seen.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from mapping.model import Snapshot
from mapping.wanted import Content

_SHOWN = 3


def apart(places: Iterable[tuple[str, str, str]]) -> Iterator[str]:
    """A line for each VPC that is split so, from (VPC, host, VTEP address) of each port that has a host."""
    hosts: defaultdict[str, dict[int, set[str]]] = defaultdict(lambda: {4: set(), 6: set()})
    for vpc, host, vtep in places:
        hosts[vpc][6 if ":" in vtep else 4].add(host)
    for vpc, by_version in sorted(hosts.items()):
        if all(by_version.values()):
            sides = " and ".join(f"{_some(names)} (IPv{version})" for version, names in by_version.items())
            yield f"VPC {vpc}: {sides} cannot reach each other: give its hosts VTEPs of one IP version"


def in_content(content: Content) -> Iterator[str]:
    """The same, from rows by name."""
    vteps = {name: str(row["vtep_ip"]) for (name,), row in content["Host"].items() if "vtep_ip" in row}
    bound = ((str(row.get("vpc")), str(row.get("host"))) for row in content["Port"].values())
    return apart((vpc, host, vteps[host]) for vpc, host in bound if host in vteps)


def in_snapshot(snapshot: Snapshot) -> Iterator[str]:
    """The same, from the rows that hold."""
    bound = ((port.vpc, snapshot.hosts[port.host]) for port in snapshot.ports.values() if port.host)
    return apart((snapshot.vpcs[vpc].name, host.name, str(host.vtep_ip)) for vpc, host in bound)


def _some(names: set[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(sorted(names)[:_SHOWN]) + more
