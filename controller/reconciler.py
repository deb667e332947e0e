"""Makes what one bridge has installed equal to what is desired of it, whenever either changes."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection, Iterator
from typing import Final

from ryu.lib import hub

from controller.switch import Switch, SwitchError
from flows.change import Change
from flows.desired import drop_cookies
from flows.incremental import BridgeFlows
from flows.pipeline import BR_GUEST, BR_NIC, TABLES, Reason
from mapping.linked import Touched
from mapping.model import Host
from mapping.replica import Replica

log = logging.getLogger(__name__)

AUDIT_INTERVAL: Final = 30.0
"""Seconds after which the switch's cookies are read back although nothing was reported."""

RETRY_INTERVAL: Final = 1.0
"""Seconds before a switch that refused or did not answer is tried again."""


def datapaths(host: Host) -> dict[str, int]:
    """The datapath ids of a host's bridges, by role."""
    return {BR_GUEST: host.guest_datapath, BR_NIC: host.nic_datapath}


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
        self.running = True
        self._replica = replica
        self._flows: BridgeFlows | None = None
        self._touched = Touched()
        self._trusted = False
        self._suspects: set[int] = set()
        self._changed = hub.Event()

    def wake(self, touched: Touched | None = None) -> None:
        """Rows of the database, or the bridge's ports, have changed."""
        if touched:
            self._touched.add(touched)
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
                self._reconcile()
            except SwitchError as error:
                if self.running:
                    log.error("%s: %s; reading back and trying again", self.name, error)  # noqa: TRY400 - it says all
                    self.problem = str(error)
                    self._trusted = False
                    hub.sleep(RETRY_INTERVAL)
                continue
            on_applied(self)
            if not self._changed.wait(timeout=AUDIT_INTERVAL):
                self._trusted = False
            self._changed.clear()

    def drops(self) -> dict[Reason, int]:
        """Packets dropped so far, by reason, as the switch counts them.

        Raises:
            SwitchError: the switch did not answer.
        """
        packets = self.switch.packets(TABLES[self.bridge]["DROP"].number)
        return {reason: packets.get(cookie, 0) for reason, cookie in drop_cookies(self.bridge).items()}

    def _reconcile(self) -> None:
        installed = self._read_back()
        # Until something is sent nothing else runs: the rows are those of one moment.
        config_seq = self._replica.config_seq
        touched, self._touched = self._touched, Touched()
        host = self._owner()
        # What is missing when the database has not moved is somebody else's doing.
        unasked = installed is not None and not touched and self.applied_seq == config_seq
        for change in self._changes(host, touched, installed):
            if change:
                what = "its flows were changed behind our back; mending: " if unasked else ""
                log.log(logging.WARNING if unasked else logging.INFO, "%s: %s%s", self.name, what, change)
                self.switch.apply(change)
        peers = self._flows.peers if self._flows else ()
        self.applied_seq, self.host, self.problem = config_seq, host, ""
        if peers != self.peers:
            self.peers = peers

    def _changes(self, host: Host | None, touched: Touched, installed: set[int] | None) -> Iterator[Change]:
        """What to send to a switch that holds these cookies; None: those that were confirmed last."""
        flows, ofports, linked = self._flows, self.switch.ofports, self._replica.linked
        if host is None:
            self._flows = None
            yield Change((), tuple(installed or ()))
            return
        if installed is None:
            if flows:
                yield flows.update(touched, ofports)
            return
        suspects, self._suspects = self._suspects & installed, set()
        installed -= suspects
        yield Change((), tuple(suspects))
        if flows and flows.host == host.uuid:
            flows.update(touched, ofports)
            yield from flows.mend(installed)
            return
        # Not kept before it is whole: if the switch fails in between, it is begun anew.
        self._flows = None
        flows = BridgeFlows(self.bridge, host.uuid, linked)
        if installed:
            deque(flows.load(ofports), maxlen=0)
            self._flows = flows
            yield from flows.mend(installed)
        else:
            yield from flows.load(ofports)
            self._flows = flows

    def _owner(self) -> Host | None:
        """The host that has this datapath as this bridge, by the database now."""
        host = self._replica.linked.host_of(self.switch.id)
        return host if host and datapaths(host)[self.bridge] == self.switch.id else None

    def _read_back(self) -> set[int] | None:
        """The cookies that the switch holds; None when they are known: what was confirmed, and changed by nobody."""
        host = self._owner()
        if self._trusted and self._flows and host and self._flows.host == host.uuid:
            return None
        # Before the question, so that news which come while it is answered are not lost.
        self._trusted = True
        return self.switch.cookies()
