"""Transactions on the mapping database, for tools: every call blocks until the database has answered.

Each transaction that changes something counts `Global.config_seq` up by one, so that "applied" can be told from "not
yet" (see `Host.applied_seq`).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, Self

import ovs.timeval

from mapping import history, rows, schema, wanted
from mapping.errors import MappingError
from mapping.history import Cause
from mapping.model import RowId
from mapping.plan import Operation, Plan
from mapping.rows import Row, Tables
from mapping.schema import Json
from mapping.session import Session
from mapping.tls import Identity

_CONFIG_SEQ: Final = {"table": "Global", "where": [], "columns": ["config_seq"]}
_WITHOUT_GLOBAL: Final = {"op": "wait", **_CONFIG_SEQ, "until": "==", "rows": [], "timeout": 0}
_COUNT: Final = ({"op": "mutate", "table": "Global", "where": [], "mutations": [["config_seq", "+=", 1]]},)
_SELECT: Final = {"op": "select", **_CONFIG_SEQ}

PROVISION: Final = ("state", "port", "power", "problem")
"""What `lockgate host list` shows of a host's provisioning."""

_ATTEMPTS: Final = 20
"""How often a change is planned while others write as well, before that is given up."""

_UNIQUE: Final = re.compile(r'rows in "(\w+)" table to have identical values .* for index on columns? (.*?)\.  ')
_OLD_ROW: Final = re.compile(r"UUID ([0-9a-f-]{36}), (?:existed|had the following)")
_REFERENCED: Final = re.compile(r"cannot delete (\w+) row ([0-9a-f-]{36}) because of (\d+) remaining")


class ConflictError(MappingError):
    """The database changed after it was read, so that nothing was written: read again and plan again."""


class Commit(NamedTuple):
    """A transaction that is done: each operation's result, and the `config_seq` that it has."""

    results: list[Json]
    config_seq: int


class Done(NamedTuple):
    """A plan that is carried out, and the `config_seq` that the database then has."""

    plan: Plan
    config_seq: int


