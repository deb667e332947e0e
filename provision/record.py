"""What the database says of a host's provisioning: one row of `Provision`, which one run of the tool holds at a time.

A run holds a row while it writes `owner` and, now and then, `heard`. One that was killed leaves both as they were: the
next takes over at once if the process is gone from this machine, and from another machine after `LEASE` seconds.
"""

from __future__ import annotations

import enum
import getpass
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mapping import rows
from mapping.errors import MappingError
from mapping.model import RowId
from mapping.plan import Operation
from mapping.rows import Row
from mapping.writer import ConflictError, Writer

LEASE: Final = 90.0
"""Seconds after which a run that has said nothing is taken for dead. A BMC may take 60 to answer."""

_UNUSED: Final = {"state": "available", "step": "done"}

Columns = dict[str, Any]

COLUMNS: Final = rows.STATUS_COLUMNS["Provision"]


class TakenOverError(MappingError):
    """Another run has the row now: this one must touch nothing more of the host."""


class State(enum.StrEnum):
    """Where a host is between two tenants."""

    AVAILABLE = "available"
    CLOSING = "closing"
    DEPLOYING = "deploying"
    ACTIVE = "active"
    RELEASING = "releasing"
    FAILED = "failed"


class Step(enum.StrEnum):
    """What is being done, in the order in which it is; written down before it is begun."""

    POWER_OFF = "power-off"
    BIND = "bind"
    CHECK = "check"
    BOOT_DEVICE = "boot-device"
    POWER_ON = "power-on"
    GUEST = "guest"
    UNBIND = "unbind"
    CONFIRM = "confirm"
    WIPE = "wipe"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Record:
    """One host's row."""

    host: str
    port: str
    """Empty while it is available."""
    device: str
    """The machine's on br-guest: also known while the port is bound nowhere."""
    state: State
    step: Step
    image: str
    problem: str
    owner: str
    heard: int
    power: str
    since: int


def me() -> str:
    """Who this run is: user, machine and process."""
    return f"{getpass.getuser()}@{socket.gethostname()}:{os.getpid()}"


