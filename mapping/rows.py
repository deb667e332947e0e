"""Database rows -> the values of `mapping.model`, each bad row set aside with its reason.

A `Row` is a row as RFC 7047 (5.1) writes it in JSON: column -> atom, ["uuid", U], ["set", [...]] or ["map", [...]].
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from collections.abc import Mapping as MappingABC
from typing import Any, Final

from mapping import values
from mapping.model import (
    SUBSTRATE_MTU,
    UNLIMITED,
    BadRow,
    Host,
    Limits,
    Mapping,
    Port,
    RowId,
    SecurityGroup,
    Snapshot,
    Vpc,
    peers_named,
)
from mapping.schema import Json
from mapping.security_rules import parse_rule, show_rule

Row = dict[str, Json]
Tables = MappingABC[str, MappingABC[RowId, Row]]

_POLICY: Final = ("allowed", "limits", "boot", "groups")

READ_COLUMNS: dict[str, tuple[str, ...]] = {
    "Global": ("config_seq",),
    "Host": ("name", "vtep_ip", "encap", "guest_datapath", "nic_datapath", "substrate_mtu", "bmc"),
    "Vpc": ("name", "vni", "subnets", "router_mac", "mtu", "dns", "routes"),
    "SecurityGroup": ("name", "vpc", "stateless", "rules"),
    "Port": ("name", "vpc", "mac", "host", "device", "moving_to", "previous_host", *_POLICY),
    "Mapping": ("vpc", "ip", "port"),
}
"""What decides the flows. A host's status columns are not here: a controller's own reports must not wake it."""

STATUS_COLUMNS: dict[str, tuple[str, ...]] = {
    "Host": ("applied_seq", "status", "drops"),
    "Provision": ("host", "port", "device", "state", "step", "image", "problem", "owner", "heard", "power", "since"),
}
"""What controllers, and the tool that provisions, report; it decides no flow."""

SEAT_COLUMNS: Final = ("host", "port", "device", "state")
"""Of Provision, what says whose a machine is: it decides no flow, but which ports may be bound there."""

PORT_COUNTERS: Final = "port_counters"
"""The column of Host that has the counters of its ports, "PORT/WHAT_UNIT" -> count: too much to be followed."""

REPORTED_COLUMNS: Final = (*STATUS_COLUMNS["Host"], PORT_COUNTERS)
"""All of Host that controllers write, and the only ones that their roles let them write."""


def copy(text: str) -> str:
    """The same text, elsewhere.

    A message of a hundred thousand rows becomes millions of objects. If some are kept, the memory of all stays taken.
    """
    return text.encode().decode()


def atoms(value: Json) -> list[Json]:
    """The members of a column that is a set: RFC 7047 writes a set of one as the bare atom."""
    if isinstance(value, list) and value and value[0] == "set":
        return list(value[1])
    return [value]


def uuids(value: Json) -> list[RowId]:
    """The row ids in a column of references."""
    return [intern(atom[1]) for atom in atoms(value)]


def intern(text: str) -> RowId:
    """The row id that stands for this text everywhere."""
    return sys.intern(copy(text))


def as_dict(value: Json) -> dict[str, Json]:
    """The pairs of a column that is a map."""
    return dict(value[1])


def _host(uuid: RowId, row: Row) -> Host:
    return Host(
        uuid,
        values.parse_name(row["name"]),
        values.parse_vtep_ip(row["vtep_ip"]),
        values.parse_encap(row["encap"]),
        values.parse_datapath(row["guest_datapath"]),
        values.parse_datapath(row["nic_datapath"]),
        next(iter(atoms(row["substrate_mtu"])), SUBSTRATE_MTU),
        copy(next(iter(atoms(row["bmc"])), "")),
    )


def _vpc(uuid: RowId, row: Row) -> Vpc:
    subnets = values.in_order(values.parse_subnet(text) for text in atoms(row["subnets"]))
    values.check_subnets(subnets)
    mtu = next(iter(atoms(row["mtu"])), None)
    values.check_mtu(mtu, subnets)
    dns = values.in_family_order(values.parse_ip(text) for text in atoms(row["dns"]))
    values.check_dns(dns)
    routes = tuple(values.parse_route(f"{to}={hop}") for to, hop in sorted(as_dict(row["routes"]).items()))
    values.check_routes(routes, subnets)
    name, router_mac = values.parse_name(row["name"]), values.parse_mac(row["router_mac"])
    return Vpc(uuid, name, row["vni"], subnets, router_mac, mtu, dns, routes)


def _port(uuid: RowId, row: Row) -> Port:
    (vpc,) = uuids(row["vpc"])
    host = next(iter(uuids(row["host"])), None)
    device = row["device"] if host is None else values.parse_device(row["device"])
    name, mac = values.parse_name(row["name"]), values.parse_mac(row["mac"])
    allowed = values.in_order(values.parse_allowed(text) for text in atoms(row["allowed"]))
    limits = [values.parse_limit(f"{word}={value}") for word, value in row["limits"][1]]
    boot = tuple(sorted(values.parse_boot(f"{word}={value}") for word, value in row["boot"][1]))
    known = Limits(**dict(limits)) if limits else UNLIMITED
    groups = tuple(sorted(uuids(row["groups"])))
    moving_to, previous = (next(iter(uuids(row[column])), None) for column in ("moving_to", "previous_host"))
    return Port(uuid, copy(name), vpc, copy(mac), host, copy(device), allowed, known, moving_to, previous, boot, groups)


def _group(uuid: RowId, row: Row) -> SecurityGroup:
    (vpc,) = uuids(row["vpc"])
    rules = tuple(parse_rule(copy(text)) for text in sorted(atoms(row["rules"])))
    return SecurityGroup(uuid, copy(values.parse_name(row["name"])), vpc, row["stateless"], rules)


def _mapping(uuid: RowId, row: Row) -> Mapping:
    values.packed_ip(row["ip"])  # raises
    return Mapping(uuid, intern(row["vpc"][1]), copy(row["ip"]), intern(row["port"][1]))


_PARSERS: dict[str, Callable[[RowId, Row], Host | Vpc | SecurityGroup | Port | Mapping]] = {
    "Host": _host,
    "Vpc": _vpc,
    "SecurityGroup": _group,
    "Port": _port,
    "Mapping": _mapping,
}


def parse_row(table: str, uuid: RowId, row: Row) -> Host | Vpc | SecurityGroup | Port | Mapping | BadRow:
    """One row on its own, references not yet followed."""
    try:
        return _PARSERS[table](uuid, row)
    except ValueError as error:
        return BadRow(table, uuid, str(row.get("name") or row.get("ip")), str(error), row)


def _reference(uuid: RowId | None) -> Json:
    return ["set", []] if uuid is None else ["uuid", uuid]


def raw(value: SecurityGroup | Port | Mapping) -> Row:
    """The row that `parse_row` made this of."""
    if isinstance(value, SecurityGroup):
        rules = ["set", [show_rule(rule) for rule in value.rules]]
        return {"name": value.name, "vpc": ["uuid", value.vpc], "stateless": value.stateless, "rules": rules}
    if isinstance(value, Mapping):
        return {"vpc": ["uuid", value.vpc], "ip": value.ip, "port": ["uuid", value.port]}
    return {
        "name": value.name,
        "vpc": ["uuid", value.vpc],
        "mac": value.mac,
        "host": _reference(value.host),
        "device": value.device,
        "moving_to": _reference(value.moving_to),
        "previous_host": _reference(value.previous_host),
        "allowed": ["set", [values.show_allowed(net) for net in value.allowed]],
        "limits": ["map", [[word, limit] for word, limit in value.limits._asdict().items() if limit]],
        "boot": ["map", [list(pair) for pair in value.boot]],
        "groups": ["set", [["uuid", group] for group in value.groups]],
    }


Parsed = MappingABC[str, MappingABC[RowId, Any]]
"""Table -> row uuid -> what `parse_row` made of it."""


def link(seq: int, parsed: Parsed) -> Snapshot:
    """Follow every reference, and keep the rows that hold together.

    A row whose referent is missing is left out without a word: the database keeps its references whole, so the
    referent is a bad row, and is listed itself.
    """
    bad: list[BadRow] = []
    every_host = [host for host in parsed.get("Host", {}).values() if isinstance(host, Host)]
    claims = Counter(datapath for host in every_host for datapath in (host.guest_datapath, host.nic_datapath))
    hosts: dict[RowId, Host] = _keep(parsed, "Host", bad, lambda host: check_host(host, claims))
    vpcs: dict[RowId, Vpc] = _keep(parsed, "Vpc", bad, lambda _: True)
    groups: dict[RowId, SecurityGroup] = _keep(parsed, "SecurityGroup", bad, lambda group: group.vpc in vpcs)
    there = {(group.vpc, group.name) for group in groups.values()}
    dangle = (dangling(group, lambda vpc, name: (vpc, name) in there) for group in groups.values())
    bad += [row for row in dangle if row]
    ports: dict[RowId, Port] = _keep(parsed, "Port", bad, lambda port: check_port(port, vpcs, hosts))
    mappings = _keep(parsed, "Mapping", bad, lambda mapping: check_mapping(mapping, vpcs, ports))
    ordered = tuple(sorted(bad, key=lambda row: (row.table, row.name, row.uuid)))
    return Snapshot(seq, hosts, vpcs, ports, mappings, ordered, groups)


def dangling(group: SecurityGroup, is_there: Callable[[RowId, str], bool]) -> BadRow | None:
    """What to say of a group whose rules name one that its VPC has not: those rules allow nothing, the others work."""
    missed = sorted(peer for peer in peers_named(group) if not is_there(group.vpc, peer))
    if not missed:
        return None
    text = f"its rules name groups that its VPC has not, and so allow nothing: {', '.join(missed)}"
    return BadRow("SecurityGroup", group.uuid, group.name, text)


def _keep(parsed: Parsed, table: str, bad: list[BadRow], check: Callable[[Any], bool]) -> dict[RowId, Any]:
    kept: dict[RowId, Any] = {}
    for uuid, value in parsed.get(table, {}).items():
        verdict = value if isinstance(value, BadRow) else judge(table, value, check)
        if isinstance(verdict, BadRow):
            bad.append(verdict)
        elif verdict:
            kept[uuid] = value
    return kept


def judge(table: str, value: Any, check: Callable[[Any], bool]) -> bool | BadRow:  # noqa: ANN401
    """Whether a row's referents are there; or what is wrong with it and them."""
    try:
        return check(value)
    except ValueError as error:
        return BadRow(table, value.uuid, str(getattr(value, "name", "") or value.ip), str(error))


