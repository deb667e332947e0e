"""What passes and what is dropped, by port and by reason, summed up from what the switches count.

A switch's counters go with its flows and ports: a port that leaves takes along what it had counted, and a switch that
restarts begins at nothing. So what is kept here are sums of what was added between two readings; they only grow.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from collections.abc import Mapping as MappingABC
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from controller.reconciler import Reconciler
from controller.replies import Traffic
from controller.switch import SwitchError
from flows import drops
from flows.filter_report import Counted
from flows.pipeline import BR_GUEST, BR_NIC, TABLES, Reason
from flows.ports import guest_patch, nic_patch
from mapping.model import Host, Port, RowId, Vpc

log = logging.getLogger(__name__)

Bridges = dict[str, Reconciler]
OwnPorts = list[tuple[Port, Vpc]]

_SAY_AGAIN: Final = 60.0
"""Seconds for which no more is said of what is dropped from a port for one reason: a guest may go on all day."""
_SHOWN: Final = 3

FROM_GUEST, TO_GUEST = "from_guest", "to_guest"


@dataclass(slots=True)
class PortCounters:
    """One port's. `packets` and `bytes` are by direction, and by the label of each reason to drop."""

    vpc: str
    packets: Counter[str] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)

    def row(self, port: str) -> Iterator[tuple[str, int]]:
        """As the database has it, in `Host.port_counters`."""
        for unit, counts in (("packets", self.packets), ("bytes", self.bytes)):
            for what, count in counts.items():
                yield f"{port}/{what}_{unit}", count


@dataclass(slots=True)
class HostCounters:
    """One host's, since it is served here."""

    name: str
    drops: Counter[str] = field(default_factory=Counter)
    """Packets by the label of the reason."""
    ports: dict[str, PortCounters] = field(default_factory=dict)
    unplugged: str = ""
    """Which ports' guests cannot be reached, as their interfaces are not there, and what to do; empty if none."""
    last: dict[tuple[str, int], Traffic] = field(default_factory=dict)
    """What the switch has said at the last reading, by what was asked and the cookie or port that it is of."""

    def added(self, what: str, now: dict[int, Traffic]) -> Iterator[tuple[int, Traffic]]:
        """What has been counted since; what is less than it was has begun anew."""
        for key, count in now.items():
            before = self.last.get((what, key), _NOTHING)
            if count.packets < before.packets:
                before = _NOTHING
            if count != before:
                yield key, Traffic(count.packets - before.packets, count.bytes - before.bytes)
        self.last = {key: count for key, count in self.last.items() if key[0] != what}
        self.last |= {(what, key): count for key, count in now.items()}


_NOTHING: Final = Traffic(0, 0)


