"""Makes what one bridge has installed equal to what is desired of it, whenever either changes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Final, NamedTuple

from ryu.lib import hub

from controller.switch import Switch, SwitchError, Ticket
from flows.change import Change
from flows.incremental import BridgeFlows
from flows.meter import Meters
from flows.pipeline import BR_GUEST, BR_NIC
from mapping.linked import Touched
from mapping.model import Host, Port
from mapping.replica import Replica

log = logging.getLogger(__name__)

AUDIT_INTERVAL: Final = 30.0
"""Seconds after which the switch's cookies are read back although nothing was reported, at least."""

AUDIT_SHARE: Final = 0.01
"""Of the time, how much reading back may take: the switch does nothing else meanwhile."""

PACE: Final = 0.005
"""Seconds that the switch should take over one bundle while others wait their turn. It loads flows five times as fast
as it replaces them, so how many that are is found out as it goes."""
SLICES: Final = (50, 400)
"""Addresses in such a bundle, at least and at most."""

RETRY_INTERVAL: Final = 1.0
"""Seconds before a switch that refused or did not answer is tried again."""

SAY_INTERVAL: Final = 1.0
"""Seconds of which the log says in one line how many flows were changed: there may be hundreds of changes in one."""

FAULT_INTERVAL: Final = 5.0
"""The same after a fault of our own, when all is made from nothing."""


def datapaths(host: Host) -> dict[str, int]:
    """The datapath ids of a host's bridges, by role."""
    return {BR_GUEST: host.guest_datapath, BR_NIC: host.nic_datapath}


class _State(NamedTuple):
    """How far a bridge is."""

    applied_seq: int
    host: Host | None
    peers: tuple[Host, ...]


