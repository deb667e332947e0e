"""A guest's program: `INTERFACE STORM`. It sends random headers as fast as it can, and then says how many frames.

A program of its own, so that it takes a processor of its own, as a guest does.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import signal
import socket
import sys
import threading
import time
from typing import Final

from tests.attack.floods import STORMS

_POOL_BYTES: Final = 1 << 20
_MOST_SECONDS: Final = 600
_IN_A_ROW: Final = 64


def main(interface: str, storm: str) -> int:
    """Each kind of flood in turn, no two frames alike, until it is told to end, and ten minutes at most."""
    kinds = [(bytearray(flood.blank()), flood.spans) for flood in STORMS[storm]]
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    sent, end = 0, time.monotonic() + _MOST_SECONDS
    pool, at = random.randbytes(_POOL_BYTES), 0
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sender:
        sender.bind((interface, 0))
        sys.stdout.write("begins\n")
        sys.stdout.flush()
        for frame, spans in itertools.cycle(kinds):
            if over.is_set() or time.monotonic() > end:
                break
            if at + _IN_A_ROW * len(frame) > _POOL_BYTES:
                pool, at = random.randbytes(_POOL_BYTES), 0
            for _ in range(_IN_A_ROW):
                for start, stop in spans:
                    frame[start:stop] = pool[at : at + stop - start]
                    at += stop - start
                # What it sends to may take no more: ENOBUFS.
                with contextlib.suppress(OSError):
                    sender.send(frame)
                    sent += 1
    return sent


if __name__ == "__main__":
    sys.stdout.write(str(main(sys.argv[1], sys.argv[2])))
