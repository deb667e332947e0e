"""Every datapath that is connected, the database that says what each should hold, and who must be told of what.

A datapath is served when a `Host` row names its id, and its certificate is that host's. Otherwise it is refused: it is
left connected, because Open vSwitch would take up to 8 s to come back when the row appears, but nothing is sent to it,
and it does not stand in the way of the one that it may pose as. Nothing is done to any before the first complete load
of the database: until then "it names no such host" cannot be told from "not read yet".
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from typing import Any, Final

from ryu.lib import hub
from ryu.ofproto import ofproto_v1_5 as ofp

from controller import answers, received
from controller.advertiser import Advertiser
from controller.counters import Counters, OwnPorts
from controller.metrics import BridgeState, Metrics, State
from controller.prober import Prober
from controller.punted import Punted
from controller.reconciler import Reconciler, datapaths
from controller.replies import Malformed, changed_by_others
from controller.reporter import Reporter
from controller.switch import Switch
from flows import filter_report
from flows.pipeline import BR_GUEST, BR_NIC, TABLES
from mapping.model import Host, RowId
from mapping.replica import Replica
from mapping.tls import Identity

log = logging.getLogger(__name__)

_Who = tuple[int, str | None]
"""A datapath's id, and the name in its certificate: what it says, and what it has proved."""

_STEP_MS: Final = 1000
"""Longest wait for news from the database at a time."""

LINGER: Final = 60.0
"""Seconds for which a host that has disconnected is still followed in the database: most come back."""


