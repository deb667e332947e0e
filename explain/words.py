"""What a flow does, in words. What has no words of its own yet is said as ovs-ofctl(8) writes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from flows.desired import Ofports
from flows.fields import (
    ETH_DST,
    ETH_SRC,
    ETH_TYPE,
    IN_PORT,
    REASON,
    TAGGED,
    TUN_DST,
    TUN_ID,
    TUN_IPV6_DST,
    TUN_IPV6_SRC,
    TUN_SRC,
    VLAN,
    VNI,
    EthType,
    Field,
    port,
)
from flows.flow import Action, Flow, Goto, Match, Output, OutputInPort, SetField
from flows.pipeline import Reason
from flows.ports import LOCAL
from flows.view import HostView

REASONS: Final = {reason.number: reason for reason in Reason}
"""Number in the register -> reason."""


@dataclass(frozen=True, slots=True)
class Names:
    """What the numbers in the flows of one bridge are called."""

    ports: dict[int, str]
    vpcs: dict[int, str]
    hosts: dict[int, str]
    guests: dict[int, str]
    """MAC -> port. VPCs may share MACs: then it is one of them."""


def names(view: HostView, ofports: Ofports) -> Names:
    """The names in the part of the mapping that decides a host's flows, and of its bridge's ports."""
    ports = {number: name for name, number in ofports.items()} | {LOCAL: "LOCAL, the host itself"}
    places = (*view.local, *view.remote)
    return Names(
        ports,
        {vpc.vni: vpc.name for vpc in view.vpcs.values()},
        {int(host.vtep_ip): host.name for host in (view.host, *view.peers)},
        {int(place.port.mac.replace(":", ""), 16): place.port.name for place in places},
    )


def words(flow: Flow, known: Names) -> str:
    """What packets it takes, and what becomes of them."""
    reason = next((REASONS[match.value] for match in flow.match if match.field is REASON), None)
    if reason and not flow.actions:
        where = "".join(f" {_match(match, known)}" for match in flow.match if match.field is IN_PORT)
        return f"counted as {reason.label}{where}, and dropped"
    matched = ", ".join(_match(match, known) for match in flow.match) or "whatever no other flow took"
    return f"{matched}: {', '.join(_action(action, known) for action in _without_drop(flow.actions))}"


def _without_drop(actions: tuple[Action, ...]) -> tuple[Action, ...]:
    """That the way of a refused packet leads to DROP its reason has said."""
    refused = any(isinstance(action, SetField) and action.field is REASON for action in actions)
    return tuple(action for action in actions if not (refused and action == Goto("DROP")))


def _match(match: Match, known: Names) -> str:
    if match.mask != match.field.ones:
        return "with a VLAN tag" if match.field is VLAN and match.value == TAGGED else str(match)
    say = _MATCHES.get(match.field)
    return say(match.value, known) if say else str(match)


def _action(action: Action, known: Names) -> str:
    if isinstance(action, SetField):
        say = _SETS.get(action.field)
        return say(action.value, known) if say else str(action)
    if isinstance(action, Output):
        return f"out by {known.ports.get(action.port, port(action.port))}"
    if isinstance(action, OutputInPort):
        return "back to where it came from"
    if isinstance(action, Goto):
        return f"on to {action.table}"
    return str(action)


def _vpc(vni: int, known: Names) -> str:
    return f"VPC {known.vpcs[vni]} (VNI {vni})" if vni in known.vpcs else f"VNI {vni}"


def _vtep(value: int, known: Names, field: Field) -> str:
    text = field.notation(value)
    return f"{known.hosts[value]} (VTEP {text})" if value in known.hosts else f"VTEP {text}"


def _mac(value: int, known: Names) -> str:
    return ETH_DST.notation(value) + (f" ({known.guests[value]})" if value in known.guests else "")


def _ethertype(value: int, _: Names) -> str:
    known = {EthType.IPV4: "IPv4", EthType.IPV6: "IPv6", EthType.ARP: "ARP"}
    return next((text for number, text in known.items() if number == value), f"ethertype {value:#06x}")


def _refused(value: int, _: Names) -> str:
    return f"dropped as {REASONS[value].label}, {REASONS[value].meaning}"


Say = Callable[[int, Names], str]

_MATCHES: Final[dict[Field, Say]] = {
    ETH_SRC: lambda value, known: f"from MAC {_mac(value, known)}",
    ETH_TYPE: _ethertype,
    IN_PORT: lambda value, known: f"from {known.ports.get(value, port(value))}",
    TUN_ID: lambda value, known: f"in {_vpc(value, known)}",
    VNI: lambda value, known: f"in {_vpc(value, known)}",
    TUN_SRC: lambda value, known: f"sent by {_vtep(value, known, TUN_SRC)}",
    TUN_IPV6_SRC: lambda value, known: f"sent by {_vtep(value, known, TUN_IPV6_SRC)}",
    VLAN: lambda value, _: "untagged" if not value else f"vlan_vid={value:#x}",
}
_SETS: Final[dict[Field, Say]] = {
    ETH_DST: lambda value, known: f"to MAC {_mac(value, known)}",
    ETH_SRC: lambda value, known: f"from MAC {_mac(value, known)}",
    REASON: _refused,
    TUN_ID: lambda value, known: f"as {_vpc(value, known)}",
    VNI: lambda value, known: f"as {_vpc(value, known)}",
    TUN_DST: lambda value, known: f"tunnelled to {_vtep(value, known, TUN_DST)}",
    TUN_IPV6_DST: lambda value, known: f"tunnelled to {_vtep(value, known, TUN_IPV6_DST)}",
}
