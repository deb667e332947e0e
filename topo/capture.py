"""Raw frames in a namespace: see all that pass an interface, and send any.

The packet socket is opened inside the namespace and read here. It sees every frame from the moment that it is bound,
so a capture is ready when it exists, and nothing that has passed is still on its way through another program.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from types import TracebackType
from typing import Final, Literal, Self

from topo import netns
from topo.waiting import wait_until

Direction = Literal["in", "out", "both"]

# linux/if_ether.h, linux/if_packet.h, asm-generic/socket.h: Python does not name them.
_ETH_P_ALL: Final = 3
_SOL_PACKET: Final = 263
_PACKET_AUXDATA: Final = 8
_SO_RCVBUFFORCE: Final = 33
_AUXDATA: Final = struct.Struct("=IIIHHHH")
_VLAN_VALID: Final = 0x10

_BUFFER_BYTES: Final = 64 << 20


class Capture:
    """Frames that pass an interface, as bytes. "in" are those that it receives, "out" those that it sends."""

    def __init__(self, namespace: str, interface: str, direction: Direction = "both") -> None:
        self._direction = direction
        self._seen: list[bytes] = []
        with netns.entered(namespace):
            # Protocol 0 receives nothing: nothing of other interfaces slips in before the bind.
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
        self._socket.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
        self._socket.bind((interface, _ETH_P_ALL))
        self._socket.setblocking(False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._drain()
        self._socket.close()

    @property
    def frames(self) -> list[bytes]:
        """What has passed until now; after the `with`, what passed while it lasted."""
        self._drain()
        return list(self._seen)

    def wait_for(self, wanted: Callable[[bytes], bool], seconds: float = 5) -> bytes:
        """The first frame that is wanted, as soon as it has passed."""
        return wait_until(lambda: next(filter(wanted, self.frames), None), seconds, "a frame") or b""

    def _drain(self) -> None:
        while self._socket.fileno() != -1:
            try:
                frame, notes, _, address = self._socket.recvmsg(1 << 16, 64)
            except BlockingIOError:
                return
            outgoing = address[2] == socket.PACKET_OUTGOING
            if self._direction == "both" or outgoing == (self._direction == "out"):
                self._seen.append(_with_vlan(frame, notes))


def send(namespace: str, interface: str, *frames: bytes) -> None:
    """Send frames out of an interface, as they are."""
    with netns.entered(namespace), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sender:
        sender.bind((interface, 0))
        for frame in frames:
            sender.send(frame)


def _with_vlan(frame: bytes, notes: list[tuple[int, int, bytes]]) -> bytes:
    """The frame as it was on the wire: the kernel takes the VLAN tag out, and reports it beside."""
    for level, kind, data in notes:
        if (level, kind) == (_SOL_PACKET, _PACKET_AUXDATA):
            status, *_, tci, tpid = _AUXDATA.unpack(data[: _AUXDATA.size])
            if status & _VLAN_VALID:
                return frame[:12] + struct.pack("!HH", tpid, tci) + frame[12:]
    return frame
