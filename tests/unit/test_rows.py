"""Rows as the database has them -> values; what is wrong is set aside with its reason, and the rest stays."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapping import rows
from mapping.model import UNLIMITED, BadRow, Encap, RowId, guest_mtu
from mapping.rows import Row
from tests.build import BLUE, DB, HOST_A, HOST_A6, HOST_C, TWO_HOSTS, WEB, filled


def uuid(number: int) -> RowId:
    return f"r{number}"


def ref(number: int) -> list[str]:
    return ["uuid", str(uuid(number))]


def good() -> dict[str, dict[RowId, Row]]:
    """host-a (1), VPC blue (2), port web (3) on it, its address (4)."""
    dpids = {"guest_datapath": "00000067c0000201", "nic_datapath": "0000006ec0000201"}
    host = {"name": "host-a", "vtep_ip": "192.0.2.1", "encap": "vxlan", **dpids}
    vpc = {"name": "blue", "vni": 5001, "subnets": "10.0.0.0/24", "router_mac": "0a:00:5e:00:00:01"}
    port = {"name": "web", "vpc": ref(2), "mac": "02:00:00:00:00:01", "host": ref(1), "device": "web"}
    return {
        "Global": {uuid(9): {"config_seq": 7}},
        "Host": {uuid(1): filled("Host", host)},
        "Vpc": {uuid(2): filled("Vpc", vpc)},
        "Port": {uuid(3): filled("Port", port)},
        "Mapping": {uuid(4): {"vpc": ref(2), "ip": "10.0.0.11", "port": ref(3)}},
    }


def test_good_rows() -> None:
    snapshot = rows.read(good())
    assert (snapshot.config_seq, snapshot.bad) == (7, ())
    assert snapshot.mappings[uuid(4)].port == snapshot.ports[uuid(3)].uuid
    assert snapshot.ports[uuid(3)].host == uuid(1)


# (table, row, column, what it is set to, what is said, the tables whose row is then unusable)
BAD: list[tuple[str, int, str, Any, str, set[str]]] = [
    ("Host", 1, "vtep_ip", "junk", "address 'junk'", {"Host", "Port", "Mapping"}),
    ("Host", 1, "guest_datapath", "zz", "datapath id", {"Host", "Port", "Mapping"}),
    ("Host", 1, "guest_datapath", "0000006ec0000201", "claimed twice", {"Host", "Port", "Mapping"}),
    ("Vpc", 2, "subnets", ["set", []], "no subnets", {"Vpc", "Port", "Mapping"}),
    ("Vpc", 2, "subnets", ["set", ["10.0.0.0/24", "10.0.0.0/25"]], "overlap", {"Vpc", "Port", "Mapping"}),
    ("Vpc", 2, "router_mac", "", "MAC ''", {"Vpc", "Port", "Mapping"}),
    ("Vpc", 2, "router_mac", "02:00:00:00:00:01", "the router's", {"Port", "Mapping"}),
    ("Vpc", 2, "dns", "10.0.0", "address '10.0.0'", {"Vpc", "Port", "Mapping"}),
    (
        "Vpc",
        2,
        "routes",
        ["map", [["10.9.0.0/16", "10.1.0.9"]]],
        "next hop 10.1.0.9 is outside",
        {"Vpc", "Port", "Mapping"},
    ),
    ("Vpc", 2, "routes", ["map", [["fd09::/64", "10.0.0.9"]]], "the other IP version", {"Vpc", "Port", "Mapping"}),
    ("Port", 3, "allowed", ["set", ["10.0.0.9", "224.0.0.0/8"]], "multicast", {"Port", "Mapping"}),
    ("Port", 3, "allowed", "10.0.1.9", "outside its VPC's subnets and routes (10.0.0.0/24)", {"Port", "Mapping"}),
    ("Port", 3, "allowed", "10.0.0.1", "holds 10.0.0.1, the router of 10.0.0.0/24", {"Port", "Mapping"}),
    ("Port", 3, "allowed", "10.0.0.0/8", "holds 10.0.0.0, no guest's address of 10.0.0.0/24", {"Port", "Mapping"}),
    ("Port", 3, "allowed", "10.0.0.254/31", "holds 10.0.0.255, no guest's", {"Port", "Mapping"}),
    (
        "Port",
        3,
        "allowed",
        ["set", ["10.0.0.8/30", "10.0.0.9"]],
        "10.0.0.8/30 and 10.0.0.9 overlap",
        {"Port", "Mapping"},
    ),
    ("Port", 3, "limits", ["map", [["speed", 9]]], "limit 'speed'", {"Port", "Mapping"}),
    ("Port", 3, "limits", ["map", [["to_guest_pps", 0]]], "whole number from 1", {"Port", "Mapping"}),
    ("Port", 3, "boot", ["map", [["bios", "a b"]]], "boot bios 'a b'", {"Port", "Mapping"}),
    ("Port", 3, "boot", ["map", [["next_server", "fd00::1"]]], "an IPv4 address", {"Port", "Mapping"}),
    ("Port", 3, "mac", "junk", "MAC 'junk'", {"Port", "Mapping"}),
    ("Port", 3, "device", "g-web", "the bridges' own", {"Port", "Mapping"}),
    ("Mapping", 4, "ip", "10.0.0.1", "router", {"Mapping"}),
    ("Mapping", 4, "ip", "10.0.9.9", "outside", {"Mapping"}),
    ("Mapping", 4, "ip", "fd00::2", "outside", {"Mapping"}),
    ("Mapping", 4, "ip", "FD00::2", "write it as fd00::2", {"Mapping"}),
    ("Vpc", 2, "subnets", ["set", ["10.0.0.0/24", "fe80::/64"]], "link-local", {"Vpc", "Port", "Mapping"}),
]


def test_a_vpc_of_both_families() -> None:
    tables = good()
    tables["Vpc"][uuid(2)]["subnets"] = ["set", ["fd00::/64", "10.0.0.0/24"]]
    tables["Mapping"][uuid(5)] = {"vpc": ref(2), "ip": "fd00::11", "port": ref(3)}
    tables["Mapping"][uuid(6)] = {"vpc": ref(2), "ip": "fd00::1", "port": ref(3)}
    snapshot = rows.read(tables)
    assert list(map(str, snapshot.vpcs[uuid(2)].subnets)) == ["10.0.0.0/24", "fd00::/64"]
    assert list(map(str, snapshot.vpcs[uuid(2)].routers())) == ["10.0.0.1", "fd00::1"]
    assert snapshot.mappings.keys() == {uuid(4), uuid(5)}
    assert [bad.problem for bad in snapshot.bad] == ["address fd00::1 is the router of fd00::/64: choose another"]


@pytest.mark.parametrize(("table", "row", "column", "value", "said", "lost"), BAD)
def test_one_bad_field(*, table: str, row: int, column: str, value: object, said: str, lost: set[str]) -> None:
    tables = good()
    tables[table][uuid(row)][column] = value
    snapshot = rows.read(tables)
    assert [said in bad.problem for bad in snapshot.bad] == [True]
    kept = {"Host": snapshot.hosts, "Vpc": snapshot.vpcs, "Port": snapshot.ports, "Mapping": snapshot.mappings}
    assert {name for name, there in kept.items() if not there} == lost


def test_what_a_row_may_leave_out() -> None:
    tables = good()
    tables["Host"][uuid(1)]["substrate_mtu"] = 9000
    tables["Vpc"][uuid(2)] |= {"mtu": 8900, "dns": ["set", ["fd00::53", "10.9.9.9"]]}
    tables["Vpc"][uuid(2)]["routes"] = ["map", [["10.9.0.0/16", "10.0.0.9"]]]
    tables["Port"][uuid(3)] |= {"allowed": ["set", ["10.0.0.9", "10.9.1.0/28"]], "boot": ["map", [["bios", "a"]]]}
    tables["Port"][uuid(3)]["limits"] = ["map", [["to_guest_pps", 7]]]
    snapshot = rows.read(tables)
    host, vpc, port = snapshot.hosts[uuid(1)], snapshot.vpcs[uuid(2)], snapshot.ports[uuid(3)]
    assert (host.substrate_mtu, vpc.mtu, tuple(map(str, vpc.dns))) == (9000, 8900, ("10.9.9.9", "fd00::53"))
    assert [(str(net), str(hop)) for net, hop in vpc.routes] == [("10.9.0.0/16", "10.0.0.9")]
    assert (tuple(map(str, port.allowed)), port.boot) == (("10.0.0.9/32", "10.9.1.0/28"), (("bios", "a"),))
    assert port.limits == UNLIMITED._replace(to_guest_pps=7)
    assert rows.parse_row("Port", uuid(3), rows.raw(port)) == port


def test_a_vpcs_mtu_is_what_every_host_can_be_sent() -> None:
    """RFC 7348: 50 bytes over IPv4; GRE with a key, RFC 2890: 42; IPv6's header is 20 bytes longer."""
    assert [encap.overhead(4) for encap in Encap] == [50, 50, 42]
    assert guest_mtu(BLUE, [HOST_A, HOST_C]) == 1450
    assert guest_mtu(BLUE, [HOST_C, replace(HOST_A, substrate_mtu=9000)]) == 1450, "what C sends to A is wrapped for A"
    assert guest_mtu(BLUE, [HOST_A6, HOST_A]) == 1430
    assert guest_mtu(replace(BLUE, mtu=1300), [HOST_A]) == 1300
    assert guest_mtu(BLUE, []) == 1430


