"""Keeps the filters ahead of guests' ports and of the uplink in step: a program of each host, beside its Open vSwitch.

- A port's own limit of packets (`from_guest_pps`), which br-guest has as a meter, becomes the filter's, so that what is
  more costs Open vSwitch nothing.
- What filters have refused is handed to the controller (`flows.filter_report`), which sums it up with the rest.

It talks to the host's own Open vSwitch alone. Without it filters go on, with the limits that they have.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Mapping as MappingABC
from pathlib import Path
from typing import Final

from flows import filter_report
from flows.filter_report import Counted
from flows.meter import MeterKind, meter_id
from flows.pipeline import BR_GUEST, BR_NIC, Reason
from flows.ports import UPLINK
from topo import bpf, port_filter, uplink_filter
from topo.netns import CommandError
from topo.ovs import OpenVSwitch
from topo.port_filter import Filter

INTERVAL: Final = 1.0
"""Seconds between two looks at meters and at what filters have counted: these start one program."""
STEP: Final = 5.0
"""Seconds between two looks at ports, if no meter has changed: these start three more."""
AGAIN: Final = 10.0
"""Seconds after which a controller is told again what it may have missed."""

_PORT: Final = re.compile(r"^ (\d+)\((\S+)\): addr:", re.MULTILINE)
_METER: Final = re.compile(r"^meter=(\d+) pktps .*\ntype=drop rate=(\d+) burst_size=(\d+)", re.MULTILINE)


_Key = tuple[str, int]
"""An interface, and the number of the program ahead of it: one that is put there anew is another."""


class HostFilters:
    """The filters of one host. `look` is to be called again and again."""

    def __init__(self, ovs: OpenVSwitch) -> None:
        self._ovs = ovs
        self._guests: dict[_Key, Filter] = {}
        self._uplinks: set[_Key] = set()
        self._said: dict[_Key, tuple[float, MappingABC[Reason, Counted]]] = {}
        self._meters = ""
        self._due = -STEP

    def look(self, now: float) -> None:
        """Hand on what has been counted, and bring ports and limits in step, every `STEP` and when a meter has changed.

        `now` is on any clock.

        Raises:
            CommandError, OSError: Open vSwitch does not answer, or a port has just gone.
        """
        # After a failure ports are looked at again at once.
        due, self._due = self._due, now
        meters = self._ovs.ofctl("dump-meters", BR_GUEST)
        if due <= now or meters != self._meters:
            self._bring_in_step(meters)
            due, self._meters = now + STEP, meters
        for key, each in self._guests.items():
            self._report(BR_GUEST, key, each.counted, now)
        for key in self._uplinks:
            self._report(BR_NIC, key, uplink_filter.counted(key[1]), now)
        self._due = due

    def _bring_in_step(self, dumped: str) -> None:
        there = set(bpf.attached(self._ovs.namespace).items())
        guests, uplinks = (
            {name: int(number) for number, name in _PORT.findall(self._ovs.ofctl("show", bridge))}
            for bridge in (BR_GUEST, BR_NIC)
        )
        meters = {int(id_): (int(rate), int(burst)) for id_, rate, burst in _METER.findall(dumped)}
        self._guests = {key: self._guests.get(key) or Filter(key[1]) for key in there if key[0] in guests}
        self._uplinks = {key for key in there if key[0] not in guests and uplinks.get(key[0]) == UPLINK}
        self._said = {key: said for key, said in self._said.items() if key in there}
        for (name, _), each in self._guests.items():
            limit = meters.get(meter_id(guests[name], MeterKind.FROM_GUEST_PPS))
            each.limit(*(limit or (port_filter.FRAMES_PER_SECOND, port_filter.FRAMES_AT_ONCE)))

    def _report(self, bridge: str, key: _Key, counted: MappingABC[Reason, Counted], now: float) -> None:
        when, said = self._said.get(key, (now, {}))
        if not any(count.packets for count in counted.values()) or (counted == said and now - when < AGAIN):
            return
        frame = filter_report.write(bridge, counted).hex()
        self._ovs.ofctl("packet-out", bridge, f"in_port={key[0]} packet={frame} actions=CONTROLLER:65535")
        self._said[key] = now, counted


def watch(ovs: OpenVSwitch) -> None:
    """Repeat for ever; what goes wrong is said once."""
    filters, problem = HostFilters(ovs), ""
    while True:
        try:
            filters.look(time.monotonic())
            said = ""
        except (CommandError, OSError) as error:
            said = str(error)
        if said not in ("", problem):
            sys.stderr.write(f"filters ahead of ports are not looked at: {said}\n")
        problem = said
        time.sleep(INTERVAL)


if __name__ == "__main__":
    watch(OpenVSwitch(Path(sys.argv[1])))
