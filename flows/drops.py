"""Rules of the table DROP: what is refused is counted by reason, and that of a guest by its port as well.

What a meter drops meets no table: it is the meter that counts it, which is one port's.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Final

from flows.fields import IN_PORT, REASON
from flows.flow import Flow, flow
from flows.meter import MeterKind, meter_id
from flows.pipeline import TABLES, Reason, reasons
from flows.priority import OWN, PASS

NOT_A_GUESTS: Final = frozenset(
    {
        *(Reason.UNKNOWN_PORT, Reason.NOT_TUNNEL, Reason.UNKNOWN_VTEP, Reason.SOURCE_NOT_MAPPED, Reason.NOT_HERE),
        *(Reason.NEIGHBOUR_PROBE, Reason.LOCAL_NOT_TUNNEL),
    }
)
"""Reasons that nothing is dropped for which comes from a port of a guest: they need no counter for each."""


def of_host(bridge: str) -> Iterator[Flow]:
    """One flow for each reason for which a bridge drops."""
    for reason in reasons(bridge):
        yield flow(TABLES[bridge]["DROP"], PASS, {REASON: reason.number}, [])


def of_port(bridge: str, in_port: int) -> Iterator[Flow]:
    """One flow for each reason for which a bridge drops what comes in by a port that leads to a guest."""
    for reason in reasons(bridge):
        if reason not in NOT_A_GUESTS:
            yield flow(TABLES[bridge]["DROP"], OWN, {IN_PORT: in_port, REASON: reason.number}, [])


@cache
def host_cookies(bridge: str) -> dict[int, Reason]:
    """Which reason the flows count that are for no port, by cookie."""
    return dict(zip((flow.cookie for flow in of_host(bridge)), reasons(bridge), strict=True))


@cache
def port_cookies(bridge: str, in_port: int) -> dict[int, Reason]:
    """Which reason the flows of a port count, by cookie."""
    counted = (reason for reason in reasons(bridge) if reason not in NOT_A_GUESTS)
    return dict(zip((flow.cookie for flow in of_port(bridge, in_port)), counted, strict=True))


_METERED: Final = {
    MeterKind.PUNT: Reason.ASKED_TOO_MUCH,
    MeterKind.FROM_GUEST_KBPS: Reason.FROM_GUEST_LIMIT,
    MeterKind.FROM_GUEST_PPS: Reason.FROM_GUEST_LIMIT,
    MeterKind.TO_GUEST_KBPS: Reason.TO_GUEST_LIMIT,
    MeterKind.TO_GUEST_PPS: Reason.TO_GUEST_LIMIT,
}


def of_meters(device: int) -> dict[int, Reason]:
    """Why the meters of a port whose device is this OpenFlow port drop, by the meter's id."""
    return {meter_id(device, kind): reason for kind, reason in _METERED.items()}
