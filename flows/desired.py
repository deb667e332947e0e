"""A snapshot to the flows that a host's bridges should hold: the pure function that everything else must agree with."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping as MappingABC

from flows.fields import REASON
from flows.flow import Flow, drop, flow
from flows.guest_bridge import guest_bridge
from flows.nic_bridge import nic_bridge
from flows.pipeline import BR_GUEST, TABLES, Reason, reasons
from flows.priority import MISS, PASS
from flows.view import HostView

Flows = dict[int, Flow]
"""Cookie -> flow."""


def desired(bridge: str, view: HostView, ofports: MappingABC[str, int]) -> Flows:
    """Every flow that `bridge` (its role: "br-guest" or "br-nic") of the host should hold.

    `ofports` is the bridge's port name -> OpenFlow port number, as the switch reported them.
    """
    rules = guest_bridge if bridge == BR_GUEST else nic_bridge
    return {rule.cookie: rule for rule in (*misses(bridge), *rules(view, ofports))}


def drop_cookies(bridge: str) -> dict[Reason, int]:
    """For each reason for which a bridge drops, the cookie of the flow that counts it."""
    return {reason: _count(bridge, reason).cookie for reason in reasons(bridge)}


def _count(bridge: str, reason: Reason) -> Flow:
    return flow(TABLES[bridge]["DROP"], PASS, {REASON: reason.number}, [])


def misses(bridge: str) -> Iterator[Flow]:
    """The miss of every table, and the DROP table's one flow for each reason."""
    for table in TABLES[bridge].values():
        if table.miss:
            yield flow(table, MISS, {}, drop(table.miss))
    for reason in reasons(bridge):
        yield _count(bridge, reason)
