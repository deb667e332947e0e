"""A copy of the mapping database in memory, kept current by `monitor_cond_since` (ovsdb-server(7), 4.1.15).

A tool follows everything. A controller follows every host, and of the rest what the hosts that it serves need: their
ports, and the VPCs of those. When a VPC's last port there leaves, so do its rows.

After a reconnect the server is asked for what came after the last transaction seen; where it does not remember that
(a standalone server never does), it sends everything, and only what differs counts as changed.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Collection, Sequence
from collections.abc import Mapping as MappingABC
from typing import Any, Final, NamedTuple

import ovs.timeval

from mapping import rows, schema
from mapping.linked import Linked, Touched
from mapping.model import BadRow, Port, RowId, Snapshot
from mapping.rows import READ_COLUMNS, Row
from mapping.schema import Json
from mapping.session import Message, Session
from mapping.working_set import WorkingSet

log = logging.getLogger(__name__)

_ROW_ID_LENGTH: Final = 36  # of a uuid in text, RFC 4122
_MONITOR_ID: Final = "lockgate"
_SERVER: Final = {
    "Database": [{"columns": ["connected"], "where": [["name", "==", schema.DATABASE]], "select": {"initial": True}}]
}
"""What is followed of the server itself (ovsdb-server(5)): whether it has the others of its cluster, or its relay's
source. One that has not goes on showing what it knew last."""
_BREATH: Final = 2000
"""Rows that are read without a pause."""
_NEVER: Final = "00000000-0000-0000-0000-000000000000"

_KEPT: Final = ("Global", "Host", "Vpc")
"""Tables whose rows are also kept as they were sent: updates of sets and maps tell what differs. Of the others, which
have many rows, `mapping.rows.raw` tells what was sent."""


class _Update(NamedTuple):
    """What a message says, read whole before anything of it is taken over; None stands for a row that is deleted."""

    rows: dict[str, dict[RowId, Row | None]]
    """Of the tables that are kept as sent."""
    values: dict[str, dict[RowId, Any]]
    """Of the others, and of these, as `parse_row` makes them."""


class Replica:
    """Follows the database. Call `run` whenever its session has something to do; read `snapshot` when it says so.

    With `hosts`, only what those need is followed, and `follow` changes which they are. `breathe` is called now and
    then while a large message is read: whoever shares a thread with this may do something else then, once it has taken
    what earlier messages have `touched`.
    """

    def __init__(
        self,
        remotes: Sequence[str],
        columns: MappingABC[str, Sequence[str]] = READ_COLUMNS,
        hosts: Collection[RowId] | None = None,
        breathe: Callable[[], None] = lambda: None,
    ) -> None:
        self.session = Session(remotes)
        self.in_sync = False
        """Whether the first full load is done. It stays so without a connection: the copy is then old, not partial."""
        self.tables: dict[str, dict[RowId, Row]] = {table: {} for table in columns if table in _KEPT}
        """The rows of some tables as RFC 7047 writes them."""
        self.refused = ""
        """Why the server does not let us follow it, in its words; empty when it does."""
        self.config_seq = 0
        """The number of the newest change with all that it brought: also the VPCs that it made us follow."""
        self.linked = Linked()
        """The rows that hold together, as far as they have been taken in."""
        self._columns = columns
        self._breathe = breathe
        self._working_set = None if hosts is None else WorkingSet(hosts)
        self._touched = Touched()
        self._seats_changed = True
        """Whether ports have come to VPCs or hosts, or left, since it was last worked out what is needed."""
        self._snapshot: Snapshot | None = None
        self._generation = 0
        self._request = self._server_request = 0
        self._last_transaction = _NEVER

    @property
    def current(self) -> bool:
        """Whether the copy follows the database now, rather than being the last that was seen of it."""
        return self.in_sync and self.session.connected and self._request == 0

    @property
    def snapshot(self) -> Snapshot:
        """The database as last seen. Cheap while nothing changed."""
        if self._snapshot is None:
            self._snapshot = self.linked.snapshot(self.config_seq)
        return self._snapshot

    def content(self) -> rows.Tables:
        """The rows as the database has them, good and bad."""
        tables = {table: dict(known) for table, known in self.tables.items()}
        for table in self._columns.keys() - self.tables.keys():
            tables[table] = {
                uuid: value.row if isinstance(value, BadRow) else rows.raw(value)
                for uuid, value in self.linked.parsed(table).items()
            }
        return tables

    def follow(self, hosts: Collection[RowId]) -> None:
        """Follow what these hosts need, and no longer what only others needed."""
        if self._working_set and self._working_set.hosts != hosts:
            self._working_set.hosts = frozenset(hosts)
            self._adjust()

    def ready(self, host: RowId) -> bool:
        """Whether all that this host needs has been taken in. It stays so as long as the host is followed."""
        return self.in_sync and (self._working_set is None or host in self._working_set.ready)

    @property
    def touched(self) -> bool:
        """Whether `take_touched` has anything."""
        return bool(self._touched)

    def take_touched(self) -> Touched:
        """The rows that have changed, or refer to one that has, since this was last asked."""
        touched, self._touched = self._touched, Touched()
        return touched

    def run(self) -> bool:
        """Take in what has arrived, without waiting; return whether anything changed (or the first load came in)."""
        changed = False
        for message in self.session.run():
            try:
                changed |= self._take(message)
            except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
                log.error("mapping database %s sent what makes no sense: %r", self.session.remote, error)  # noqa: TRY400
                # What is known may not be what the server thinks is known: begin again from nothing.
                self._last_transaction = _NEVER
                self.session.drop("it sent what makes no sense")
                break
        if self.session.generation != self._generation:
            self._generation = self.session.generation
            self._monitor()
        return changed

    def wait_in_sync(self, timeout_ms: int) -> bool:
        """Block until the copy is current; return whether it is. For tools, not for the controller.

        Gives up after `timeout_ms`, or as soon as no server can be reached or one refuses: `refused` and
        `session.error` then say why.
        """
        self.wait_until(lambda: self.current or bool(self.refused) or self.session.unreachable, timeout_ms)
        return self.current

    def wait_until(self, condition: Callable[[], bool], timeout_ms: int) -> bool:
        """Run and block until `condition()` holds, at most `timeout_ms`; return whether it does."""
        deadline = ovs.timeval.msec() + timeout_ms
        while True:
            self.run()
            if condition():
                return True
            left = deadline - ovs.timeval.msec()
            if left <= 0:
                return False
            self.session.block(left)

    def _monitor(self) -> None:
        where = self._working_set.begin() if self._working_set else {}
        if self._working_set and self._working_set.interrupted:
            # Rows that were asked for and have not come are not among what came after the last transaction.
            self._last_transaction = _NEVER
        requests = {table: [{"columns": list(names), **where.get(table, {})}] for table, names in self._columns.items()}
        params = [schema.DATABASE, _MONITOR_ID, requests, self._last_transaction]
        self._request = self.session.request("monitor_cond_since", params)
        self._server_request = self.session.request("monitor_cond", ["_Server", "server", _SERVER])
        self.session.be_patient(patient=True)

    def _adjust(self) -> None:
        """Ask for the rows that are needed now, if they are others than were asked for last."""
        if self._working_set and self.current and (where := self._working_set.adjust(self.linked)):
            requests = {table: [{"where": conditions}] for table, conditions in where.items()}
            request = self.session.request("monitor_cond_change", [_MONITOR_ID, _MONITOR_ID, requests])
            self._working_set.asked(request, rows.config_seq(self.tables))
            self.session.be_patient(patient=True)

    def _take(self, message: Message) -> bool:
        if message.get("method") == "update3":
            _, transaction, updates = message["params"]
            changed = self._commit(self._read(updates))
            self._last_transaction = transaction
            return self._settle(changed=changed)
        if message.get("method") == "update2" or message.get("id") == self._server_request:
            self._look_at_server(message)
        elif message.get("method") == "monitor_canceled":
            self.session.drop("its schema has changed")
        elif self._request and message.get("id") == self._request:
            if message.get("error"):
                self._refuse(message["error"])
            else:
                return self._load(*message["result"])
        elif self._working_set and self._working_set.answered(message.get("id")):
            if message.get("error"):
                self._refuse(message["error"])
            else:
                return self._settle(changed=False)
        return False

    def _look_at_server(self, message: Message) -> None:
        """Leave a server that is cut off: another may not be."""
        updates = message["params"][1] if "params" in message else message.get("result") or {}
        for update in updates.get("Database", {}).values():
            row = update.get("initial") or update.get("insert") or update.get("modify") or {}
            # Left out of the first update, it is false.
            if not row.get("connected", "modify" in update):
                self.session.drop("it is cut off from its cluster")

    def _settle(self, *, changed: bool) -> bool:
        """Say how far we are, after anything was taken in; return whether there is anything new."""
        if self._seats_changed:
            self._seats_changed = False
            self._adjust()
        config_seq = rows.config_seq(self.tables)
        if not (self._working_set and self._working_set.waiting):
            self.session.be_patient(patient=False)
        if self._working_set:
            ready = self._working_set.ready
            config_seq = self._working_set.settled(config_seq)
            changed |= self._working_set.ready != ready
        if config_seq != self.config_seq:
            self.config_seq, self._snapshot, changed = config_seq, None, True
        return changed

    def _refuse(self, error: Json) -> None:
        reason = str(error.get("details") or error.get("error")) if isinstance(error, dict) else str(error)
        if reason != self.refused:
            log.error("mapping database %s refuses: %s", self.session.remote, reason)
        self.refused = reason
        # Another server may not refuse, nor this one when it has been mended.
        self.session.drop(reason)

    def _load(self, found: bool, transaction: str, updates: Json) -> bool:
        update = self._read(updates)
        if not found:
            # The server sent everything: rows that it did not send are gone, and of the others some are as they were.
            for table in self._columns:
                sent = update.rows if table in _KEPT else update.values
                gone = dict.fromkeys(self._known(table).keys() - sent.get(table, {}).keys())
                for part in (update.rows, update.values) if table in _KEPT else (update.values,):
                    part.setdefault(table, {}).update(gone)
        changed = self._commit(update) or not self.in_sync
        self._seats_changed = True  # other hosts may be followed by now
        self._last_transaction, self._request, self.refused, self.in_sync = transaction, 0, "", True
        return self._settle(changed=changed)

    def _known(self, table: str) -> MappingABC[RowId, Any]:
        return self.tables[table] if table in _KEPT else self.linked.parsed(table)

    def _read(self, updates: Json) -> _Update:
        found = _Update({}, {})
        for table, changes in updates.items():
            known = self._known(table)
            values = found.values[table] = {}
            for number, (text, update) in enumerate(changes.items(), 1):
                if number % _BREATH == 0:
                    self._breathe()
                if len(text) != _ROW_ID_LENGTH:
                    raise ValueError(f"{text!r} is no row id")
                # Not the text itself, which is among all else that the message was made into, and would keep it there.
                uuid = rows.copy(text) if table == "Mapping" else sys.intern(rows.copy(text))
                row: Row | None = None
                if "modify" in update:
                    row = self._modified(table, known[uuid], update["modify"])
                elif "delete" not in update:
                    row = self._complete(table, update["insert" if "insert" in update else "initial"])
                if table in _KEPT:
                    found.rows.setdefault(table, {})[uuid] = row
                values[uuid] = rows.parse_row(table, uuid, row) if row is not None and table != "Global" else None
        return found

    def _complete(self, table: str, row: Row) -> Row:
        """Updates leave out columns that have their default value."""
        names = self._columns[table]
        if len(row) < len(names):
            row = {name: row[name] if name in row else schema.default(table, name) for name in names}
        return row

    def _modified(self, table: str, old: Any, changes: Row) -> Row:  # noqa: ANN401 - a row, or what was made of it
        row: Row = old.row if isinstance(old, BadRow) else old if table in _KEPT else rows.raw(old)
        merged = {
            name: _merge(row[name], change) if schema.is_composite(table, name) else change
            for name, change in changes.items()
        }
        return {**row, **merged}

    def _commit(self, update: _Update) -> bool:
        changed = False
        for table, changed_rows in update.rows.items():
            kept = self.tables[table]
            for uuid, row in changed_rows.items():
                if kept.get(uuid) == row:
                    update.values[table].pop(uuid)
                    continue
                changed = True
                if row is None:
                    del kept[uuid]
                else:
                    kept[uuid] = row
        update.values.pop("Global", None)
        for table, values in update.values.items():
            known = self.linked.parsed(table)
            for uuid, value in values.items():
                if table in _KEPT or known.get(uuid) != value:
                    changed = True
                    self._seats_changed |= table == "Port" and _seat(known.get(uuid)) != _seat(value)
                    self.linked.put(table, uuid, value)
        if changed:
            self._snapshot = None
            self._touched.add(self.linked.settle())
        return changed


def _seat(port: Any) -> tuple[RowId, frozenset[RowId]] | None:  # noqa: ANN401 - a port, a bad row or none
    """Where a port is: all that decides which VPCs a host needs."""
    return (port.vpc, port.hosts) if isinstance(port, Port) else None


def _merge(old: Json, change: Json) -> Json:
    """The value after what ovsdb-server(7) calls a modify update, written as the server itself would write it.

    The update holds a set's members that came or went, and a map's pairs that came, went or have another value.
    """
    if isinstance(change, list) and change[0] == "map":
        pairs = rows.as_dict(old)
        for key, value in change[1]:
            if pairs.get(key) == value:
                del pairs[key]
            else:
                pairs[key] = value
        return ["map", [list(pair) for pair in sorted(pairs.items())]]
    members = sorted(set(rows.atoms(old)) ^ set(rows.atoms(change)))
    return members[0] if len(members) == 1 else ["set", members]
