"""What the order needs of the database and of the hosts' switches: bind, confirm, compare, see who is there."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from typing import Final

from explain import audit
from explain.hosts import NonsenseError, Switch
from explain.site import Bridge, Switches
from flows.fields import ARP_SPA, IN_PORT, IP_SRC, IPV6_SRC
from flows.flow import Goto
from flows.pipeline import BR_GUEST, BR_NIC
from mapping import plan, rows, status, wanted
from mapping.errors import MappingError
from mapping.history import Cause
from mapping.model import Host, Port, Snapshot
from mapping.plan import Operation, Plan
from mapping.rows import Tables
from mapping.wanted import Row
from mapping.writer import Writer
from provision import attest

_POLL: Final = 0.1
_SECOND_LOOK: Final = 1.0
"""Seconds between two looks at what differs: a change that is on its way has arrived by then."""
_PACKETS: Final = re.compile(r"n_packets=(\d+)")
_RECEIVED: Final = re.compile(r"rx pkts=([0-9]{1,20})\b")
_SENDERS: Final = (IP_SRC, IPV6_SRC, ARP_SPA)


@dataclass(frozen=True, slots=True)
class Closed:
    """Whether a port that was unbound is closed; `problem` says why not."""

    problem: str


class Site:
    """`via` says how commands are run on a host: see `explain.hosts`; `controllers` are as for `attest.faults`."""

    def __init__(self, writer: Writer, via: str, cause: Cause, controllers: frozenset[str] = frozenset()) -> None:
        self._writer = writer
        self.via = via
        self._cause = cause
        self._controllers = controllers
        self._seq = 0
        """The change that must be confirmed."""

    def snapshot(self) -> Snapshot:
        """The database now."""
        return rows.read(self._writer.read())

    def bind(self, port: str, host: str, device: str, held: Operation) -> None:
        """Put a port on a host. It fails unless `held` holds, here and below.

        Raises:
            MappingError: it is on another, or does not fit.
        """

        def on_host(row: Row) -> Row:
            if row["host"] not in (None, host):
                raise MappingError(f"port {port} is on host {row['host']}: `lockgate port unbind {port}` first")
            return {**row, "host": host, "device": device}

        self._change(port, on_host, held)

    def unbind(self, port: str, host: str, *held: Operation) -> None:
        """Take a port off a host. One that is not there stays as it is: it may be another machine's by now."""
        nowhere = {"host": None, "moving_to": None, "previous_host": None, "device": port}
        self._change(port, lambda row: {**row, **(nowhere if row["host"] == host else {})}, *held)

    def others(self, port: str, host: str) -> list[str]:
        """What else the machine of a host would reach by further devices: ports of other VPCs, in words."""
        snapshot = self.snapshot()
        vpc, here = _port(snapshot, port).vpc, self.host(snapshot, host).uuid
        return [
            f"port {each.name} of VPC {snapshot.vpcs[each.vpc].name} is on it as well, at device {each.device}, and "
            f"its guest would have that, too: `lockgate port unbind {each.name}` first"
            for each in sorted(snapshot.ports.values(), key=lambda each: each.name)
            if each.vpc != vpc and here in each.hosts
        ]

    def is_bound(self, port: str, host: str) -> bool:
        """Whether the database has the port on this host."""
        snapshot = self.snapshot()
        bound = next((each for each in snapshot.ports.values() if each.name == port), None)
        self._seq = snapshot.config_seq
        return bound is not None and bound.host is not None and snapshot.hosts[bound.host].name == host

    def confirm(self, host: str, seconds: float, beat: Callable[[], None]) -> bool:
        """Wait until the host's switches have confirmed the last change; return whether they have."""
        end = time.monotonic() + seconds
        while True:
            if self._applied().get(host, -1) >= self._seq:
                return True
            if time.monotonic() >= end:
                return False
            beat()
            time.sleep(_POLL)

    def why_not_confirmed(self, host: str) -> str:
        """In words, with what to do."""
        columns = ["_uuid", *rows.READ_COLUMNS["Host"], *rows.STATUS_COLUMNS["Host"]]
        found = self._writer.record([{"op": "select", "table": "Host", "where": [], "columns": columns}])[0]["rows"]
        tables = {"Host": {row["_uuid"][1]: row for row in found}}
        (state,) = status.confirmations(tables, self._seq, frozenset({host}), {}, time.time())
        return f"host {host} has not confirmed its rules: {state.why}"

    def faults(self, host: str) -> list[str]:
        """All that is not as it must be on a host: bridges, and flows.

        Raises:
            UnreachableError: it could not be asked.
        """
        snapshot = self.snapshot()
        row = self.host(snapshot, host)
        found = [str(fault) for fault in self.bridge_faults(row)]
        return found + [
            f"{each.bridge}: a flow is {each.kind}: {each.installed or each.desired}"
            for each in self.flows(snapshot, row)
        ]

    def bridge_faults(self, host: Host) -> list[attest.Fault]:
        """What is not as it must be of what the host's Open vSwitch is told."""
        tables = attest.read(Switch(host.name, self.via).vsctl(*attest.arguments()))
        return attest.faults(tables, host, self._controllers)

    def flows(self, snapshot: Snapshot, host: Host) -> list[audit.Finding]:
        """Flows that differ at two looks, or are somebody else's."""
        look = partial(self._look, snapshot, host)
        first = look()
        # What is somebody else's is on its way to nowhere.
        certain = [each for each in first if each.kind == "stranger"]
        if len(certain) < len(first):
            time.sleep(_SECOND_LOOK)
            certain = audit.again(first, look())
        return certain

    def _look(self, snapshot: Snapshot, host: Host) -> list[audit.Finding]:
        switches = Switches(snapshot, self.via)
        return [each for role in (BR_GUEST, BR_NIC) for each in audit.audit(switches.bridge(host, role))]

    def received(self, host: str, device: str) -> int | None:
        """Frames that have come in at a device of br-guest; None: it is not there."""
        switch = Switch(host, self.via)
        if device not in switch.ports(BR_GUEST):
            return None
        found = _RECEIVED.search(switch.port_stats(BR_GUEST, device))
        if not found:
            raise NonsenseError(f"host {host} does not say what came in at {device}: look whether it is in wrong hands")
        return int(found[1])

    def seen(self, port: str, host: str) -> bool:
        """Whether anything has come from an address of the port, on this host, since its rules are there."""
        snapshot = self.snapshot()
        row, on = _port(snapshot, port), self.host(snapshot, host)
        if row.host != on.uuid:
            raise MappingError(f"port {port} was taken off host {host} meanwhile: `lockgate release {port}`")
        bridge = Switches(snapshot, self.via).bridge(on, BR_GUEST)
        return any(self._packets(bridge, cookie) for cookie in _own(snapshot, row, bridge))

    def closed(self, port: str, host: str, device: str, seconds: float, beat: Callable[[], None]) -> Closed:
        """Wait until no host leads to the port any more, and compare what its own host holds with what it must."""
        snapshot = self.snapshot()
        vpc = _port(snapshot, port).vpc
        # Also those that a port of the VPC is on its way to or from: they have its flows.
        seats = {seat for each in snapshot.ports.values() if each.vpc == vpc for seat in each.hosts}
        with_vpc = {snapshot.hosts[seat].name for seat in seats}
        if not self.confirm(host, seconds, beat):
            return Closed(self.why_not_confirmed(host))
        for other in sorted(with_vpc - {host}):
            if not self.confirm(other, seconds, beat):
                return Closed(f"{self.why_not_confirmed(other)}: it may still answer for the port's address")
        if faults := self.faults(host):
            return Closed(f"host {host} is not as it must be: {faults[0]}")
        before = self.received(host, device)
        time.sleep(_SECOND_LOOK)
        if before is not None and self.received(host, device) != before:
            return Closed(f"frames still come from device {device} of host {host}: cut its power by hand")
        return Closed("")

    @staticmethod
    def _packets(bridge: Bridge, cookie: int) -> int:
        return sum(map(int, _PACKETS.findall(bridge.switch.flow(bridge.role, cookie))))

    def _change(self, port: str, change: Callable[[Row], Row], *held: Operation) -> None:
        def make(tables: Tables) -> Plan:
            there, _ = wanted.named(tables)
            if (port,) not in there["Port"]:
                raise MappingError(f"there is no port {port!r}: look with `lockgate port list`")
            content = wanted.empty()
            row = content["Port"][port,] = change(there["Port"][port,])
            if faults := tuple(wanted.complete("Port", (port,), row)):
                return Plan((), faults, ())
            planned = plan.make(content, tables)
            return dataclasses.replace(planned, operations=(*held, *planned.operations))

        done = self._writer.carry_out(make, self._cause)
        if done.plan.faults:
            raise MappingError(done.plan.faults[0].text)
        self._seq = done.config_seq

    @staticmethod
    def host(snapshot: Snapshot, name: str) -> Host:
        found = next((each for each in snapshot.hosts.values() if each.name == name), None)
        if found is None:
            raise MappingError(f"there is no host {name!r} that can be used: look with `lockgate status`")
        return found

    def _applied(self) -> dict[str, int]:
        select = {"op": "select", "table": "Host", "where": [], "columns": ["name", "applied_seq"]}
        return {row["name"]: row["applied_seq"] for row in self._writer.record([select])[0]["rows"]}


def _port(snapshot: Snapshot, name: str) -> Port:
    found = next((each for each in snapshot.ports.values() if each.name == name), None)
    if found is None:
        raise MappingError(f"there is no port {name!r} that can be used: look with `lockgate status`")
    return found


def _own(snapshot: Snapshot, port: Port, bridge: Bridge) -> Iterator[int]:
    """The flows that let a port's own addresses on."""
    addresses = {int(ip_address(each.ip)) for each in snapshot.mappings.values() if each.port == port.uuid}
    device = bridge.ofports.get(port.device)
    for cookie, origin in bridge.origins.items():
        matched = {match.field: match.value for match in origin.flow.match}
        lets_on = any(isinstance(action, Goto) and action.table != "DROP" for action in origin.flow.actions)
        own = any(matched.get(field) in addresses for field in _SENDERS if field in matched)
        if lets_on and own and matched.get(IN_PORT) == device:
            yield cookie
