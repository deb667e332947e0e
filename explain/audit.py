"""Installed against desired, flow by flow, and how to make them the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from explain import ofproto
from explain.hosts import compare
from explain.ofproto import Difference
from explain.origin import Row
from explain.site import Bridge, as_ofctl
from flows.meter import Meter

Kind = Literal["missing", "changed", "stale", "stranger"]

MEANING: Final[dict[Kind, str]] = {
    "missing": "the database asks for it, the switch does not have it",
    "changed": "another flow is in its place",
    "stale": "it has our mark, and the database does not ask for it",
    "stranger": "it has not our mark: somebody else's, left alone unless --strangers is given",
}

METER: Final = "meter"
"""What stands in the place of a flow's table."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One flow, or meter, that is not as it should be. `installed` and `desired` as ovs-ofctl writes them, or empty."""

    host: str
    bridge: str
    kind: Kind
    table: str
    cookie: int
    installed: str
    desired: str
    rows: tuple[Row, ...]
    """Those that ask for it; none if none does."""
    undo: str
    """What mends it, as `ovs-ofctl add-flows` reads it; of a meter, as the command and its argument."""


def audit(bridge: Bridge) -> list[Finding]:
    """Everything that differs on a bridge.

    Raises:
        UnreachableError: the host could not be asked.
    """
    differences = compare(bridge.role, bridge.switch.flows(bridge.role), bridge.desired())
    missing = {each.flow: each for each in differences if each.missing}
    there = {each.flow: each for each in differences if not each.missing}
    found = [_wanted(bridge, each, there.get(flow)) for flow, each in missing.items()]
    found += [_unwanted(bridge, each) for flow, each in there.items() if flow not in missing]
    return [*_meters(bridge), *found]


def again(before: Sequence[Finding], now: Sequence[Finding]) -> list[Finding]:
    """What was so at both looks: what is only on its way is not wrong."""
    return [each for each in now if any(_same(each, other) for other in before)]


def _same(one: Finding, other: Finding) -> bool:
    return (one.host, one.bridge, one.kind, one.installed, one.desired) == (
        *(other.host, other.bridge, other.kind),
        *(other.installed, other.desired),
    )


def mend(bridge: Bridge, findings: Sequence[Finding], *, strangers: bool) -> int:
    """Make the bridge hold what it should, in one bundle; return how many of the findings that mends.

    Raises:
        UnreachableError: the host could not be asked, or its switch refuses.
    """
    mended = [each for each in findings if strangers or each.kind != "stranger"]
    meters = [each.undo.split() for each in mended if each.table == METER]
    flows = [each.undo for each in mended if each.table != METER]
    # A meter must be there before the flows that use it, and takes those along that still do when it goes.
    for command, meter in meters:
        if command != "del-meter":
            bridge.switch.change_meter(command, bridge.role, meter)
    if flows:
        bridge.switch.change(bridge.role, flows)
    for command, meter in meters:
        if command == "del-meter":
            bridge.switch.change_meter(command, bridge.role, meter)
    return len(mended)


def _meters(bridge: Bridge) -> list[Finding]:
    """What differs of the meters. They have no mark: all of a bridge are ours."""
    there, where = bridge.switch.meters(bridge.role), (bridge.switch.host, bridge.role)
    found = []
    for number in sorted(there.keys() | bridge.meters.keys()):
        wanted, row = bridge.meters.get(number, (None, None))
        meter = there.get(number)
        if meter == wanted:
            continue
        kind: Kind = "stale" if wanted is None else "missing" if meter is None else "changed"
        installed, desired = (_meter(number, each) if each else "" for each in (meter, wanted))
        command = {"stale": "del-meter", "missing": "add-meter", "changed": "mod-meter"}[kind]
        undo = f"{command} {desired or f'meter={number}'}"
        found.append(Finding(*where, kind, METER, 0, installed, desired, (row,) if row else (), undo))
    return found


def _meter(number: int, meter: Meter) -> str:
    return f"meter={number},{meter.unit},burst,band=type=drop,rate={meter.rate},burst_size={meter.burst}"


def _wanted(bridge: Bridge, desired: Difference, instead: Difference | None) -> Finding:
    origin = bridge.origins[desired.cookie]
    kind: Kind = "changed" if instead else "missing"
    installed = _text(instead) if instead else ""
    undo = f"add {as_ofctl(origin.flow)}"
    where = (bridge.switch.host, bridge.role)
    return Finding(*where, kind, desired.table, desired.cookie, installed, _text(desired), origin.rows, undo)


def _unwanted(bridge: Bridge, there: Difference) -> Finding:
    kind: Kind = "stale" if ofproto.is_ours(there.cookie) else "stranger"
    undo = f"delete_strict {there.flow}"
    return Finding(bridge.switch.host, bridge.role, kind, there.table, there.cookie, _text(there), "", (), undo)


def _text(flow: Difference) -> str:
    return f"cookie={flow.cookie:#x},{flow.flow} actions={flow.actions}"