class Writer:
    """A connection to the database for reading and writing. Close it, or use it in a `with` statement.

    `remotes` and `identity` are as for `mapping.session.Session`; `timeout_ms` bounds each call, in milliseconds.
    """

    def __init__(self, remotes: Sequence[str], timeout_ms: int = 10_000, identity: Identity | None = None) -> None:
        try:
            self._session = Session(remotes, identity)
        except ValueError as error:
            raise MappingError(str(error)) from None
        self._remotes = remotes
        self._timeout_ms = timeout_ms
        self._counted = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._session.close()

    def read(self) -> Tables:
        """Every row as it is now, all of one moment.

        Raises:
            MappingError: the database cannot be reached, or is another one.
        """
        tables = {**rows.READ_COLUMNS, "Provision": rows.SEAT_COLUMNS}
        selects = [
            {"op": "select", "table": table, "where": [], "columns": ["_uuid", *columns]}
            for table, columns in tables.items()
        ]
        results = self._transact(selects)
        return {table: _by_uuid(result["rows"]) for table, result in zip(tables, results, strict=True)}

    def select(self, *queries: tuple[str, list[Json], list[str]]) -> list[list[Row]]:
        """The rows that each query asks for: table, conditions (RFC 7047, 5.1) and columns; all of one moment.

        Raises:
            MappingError: the database cannot be reached, or is another one.
        """
        keys = ("table", "where", "columns")
        results = self._transact([{"op": "select", **dict(zip(keys, query, strict=True))} for query in queries])
        return [result["rows"] for result in results]

    def history(self) -> list[history.Entry]:
        """The last changes, the newest first.

        Raises:
            MappingError: as `read`.
        """
        return history.read(self.select(("History", [], list(history.COLUMNS)))[0])

    def forget(self) -> None:
        """Delete what is too old to be kept in the history. Only who has no role may.

        Raises:
            MappingError: as `read`.
        """
        ((row,),) = self.select(("Global", [], ["config_seq"]))
        self.record([history.forget(row["config_seq"])])

    def read_provision(self) -> dict[str, dict[str, str | None]]:
        """What is known of the hosts that are, or were, given to guests: host -> `PROVISION`.

        Raises:
            MappingError: as `read`.
        """
        tables = {"Provision": ("host", *PROVISION), "Host": ("name",), "Port": ("name",)}
        selects = [
            {"op": "select", "table": table, "where": [], "columns": ["_uuid", *columns]}
            for table, columns in tables.items()
        ]
        found, *named = (_by_uuid(result["rows"]) for result in self._transact(selects))
        names = {uuid: row["name"] for table in named for uuid, row in table.items()}
        for row in found.values():
            row["port"] = next((names[uuid] for uuid in rows.uuids(row["port"])), None)
        return {
            names[rows.uuids(row["host"])[0]]: {column: row[column] or None for column in PROVISION}
            for row in found.values()
        }

    def transact(self, operations: Sequence[Operation], comment: str) -> Commit:
        """Do these operations and count them as one change; all of them are done, or none.

        `comment` goes into the database's log, for whoever asks later what happened.

        Raises:
            ConflictError: a `wait` operation among them did not hold.
            MappingError: the database refuses, cannot be reached, or does not answer in time.
        """
        if not self._counted:
            # The one row of Global, unless somebody has made it before.
            self._call([_WITHOUT_GLOBAL, {"op": "insert", "table": "Global", "row": {}}])
            self._counted = True
        results = self._transact([*operations, *_COUNT, {"op": "comment", "comment": comment}, _SELECT])
        return Commit(results[: len(operations)], int(results[-1]["rows"][0]["config_seq"]))

    def record(self, operations: Sequence[Operation]) -> list[Json]:
        """Do these operations, which decide no flow: they are not counted as a change.

        Raises:
            ConflictError, MappingError: as `transact`.
        """
        return self._transact(operations)

    def carry_out(self, make: Callable[[Tables], Plan], cause: Cause) -> Done:
        """Read, plan, and write; once more if the database changes in between. A plan with faults is not carried out.

        What is done is remembered in the database's history, with its cause.

        Raises:
            MappingError: as `transact`.
        """
        for _ in range(_ATTEMPTS - 1):
            try:
                return self._try(make, cause)
            except ConflictError:
                continue
        return self._try(make, cause)

    def _try(self, make: Callable[[Tables], Plan], cause: Cause) -> Done:
        tables = self.read()
        plan = make(tables)
        if plan.faults or not plan.edits:
            return Done(plan, rows.config_seq(tables))
        # Whoever writes in between makes this fail, so the number is known.
        seq, certificate = rows.config_seq(tables) + 1, self._session.certificate
        remember = history.operations(cause, plan.edits, seq, time.time(), certificate)
        return Done(plan, self.transact([*plan.operations, *remember], str(cause)).config_seq)

    def _transact(self, operations: Sequence[Operation]) -> list[Json]:
        results = self._call(operations)
        for result in results:
            if result and result.get("error"):
                raise self._explained(result["error"], str(result.get("details", "")))
        return results

    def _explained(self, error: str, details: str) -> MappingError:
        if error == "timed out":
            return ConflictError("the mapping database was changed by somebody else in the meantime: try again")
        if error in ("constraint violation", "referential integrity violation"):
            return MappingError(explain(details, self.read()))
        return MappingError(f"the mapping database refuses: {error}: {details}")

    def _call(self, operations: Sequence[Operation]) -> list[Json]:
        """Send a transaction and wait for its reply."""
        deadline = ovs.timeval.msec() + self._timeout_ms
        self._connect(deadline)
        generation = self._session.generation
        request = self._session.request("transact", [schema.DATABASE, *operations])
        while True:
            for message in self._session.run():
                if message.get("id") == request:
                    return self._results(message)
            if self._session.generation != generation or not self._session.connected:
                raise self._unanswered(self._session.error)
            if ovs.timeval.msec() >= deadline:
                raise MappingError(
                    f"the mapping database at {self._session.remote} gives no answer in {self._timeout_ms / 1000:g} s: "
                    "look whether its process is stopped, or its disk full"
                )
            self._session.block(deadline - ovs.timeval.msec())

    def _connect(self, deadline: int) -> None:
        while not self._session.connected:
            self._session.run()
            if self._session.unreachable or ovs.timeval.msec() >= deadline:
                raise MappingError(unreachable(self._remotes, self._session.error))
            if not self._session.connected:
                self._session.block(deadline - ovs.timeval.msec())

    def _results(self, message: dict[str, Any]) -> list[Json]:
        if error := message.get("error"):
            details = error.get("error") if isinstance(error, dict) else error
            if details == "unknown database":
                raise MappingError(
                    f"the server at {self._session.remote} has no database {schema.DATABASE}: it is another one's; "
                    "start one with `lockgate mapping serve`, or say where it is with --db or LOCKGATE_DB"
                )
            if details == "canceled":
                # By a front or a relay whose own server has gone: that may have done it.
                raise self._unanswered("canceled")
            raise MappingError(f"the mapping database at {self._session.remote} refuses: {error}")
        result = message.get("result")
        if not isinstance(result, list):
            raise MappingError(f"what answers at {self._session.remote} is no mapping database")
        return result

    def _unanswered(self, why: str) -> MappingError:
        return MappingError(
            f"the mapping database at {self._session.remote} went away before it answered ({why}): "
            "look whether the change is there, then try again"
        )


def unreachable(remotes: Sequence[str], why: str) -> str:
    """The message for a database that does not answer at any of these places."""
    return (
        f"no mapping database at {', '.join(remotes)} ({why or 'no answer'}): "
        "start one with `lockgate mapping serve`, or say where it is with --db or LOCKGATE_DB"
    )


def explain(details: str, tables: Tables) -> str:
    """What the database says about a transaction that it refuses, in names instead of row ids.

    `tables` is what the database holds. What is not understood is given as it is.
    """
    _, ids = wanted.named(tables)
    refs = {uuid: ref for ref, uuid in ids.items()}
    if (found := _REFERENCED.search(details)) and found[2] in refs:
        table, key = refs[found[2]]
        return f"{wanted.describe(table, key)} is still needed by {found[3]} other row(s): delete those first"
    if found := _UNIQUE.search(details):
        columns = re.findall(r'"(\w+)"', found[2])
        for uuid in map(RowId, _OLD_ROW.findall(details)):
            if uuid in refs:
                return _taken(found[1], columns, tables, uuid)
    return f"the mapping database refuses: {details}"


def _taken(table: str, columns: list[str], tables: Tables, uuid: RowId) -> str:
    content, ids = wanted.named(tables)
    key = next(key for (where, key), row_id in ids.items() if row_id == uuid and where == table)
    row = content[table][key]
    if columns == ["name"]:
        return f"{wanted.describe(table, key)} is there already: choose another name, or `lockgate apply` the change"
    if table == "Mapping":
        return wanted.TAKEN["Mapping", "ip"].format(vpc=key[0], ip=key[1], owner=row["port"])
    column = next(column for column in columns if (table, column) in wanted.TAKEN)
    return wanted.TAKEN[table, column].format(**row, owner=key[0])


def _by_uuid(selected: list[Row]) -> dict[RowId, Row]:
    return {row.pop("_uuid")[1]: row for row in selected}
