"""Makes what one bridge has installed equal to what is desired of it, whenever either changes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from ryu.lib import hub

from controller.switch import Switch, SwitchError
from flows.desired import Flows, desired, drop_cookies
from flows.diff import diff
from flows.pipeline import TABLES, Reason
from flows.view import HostView

log = logging.getLogger(__name__)

AUDIT_INTERVAL: Final = 30.0
"""Seconds after which the switch's cookies are read back although nothing was reported."""

RETRY_INTERVAL: Final = 1.0
"""Seconds before a switch that refused or did not answer is tried again."""


class Reconciler:
    """One bridge of one host. `run` is its greenlet; `wake` and `distrust` tell it that something has changed.

    `sought` returns the database's `config_seq` and what it says of the host; None when it names the host no more, and
    then the bridge is to hold no flow of ours: nothing passes.
    """

    def __init__(
        self, switch: Switch, name: str, bridge: str, sought: Callable[[], tuple[int, HostView | None]]
    ) -> None:
        self.switch = switch
        self.name = name
        self.bridge = bridge
        self.applied_seq = -1
        """The newest `config_seq` whose flows the switch has confirmed; -1 before the first."""
        self.settled_at = 0.0
        """When what is confirmed may be reported, on the monotonic clock."""
        self.view: HostView | None = None
        """What the confirmed flows were made from."""
        self.problem = ""
        """Why the switch does not hold what it should, in words; empty when it does."""
        self._sought = sought
        self._installed: set[int] = set()
        self._trusted = False
        self._changed = hub.Event()
        self.running = True

    def wake(self) -> None:
        """The database or the bridge's ports have changed."""
        self._changed.set()

    def distrust(self) -> None:
        """The flows may have been changed by someone else: read them back."""
        self._trusted = False
        self._changed.set()

    def stop(self) -> None:
        """The connection has ended."""
        self.running = False
        self._changed.set()

    def run(self, on_applied: Callable[[Reconciler], None]) -> None:
        """Reconcile until stopped; `on_applied` is called each time that the switch has confirmed."""
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
        config_seq, view = self._sought()
        want: Flows = desired(self.bridge, view, self.switch.ofports) if view else {}
        # What should be there and is not, when the database has not moved, is somebody else's doing.
        settled = not self._trusted and self.applied_seq == config_seq
        if not self._trusted:
            # Before the question, so that news which come while it is answered are not lost.
            self._trusted = True
            self._installed = self.switch.cookies()
        change = diff(want, self._installed)
        if change:
            if settled:
                log.warning("%s: its flows were changed behind our back; mending: %s", self.name, change)
            else:
                log.info("%s: %s", self.name, change)
            self.switch.apply(change)
            self._installed = set(want)
        self.applied_seq, self.view, self.problem = config_seq, view, ""
