"""Where switches are awaited stays open while no controller runs, if a service manager keeps the socket.

A switch that is refused tries again after one second, then two, four and eight. One that is let in is served as soon as
a controller is there. Each controller hands its sockets to the manager (FDSTORE, sd_notify(3)), which gives them to the
next one (sd_listen_fds(3)).
"""

from __future__ import annotations

import os
import socket
from typing import Final

_FIRST: Final = 3  # SD_LISTEN_FDS_START


def taken_over(address: tuple[str, int]) -> socket.socket | None:
    """The socket that an earlier controller listened with at this address; None if none was kept."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return None
    for number in range(_FIRST, _FIRST + int(os.environ["LISTEN_FDS"])):
        kept = socket.socket(fileno=os.dup(number))
        there = kept.getsockname()[:2]
        if there == address:
            return kept
        if there[1] == address[1]:  # it may be in the way of the new one
            kept.shutdown(socket.SHUT_RDWR)
        kept.close()
    return None


def keep(listening: socket.socket) -> None:
    """Have the service manager, if there is one, keep the socket for the next controller."""
    if path := os.environ.get("NOTIFY_SOCKET"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.connect(f"\0{path[1:]}" if path.startswith("@") else path)
            socket.send_fds(manager, [b"FDSTORE=1\nFDNAME=openflow"], [listening.fileno()])