class Counters:
    """Of the hosts that are served; `ports_on` says which ports a host has."""

    def __init__(self, ports_on: Callable[[RowId], OwnPorts]) -> None:
        self.hosts: dict[RowId, HostCounters] = {}
        self._ports_on = ports_on
        self._said: dict[tuple[str, str], float] = {}
        """Port and reason -> when it was last said, on the monotonic clock."""

    def keep(self, hosts: Collection[RowId]) -> None:
        """Forget all hosts but these."""
        self.hosts = {uuid: counters for uuid, counters in self.hosts.items() if uuid in hosts}
        now = time.monotonic()
        self._said = {key: when for key, when in self._said.items() if now - when < _SAY_AGAIN}

    def read(self, uuid: RowId, bridges: Bridges) -> None:
        """Ask a host's switches, which takes as long as they like.

        One that does not answer is left as it was: its reconciler meets the same, and says so.
        """
        host = next(reconciler.host for reconciler in bridges.values())
        if host is None:
            return
        counters = self.hosts.setdefault(uuid, HostCounters(host.name))
        own = self._ports_on(uuid)
        counters.ports = {port.name: counters.ports.get(port.name, PortCounters(vpc.name)) for port, vpc in own}
        counters.unplugged = _unplugged((port for port, _ in own), bridges)
        for bridge, reconciler in bridges.items():
            with suppress(SwitchError):
                self._read_drops(counters, bridge, reconciler, own)
                if bridge == BR_GUEST:
                    _read_ports(counters, reconciler, own)
                    self._read_meters(counters, reconciler, own)

    def filtered(self, host: Host, port: Port | None, counted: MappingABC[Reason, Counted]) -> None:
        """What the filter ahead of a port, or of the uplink, has refused, as that host says, since it is there."""
        counters = self.hosts.setdefault(host.uuid, HostCounters(host.name))
        if port and port.name not in counters.ports:
            return  # not read yet: it is said again
        now = {reason.number: Traffic(*count) for reason, count in counted.items()}
        by_number = {reason.number: reason for reason in counted}
        for number, more in counters.added(f"filter {port.name if port else ''}", now):
            self._dropped(counters, by_number[number], port, more)

    def _read_drops(self, counters: HostCounters, bridge: str, reconciler: Reconciler, own: OwnPorts) -> None:
        reasons: dict[int, tuple[Reason, Port | None]] = {}
        for cookie, reason in drops.host_cookies(bridge).items():
            reasons[cookie] = reason, None
        ofports = reconciler.switch.ofports
        for port, _ in own:
            ofport = ofports.get(port.device if bridge == BR_GUEST else nic_patch(port.device))
            if ofport is not None:
                for cookie, reason in drops.port_cookies(bridge, ofport).items():
                    reasons[cookie] = reason, port
        counted = reconciler.switch.counted(TABLES[bridge]["DROP"].number)
        for cookie, more in counters.added(bridge, {key: counted[key] for key in counted.keys() & reasons.keys()}):
            self._dropped(counters, *reasons[cookie], more)

    def _read_meters(self, counters: HostCounters, reconciler: Reconciler, own: OwnPorts) -> None:
        ofports = reconciler.switch.ofports
        reasons = {
            meter: (reason, port)
            for port, _ in own
            if port.device in ofports
            for meter, reason in drops.of_meters(ofports[port.device]).items()
        }
        counted = reconciler.switch.metered()
        for meter, more in counters.added("meters", {key: counted[key] for key in counted.keys() & reasons.keys()}):
            self._dropped(counters, *reasons[meter], more)

    def _dropped(self, counters: HostCounters, reason: Reason, of: Port | None, more: Traffic) -> None:
        counters.drops[reason.label] += more.packets
        if of and of.name in counters.ports:
            of_port = counters.ports[of.name]
            of_port.packets[reason.label] += more.packets
            of_port.bytes[reason.label] += more.bytes
            self._say(counters.name, of_port.vpc, of.name, reason, more.packets)

    def _say(self, host: str, vpc: str, port: str, reason: Reason, packets: int) -> None:
        if reason.harmless or (port, reason.label) in self._said:
            return
        self._said[port, reason.label] = time.monotonic()
        about = {"host": host, "vpc": vpc, "port": port, "reason": reason.label}
        text = "%s: %d packet(s) at port %s of VPC %s dropped as %s: %s"
        log.warning(text, host, packets, port, vpc, reason.label, reason.meaning, extra=about)


def _read_ports(counters: HostCounters, reconciler: Reconciler, own: OwnPorts) -> None:
    traffic = reconciler.switch.port_traffic()
    ofports = reconciler.switch.ofports
    names = {ofports[port.device]: port.name for port, _ in own if port.device in ofports}
    for way, index in ((FROM_GUEST, 0), (TO_GUEST, 1)):
        counted = {number: both[index] for number, both in traffic.items() if number in names}
        for number, more in counters.added(way, counted):
            of_port = counters.ports.get(names[number])
            if of_port:
                of_port.packets[way] += more.packets
                of_port.bytes[way] += more.bytes


def _unplugged(ports: Iterable[Port], bridges: Bridges) -> str:
    """What to say of ports whose interface or patch is not on a bridge that is connected."""
    there = {bridge: reconciler.switch.ofports for bridge, reconciler in bridges.items()}
    names = sorted(port.name for port in ports if not _is_plugged(port, there))
    if not names:
        return ""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"port(s) {', '.join(names[:_SHOWN])}{more} without an interface on {BR_GUEST}: plug the guest in"


def _is_plugged(port: Port, there: MappingABC[str, MappingABC[str, int]]) -> bool:
    wanted = {BR_GUEST: (port.device, guest_patch(port.device)), BR_NIC: (nic_patch(port.device),)}
    return all(name in ofports for bridge, ofports in there.items() for name in wanted[bridge])
