"""Every datapath that is connected, the database that says what each should hold, and who must be told of what.

A datapath is served when a `Host` row names its id, and refused otherwise: it is left connected, because Open vSwitch
would take up to 8 s to come back when the row appears, but nothing is sent to it. Nothing is done to any before the
first complete load of the database: until then "it names no such host" cannot be told from "not read yet".
"""

from __future__ import annotations

import logging
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from functools import partial
from typing import Any, Final

from ryu.lib import hub

from controller import punts
from controller.counters import Counters, OwnPorts
from controller.guest_configuration import Advertiser
from controller.metrics import BridgeState, Metrics, State
from controller.prober import Prober
from controller.punted import Punted
from controller.reconciler import Reconciler, datapaths
from controller.reporter import Reporter
from controller.switch import Switch
from flows.pipeline import BR_GUEST, BR_NIC, TABLES
from mapping.model import RowId
from mapping.replica import Replica

log = logging.getLogger(__name__)

_STEP_MS: Final = 1000
"""Longest wait for news from the database at a time."""

LINGER: Final = 60.0
"""Seconds for which a host that has disconnected is still followed in the database: most come back."""


class Fleet:
    """The controller without Ryu's events: `connected`, `disconnected` and the like are told by the app."""

    def __init__(self, remotes: Sequence[str]) -> None:
        self._replica = Replica(remotes, hosts=(), breathe=partial(hub.sleep, 0))
        self.counters = Counters(self._ports_on)
        self._reporter = Reporter(remotes, self.hosts, self.counters)
        self._prober = Prober()
        self._switches: dict[int, Switch] = {}
        self._reconcilers: dict[int, Reconciler] = {}
        self._advertiser = Advertiser(self._replica.linked, lambda: list(self._reconcilers.values()))
        self._refused: set[int] = set()
        self._followed: dict[RowId, float] = {}
        """Host that is followed -> when one of its bridges was last seen connected."""
        self._was_current = False
        self._current_at = time.monotonic()
        """When the copy of the database was last known to be current, or the start."""
        self._connections: Counter[int] = Counter()
        """Datapath -> times that it has connected."""
        self.metrics = Metrics(self._state, self.counters)

    def start(self) -> list[Any]:
        """Start following the database and reporting to it; returns the greenlets."""
        return [hub.spawn(each) for each in (self._follow, self._prober.run, self._advertiser.run, self._reporter.run)]

    def hosts(self) -> dict[RowId, dict[str, Reconciler]]:
        """The rows of hosts that are served, and the reconcilers of those of their bridges that are connected."""
        hosts: dict[RowId, dict[str, Reconciler]] = {}
        for reconciler in self._reconcilers.values():
            if reconciler.host:
                hosts.setdefault(reconciler.host.uuid, {})[reconciler.bridge] = reconciler
        return hosts

    def connected(self, datapath: Any) -> None:
        """A switch has named itself and its ports."""
        switch = Switch(datapath)
        log.info("datapath %016x connected from %s", switch.id, datapath.address)
        previous = self._switches.get(switch.id)
        if previous is not None:
            log.warning(
                "datapath %016x connected again from %s: the older connection is closed", switch.id, datapath.address
            )
            self._leave(previous)
            previous.close()
        self._switches[switch.id] = switch
        self._connections[switch.id] += 1
        self._refused.discard(switch.id)
        if self._replica.in_sync:
            self._choose_hosts()
            self._serve(switch)

    def disconnected(self, datapath: Any) -> None:
        """A switch's connection has ended."""
        switch = self._switches.get(datapath.id)
        if switch is not None and switch.datapath is datapath:
            self._leave(switch)

    def ports_changed(self, datapath: Any) -> None:
        """A port came, went or was renumbered."""
        if reconciler := self._reconciler(datapath):
            reconciler.wake()

    def flows_changed(self, datapath: Any, cookies: Collection[int]) -> None:
        """Somebody else added, changed or deleted flows that have these cookies."""
        if reconciler := self._reconciler(datapath):
            reconciler.distrust(cookies)

    def answered(self, datapath: Any, message: Any) -> None:
        """A switch has answered something."""
        switch = self._switches.get(datapath.id)
        if switch is not None and switch.datapath is datapath:
            switch.take(message)

    def punted(self, datapath: Any, message: Any) -> None:
        """A flow has sent a packet here."""
        reconciler, ofport = self._reconciler(datapath), message.match["in_port"]
        port = reconciler.port_at(ofport) if reconciler else None
        if reconciler and port:
            linked = self._replica.linked
            table = next(name for name, each in TABLES[BR_GUEST].items() if each.number == message.table_id)
            punts.take(reconciler.switch, ofport, table, Punted(message.data, port, linked.vpcs[port.vpc], linked))

    def _state(self) -> State:
        replica, linked, now = self._replica, self._replica.linked, time.monotonic()
        applied: defaultdict[str, list[int]] = defaultdict(list)
        for each in self._reconcilers.values():
            if each.host:
                applied[each.host.name].append(max(0, each.applied_seq))
        bridges = [
            BridgeState(
                *(host.name, role, datapath in self._switches),
                max(0, self._connections[datapath] - 1),
                *((one.flows, one.waiting, one.mended) if (one := self._reconcilers.get(datapath)) else (0, 0, 0)),
            )
            for host in (linked.hosts[uuid] for uuid in self._followed if uuid in linked.hosts)
            for role, datapath in datapaths(host).items()
        ]
        return State(
            replica.in_sync,
            replica.current,
            0.0 if replica.current else now - self._current_at,
            max(0, replica.session.generation - 1),
            replica.config_seq,
            {table: len(linked.parsed(table)) for table in ("Host", "Vpc", "Port", "Mapping")},
            len(linked.bad),
            len(self._refused & (self._switches.keys() - self._reconcilers.keys())),
            {name: min(seqs) for name, seqs in applied.items()},
            bridges,
        )

    def _ports_on(self, host: RowId) -> OwnPorts:
        linked = self._replica.linked
        ports = (linked.ports[uuid] for uuid in linked.ports_of(host))
        return [(port, linked.vpcs[port.vpc]) for port in ports if port.host == host]

    def _reconciler(self, datapath: Any) -> Reconciler | None:
        reconciler = self._reconcilers.get(datapath.id)
        return reconciler if reconciler is not None and reconciler.switch.datapath is datapath else None

    def _follow(self) -> None:
        while True:
            if self._replica.run():
                self._database_changed()
            if self._replica.current:
                self._current_at = time.monotonic()
            if self._replica.current != self._was_current:
                self._was_current = self._replica.current
                session = self._replica.session
                if self._was_current:
                    log.info("mapping database %s: in sync, config_seq %d", session.remote, self._replica.config_seq)
                else:
                    log.error("mapping database %s lost (%s): the last flows stay", session.remote, session.error)
            self._choose_hosts()
            self._replica.session.block(_STEP_MS)

    def _choose_hosts(self) -> None:
        """Follow in the database what the connected hosts need."""
        now = time.monotonic()
        for datapath in self._switches:
            if host := self._replica.linked.host_of(datapath):
                self._followed[host.uuid] = now
        self._followed = {uuid: seen for uuid, seen in self._followed.items() if now - seen < LINGER}
        self._replica.follow(self._followed.keys())

    def _database_changed(self) -> None:
        touched = self._replica.take_touched()
        bad = self._replica.linked.bad
        for uuid in touched.bad & bad.keys():
            row = bad[uuid]
            about = {"table": row.table, "row": row.name, row.table.lower(): row.name}
            log.error("mapping database: %s", row, extra=about)
        if touched.hosts:
            self._choose_hosts()
        for datapath, switch in list(self._switches.items()):
            if datapath in self._reconcilers:
                self._reconcilers[datapath].wake(touched)
            else:
                self._serve(switch)

    def _serve(self, switch: Switch) -> None:
        host = self._replica.linked.host_of(switch.id)
        if host is not None and not self._replica.ready(host.uuid):
            return  # what it needs is on its way, and nothing is swept before it is here
        if host is not None:
            bridge = next(bridge for bridge, datapath in datapaths(host).items() if datapath == switch.id)
            reconciler = Reconciler(switch, f"{host.name} {bridge}", bridge, self._replica)
            log.info("%s: serving datapath %016x", reconciler.name, switch.id, extra=reconciler.about)
            self._reconcilers[switch.id] = reconciler
            hub.spawn(reconciler.run, self._applied)
        elif switch.id not in self._refused:
            self._refused.add(switch.id)
            log.error(
                "datapath %016x at %s refused: no Host row names it. If it is one of yours, `lockgate host add` it",
                switch.id,
                switch.datapath.address,
            )

    def _applied(self, reconciler: Reconciler) -> None:
        if reconciler.host is None:
            text = "%s: no Host row names it any more: its flows are removed"
            log.error(text, reconciler.name, extra=reconciler.about)
            reconciler.stop()
            del self._reconcilers[reconciler.switch.id]
            self._serve(reconciler.switch)  # a row may name it again by now
        elif reconciler.bridge == BR_NIC:
            # Before it is reported, so that whoever waits for the report finds the way known.
            self._prober.applied(reconciler)
        if reconciler.took is not None:
            self.metrics.changed(reconciler.took)
        self._reporter.wake()

    def _leave(self, switch: Switch) -> None:
        switch.gone()
        del self._switches[switch.id]
        reconciler = self._reconcilers.pop(switch.id, None)
        if reconciler is not None:
            text = "%s: datapath %016x disconnected; its flows stay"
            log.warning(text, reconciler.name, switch.id, extra=reconciler.about)
            reconciler.stop()
            self._reporter.wake()