class Fleet:
    """The controller without Ryu's events: `connected`, `disconnected` and the like are told by the app.

    With the certificate of a host as `identity`, that host alone is served: the database would not take reports of
    another.
    """

    def __init__(self, remotes: Sequence[str], identity: Identity | None = None) -> None:
        if identity is None:
            log.warning(
                "no LOCKGATE_TLS: who connects proves nothing, and nothing is encrypted: for a lab on one machine"
            )
        self._role, _, name = identity.name.partition(" ") if identity else ("", "", "")
        self._only = name if self._role == "host" else None
        self._trust = identity.file("host") if identity else None
        self._trusted = self._trust_written()
        self._replica = Replica(remotes, hosts=(), breathe=self._breathe)
        self.counters = Counters(self._ports_on)
        self._out_of_reach: set[tuple[str, str]] = set()
        """What has been said of the database's servers since it was lost."""
        self._reporter = Reporter(remotes, self.hosts, self.counters)
        self._prober = Prober()
        self._switches: dict[Any, Switch] = {}
        """By Ryu's datapath, that is by connection."""
        self._reconcilers: dict[int, Reconciler] = {}
        self._advertiser = Advertiser(self._replica.linked, lambda: list(self._reconcilers.values()))
        self._refused: set[_Who] = set()
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
        for_ever = (self._follow, self._prober.run, self._advertiser.run, self._reporter.run)
        return [hub.spawn(_or_end, each) for each in for_ever]

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
        who = (switch.id, switch.certificate)
        same = (each for each in self._switches.values() if (each.id, each.certificate) == who)
        previous = next(same, None)
        if previous is not None:
            log.warning(
                "datapath %016x connected again from %s: the older connection is closed", switch.id, datapath.address
            )
            self._leave(previous)
            previous.close()
        self._switches[datapath] = switch
        self._connections[switch.id] += 1
        self._refused.discard(who)
        if self._replica.in_sync:
            self._choose_hosts()
            self._serve(switch)

    def disconnected(self, datapath: Any) -> None:
        """A switch's connection has ended."""
        if switch := self._switches.get(datapath):
            self._leave(switch)

    def ports_changed(self, datapath: Any) -> None:
        """A port came, went or was renumbered."""
        if switch := self._switches.get(datapath):
            switch.ports_changed()
        if reconciler := self._reconciler(datapath):
            reconciler.wake()

    def flows_changed(self, datapath: Any, message: Any) -> None:
        """The flow monitor of a switch says that flows have changed."""
        if reconciler := self._reconciler(datapath):
            try:
                cookies = changed_by_others(message)
            except Malformed as error:
                received.close(datapath, error)
                return
            if cookies:
                reconciler.distrust(cookies)

    def answered(self, datapath: Any, message: Any) -> None:
        """A switch has answered something."""
        if switch := self._switches.get(datapath):
            try:
                switch.take(message)
            except Malformed as error:
                received.close(datapath, error)

    def punted(self, datapath: Any, message: Any) -> None:
        """A flow has sent a packet here, or a host's own program."""
        reconciler, ofport = self._reconciler(datapath), message.match.get("in_port")
        port = reconciler.port_at(ofport) if reconciler and ofport is not None else None
        if message.reason == ofp.OFPR_PACKET_OUT:  # the host's own: nobody else has sent it
            if reconciler and reconciler.host and (counted := filter_report.read(reconciler.bridge, message.data)):
                self.counters.filtered(reconciler.host, port, counted)
        elif reconciler and port:
            linked = self._replica.linked
            named = (name for name, each in TABLES[BR_GUEST].items() if each.number == message.table_id)
            table = next(named, str(message.table_id))
            answers.take(reconciler.switch, ofport, table, Punted(message.data, port, linked.vpcs[port.vpc], linked))

    def _state(self) -> State:
        replica, linked, now = self._replica, self._replica.linked, time.monotonic()
        applied: defaultdict[str, list[int]] = defaultdict(list)
        for each in self._reconcilers.values():
            if each.host:
                applied[each.host.name].append(max(0, each.applied_seq))
        connected = {each.id for each in self._switches.values() if self._host_of(each)}
        served = {(each.switch.id, each.switch.certificate) for each in self._reconcilers.values()}
        refused = self._refused & {(each.id, each.certificate) for each in self._switches.values()} - served
        bridges = [
            BridgeState(
                *(host.name, role, datapath in connected),
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
            {table: len(linked.parsed(table)) for table in ("Host", "Vpc", "SecurityGroup", "Port", "Mapping")},
            len(linked.bad),
            len(refused),
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
            session = self._replica.session
            why = (session.remote, session.error)
            if not self._replica.current and session.unreachable and session.error and why not in self._out_of_reach:
                # As from the beginning, or because our certificate is refused; once for each place and reason.
                self._out_of_reach.add(why)
                log.error("mapping database %s cannot be reached (%s): it is tried again every second", *why)
            if self._replica.current != self._was_current:
                self._was_current = self._replica.current
                self._out_of_reach.clear()
                if self._was_current:
                    log.info("mapping database %s: in sync, config_seq %d", session.remote, self._replica.config_seq)
                else:
                    log.error("mapping database %s lost (%s): the last flows stay", session.remote, session.error)
            self._choose_hosts()
            self._look_at_trust()
            self._replica.session.block(_STEP_MS)

    def _breathe(self) -> None:
        """Let others run while a large message is read: they are told first of what came before it.

        The rows and `config_seq` are what those made of them already, and whoever takes one of them in without what was
        touched would confirm what it has not done.
        """
        if self._replica.touched:
            self._database_changed()
        hub.sleep(0)

    def _trust_written(self) -> int:
        """When the file that says which hosts' certificates are good was written."""
        return self._trust.stat().st_mtime_ns if self._trust and self._trust.exists() else 0

    def _look_at_trust(self) -> None:
        """New trust files count for new connections: whoever is connected has to prove itself again."""
        if (written := self._trust_written()) != self._trusted:
            self._trusted = written
            log.warning("%s is new: switches connect again, and keep their flows", self._trust)
            for switch in list(self._switches.values()):
                if switch.certificate is not None:
                    switch.close()

    def _choose_hosts(self) -> None:
        """Follow in the database what the connected hosts need."""
        now = time.monotonic()
        for switch in self._switches.values():
            if host := self._host_of(switch):
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
        for switch in list(self._switches.values()):
            reconciler = self._reconciler(switch.datapath)
            host = self._replica.linked.host_of(switch.id)
            if reconciler and (host is None or not self._why_not(switch, host)):
                reconciler.wake(touched)
                continue
            if reconciler:  # the row that named it is another host's now
                reconciler.stop()
                del self._reconcilers[switch.id]
            self._serve(switch)

    def _host_of(self, switch: Switch) -> Host | None:
        """The host whose datapath this is, if it may be served as such."""
        host = self._replica.linked.host_of(switch.id)
        return host if host is not None and not self._why_not(switch, host) else None

    def _why_not(self, switch: Switch, host: Host | None) -> str:
        """Why a datapath is refused that says that it is this host's; empty if it is not."""
        if host is None:
            return "no Host row names it. If it is one of yours, `lockgate host add` it"
        if switch.certificate is None and self._role and not (self._only and _is_local(switch.datapath.address)):
            mend = (
                "have it connect to tcp:127.0.0.1:6653, on this machine"
                if self._only
                else "start ryu-manager with --ofp-ssl-listen-port, --ctl-privkey, --ctl-cert and --ca-certs, and have "
                "it connect to ssl:"
            )
            return f"it says that it is {host.name}'s, and shows no certificate. If it is, {mend}"
        if switch.certificate not in (None, host.name):
            return (
                f"it is {host.name}'s, and the certificate is of {switch.certificate or 'nobody'}. If it is one of "
                f"yours, `lockgate pki issue host {host.name}` for it"
            )
        if self._only not in (None, host.name):
            return f"it is {host.name}'s, and the certificate here lets this controller serve {self._only} alone"
        return ""

    def _serve(self, switch: Switch) -> None:
        host = self._host_of(switch)
        if host is not None and not self._replica.ready(host.uuid):
            return  # what it needs is on its way, and nothing is swept before it is here
        if host is not None:
            bridge = next(bridge for bridge, datapath in datapaths(host).items() if datapath == switch.id)
            reconciler = Reconciler(switch, f"{host.name} {bridge}", bridge, self._replica)
            log.info("%s: serving datapath %016x", reconciler.name, switch.id, extra=reconciler.about)
            self._reconcilers[switch.id] = reconciler
            hub.spawn(reconciler.run, self._applied)
        elif (who := (switch.id, switch.certificate)) not in self._refused:
            self._refused.add(who)
            why = self._why_not(switch, self._replica.linked.host_of(switch.id))
            log.error("datapath %016x at %s refused: %s", switch.id, switch.datapath.address, why)

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
        reconciler = self._reconciler(switch.datapath)
        del self._switches[switch.datapath]
        # What is kept of who has gone is bounded by the rows there are, not by what is claimed.
        self._refused.discard((switch.id, switch.certificate))
        if self._replica.in_sync and self._replica.linked.host_of(switch.id) is None:
            del self._connections[switch.id]
        if reconciler is not None:
            del self._reconcilers[switch.id]
            text = "%s: datapath %016x disconnected; its flows stay"
            log.warning(text, reconciler.name, switch.id, extra=reconciler.about)
            reconciler.stop()
            self._reporter.wake()


def _is_local(address: Any) -> bool:
    """Whether a connection from there is from this machine: its address, as a socket has it."""
    if not isinstance(address, tuple):
        return True  # a unix socket
    ip = ip_address(address[0])
    return ip.is_loopback or (ip.version == 6 and bool(ip.ipv4_mapped and ip.ipv4_mapped.is_loopback))


def _or_end(run: Callable[[], None]) -> None:
    """Run one of what all hosts depend on. If it ends, so does the process, for its manager to start it again.

    Otherwise the rest would go on, and report hosts that nothing is done for any more. Switches keep their flows.
    """
    try:
        run()
    except Exception:
        log.critical("a fault of the controller's own: it ends, to be started again; flows stay", exc_info=True)
        os._exit(1)  # Ryu takes SystemExit, as any exception, for the end of a greenlet alone
