"""The packet that is traced, in the notation of ovs-fields(7), and what the flows that it meets make of it."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from typing import Final

from explain.ofproto import Step
from flows.fields import FAMILIES
from flows.nic_substrate import OUTER, vtep_mac
from mapping.model import Encap, Host

_SET: Final = re.compile(r"set_field:(.+)->(\w+)")
_SAME: Final = {"eth_src": "dl_src", "eth_dst": "dl_dst", "ip_src": "nw_src", "ip_dst": "nw_dst", "ip_ttl": "nw_ttl"}
"""Two names of one field."""
_TTL: Final = 64
_SOURCE_PORT: Final = 49152
"""First of the ports that programs are given when they ask for none (RFC 6335)."""


class Proto(enum.StrEnum):
    """What is sent."""

    ICMP = "icmp"
    TCP = "tcp"
    UDP = "udp"


@dataclass(frozen=True, slots=True)
class Packet:
    """`kind` is what ovs-fields(7) calls a protocol; `header` its fields, in order."""

    kind: str
    header: dict[str, str] = field(default_factory=dict)

    def at(self, **where: str | int) -> str:
        """The packet where it comes in: the port, and what is known of the tunnel that it came by."""
        fields = {name: str(value) for name, value in where.items()} | self.header
        return ",".join([self.kind, *(f"{name}={value}" for name, value in fields.items())])

    def after(self, steps: Iterable[Step]) -> Packet:
        """What the actions of these flows have made of it."""
        header = dict(self.header)
        for action in (action for step in steps for action in step.actions):
            if action == "dec_ttl" and "nw_ttl" in header:
                header["nw_ttl"] = str(int(header["nw_ttl"]) - 1)
            elif (found := _SET.fullmatch(action)) and (name := _SAME.get(found[2], found[2])) in header:
                header[name] = found[1]
        return replace(self, header=header)


def inner(proto: Proto, port: int, macs: tuple[str, str], addresses: tuple[str, str]) -> Packet:
    """What a guest sends: a ping, or the first packet to a TCP or UDP port; source and destination of each pair."""
    version = ip_address(addresses[1]).version
    family, suffix = FAMILIES[version], "6" if version == 6 else ""
    header = {"dl_src": macs[0], "dl_dst": macs[1], str(family.src): addresses[0], str(family.dst): addresses[1]}
    header["nw_ttl"] = str(_TTL)
    if proto is Proto.ICMP:
        header |= {"icmpv6_type": "128", "icmpv6_code": "0"} if version == 6 else {"icmp_type": "8", "icmp_code": "0"}
    else:
        header |= {f"{proto}_src": str(_SOURCE_PORT), f"{proto}_dst": str(port)}
    return Packet(f"{proto}{suffix}", header)


def outer(source: Host, target: Host, encap: Encap) -> Packet:
    """The header that is pushed in front of it, from one host to another."""
    family = FAMILIES[source.vtep_ip.version]
    header = {str(family.src): str(source.vtep_ip), str(family.dst): str(target.vtep_ip), "nw_ttl": str(_TTL)}
    header |= {"dl_src": vtep_mac(source.vtep_ip), "dl_dst": vtep_mac(target.vtep_ip)}
    header |= {found.name: str(value) for found, value in OUTER[encap].items()}
    return Packet("ip" if source.vtep_ip.version == 4 else "ipv6", header)
