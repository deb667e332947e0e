"""How a rule of a security group is written, and read.

    to_guest   tcp  8000-8100  from  group web
    |          |    |                |
    |          |    |                any | an address | a network | group NAME, of the same VPC
    |          |    a port, or the first and last; tcp, udp, sctp only; left out: all
    |          any | tcp | udp | sctp | icmp (of either IP version) | another protocol's number
    who opens the connection: to_guest the peer ("from"), from_guest the guest ("to")

Each rule has one spelling, because the database holds rules as a set of texts.
"""

from __future__ import annotations

import re
from ipaddress import ip_network
from typing import Final

from mapping import values
from mapping.model import IPNetwork, Rule

PROTOCOLS: Final = {"tcp": 6, "udp": 17, "sctp": 132}
"""Those that have ports; icmp is 1 or 58, as the IP version."""

_RULE: Final = re.compile(r"(to_guest|from_guest) (\w+)(?: ([0-9]+)(?:-([0-9]+))?)? (from|to) (?:group (\S+)|(\S+))")
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,4}")
_NAMED: Final = {1, 58, *PROTOCOLS.values()}


def parse_rule(text: str) -> Rule:
    """One rule from its one spelling; ValueError names the mend."""
    shown = repr(text[:90])
    found = _RULE.fullmatch(text)
    if found is None or (found[1] == "to_guest") != (found[5] == "from"):
        raise ValueError(f'rule {shown}: write it like "to_guest tcp 443 from any" or "from_guest udp 53 to 10.0.0.2"')
    direction, protocol, first, last, _, group, peer = found.groups()
    _check_protocol(protocol, shown)
    ports = None
    if first is not None:
        if protocol not in PROTOCOLS:
            raise ValueError(f"rule {shown}: {protocol} has no ports: leave them out, or choose {', '.join(PROTOCOLS)}")
        ports = _ports(first, last, shown)
    return Rule(direction == "to_guest", protocol, ports, values.parse_name(group) if group else _peer(peer, shown))


def show_rule(rule: Rule) -> str:
    """The text that `parse_rule` takes."""
    direction, word = ("to_guest", "from") if rule.to_guest else ("from_guest", "to")
    ports = ""
    if rule.ports:
        first, last = rule.ports
        ports = f" {first}" if first == last else f" {first}-{last}"
    peer = rule.peer
    shown = "any" if peer is None else f"group {peer}" if isinstance(peer, str) else values.show_allowed(peer)
    return f"{direction} {rule.protocol}{ports} {word} {shown}"


def _check_protocol(protocol: str, shown: str) -> None:
    if protocol in ("any", "icmp", *PROTOCOLS):
        return
    if not _NUMBER.fullmatch(protocol) or not 1 <= int(protocol) <= 255 or int(protocol) in _NAMED:
        raise ValueError(
            f"rule {shown}: protocol {protocol!r}: choose any, icmp, {', '.join(PROTOCOLS)}, or another's number: 47"
        )


def _ports(first: str, last: str | None, shown: str) -> tuple[int, int]:
    texts = [first] if last is None else [first, last]
    if not all(_NUMBER.fullmatch(text) and int(text) <= 0xFFFF for text in texts):
        raise ValueError(f"rule {shown}: ports are whole numbers from 1 to 65535")
    low, high = int(first), int(texts[-1])
    if last is not None and low >= high:
        raise ValueError(f"rule {shown}: write the smaller port first, and a single one by itself")
    return low, high


def _peer(text: str, shown: str) -> IPNetwork | None:
    if text == "any":
        return None
    if "/" not in text:
        return ip_network(values.parse_ip(text))
    try:
        net = ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"rule {shown}: peer {text!r}: write any, an address, a network, or group NAME") from None
    if str(net) != text or net.prefixlen == net.max_prefixlen or "%" in text:
        raise ValueError(f"rule {shown}: write the peer as {values.show_allowed(net)}")
    if not net.prefixlen:
        raise ValueError(f"rule {shown}: write the peer as any")
    return net
