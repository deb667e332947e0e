"""What the database is to hold, by name: the fields of each row, and what makes rows fit together.

The YAML file and the single-row commands both end here, so that a rule and its message stand once. Row ids appear only
in `mapping.plan`, where what is wanted meets what is there.
"""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from collections.abc import Mapping as MappingABC
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NamedTuple

from mapping import mtus, rows, schema, values
from mapping.model import ROUTER_MAC, Encap, IPNetwork, RowId, default_datapaths
from mapping.rows import Tables
from mapping.security_rules import parse_rule

Value = str | int | tuple[str, ...] | None
"""A column's value: canonical text, a number, or nothing; a set as sorted texts, a map as those of "key=value". A
reference is its target's name."""

Key = tuple[str, ...]
"""What a row is known by: (name,), or (VPC, address) for a mapping."""

Row = dict[str, Value]
"""Column -> value, without the columns that are the key."""

Content = MappingABC[str, dict[Key, Row]]
"""Table -> key -> row."""

TABLES: Final = ("Vpc", "Host", "SecurityGroup", "Port", "Mapping")
"""In an order in which each table refers only to those before it."""


class Fault(NamedTuple):
    """Something wrong with one row: `column` is empty when it is the row as a whole."""

    table: str
    key: Key
    column: str
    text: str


@dataclass(frozen=True, slots=True)
class Field:
    """How a person writes one column: `parse` checks the text and gives the value.

    `many` takes a list of texts, `pairs` pairs of a key and a value, each of which is checked as "key=value".
    """

    column: str
    parse: Callable[[str], Value]
    required: bool = False
    many: bool = False
    pairs: bool = False


def _text(parse: Callable[[str], Any]) -> Callable[[str], Value]:
    """The parsers take canonical text only, so that what passes is stored as it is."""

    def checked(text: str) -> str:
        parse(text)
        return text

    return checked


FIELDS: Final[dict[str, dict[str, Field]]] = {
    "Vpc": {
        "vni": Field("vni", values.parse_vni, required=True),
        "subnets": Field("subnets", _text(values.parse_subnet), required=True, many=True),
        "router_mac": Field("router_mac", _text(values.parse_mac)),
        "mtu": Field("mtu", values.parse_mtu),
        "dns": Field("dns", _text(values.parse_ip), many=True),
        "routes": Field("routes", _text(values.parse_route), pairs=True),
    },
    "Host": {
        "vtep": Field("vtep_ip", _text(values.parse_vtep_ip), required=True),
        "encap": Field("encap", _text(values.parse_encap)),
        "guest_datapath": Field("guest_datapath", _text(values.parse_datapath)),
        "nic_datapath": Field("nic_datapath", _text(values.parse_datapath)),
        "bmc": Field("bmc", _text(values.parse_bmc)),
        "substrate_mtu": Field("substrate_mtu", values.parse_mtu),
    },
    "SecurityGroup": {
        "vpc": Field("vpc", _text(values.parse_name), required=True),
        "stateless": Field("stateless", values.parse_flag),
        "rules": Field("rules", _text(parse_rule), many=True),
    },
    "Port": {
        "vpc": Field("vpc", _text(values.parse_name), required=True),
        "mac": Field("mac", _text(values.parse_mac), required=True),
        "host": Field("host", _text(values.parse_name)),
        "device": Field("device", _text(values.parse_device)),
        "allowed": Field("allowed", _text(values.parse_allowed), many=True),
        "limits": Field("limits", _text(values.parse_limit), pairs=True),
        "boot": Field("boot", _text(values.parse_boot), pairs=True),
        "groups": Field("groups", _text(values.parse_name), many=True),
    },
}
"""Table -> the word a person writes -> what it means."""

TAKEN: Final = {
    ("Vpc", "vni"): "VNI {vni} is taken by VPC {owner}: choose another",
    ("Host", "vtep_ip"): "VTEP {vtep_ip} is taken by host {owner}: choose another",
    ("Host", "guest_datapath"): "datapath id {guest_datapath} is taken by host {owner}: give each bridge its own",
    ("Host", "nic_datapath"): "datapath id {nic_datapath} is taken by host {owner}: give each bridge its own",
    ("Port", "mac"): "MAC {mac} of VPC {vpc} is taken by port {owner}: choose another",
    ("Port", "device"): "device {device} of host {host} is taken by port {owner}: choose another",
    ("Mapping", "ip"): "address {ip} of VPC {vpc} is mapped already, to port {owner}: choose another, or delete that",
}
"""(Table, last column of a unique index) -> what to say when two rows want the same."""


