"""What became of an attack: everything that was seen and counted, against what its case says."""

from __future__ import annotations

import contextlib
from collections import Counter

from flows.pipeline import BR_GUEST, BR_NIC
from tests.attack import background
from tests.attack.case import Case, Counted
from tests.attack.setting import GUESTS, HOSTS
from tests.attack.world import World
from topo.waiting import wait_until

_SECONDS = 10
_QUIET_SECONDS = 10


class Judge:
    """Watches the lab from the moment that it is made."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._frames: dict[str, list[bytes]] = {}
        if world.settled is None:
            # What passes while the counters are read might be counted already, or not yet.
            wait_until(
                self._begin, _QUIET_SECONDS, "a moment in which no host asks for another, and no guest for a router"
            )
        assert world.settled
        self._before = world.settled
        world.settled = None

    def _begin(self) -> bool:
        self._world.take()
        counts = self._world.counts()
        self._frames = self._world.take()
        if self._background_drops():
            return False
        self._world.settled = counts
        return True

    def _look(self) -> None:
        for name, frames in self._world.take().items():
            self._frames.setdefault(name, []).extend(frames)

    def problems(self, case: Case) -> list[str]:
        """What is not as the case says. Empty, as soon as all is counted."""
        found: list[str] = []

        def none_left() -> bool:
            self._counts = self._world.counts()
            self._look()  # after the counters: what is missing in these is waited for
            found[:] = [*self._wrongly_counted(case), *self._wrongly_seen(case)]
            return not found

        with contextlib.suppress(TimeoutError):
            wait_until(none_left, _SECONDS, "all to be as the case says")
            self._world.settled = self._counts  # the next one goes on from here
        return found

    def _background_drops(self) -> Counter[Counted]:
        drops: Counter[Counted] = Counter()
        for host in HOSTS:
            uplink = self._world.places[f"{host} uplink in"]
            for frame in self._frames[f"{host} uplink in"]:
                if uplink.is_background(frame) and (reason := background.dropped_by(host, frame)):
                    drops[host, BR_NIC, reason] += 1
        for name, guest in GUESTS.items():
            for frame in self._frames[f"{name} out"]:
                if reason := background.dropped_from(name, frame):
                    drops[guest.host, BR_GUEST, reason] += 1
        return drops

    def _wrongly_counted(self, case: Case) -> list[str]:
        counts = self._counts
        wanted = self._background_drops()
        for counted in case.fate.counted:
            wanted[counted] += len(case.frames)
        drops = counts.drops - self._before.drops
        found = [
            f"{counted[0]}, {counted[1]}: {drops[counted]} counted as {counted[2].label}, not {wanted[counted]}"
            for counted in sorted({*drops, *wanted}, key=str)
            if drops[counted] != wanted[counted]
        ]
        wanted_notices = Counter({counter: len(case.frames) for counter in case.fate.noticed})
        noticed = counts.other - self._before.other
        for counter in noticed.keys() - wanted_notices.keys():
            # The kernel counts there what no protocol of its own takes from the interface, which is nothing of ours.
            if counter[1] == "rx_dropped":
                del noticed[counter]
        if noticed != wanted_notices:
            found.append(f"counters of Open vSwitch and kernel: {dict(noticed)}, not {dict(wanted_notices)}")
        return found

    def _wrongly_seen(self, case: Case) -> list[str]:
        wanted = [sight for frame in case.frames for sight in case.fate.seen(frame)]
        found = []
        for name, place in self._world.places.items():
            due = [is_it for at, is_it in wanted if at == name]
            for frame in self._frames[name]:
                known = next((is_it for is_it in due if is_it(frame)), None)
                if known:
                    due.remove(known)
                elif not place.is_background(frame):
                    found.append(f"{name}: seen, and must not be: {frame.hex()}")
            if due:
                found.append(f"{name}: {len(due)} frames not seen that must be")
        return found
