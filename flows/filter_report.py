"""What the filters of a host have refused, as frames in which the host tells the controller.

Open vSwitch never saw what they refused, and has no counter for it. So a program of the host (`topo.port_watch`) has it
hand the controller a packet, as from the guest's port or the uplink, that neither sent: what says so is the reason of
the message, OFPR_PACKET_OUT, which none that a flow sends has.

    destination, source: zeros    0x88B5    packets, bytes    packets, bytes    ...    64 bits each, reason by reason
"""

from __future__ import annotations

import struct
from collections.abc import Mapping as MappingABC
from typing import Final, NamedTuple

from flows.pipeline import BR_GUEST, BR_NIC, FILTERED, UPLINK_FILTERED, Reason

_HEAD: Final = bytes(12) + b"\x88\xb5"
"""IEEE 802's local experimental ethertype."""
BY_BRIDGE: Final = {BR_GUEST: FILTERED, BR_NIC: UPLINK_FILTERED}
"""Why the filters drop that are ahead of a bridge's ports."""


class Counted(NamedTuple):
    """Since the filter was put there."""

    packets: int
    bytes: int


def write(bridge: str, counted: MappingABC[Reason, Counted]) -> bytes:
    """The frame about a filter ahead of one of the bridge's ports."""
    numbers = [number for reason in BY_BRIDGE[bridge] for number in counted[reason]]
    return _HEAD + struct.pack(f"!{len(numbers)}Q", *numbers)


def read(bridge: str, frame: bytes) -> dict[Reason, Counted] | None:
    """What it says; None if it is no such frame, or is of a host that knows other reasons."""
    reasons = BY_BRIDGE[bridge]
    counts = struct.Struct(f"!{2 * len(reasons)}Q")
    if len(frame) != len(_HEAD) + counts.size or not frame.startswith(_HEAD):
        return None
    numbers = counts.unpack_from(frame, len(_HEAD))
    return dict(zip(reasons, map(Counted, numbers[::2], numbers[1::2]), strict=True))