def empty() -> dict[str, dict[Key, Row]]:
    """Content without rows."""
    return {table: {} for table in TABLES}


def describe(table: str, key: Key) -> str:
    """A row's name, in words."""
    return f"mapping {key[1]} of VPC {key[0]}" if table == "Mapping" else f"{_WORD[table]} {key[0]}"


_WORD: Final = {"Vpc": "VPC", "Host": "host", "SecurityGroup": "group", "Port": "port"}


def nearest(wrong: str, known: Iterable[str]) -> str | None:
    """The known word that an unknown one was probably meant to be."""
    return next(iter(difflib.get_close_matches(wrong, list(known), n=1)), None)


def suggest(wrong: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown word: the nearest known one, or all when there are few, or nothing."""
    choices = list(known)
    if near := nearest(wrong, choices):
        return f"did you mean {near!r}?"
    return f"choose {', '.join(choices)}" if 0 < len(choices) <= 8 else "correct the name"


def complete(table: str, key: Key, row: Row) -> Iterator[Fault]:
    """Fill in what `row` leaves out, in place; yield what is wrong with the row on its own."""
    for field in FIELDS[table].values():
        if not field.required and schema.is_optional(table, field.column):
            row.setdefault(field.column, () if field.many or field.pairs else None)
    if table == "Vpc":
        row.setdefault("router_mac", ROUTER_MAC)
        if "subnets" in row:
            yield from _check_subnets(key, row)
    elif table == "Host":
        row.setdefault("encap", Encap.VXLAN.value)
        if "vtep_ip" in row:
            guest, nic = default_datapaths(values.parse_vtep_ip(str(row["vtep_ip"])))
            row.setdefault("guest_datapath", f"{guest:016x}")
            row.setdefault("nic_datapath", f"{nic:016x}")
    elif table == "SecurityGroup":
        row.setdefault("stateless", False)
    elif table == "Port":
        yield from _complete_port(key, row)


def _check_subnets(key: Key, row: Row) -> Iterator[Fault]:
    subnets = tuple(map(values.parse_subnet, texts(row["subnets"])))
    mtu = None if row["mtu"] is None else int(str(row["mtu"]))
    routes = [values.parse_route(text) for text in texts(row["routes"])]
    dns = [values.parse_ip(text) for text in texts(row["dns"])]
    checks: dict[str, Callable[[tuple[IPNetwork, ...]], None]] = {
        "subnets": values.check_subnets,
        "mtu": partial(values.check_mtu, mtu),
        "dns": lambda _: values.check_dns(dns),
        "routes": partial(values.check_routes, routes),
    }
    for column, check_it in checks.items():
        try:
            check_it(subnets)
        except ValueError as error:
            yield Fault("Vpc", key, column, str(error))


def _complete_port(key: Key, row: Row) -> Iterator[Fault]:
    # The unique index (host, device) holds for ports without a host as well, so these must not all say nothing.
    (name,) = key
    if row.setdefault("host", None) is None:
        if row.setdefault("device", name) != name:
            yield Fault("Port", key, "device", f"device {row['device']!r} is on no host: name the port's host as well")
        return
    try:
        row.setdefault("device", values.parse_device(name))
    except ValueError:
        yield Fault("Port", key, "", f"port {name!r}: the name is too long for a device: give `device` as well")


def texts(value: Value) -> tuple[str, ...]:
    """A value that is a set, or stands for a set of one, or none."""
    return () if value is None else value if isinstance(value, tuple) else (str(value),)


def pairs(table: str, column: str, value: Value) -> dict[str, str | int]:
    """A value of a column that is a map, as one."""
    kind = int if schema.columns(table)[column]["value"]["type"] == "integer" else str
    return {word: kind(rest) for word, _, rest in (text.partition("=") for text in texts(value))}


def as_json(table: str, row: Row) -> dict[str, Any]:
    """A row for programs: what is a map in the database is an object, what is a set a list."""
    return {
        column: pairs(table, column, value)
        if isinstance(value, tuple) and column in schema.columns(table) and schema.is_map(table, column)
        else value
        for column, value in row.items()
    }


def named(tables: Tables) -> tuple[dict[str, dict[Key, Row]], dict[tuple[str, Key], RowId]]:
    """Database rows by name, and the id of each. What is wrong in them stays, to be seen and mended."""
    content, ids = empty(), {}
    names = {uuid: row["name"] for table in TABLES[:-1] for uuid, row in tables.get(table, {}).items()}
    for table in TABLES:
        for uuid, raw in tables.get(table, {}).items():
            row: Row = {}
            for column in rows.READ_COLUMNS[table]:
                if column in REFERENCES and schema.is_composite(table, column):
                    row[column] = tuple(sorted(names[target] for target in rows.uuids(raw[column])))
                elif column in REFERENCES:
                    row[column] = next((names[target] for target in rows.uuids(raw[column])), None)
                elif schema.is_map(table, column):
                    row[column] = tuple(sorted(f"{word}={value}" for word, value in raw[column][1]))
                elif schema.is_composite(table, column):
                    row[column] = tuple(sorted(rows.atoms(raw[column])))
                elif schema.is_optional(table, column):
                    row[column] = next(iter(rows.atoms(raw[column])), None)
                else:
                    row[column] = raw[column]
            key = tuple(str(row.pop(column)) for column in (("vpc", "ip") if table == "Mapping" else ("name",)))
            content[table][key] = row
            ids[table, key] = uuid
    return content, ids


REFERENCES: Final = {
    "vpc": "Vpc",
    "host": "Host",
    "groups": "SecurityGroup",
    "port": "Port",
    "moving_to": "Host",
    "previous_host": "Host",
}
"""Column -> the table it refers to, the same in every table."""


def check(wanted: Content, result: Content, changed_vpcs: Collection[str] = ()) -> Iterator[Fault]:
    """What is wrong with the wanted rows, in a database that then holds `result`.

    Rows that nobody touches are left in peace, good or bad, but for those that lose what they refer to, or whose VPC
    changes under them.
    """
    yield from _check_references(wanted, result)
    yield from _check_unique(wanted, result)
    yield from _check_addresses(wanted, result, changed_vpcs)
    yield from _check_groups(wanted, result)
    yield from (Fault(*misfit) for misfit in mtus.check(wanted, result))


def _check_references(wanted: Content, result: Content) -> Iterator[Fault]:
    bereft: dict[tuple[str, str], list[str]] = defaultdict(list)
    for table in ("SecurityGroup", "Port", "Mapping"):
        for key, row in result[table].items():
            full = {**row, "vpc": key[0]} if table == "Mapping" else row
            named = [
                (column, target, name)
                for column, target in REFERENCES.items()
                for name in (texts(full[column]) if column in full else ())
            ]
            for column, target, name in named:
                if (name,) in result[target]:
                    continue
                if table == "Mapping" and column == "vpc" and (str(row.get("port")),) in result["Port"]:
                    continue  # said of its port already
                if key not in wanted[table]:
                    bereft[target, name].append(describe(table, key))
                else:
                    known = suggest(name, sorted(known for (known,) in result[target]))
                    yield Fault(table, key, column, f"there is no {_WORD[target]} {name!r}: {known}")
    for (target, name), orphans in bereft.items():
        some = ", ".join(orphans[:5]) + (f" and {len(orphans) - 5} more" if len(orphans) > 5 else "")
        text = f"{describe(target, (name,))} is still needed by {some}: delete or change that first"
        yield Fault(target, (name,), "", text)


def _check_groups(wanted: Content, result: Content) -> Iterator[Fault]:
    """Ports and rules must name groups of their own VPC. A rule whose group goes later allows nothing."""
    there = {name: row.get("vpc") for (name,), row in result["SecurityGroup"].items()}
    for key, row in wanted["SecurityGroup"].items():
        for text in texts(row.get("rules", ())):
            peer = parse_rule(text).peer
            if isinstance(peer, str) and there.get(peer) != row.get("vpc"):
                known = suggest(peer, sorted(name for name, vpc in there.items() if vpc == row.get("vpc")))
                yield Fault("SecurityGroup", key, "rules", f"VPC {row.get('vpc')} has no group {peer!r}: {known}")
    for key, row in result["Port"].items():
        groups = [name for name in texts(row.get("groups", ())) if there.get(name, row.get("vpc")) != row.get("vpc")]
        if groups and (key in wanted["Port"] or any((name,) in wanted["SecurityGroup"] for name in groups)):
            text = f"group {groups[0]} is of VPC {there[groups[0]]}, port {key[0]} of {row.get('vpc')}: choose another"
            yield Fault("Port", key, "groups", text)


def _check_unique(wanted: Content, result: Content) -> Iterator[Fault]:
    owners: dict[tuple[Value, ...], tuple[Key, str]] = {}
    for table in ("Vpc", "Host", "Port"):
        kept = {key: row for key, row in result[table].items() if key not in wanted[table]}
        for key, row in {**kept, **wanted[table]}.items():
            for column, claim in _claims(table, row):
                (owner,), _ = first = owners.setdefault(claim, (key, column))
                if first != (key, column) and key in wanted[table]:
                    yield Fault(table, key, column, TAKEN[table, column].format(**row, owner=owner))
                    if column == "vtep_ip":
                        break  # the datapath ids are made from it, and collide as well


def _claims(table: str, row: Row) -> Iterator[tuple[str, tuple[Value, ...]]]:
    """(Column, what no other row may have there)."""
    if table == "Vpc" and "vni" in row:
        yield "vni", ("vni", row["vni"])
    elif table == "Host":
        for column in ("vtep_ip", "guest_datapath", "nic_datapath"):
            if column in row:
                yield column, ("vtep" if column == "vtep_ip" else "datapath", row[column])
    elif table == "Port":
        if "mac" in row and "vpc" in row:
            yield "mac", ("mac", row["vpc"], row["mac"])
        for column in ("host", "moving_to"):
            if row.get(column) is not None and "device" in row:
                yield "device", ("device", row[column], row["device"])


def _check_addresses(wanted: Content, result: Content, changed_vpcs: Collection[str]) -> Iterator[Fault]:
    for key, row in result["Port"].items():
        vpc = result["Vpc"].get((str(row.get("vpc")),), {})
        touched = key in wanted["Port"]
        if (touched or row.get("vpc") in changed_vpcs) and row.get("mac") == vpc.get("router_mac", ""):
            text = f"MAC {row['mac']} of port {key[0]} is the router's of VPC {row['vpc']}: choose another"
            yield Fault("Port", key, "mac", text) if touched else Fault("Vpc", (str(row["vpc"]),), "router_mac", text)
        if row.get("allowed") and (touched or row.get("vpc") in changed_vpcs):
            yield from _check_allowed(key, row, vpc, touched=touched)
    for key, row in result["Mapping"].items():
        name, ip = key
        touched = key in wanted["Mapping"]
        vpc = result["Vpc"].get((name,), {})
        if not touched and name not in changed_vpcs:
            continue
        port = result["Port"].get((str(row.get("port")),), {})
        if touched and port.get("vpc", name) != name:
            text = f"port {row['port']} is in VPC {port['vpc']}: map {ip} to a port of VPC {name}"
            yield Fault("Mapping", key, "port", text)
        if not vpc.get("subnets"):
            continue
        try:
            subnets = tuple(map(values.parse_subnet, texts(vpc["subnets"])))
            values.check_guest_ip(values.parse_ip(ip), subnets)
        except ValueError as error:
            if touched:
                yield Fault("Mapping", key, "ip", str(error))
            else:
                yield Fault("Vpc", (name,), "subnets", f"port {row['port']} no longer fits: {error}")


def _check_allowed(key: Key, row: Row, vpc: Row, *, touched: bool) -> Iterator[Fault]:
    try:
        subnets = tuple(map(values.parse_subnet, texts(vpc.get("subnets") or ())))
        routes = map(values.parse_route, texts(vpc.get("routes") or ()))
        values.check_allowed(tuple(map(values.parse_allowed, texts(row["allowed"]))), subnets, routes)
    except ValueError as error:
        if touched:
            yield Fault("Port", key, "allowed", str(error))
        else:
            yield Fault("Vpc", (str(row["vpc"]),), "subnets", f"port {key[0]} no longer fits: {error}")
