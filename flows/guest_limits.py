"""Limits of a port, which the meters of br-guest keep: what is more is dropped there, and counted by the meter.

What comes from a guest is metered once it has the port's MAC, before anything is made of it: an ARP request counts as
well, and so does, with it, the answer that it would get. What goes to a guest is metered just before it is sent.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

from flows.flow import UseMeter
from flows.meter import Meter, MeterKind, meter_id
from mapping.model import Limits, Port

Direction = Literal["from_guest", "to_guest"]

_KINDS: Final[dict[Direction, tuple[MeterKind, MeterKind]]] = {
    "from_guest": (MeterKind.FROM_GUEST_PPS, MeterKind.FROM_GUEST_KBPS),
    "to_guest": (MeterKind.TO_GUEST_PPS, MeterKind.TO_GUEST_KBPS),
}
"""What is counted in packets comes first: a packet that is too many costs no bits."""

_AT_ONCE: Final = 10
"""A meter that has been idle lets through at once what it lets through in this part of a second."""
_FEWEST_KBITS: Final = 1100
"""Two of the largest packets that a guest hands over whole to be cut later, of 64 KiB: one that is larger than what a
meter ever lets through at once would never pass."""
_FEWEST_PACKETS: Final = 20


def of_port(port: Port, device: int) -> Iterator[tuple[int, Meter]]:
    """The meters of a port whose device is this OpenFlow port."""
    for kinds in _KINDS.values():
        for kind in kinds:
            if rate := _rate(port.limits, kind):
                yield meter_id(device, kind), _meter(kind, rate)


def pass_through(port: Port, device: int, direction: Direction) -> list[UseMeter]:
    """The actions that a packet must pass; none where the port has no limit."""
    return [UseMeter(meter_id(device, kind)) for kind in _KINDS[direction] if _rate(port.limits, kind)]


def _rate(limits: Limits, kind: MeterKind) -> int:
    return int(getattr(limits, kind.name.lower()))


def _meter(kind: MeterKind, rate: int) -> Meter:
    if kind in (MeterKind.FROM_GUEST_PPS, MeterKind.TO_GUEST_PPS):
        return Meter("pktps", rate, max(rate // _AT_ONCE, _FEWEST_PACKETS))
    return Meter("kbps", rate, max(rate // _AT_ONCE, _FEWEST_KBITS))
