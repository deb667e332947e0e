"""What is wanted and what is there -> what to change, and the transaction that changes it. Pure.

The transaction begins by asking that `config_seq` is still what it was when the rows were read, so that a change that
somebody else made in between is planned for again, never overwritten.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from mapping import reach, schema, wanted
from mapping.model import RowId
from mapping.rows import Tables, uuids
from mapping.schema import Json
from mapping.wanted import TABLES, Content, Fault, Key, Row, Value

Operation = dict[str, Any]
"""An operation of a transaction, as RFC 7047 (5.2) writes it."""

Ref = tuple[str, Key]
"""Table and key of a row."""

_SEATS: Final = ("host", "moving_to", "previous_host")
_ORDER: Final = {"add": 0, "change": 1, "delete": 2}
_SIGNS: Final = {"add": "+", "change": "~", "delete": "-"}

NOTHING: Final = (None, ())
"""Values of a column that may hold nothing, and does."""


@dataclass(frozen=True, slots=True)
class Edit:
    """One row that changes. `before` and `after` hold the columns that differ: all, for a row that comes or goes."""

    action: Literal["add", "change", "delete"]
    table: str
    key: Key
    before: Row
    after: Row

    @property
    def name(self) -> str:
        """The row's name, in words."""
        return wanted.describe(self.table, self.key)

    @property
    def sign(self) -> str:
        """What is done, as one character: + ~ -."""
        return _SIGNS[self.action]

    @property
    def what(self) -> str:
        """What comes, changes or goes, in words."""
        if self.action == "change":
            pairs = ((column, self.before[column], self.after[column]) for column in self.after)
            return ", ".join(f"{column} {show(before)} -> {show(after)}" for column, before, after in pairs)
        row = self.after or self.before
        return ", ".join(f"{column} {show(value)}" for column, value in row.items() if value not in NOTHING)


@dataclass(frozen=True, slots=True)
class Plan:
    """No `faults`: `operations` may be sent. No `edits`: there is nothing to send."""

    edits: tuple[Edit, ...]
    faults: tuple[Fault, ...]
    operations: tuple[Operation, ...]
    notes: tuple[str, ...] = ()
    """What is no fault, and yet to be known."""


def make(rows: Content, tables: Tables, *, absent: Collection[Ref] = (), only_new: bool = False) -> Plan:
    """The plan that makes the database hold `rows`, and not those of `absent`; all others stay.

    With `only_new`, a row that is there already and differs is a fault rather than a change.
    """
    there, ids = wanted.named(tables)
    gone = {ref for ref in absent if ref in ids}
    result = {
        table: {**{key: row for key, row in there[table].items() if (table, key) not in gone}, **rows[table]}
        for table in TABLES
    }
    found = edits(rows, there, gone)
    changed_vpcs = {edit.key[0] for edit in found if edit.table == "Vpc" and edit.action == "change"}
    faults = list(wanted.check(rows, result, changed_vpcs))
    faults += _provisioned(found, result, there, tables)
    if only_new:
        faults += [_exists(edit, there) for edit in found if edit.action == "change"]
    if faults or not found:
        return Plan(found, tuple(faults), ())
    operations = _unchanged_since(tables), *_operations(found, ids)
    return Plan(found, (), operations, tuple(reach.in_content(result)))


def left_out(rows: Content, tables: Tables, *, prune: bool) -> set[Ref]:
    """What a file that names `rows` wants gone.

    These are the addresses of its own ports that it does not list; with `prune`, every row that it does not name.
    """
    there, _ = wanted.named(tables)
    if prune:
        return {(table, key) for table in TABLES for key in there[table] if key not in rows[table]}
    return {
        ("Mapping", key)
        for key, row in there["Mapping"].items()
        if key not in rows["Mapping"] and (str(row["port"]),) in rows["Port"]
    }


def concerned(edits: Iterable[Edit], tables: Tables) -> frozenset[str]:
    """The hosts whose flows these edits of a database that holds `tables` can touch, by name.

    They are those with a port, before or after, in a VPC of which a row changes; those whose own row changes; and
    those that share a VPC with one whose row changes. A host that is deleted is not among them.
    """
    there, _ = wanted.named(
        {table: tables[table] for table in ("Host", "Vpc", "SecurityGroup", "Port") if table in tables}
    )
    vpcs: set[Value] = set()
    hosts: set[Value] = set()
    changed: set[Value] = set()
    deleted: set[Value] = {None}
    for edit in edits:
        if edit.table == "Port":
            known = there["Port"].get(edit.key, {})
            vpcs |= {known.get("vpc"), edit.after.get("vpc")}
            hosts |= {edit.after.get(column) for column in _SEATS}
        elif edit.table == "Host":
            changed.add(edit.key[0])
            if edit.action == "delete":
                deleted.add(edit.key[0])
        elif edit.table == "SecurityGroup":
            known = there["SecurityGroup"].get(edit.key, {})
            vpcs |= {known.get("vpc"), edit.after.get("vpc")}
        else:
            vpcs.add(edit.key[0])
    vpcs |= {port["vpc"] for port in there["Port"].values() if changed.intersection(map(port.get, _SEATS))}
    hosts |= changed | {port.get(seat) for port in there["Port"].values() if port["vpc"] in vpcs for seat in _SEATS}
    return frozenset(str(host) for host in hosts - deleted)