class Reconciler:
    """One bridge of one host. `run` is its greenlet; `wake` and `distrust` tell it that something has changed.

    When no row names its datapath any more, the bridge is to hold no flow of ours: nothing passes.
    """

    def __init__(self, switch: Switch, name: str, bridge: str, replica: Replica) -> None:
        self.switch = switch
        self.name = name
        self.bridge = bridge
        self.host: Host | None = None
        """Whose bridge it is, by the confirmed flows."""
        self.peers: tuple[Host, ...] = ()
        """The hosts that the confirmed flows let it exchange tunnel packets with."""
        self.applied_seq = -1
        """The newest `config_seq` whose flows the switch has confirmed; -1 before the first."""
        self.settled_at = 0.0
        """When what is confirmed may be reported, on the monotonic clock."""
        self.problem = ""
        """Why the switch does not hold what it should, in words; empty when it does."""
        self.took: float | None = None
        """Seconds from the first news of what was confirmed last until then; None if there is more to confirm."""
        self.mended = 0
        """Flows that others had changed, and that were put back."""
        self.running = True
        self._replica = replica
        self._flows: BridgeFlows | None = None
        self._touched = Touched()
        self._news = self._since = 0.0
        """When the first of what is touched came, and of what is not confirmed, on the monotonic clock; 0: none."""
        self._trusted = False
        self._read_seconds = 0.0
        self._meters: Meters = {}
        """Those that the switch has."""
        self._stale_meters = False
        """Whether there are such as it should not have."""
        self._suspects: set[int] = set()
        self._ticket: Ticket | None = None
        """Of what was sent last, until it is confirmed."""
        self._added = self._deleted = 0
        """Flows sent since the log last said so."""
        self._said = -SAY_INTERVAL
        """When it did, on the monotonic clock."""
        self._sent = self._answered = 0.0
        """When that was sent, and when the one before it was confirmed, on the monotonic clock."""
        self._next: _State | None = None
        """What is so when it is."""
        self._changed = hub.Event()

    def wake(self, touched: Touched | None = None) -> None:
        """Rows of the database, or the bridge's ports, have changed."""
        if touched:
            self._touched.add(touched)
            self._news = self._news or time.monotonic()
        self._changed.set()

    def distrust(self, cookies: Collection[int]) -> None:
        """Flows with these cookies were added, changed or deleted by someone else.

        What has such a cookie may not be the flow that the cookie was made for: it is deleted, and ours put in place.
        """
        self._suspects.update(cookies)
        self._trusted = False
        self._changed.set()

    def stop(self) -> None:
        """The connection has ended, or the bridge is no more ours."""
        self.running = False
        self._changed.set()

    def run(self, on_applied: Callable[[Reconciler], None]) -> None:
        """Reconcile until stopped; `on_applied` is called each time that the switch has confirmed."""
        self.switch.watch()
        while self.running:
            try:
                if self._reconcile():
                    on_applied(self)
            except SwitchError as error:
                if self.running:
                    text = "%s: %s; reading back and trying again"
                    log.error(text, self.name, error, extra=self.about)  # noqa: TRY400 - it says all
                    self.problem = str(error)
                    self._trusted, self._ticket, self._next = False, None, None
                    hub.sleep(RETRY_INTERVAL)
                continue
            except Exception as error:
                if self.running:
                    log.exception("%s: a fault of the controller's own; all is made anew", self.name, extra=self.about)
                    self.problem = f"a fault of the controller's own, see its log: {error!r}"
                    self._flows, self._trusted, self._ticket, self._next = None, False, None, None
                    hub.sleep(FAULT_INTERVAL)
                continue
            if self._flows and self._flows.busy:
                hub.sleep(0)
                continue
            audit = max(AUDIT_INTERVAL, self._read_seconds / AUDIT_SHARE)
            if not self._changed.wait(timeout=SAY_INTERVAL if self._unsaid else audit):
                self._trusted = self._trusted and bool(self._unsaid)  # it was no audit that was waited for
                self._say()
            self._changed.clear()

    def port_at(self, ofport: int) -> Port | None:
        """The port that the flows take this OpenFlow port of br-guest for; None: for nobody's."""
        return self._flows.port_at(ofport) if self._flows and self.bridge == BR_GUEST else None

    @property
    def about(self) -> dict[str, str]:
        """What its log lines are about."""
        host, _, bridge = self.name.partition(" ")
        return {"host": host, "bridge": bridge, "datapath": f"{self.switch.id:016x}"}

    @property
    def flows(self) -> int:
        """How many flows the bridge should hold."""
        return self._flows.count if self._flows else 0

    @property
    def waiting(self) -> int:
        """Addresses whose flows are still to be made."""
        return self._flows.waiting if self._flows else 0

    def _reconcile(self) -> bool:
        """One step: while the flows are busy, there is more to do. Returns whether it could be made."""
        installed = self._read_back()
        # Until something is sent nothing else runs: the rows are those of one moment.
        config_seq = self._replica.config_seq
        host = self._owner()
        if host and not self._replica.ready(host.uuid):
            self._flows, self._trusted = None, False
            return False
        touched, self._touched = self._touched, Touched()
        self._since, self._news = self._since or self._news, 0.0
        # What is missing when the database has not moved is somebody else's doing.
        unasked = installed is not None and not touched and self.applied_seq == config_seq
        if unasked:
            self._say()
        sent = 0
        for change in self._changes(host, touched, installed, config_seq):
            self._add_meters(read_back=installed is not None)
            if change:
                self._send(change)
                sent += 1
                self._added += len(change.add)
                self._deleted += len(change.delete)
        if self._flows:
            config_seq = self.applied_seq if self._flows.incomplete else self._flows.applied(config_seq)
        state: _State | None = _State(config_seq, host, self._flows.peers if self._flows else ())
        if self._flows and self._flows.busy and sent:
            # What was sent last is confirmed after what is sent next; what was sent before it is confirmed.
            state, self._next = self._next, state
        else:
            self._confirm()
            self._next = None
            self._delete_meters()
        self._note_sent(unasked=unasked)
        self.problem = ""
        self.took = None
        if self._since and not self.waiting:
            self.took, self._since = time.monotonic() - self._since, 0.0
        if state:
            self.applied_seq, self.host = state.applied_seq, state.host
            if state.peers is not self.peers and state.peers != self.peers:
                self.peers = state.peers
        return state is not None

    @property
    def _unsaid(self) -> int:
        return self._added + self._deleted

    def _note_sent(self, *, unasked: bool) -> None:
        if unasked:
            self.mended += self._unsaid
            self._say(logging.WARNING, "its flows were changed behind our back; mended: ")
        elif time.monotonic() - self._said >= SAY_INTERVAL and not (self._flows and self._flows.busy):
            self._say()

    def _say(self, level: int = logging.INFO, what: str = "") -> None:
        """Log how many flows were sent since this was done last, if any were."""
        if self._unsaid:
            numbers = (self._added, self._deleted)
            log.log(level, "%s: %s%d flows added, %d deleted", self.name, what, *numbers, extra=self.about)
            self._added, self._deleted, self._said = 0, 0, time.monotonic()

    def _add_meters(self, *, read_back: bool) -> None:
        """A meter is there before the flows that use it."""
        if self._flows and (read_back or self._flows.meters_changed):
            wanted = self._meters | self._flows.meters
            self._stale_meters = len(wanted) > len(self._flows.meters)
            if wanted != self._meters:
                self.switch.set_meters(self._meters, wanted)
                self._meters = wanted
            self._flows.meters_changed = False

    def _delete_meters(self) -> None:
        """A meter goes after the flows that used it: Open vSwitch deletes those with it."""
        if self._stale_meters or (self._meters and not self._flows):
            wanted = self._flows.meters if self._flows else {}
            self.switch.set_meters(self._meters, wanted)
            self._meters, self._stale_meters = wanted, False

    def _send(self, change: Change) -> None:
        """Send a change, and see that the one before it has been made: while the switch works, the next is prepared."""
        ticket, sent = self.switch.begin(change), time.monotonic()
        self._confirm()
        self._ticket, self._sent = ticket, sent

    def _confirm(self) -> None:
        ticket, self._ticket = self._ticket, None
        if ticket:
            answered = self.switch.finish(ticket)
            self._keep_pace(answered - max(self._sent, self._answered))
            self._answered = answered

    def _keep_pace(self, took: float) -> None:
        """Make bundles larger or smaller, by how long the switch took over one: from when it had it and none before."""
        if self._flows and self._flows.busy:
            fewest, most = SLICES
            by = min(2.0, max(0.5, PACE / took))
            self._flows.slice = min(most, max(fewest, round(self._flows.slice * by)))

    def _changes(
        self, host: Host | None, touched: Touched, installed: Sequence[int] | None, config_seq: int
    ) -> Iterator[Change]:
        """What to send to a switch that holds these cookies; None: those that were confirmed last."""
        flows, ofports = self._flows, self.switch.ofports
        if host is None:
            self._flows = None
            yield Change((), tuple(installed or ()))
            return
        if installed is None:
            if flows:
                yield flows.update(touched, ofports, config_seq)
            return
        suspects, self._suspects = self._suspects.intersection(installed), set()
        yield Change((), tuple(suspects))
        if flows is None or flows.host != host.uuid:
            flows = self._flows = BridgeFlows(self.bridge, host.uuid, self._replica.linked)
            if not installed:
                yield flows.update(touched, ofports, config_seq)
                return
        flows.update(touched, ofports, config_seq)
        while flows.busy:
            hub.sleep(0)
            touched, self._touched = self._touched, Touched()
            flows.update(touched, self.switch.ofports, config_seq)
        if suspects or not flows.matches(installed):
            yield from flows.mend(set(installed) - suspects)

    def _owner(self) -> Host | None:
        """The host that has this datapath as this bridge, by the database now."""
        host = self._replica.linked.host_of(self.switch.id)
        return host if host and datapaths(host)[self.bridge] == self.switch.id else None

    def _read_back(self) -> Sequence[int] | None:
        """The cookies that the switch holds; None when they are known: what was confirmed, and changed by nobody."""
        host = self._owner()
        if self._trusted and self._flows and host and self._flows.host == host.uuid:
            return None
        # Before the question, so that news which come while it is answered are not lost.
        self._trusted = True
        begin = time.monotonic()
        cookies = self.switch.cookies()
        self._meters = self.switch.meters()
        self._read_seconds = time.monotonic() - begin
        return cookies