class Ledger:
    """The rows of `Provision`, by host name."""

    def __init__(self, writer: Writer, clock: Callable[[], float] = time.time) -> None:
        self._writer = writer
        self._clock = clock

    def all(self) -> dict[str, Record]:
        """Every host's."""
        found, hosts, ports = self._select()
        return {hosts[_ref(row["host"])]: _record(row, hosts, ports) for row in found}

    def of(self, host: str) -> Record | None:
        """One host's; None: it has never been provisioned."""
        return self.all().get(host)

    def of_port(self, port: str) -> Record | None:
        """That of the host that a port is on, or on the way to."""
        return next((record for record in self.all().values() if record.port == port), None)

    def begin(self, host: str, claim: Callable[[Record | None], Columns]) -> Record:
        """Take a host's row, if `claim` does not raise, and write what it returns into it.

        Raises:
            MappingError: what `claim` raises; there is no such host or port; another run has the row; or another
                host has the port.
        """
        for _ in range(10):
            found, hosts, ports = self._select()
            row = next((row for row in found if hosts[_ref(row["host"])] == host), None)
            record = _record(row, hosts, ports) if row else None
            columns = claim(record)
            for other in (_record(row, hosts, ports) for row in found):
                port = other.port
                if other.host != host and port and port == columns.get("port"):
                    raise MappingError(
                        f"port {port} is {other.state} on host {other.host}: `lockgate release {port}` first"
                    )
            if record:
                self._refuse_held(record)
            try:
                return self._take(host, row, columns)
            except ConflictError:
                continue
        raise MappingError(f"host {host}: others keep changing its provisioning: try again")

    def write(self, record: Record, **columns: object) -> Record:
        """Write columns of a row that this run holds; without any, say that it still does.

        Raises:
            TakenOverError: another run has taken it.
        """
        found, hosts, _ = self._select()
        row = next(row for row in found if hosts[_ref(row["host"])] == record.host)
        try:
            return self._take(record.host, {**row, "owner": record.owner}, columns)
        except ConflictError:
            raise TakenOverError(
                f"host {record.host}: another run of the tool has taken over: leave it to that one"
            ) from None

    def condemn(self, host: str, problem: str) -> None:
        """Say of a host that is a tenant's that it is so no more. A run that holds the row loses it."""
        active = [["host", "==", self._host(host)], ["state", "==", State.ACTIVE]]
        row = {"state": State.FAILED, "problem": problem, "owner": ""}
        self._writer.record([{"op": "update", "table": "Provision", "where": active, "row": row}])

    def held(self, record: Record) -> Operation:
        """What makes a transaction fail unless this run still has the row."""
        return _unless([["host", "==", self._host(record.host)]], {"owner": me()})

    def _refuse_held(self, record: Record) -> None:
        if not record.owner or record.owner == me() or _is_dead(record.owner):
            return
        left = record.heard + LEASE - self._clock()
        if left > 0:
            raise MappingError(
                f"host {record.host} is being worked on by {record.owner} ({record.step}): wait for it, or, if it is "
                f"dead, {left:.0f} s until it counts as such"
            )

    def _take(self, host: str, before: Row | None, columns: Columns) -> Record:
        uuid = self._host(host)
        here, row = [["host", "==", uuid]], {"owner": me(), "heard": int(self._clock()), **columns}
        operations: list[Operation] = []
        if name := row.get("port"):
            row["port"] = self._port(name)
            operations.append(_unless([["port", "==", row["port"]], ["host", "!=", uuid]]))
        elif "port" in row:
            row["port"] = ["set", []]
        if before:
            mine = before["owner"] == me()
            unchanged = {column: before[column] for column in ("state", "owner", *(() if mine else ("heard",)))}
            operations.append(_unless(here, unchanged))
            operations.append({"op": "update", "table": "Provision", "where": here, "row": row})
        else:
            operations.append(_unless(here))
            operations.append({"op": "insert", "table": "Provision", "row": {"host": uuid, **_UNUSED, **row}})
        self._writer.record(operations)
        found, hosts, ports = self._select()
        return next(_record(row, hosts, ports) for row in found if hosts[_ref(row["host"])] == host)

    def _host(self, name: str) -> Any:  # noqa: ANN401 - a reference, as RFC 7047 writes it
        found = self._writer.record([{"op": "select", "table": "Host", "where": [["name", "==", name]]}])[0]["rows"]
        if not found:
            raise MappingError(f"there is no host {name!r}: look with `lockgate host list`")
        return found[0]["_uuid"]

    def _port(self, name: str) -> Any:  # noqa: ANN401 - likewise
        found = self._writer.record([{"op": "select", "table": "Port", "where": [["name", "==", name]]}])[0]["rows"]
        if not found:
            raise MappingError(f"there is no port {name!r}: look with `lockgate port list`")
        return found[0]["_uuid"]

    def _select(self) -> tuple[list[Row], dict[RowId, str], dict[RowId, str]]:
        selects = [
            {"op": "select", "table": "Provision", "where": [], "columns": list(COLUMNS)},
            {"op": "select", "table": "Host", "where": [], "columns": ["_uuid", "name"]},
            {"op": "select", "table": "Port", "where": [], "columns": ["_uuid", "name"]},
        ]
        found, hosts, ports = (result["rows"] for result in self._writer.record(selects))
        names = ({row["_uuid"][1]: row["name"] for row in table} for table in (hosts, ports))
        return found, *names


def _unless(where: list[Any], *rows_there: Row) -> Operation:
    """What makes a transaction fail unless `where` finds rows with these columns; if none are given, no row."""
    columns = list(rows_there[0]) if rows_there else ["state"]
    how = {"timeout": 0, "columns": columns, "until": "==", "rows": list(rows_there)}
    return {"op": "wait", "table": "Provision", "where": where, **how}


def _ref(value: Any) -> RowId:  # noqa: ANN401
    return next(iter(rows.uuids(value)), "")


def _record(row: Row, hosts: dict[RowId, str], ports: dict[RowId, str]) -> Record:
    return Record(
        hosts[_ref(row["host"])],
        ports.get(_ref(row["port"]), ""),
        row["device"],
        State(row["state"]),
        Step(row["step"]),
        row["image"],
        row["problem"],
        row["owner"],
        row["heard"],
        row["power"],
        row["since"],
    )


def _is_dead(owner: str) -> bool:
    """Whether it was a process of this machine that is no more."""
    place, _, pid = owner.rpartition(":")
    if place.partition("@")[2] != socket.gethostname() or not pid.isdigit():
        return False
    return not Path(f"/proc/{pid}").exists()
