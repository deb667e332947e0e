"""Makes the way to every peer known before a guest needs it.

A tunnel packet to a host whose MAC is not resolved yet is lost, or waits. So each host that may send to another first
sends it a probe: a tunnel packet of no VPC, which is routed, resolved and wrapped as a guest's would be, by either
datapath, and dropped and counted at the other end. A probe to a host that is still down is lost: hence the repetition.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from ryu.lib import hub

from controller.reconciler import Reconciler
from flows.nic_bridge import probe
from mapping.model import Host

_TICK: Final = 0.01
_IDLE: Final = 1.0
"""Seconds between two looks at least, and at most."""
_EAGER_AGES: Final = (0.0, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Seconds after a peer became known, or came up, at which it is probed."""
_STEADY: Final = 60.0
"""Seconds between probes after that. Open vSwitch forgets a neighbour 15 minutes after its last use, such as this."""

SETTLE: Final = 0.15
"""Seconds for which a host with new peers is not reported as programmed. For some milliseconds after the bundle the
datapath may go on to drop, as it had learnt to, what the first probe brings back; the next two do not meet that."""

# To nobody, from nobody, of the ethertype that IEEE 802 sets aside for experiments; 60 bytes, the least on a wire.
_FRAME: Final = bytes(12) + b"\x88\xb5" + b"lockgate neighbour probe".ljust(46, b"\0")


class Schedule:
    """When one host probes which of its peers. Time is passed in, in seconds on any clock."""

    def __init__(self) -> None:
        self._peers: Sequence[Host] = ()
        self._due: dict[Host, tuple[float, int]] = {}
        """Peer -> (when to probe next, probes sent)."""
        self.next = 0.0
        """When something is due next, unless there are other peers by then."""

    def restart(self, peer: Host) -> None:
        """The peer has come up: what was sent to it before may not have arrived."""
        self._due.pop(peer, None)
        self._peers = ()

    def take(self, peers: Sequence[Host], now: float) -> list[Host]:
        """Those of the peers that are to be probed now, which are then taken as probed."""
        if peers is self._peers and now < self.next:
            return []
        self._peers = peers
        self._due = {peer: self._due.get(peer, (now, 0)) for peer in peers}
        due = [peer for peer, (when, _) in self._due.items() if when <= now]
        for peer in due:
            _, sent = self._due[peer]
            sent += 1
            pause = _EAGER_AGES[sent] - _EAGER_AGES[sent - 1] if sent < len(_EAGER_AGES) else _STEADY
            self._due[peer] = (now + pause, sent)
        self.next = min((when for when, _ in self._due.values()), default=now + _STEADY)
        return due


class Prober:
    """Probes for every br-nic that is served. `run` is its greenlet."""

    def __init__(self) -> None:
        self._schedules: dict[Reconciler, Schedule] = {}
        self._news = hub.Event()

    def applied(self, reconciler: Reconciler) -> None:
        """A br-nic holds its flows. Its new peers are probed at once and, when it has just come up, it by them."""
        if reconciler not in self._schedules:
            self._schedules[reconciler] = Schedule()
            for other, schedule in self._schedules.items():
                if reconciler.host and other is not reconciler:
                    schedule.restart(reconciler.host)
                    self._probe(other, schedule)
        if self._probe(reconciler, self._schedules[reconciler]):
            reconciler.settled_at = time.monotonic() + SETTLE
        self._news.set()

    def run(self) -> None:
        """Repeat for ever."""
        while True:
            self._schedules = {each: schedule for each, schedule in self._schedules.items() if each.running}
            for reconciler, schedule in list(self._schedules.items()):
                self._probe(reconciler, schedule)
            now = time.monotonic()
            pause = min((schedule.next - now for schedule in self._schedules.values()), default=_IDLE)
            self._news.wait(timeout=min(max(pause, _TICK), _IDLE))
            self._news.clear()

    @staticmethod
    def _probe(reconciler: Reconciler, schedule: Schedule) -> bool:
        """Probe what is due; return whether anything was."""
        due = schedule.take(reconciler.peers, time.monotonic())
        for peer in due:
            reconciler.switch.send_frame(probe(peer), _FRAME)
        return bool(due)
