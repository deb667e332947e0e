"""What the filter ahead of a guest's port has refused, as a frame in which the host tells the controller.

Open vSwitch never saw those frames, and has no counter for them. So a program of the host (`topo.port_watch`) has it
hand the controller a packet, as from that port, that no guest sent: what says so is the reason of the message,
OFPR_PACKET_OUT, which none that a flow sends has.

    destination, source: zeros    0x88B5    packets, bytes    packets, bytes    ...    64 bits each, in FILTERED's order
"""

from __future__ import annotations

import struct
from collections.abc import Mapping as MappingABC
from typing import Final, NamedTuple

from flows.pipeline import FILTERED, Reason

_HEAD: Final = bytes(12) + b"\x88\xb5"
"""IEEE 802's local experimental ethertype."""
_COUNTS: Final = struct.Struct(f"!{2 * len(FILTERED)}Q")


class Counted(NamedTuple):
    """Since the filter was put there."""

    packets: int
    bytes: int


def write(counted: MappingABC[Reason, Counted]) -> bytes:
    """The frame."""
    return _HEAD + _COUNTS.pack(*(number for reason in FILTERED for number in counted[reason]))


def read(frame: bytes) -> dict[Reason, Counted] | None:
    """What it says; None if it is no such frame, or is of a host that knows other reasons."""
    if len(frame) != len(_HEAD) + _COUNTS.size or not frame.startswith(_HEAD):
        return None
    numbers = _COUNTS.unpack_from(frame, len(_HEAD))
    return dict(zip(FILTERED, map(Counted, numbers[::2], numbers[1::2]), strict=True))