def edits(rows: Content, there: Content, gone: Collection[Ref]) -> tuple[Edit, ...]:
    """What makes of `there` these rows, without those that are to be gone."""
    found: list[Edit] = []
    for table in TABLES:
        for key, row in rows[table].items():
            known = there[table].get(key)
            if known is None:
                found.append(Edit("add", table, key, {}, row))
            elif differing := [column for column in row if row[column] != known[column]]:
                before, after = ({column: side[column] for column in differing} for side in (known, row))
                found.append(Edit("change", table, key, before, after))
        found += [Edit("delete", table, key, there[table][key], {}) for where, key in sorted(gone) if where == table]
    return tuple(sorted(found, key=lambda edit: _ORDER[edit.action]))


def _provisioned(found: Iterable[Edit], result: Content, there: Content, tables: Tables) -> Iterator[Fault]:
    """Ports that would come to a machine that is another's: it may be on, and its guest would have their addresses."""
    names = {uuid: row["name"] for table in ("Host", "Port") for uuid, row in tables.get(table, {}).items()}
    held: dict[tuple[Value, Value], tuple[str, str]] = {}
    for row in tables.get("Provision", {}).values():
        (host,) = uuids(row["host"])
        if row["state"] != "available" and (port := next(iter(uuids(row["port"])), None)):
            held[names[host], row["device"]] = names[port], row["state"]
    for edit in found:
        if not held or edit.table != "Port" or edit.action == "delete":
            continue
        for host, device in sorted(_seats(result["Port"][edit.key]) - _seats(there["Port"].get(edit.key, {}))):
            owner, state = held.get((host, device), (edit.key[0], ""))
            if owner != edit.key[0]:
                text = f"device {device} of host {host} is {state} for port {owner}: `lockgate release {owner}` first"
                yield Fault("Port", edit.key, "device", text)


def _seats(port: Row) -> set[tuple[str, str]]:
    """Where a port is, or is on its way to: host and device."""
    hosts = (port.get("host"), port.get("moving_to"))
    return {(str(host), str(port["device"])) for host in hosts if host is not None}


def _exists(edit: Edit, there: Content) -> Fault:
    if edit.table == "Mapping":
        vpc, ip = edit.key
        owner = there["Mapping"][edit.key]["port"]
        return Fault("Mapping", edit.key, "", wanted.TAKEN["Mapping", "ip"].format(vpc=vpc, ip=ip, owner=owner))
    differing = ", ".join(f"{column} {show(edit.before[column])}" for column in edit.before)
    return Fault(edit.table, edit.key, "", f"{edit.name} is there already, with {differing}: delete it first")


def show(value: Value) -> str:
    """A value in words."""
    if isinstance(value, tuple):
        return ", ".join(value) or "none"
    return "none" if value is None else str(value)


def _unchanged_since(tables: Tables) -> Operation:
    rows = [{"config_seq": row["config_seq"]} for row in tables.get("Global", {}).values()]
    columns = ["config_seq"]
    return {"op": "wait", "table": "Global", "where": [], "columns": columns, "until": "==", "rows": rows, "timeout": 0}


def _operations(edits: tuple[Edit, ...], ids: dict[Ref, RowId]) -> list[Operation]:
    new = {(edit.table, edit.key): f"new{number}" for number, edit in enumerate(edits) if edit.action == "add"}

    operations: list[Operation] = []
    for edit in edits:
        columns = {column: _encode(edit.table, column, value, new, ids) for column, value in edit.after.items()}
        if edit.action == "add":
            names = ("vpc", "ip") if edit.table == "Mapping" else ("name",)
            columns |= {
                column: _encode(edit.table, column, value, new, ids)
                for column, value in zip(names, edit.key, strict=True)
            }
            uuid_name = new[edit.table, edit.key]
            operations.append({"op": "insert", "table": edit.table, "row": columns, "uuid-name": uuid_name})
            continue
        where = [["_uuid", "==", ["uuid", str(ids[edit.table, edit.key])]]]
        if edit.action == "change":
            operations.append({"op": "update", "table": edit.table, "where": where, "row": columns})
        else:
            operations.append({"op": "delete", "table": edit.table, "where": where})
    return operations


def _reference(table: str, name: Value, new: Mapping[Ref, str], ids: Mapping[Ref, RowId]) -> Json:
    if name is None:
        return ["set", []]
    ref = (table, (str(name),))
    return ["named-uuid", new[ref]] if ref in new else ["uuid", str(ids[ref])]


def _encode(table: str, column: str, value: Value, new: Mapping[Ref, str], ids: Mapping[Ref, RowId]) -> Json:
    if column in wanted.REFERENCES and isinstance(value, tuple):
        return ["set", [_reference(wanted.REFERENCES[column], name, new, ids) for name in value]]
    if column in wanted.REFERENCES:
        return _reference(wanted.REFERENCES[column], value, new, ids)
    if schema.is_map(table, column):
        kind = int if schema.columns(table)[column]["value"]["type"] == "integer" else str
        pairs = (text.partition("=") for text in wanted.texts(value))
        return ["map", [[word, kind(text)] for word, _, text in pairs]]
    if value is None:
        return ["set", []]
    return ["set", list(value)] if isinstance(value, tuple) else value
