"""Writes into the mapping database how far each served host is: `applied_seq`, bridges connected, what was counted.

A report says only what a switch has confirmed. One that does not get through is not repeated as it was: the next one,
made from the state of its own moment, takes its place. Reports do not count as configuration: no `config_seq` moves.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from ryu.lib import hub

from controller.counters import Bridges, Counters, HostCounters
from flows.pipeline import BR_GUEST, BR_NIC
from mapping import schema
from mapping.model import RowId
from mapping.rows import PORT_COUNTERS
from mapping.session import Session

log = logging.getLogger(__name__)

READ_INTERVAL: Final = 2.0
"""Seconds between two readings of the switches' counters."""
HEARD_INTERVAL: Final = 10.0
"""Seconds after which a host is reported although nothing about it has changed, so that a dead controller shows. The
counters of its ports, which change all the time, go along with these reports alone."""

_LONGEST: Final = 1023
"""Characters that the database takes of one value."""
_TICK_MS: Final = 100
_GATHER: Final = 0.01
"""Seconds for which what happens goes into one report: the two bridges of a host, and many hosts, confirm together."""

_ROLES: Final = {"guest": BR_GUEST, "nic": BR_NIC}

Report = dict[str, Any]


class Reporter:
    """`run` is its greenlet; `wake` asks it to report soon."""

    def __init__(self, remotes: Sequence[str], hosts: Callable[[], dict[RowId, Bridges]], counters: Counters) -> None:
        self._session = Session(remotes)
        self._hosts = hosts
        self._counters = counters
        self._reported: dict[RowId, tuple[float, Report]] = {}
        self._counted: dict[RowId, float] = {}
        """Host -> when the counters of its ports were last reported."""
        self._read = 0.0
        self._reading: set[RowId] = set()
        """Hosts whose switches have been asked for their counters, and have not said all."""
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
                for error in _errors(message):
                    log.error("report refused by the mapping database: %s", error)
            if self._session.generation != self._generation:
                self._generation = self._session.generation
                self._reported.clear()
            now = time.monotonic()
            if now - self._read >= READ_INTERVAL:
                self._read = now
                self._read_counters()
            self._report_if_woken()
            self._session.block(_TICK_MS)

    def _read_counters(self) -> None:
        """Ask every host apart: one that does not answer keeps no other waiting, nor the reports."""
        hosts = self._hosts()
        self._counters.keep(hosts)
        for uuid in hosts.keys() - self._reading:
            self._reading.add(uuid)
            hub.spawn(self._read_host, uuid, hosts[uuid])

    def _read_host(self, uuid: RowId, bridges: Bridges) -> None:
        try:
            self._counters.read(uuid, bridges)
        finally:
            self._reading.discard(uuid)
            self._woken = True

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
            counters = self._counters.hosts.get(uuid, HostCounters(""))
            report = self._row(bridges, last, counters)
            if any(reconciler.settled_at > now for reconciler in bridges.values()):
                report["applied_seq"] = last.get("applied_seq", 0)
                self._woken = True
            if report == last and now - last_time < HEARD_INTERVAL:
                continue
            self._reported[uuid] = (now, report)
            if not bridges:
                self._counted.pop(uuid, None)
                del self._reported[uuid]  # said once: from here on it is another controller's to report
            status = {**report["status"], "heard": str(int(time.time()))}
            row = {
                "applied_seq": report["applied_seq"],
                "status": ["map", [list(pair) for pair in status.items()]],
                "drops": ["map", [list(pair) for pair in report["drops"].items()]],
            }
            if now - self._counted.get(uuid, -HEARD_INTERVAL) >= HEARD_INTERVAL:
                self._counted[uuid] = now
                rows = (pair for name, port in counters.ports.items() for pair in port.row(name))
                row[PORT_COUNTERS] = ["map", [list(pair) for pair in rows]]
            where = [["_uuid", "==", ["uuid", str(uuid)]]]
            operations.append({"op": "update", "table": "Host", "where": where, "row": row})
        if operations:
            self._sent = now
            self._session.request("transact", [schema.DATABASE, *operations])

    @staticmethod
    def _row(bridges: Bridges, last: Report, counters: HostCounters) -> Report:
        status = {role: "connected" if bridge in bridges else "absent" for role, bridge in _ROLES.items()}
        status["controller"] = socket.gethostname()
        problems = [f"{bridge}: {reconciler.problem}" for bridge, reconciler in bridges.items() if reconciler.problem]
        problems += [counters.unplugged] if counters.unplugged else []
        if problems:
            status["problem"] = "; ".join(problems)[:_LONGEST]
        # A host is as far as its slower bridge. With one absent, it is still as far as it was.
        applied = last.get("applied_seq", 0)
        if len(bridges) == len(_ROLES):
            applied = max(0, min(reconciler.applied_seq for reconciler in bridges.values()))
        return {"applied_seq": applied, "status": status, "drops": dict(counters.drops)}


def _errors(message: dict[str, Any]) -> list[Any]:
    """What a reply refuses: the whole request, or operations, as the rules of our role may."""
    results = message.get("result")
    refused = [result for result in results if isinstance(result, dict)] if isinstance(results, list) else []
    return [error for error in (message.get("error"), *(result.get("details") for result in refused)) if error]