def test_a_mapping_to_a_port_of_another_vpc() -> None:
    tables = good()
    tables["Vpc"][uuid(5)] = {**tables["Vpc"][uuid(2)], "name": "red", "vni": 5002}
    tables["Mapping"][uuid(4)]["vpc"] = ref(5)
    snapshot = rows.read(tables)
    assert [str(bad) for bad in snapshot.bad] == [
        "Mapping 10.0.0.11: its port web is in another VPC: map it to a port of VPC red"
    ]


def test_a_port_without_a_host_may_have_a_device_that_fits_no_bridge() -> None:
    tables = good()
    tables["Port"][uuid(3)] |= {"host": ["set", []], "device": "a" * 63}
    snapshot = rows.read(tables)
    assert snapshot.bad == ()
    assert snapshot.ports[uuid(3)].host is None


TEXT = st.sampled_from(["", "web", "02:00:00:00:00:01", "10.0.0.11", "10.0.0.0/24", "x" * 63]) | st.text(max_size=8)


@given(st.data())
def test_whatever_text_the_schema_lets_through_nothing_is_raised(data: st.DataObject) -> None:
    tables = good()
    for known in tables.values():
        for row in known.values():
            for column, value in row.items():
                if isinstance(value, str) and data.draw(st.booleans()):
                    row[column] = data.draw(TEXT)
    snapshot = rows.read(tables)
    assert all(port.vpc in snapshot.vpcs for port in snapshot.ports.values())
    assert all(port.host in {None, *snapshot.hosts} for port in snapshot.ports.values())
    assert all(mapping.port in snapshot.ports for mapping in snapshot.mappings.values())
    assert all(isinstance(bad, BadRow) for bad in snapshot.bad)


def test_linking_valid_values_gives_them_back() -> None:
    parsed = {"Host": TWO_HOSTS.hosts, "Vpc": TWO_HOSTS.vpcs, "Port": TWO_HOSTS.ports, "Mapping": TWO_HOSTS.mappings}
    assert rows.link(TWO_HOSTS.config_seq, parsed) == TWO_HOSTS
    assert {WEB.uuid, DB.uuid} < set(TWO_HOSTS.ports)