def check_host(host: Host, claims: MappingABC[int, int]) -> bool:
    """Raise ValueError if one of its datapath ids is claimed more than once."""
    for datapath in (host.guest_datapath, host.nic_datapath):
        if claims[datapath] > 1:
            raise ValueError(f"datapath id {datapath:016x} is claimed twice: give each bridge its own")
    return True


def check_port(port: Port, vpcs: MappingABC[RowId, Vpc], hosts: MappingABC[RowId, Host]) -> bool:
    """Whether its VPC, and its host if it has one, are there; ValueError if it does not fit its VPC."""
    vpc = vpcs.get(port.vpc)
    if vpc is not None and port.mac == vpc.router_mac:
        raise ValueError(f"MAC {port.mac} is the router's of VPC {vpc.name}: choose another")
    if vpc is not None and port.allowed:
        values.check_allowed(port.allowed, vpc.subnets, vpc.routes)
    return vpc is not None and all(host in hosts for host in port.hosts)


def check_mapping(mapping: Mapping, vpcs: MappingABC[RowId, Vpc], ports: MappingABC[RowId, Port]) -> bool:
    """Whether its VPC and its port are there; ValueError if it does not fit them."""
    vpc, port = vpcs.get(mapping.vpc), ports.get(mapping.port)
    if vpc is None or port is None:
        return False
    if port.vpc != mapping.vpc:
        raise ValueError(f"its port {port.name} is in another VPC: map it to a port of VPC {vpc.name}")
    number = int.from_bytes(values.packed_ip(mapping.ip))
    for first, last in vpc.guest_ranges:
        if first <= number <= last:
            return True
    values.check_guest_ip(values.parse_ip(mapping.ip), vpc.subnets)
    raise AssertionError(f"{mapping.ip} is in no range, and yet allowed")


def config_seq(tables: Tables) -> int:
    """The number of the last change; 0 before any."""
    return next((row["config_seq"] for row in tables.get("Global", {}).values()), 0)


def read(tables: Tables) -> Snapshot:
    """The snapshot that these tables say."""
    parsed = {
        table: {uuid: parse_row(table, uuid, row) for uuid, row in tables.get(table, {}).items()}
        for table in READ_COLUMNS
        if table != "Global"
    }
    return link(config_seq(tables), parsed)
