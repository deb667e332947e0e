"""Small worlds for tests: snapshots made from a few words, with row ids that depend on names alone."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network
from uuid import NAMESPACE_OID, uuid5

from mapping import rows, schema
from mapping.model import (
    ROUTER_MAC,
    Encap,
    Host,
    Mapping,
    Port,
    RowId,
    SecurityGroup,
    Snapshot,
    Vpc,
    default_datapaths,
)
from mapping.rows import Row
from mapping.security_rules import parse_rule
from mapping.wanted import Content


def filled(table: str, row: Row) -> Row:
    """A row with what it leaves out, as a replica completes it."""
    return {column: row.get(column, schema.default(table, column)) for column in rows.READ_COLUMNS[table]}


def as_file(content: Content) -> Content:
    """Rows of a database as a file has them, which says nothing of moves; no port is in one."""
    for row in content["Port"].values():
        assert (row.pop("moving_to"), row.pop("previous_host")) == (None, None)
    return content


def uuid(*names: object) -> RowId:
    return str(uuid5(NAMESPACE_OID, "/".join(map(str, names))))


def host(name: str, vtep: str, encap: Encap = Encap.VXLAN) -> Host:
    vtep_ip = ip_address(vtep)
    return Host(uuid("host", name), name, vtep_ip, encap, *default_datapaths(vtep_ip))


def vpc(name: str, vni: int, *subnets: str) -> Vpc:
    networks = tuple(map(ip_network, subnets or ("10.0.0.0/24", "fd00::/64")))
    return Vpc(uuid("vpc", name), name, vni, networks, ROUTER_MAC, None)


def port(name: str, in_vpc: Vpc, mac: str, on: Host | None) -> Port:
    return Port(uuid("port", name), name, in_vpc.uuid, mac, on.uuid if on else None, name)


def mapping(ip: str, at: Port) -> Mapping:
    return Mapping(uuid("mapping", at.vpc, ip), at.vpc, ip, at.uuid)


def group(name: str, in_vpc: Vpc, *rules: str, stateless: bool = False) -> SecurityGroup:
    return SecurityGroup(uuid("group", name), name, in_vpc.uuid, stateless, tuple(map(parse_rule, sorted(rules))))


def having(port: Port, *groups: SecurityGroup) -> Port:
    """The port, with these groups."""
    return replace(port, groups=tuple(sorted(group.uuid for group in groups)))


def snapshot(*rows: Host | Vpc | SecurityGroup | Port | Mapping | list[Mapping], config_seq: int = 1) -> Snapshot:
    flat = [row for item in rows for row in (item if isinstance(item, list) else [item])]
    return Snapshot(
        config_seq,
        {row.uuid: row for row in flat if isinstance(row, Host)},
        {row.uuid: row for row in flat if isinstance(row, Vpc)},
        {row.uuid: row for row in flat if isinstance(row, Port)},
        {row.uuid: row for row in flat if isinstance(row, Mapping)},
        (),
        {row.uuid: row for row in flat if isinstance(row, SecurityGroup)},
    )


HOST_A = host("host-a", "192.0.2.1")
HOST_B = host("host-b", "192.0.2.2", Encap.GENEVE)
HOST_C = host("host-c", "192.0.2.3", Encap.GRE)
BLUE = vpc("blue", 5001)
RED = vpc("red", 5002)
WEB = port("web", BLUE, "02:00:00:00:00:01", HOST_A)
DB = port("db", BLUE, "02:00:00:00:00:02", HOST_B)
SPY = port("spy", RED, "02:00:00:00:00:03", HOST_B)
MAPPINGS = [mapping("10.0.0.11", WEB), mapping("10.0.0.12", DB), mapping("10.0.0.12", SPY)]
MAPPINGS += [mapping("fd00::11", WEB), mapping("fd00::12", DB), mapping("fd00::12", SPY)]
TWO_HOSTS = snapshot(HOST_A, HOST_B, BLUE, RED, WEB, DB, SPY, MAPPINGS)
"""web on host-a (VXLAN) and db on host-b (Geneve) in VPC blue; spy on host-b in VPC red, with db's addresses."""

HOST_A6, HOST_B6 = (
    host(each.name, f"2001:db8::{number}", each.encap) for number, each in enumerate((HOST_A, HOST_B), 1)
)
TWO_HOSTS6 = replace(TWO_HOSTS, hosts={each.uuid: each for each in (HOST_A6, HOST_B6)})
"""The same with IPv6 on the substrate."""

GUEST_OFPORTS = {"web": 10, "g-web": 11, "db": 10, "g-db": 11, "spy": 12, "g-spy": 13}
NIC_OFPORTS = {"n-web": 20, "n-db": 20, "n-spy": 21}
