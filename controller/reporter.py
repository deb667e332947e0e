"""Writes into the mapping database how far each served host is: `applied_seq`, which bridges are connected, drops.

A report says only what a switch has confirmed. One that does not get through is not repeated as it was: the next one,
made from the state of its own moment, takes its place. Reports do not count as configuration: no `config_seq` moves.
"""

from __future__ import annotations

import logging
import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final

from ryu.lib import hub

from controller.reconciler import Reconciler
from controller.switch import SwitchError
from flows.pipeline import BR_GUEST, BR_NIC
from mapping import schema
from mapping.model import RowId
from mapping.session import Session

log = logging.getLogger(__name__)

DROPS_INTERVAL: Final = 2.0
"""Seconds between two readings of the drop counters."""
HEARD_INTERVAL: Final = 10.0
"""Seconds after which a host is reported although nothing about it has changed, so that a dead controller shows."""

_TICK_MS: Final = 100
_GATHER: Final = 0.01
"""Seconds for which what happens goes into one report: the two bridges of a host, and many hosts, confirm together."""

_ROLES: Final = {"guest": BR_GUEST, "nic": BR_NIC}

Report = dict[str, Any]


class Reporter:
    """`run` is its greenlet; `wake` asks it to report soon."""

    def __init__(self, remotes: Sequence[str], hosts: Callable[[], dict[RowId, dict[str, Reconciler]]]) -> None:
        self._session = Session(remotes)
        self._hosts = hosts
        self._reported: dict[RowId, tuple[float, Report]] = {}
        self._drops: dict[RowId, dict[str, int]] = {}
        self._drops_read = 0.0
        self._sent = 0.0
        self._generation = 0
        self._woken = True

    def wake(self) -> None:
        """Something worth a report has happened."""
        if not self._woken:
            self._woken = True
            if time.monotonic() - self._sent > _TICK_MS / 1000:  # else the next tick is soon enough
                hub.spawn_after(_GATHER, self._report_if_woken)

    def run(self) -> None:
        """Report for ever."""
        while True:
            for message in self._session.run():
                if message.get("error"):
                    log.error("report refused by the mapping database: %s", message["error"])
            if self._session.generation != self._generation:
                self._generation = self._session.generation
                self._reported.clear()
            now = time.monotonic()
            if now - self._drops_read >= DROPS_INTERVAL:
                self._read_drops()
                self._drops_read, self._woken = now, True
            self._report_if_woken()
            self._session.block(_TICK_MS)

    def _report_if_woken(self) -> None:
        if self._woken and self._session.connected:
            self._woken = False
            self._report(time.monotonic())

    def _report(self, now: float) -> None:
        operations = []
        hosts = self._hosts()
        for uuid in self._reported.keys() | hosts.keys():
            bridges = hosts.get(uuid, {})
            last_time, last = self._reported.get(uuid, (0.0, {}))
            report = self._row(bridges, last, self._drops.get(uuid, {}))
            if any(reconciler.settled_at > now for reconciler in bridges.values()):
                report["applied_seq"] = last.get("applied_seq", 0)
                self._woken = True
            if report == last and now - last_time < HEARD_INTERVAL:
                continue
            self._reported[uuid] = (now, report)
            if not bridges:
                del self._reported[uuid]  # said once: from here on it is another controller's to report
            status = {**report["status"], "heard": str(int(time.time()))}
            row = {
                "applied_seq": report["applied_seq"],
                "status": ["map", [list(pair) for pair in status.items()]],
                "drops": ["map", [list(pair) for pair in report["drops"].items()]],
            }
            where = [["_uuid", "==", ["uuid", str(uuid)]]]
            operations.append({"op": "update", "table": "Host", "where": where, "row": row})
        if operations:
            self._sent = now
            self._session.request("transact", [schema.DATABASE, *operations])

    @staticmethod
    def _row(bridges: dict[str, Reconciler], last: Report, drops: dict[str, int]) -> Report:
        status = {role: "connected" if bridge in bridges else "absent" for role, bridge in _ROLES.items()}
        status["controller"] = socket.gethostname()
        problems = [f"{bridge}: {reconciler.problem}" for bridge, reconciler in bridges.items() if reconciler.problem]
        if problems:
            status["problem"] = "; ".join(problems)
        # A host is as far as its slower bridge. With one absent, it is still as far as it was.
        applied = last.get("applied_seq", 0)
        if len(bridges) == len(_ROLES):
            applied = max(0, min(reconciler.applied_seq for reconciler in bridges.values()))
        return {"applied_seq": applied, "status": status, "drops": drops}

    def _read_drops(self) -> None:
        hosts = self._hosts()
        self._drops = {uuid: drops for uuid, drops in self._drops.items() if uuid in hosts}
        for uuid, bridges in hosts.items():
            drops: Counter[str] = Counter()
            try:
                for reconciler in bridges.values():
                    drops.update({reason.label: packets for reason, packets in reconciler.drops().items()})
            except SwitchError:
                continue  # the reconciler meets the same and says so
            self._drops[uuid] = {label: packets for label, packets in drops.items() if packets}
