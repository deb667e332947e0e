"""Meters: how much of something a guest may do. What is more is dropped by the datapath."""

from __future__ import annotations

import enum
from typing import Literal, NamedTuple


class MeterKind(enum.IntEnum):
    """What a port's meters are for."""

    PUNT = 0
    """Packets that the controller must see, such as DHCP. What one guest sends too much harms no other's."""
    FROM_GUEST_KBPS = 1
    TO_GUEST_KBPS = 2
    FROM_GUEST_PPS = 3
    TO_GUEST_PPS = 4
    """What the limit of the same name in `mapping.model.Limits` says."""


_KINDS = 8


class Meter(NamedTuple):
    """What a meter lets through in a second, and at once."""

    unit: Literal["kbps", "pktps"]
    rate: int
    burst: int
    """Thousand bits, or packets."""


Meters = dict[int, Meter]
"""Meter id -> what it lets through. Meters carry no mark: all of a bridge are ours."""


def meter_id(ofport: int, kind: MeterKind) -> int:
    """The id of a meter of the guest port with this OpenFlow number.

    Ids may be any; how many meters there are at a time the datapath bounds: see docs/ports.md.
    """
    return ofport * _KINDS + kind
