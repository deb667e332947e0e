"""Advertises their router to guests that do not ask.

A kernel does not ask again for a router that it has heard of, so each guest is told of it unasked, too, before what it
was told last has run out.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from ryu.lib import hub

from controller import router_advertisement
from controller.guest_config import config_of
from controller.reconciler import Reconciler
from flows.flow import Output
from mapping.linked import Linked

INTERVAL: Final = 300.0
"""Seconds between two advertisements to a guest, which hears of another MTU or DNS server by them."""
_TICK: Final = 1.0

Device = tuple[Reconciler, int]
"""A br-guest, and the OpenFlow port of a device on it."""


class Rounds:
    """Whose turn it is: everybody's once in each `INTERVAL`, one after the other. Time is passed in, on any clock."""

    def __init__(self) -> None:
        self._left: deque[Device] = deque()
        self._pause = 0.0
        self._due = float("-inf")

    def take(self, everybody: Callable[[], Iterable[Device]], now: float) -> Iterator[Device]:
        """Those whose turn has come. `everybody` says who there is, when a round begins."""
        self._due = max(self._due, now - _TICK)  # what was missed is not made up for all at once
        while self._due <= now:
            if not self._left:
                self._left.extend(everybody())
                self._pause = INTERVAL / max(1, len(self._left))
                if not self._left:
                    return
            yield self._left.popleft()
            self._due += self._pause


class Advertiser:
    """Advertises the router to every guest that has an IPv6 address. `run` is its greenlet."""

    def __init__(self, linked: Linked, reconcilers: Callable[[], Iterable[Reconciler]]) -> None:
        self._linked = linked
        self._reconcilers = reconcilers

    def run(self) -> None:
        """Repeat for ever."""
        rounds = Rounds()
        while True:
            for reconciler, ofport in rounds.take(self._devices, time.monotonic()):
                self._advertise(reconciler, ofport)
            hub.sleep(_TICK)

    def _devices(self) -> Iterator[Device]:
        for reconciler in self._reconcilers():
            for ofport in reconciler.switch.ofports.values():
                if reconciler.port_at(ofport):
                    yield reconciler, ofport

    def _advertise(self, reconciler: Reconciler, ofport: int) -> None:
        # It may have gone, or become somebody else's, since the round began.
        port = reconciler.port_at(ofport) if reconciler.running else None
        guest = config_of(port, self._linked) if port else None
        if guest and guest.ipv6:
            reconciler.switch.send_frame([Output(ofport)], router_advertisement.advertisement(guest))
