"""What is wanted and what is there -> what to change. `tests/ovs/test_database.py` carries it out for real."""

from typing import Any

import pytest

from mapping import document, plan, wanted
from mapping.plan import Plan
from mapping.rows import Tables
from mapping.wanted import Content
from tests.build import as_file, filled

FILE = """\
vpcs:
  blue: {vni: 5001, subnets: [10.0.0.0/24]}
hosts:
  host-a: {vtep: 192.0.2.1}
  host-b: {vtep: 192.0.2.2}
ports:
  web: {vpc: blue, mac: "02:00:00:00:00:01", host: host-a, addresses: [10.0.0.11]}
  db: {vpc: blue, mac: "02:00:00:00:00:02", host: host-b, addresses: [10.0.0.12, 10.0.0.13]}
"""


def content(text: str) -> Content:
    read = document.read(text.encode(), "f.yaml")
    assert read.problems == ()
    return read.rows


def tables(text: str, config_seq: int = 3) -> Tables:
    """Database rows that say what the file says."""
    rows = content(text)
    refs = [(table, key) for table in wanted.TABLES for key in rows[table]]
    ids = {ref: f"r{number}" for number, ref in enumerate(refs, 1)}

    def raw(table: str, key: wanted.Key, row: wanted.Row) -> dict[str, Any]:
        names = ("vpc", "ip") if table == "Mapping" else ("name",)
        full = dict(zip(names, key, strict=True)) | row
        return filled(table, {column: cell(column, value) for column, value in full.items()})

    def cell(column: str, value: wanted.Value) -> object:
        if column == "groups":
            return ["set", [["uuid", ids["SecurityGroup", (name,)]] for name in wanted.texts(value)]]
        if column in wanted.REFERENCES:
            return ["set", []] if value is None else ["uuid", str(ids[wanted.REFERENCES[column], (str(value),)])]
        if isinstance(value, tuple):
            return value[0] if len(value) == 1 else ["set", list(value)]
        return value

    found = {table: {ids[table, key]: raw(table, key, row) for key, row in rows[table].items()} for table in rows}
    return {"Global": {"r0": {"config_seq": config_seq}}, **found}


def applied(wants: str, there: str, *, prune: bool = False) -> Plan:
    """The plan of `lockgate apply` for this file on a database that says what the other file says."""
    rows, now = content(wants), tables(there)
    return plan.make(rows, now, absent=plan.left_out(rows, now, prune=prune))


def said(made: Plan) -> list[str]:
    assert made.faults == ()
    return [f"{edit.action} {edit.name} {edit.before} -> {edit.after}" for edit in made.edits]


def test_names_and_rows_are_the_same_thing() -> None:
    assert as_file(wanted.named(tables(FILE))[0]) == content(FILE)


def test_into_an_empty_database() -> None:
    made = plan.make(content(FILE), {})
    assert {edit.action for edit in made.edits} == {"add"}
    assert [edit.table for edit in made.edits] == [
        "Vpc",
        "Host",
        "Host",
        "Port",
        "Port",
        "Mapping",
        "Mapping",
        "Mapping",
    ]
    assert made.operations[0]["rows"] == []
    port = next(operation for operation in made.operations if operation["table"] == "Port")
    vpc = next(operation for operation in made.operations if operation["table"] == "Vpc")
    assert port["row"]["vpc"] == ["named-uuid", vpc["uuid-name"]]


def test_a_second_time_there_is_nothing_to_do() -> None:
    for prune in (False, True):
        made = applied(FILE, FILE, prune=prune)
        assert (made.edits, made.faults, made.operations) == ((), (), ())


def test_the_first_operation_asks_that_nobody_else_has_written() -> None:
    made = applied(FILE.replace("5001", "5002"), FILE)
    first = made.operations[0]
    assert (first["op"], first["table"], first["until"], first["timeout"]) == ("wait", "Global", "==", 0)
    assert (first["columns"], first["rows"]) == (["config_seq"], [{"config_seq": 3}])
    assert [operation["op"] for operation in made.operations] == ["wait", "update"]
    assert made.operations[1]["row"] == {"vni": 5002}


def test_two_ports_exchange_addresses() -> None:
    swapped = FILE.replace("0.11]", "0.x]").replace("10.0.0.12, ", "10.0.0.11, ").replace("0.x]", "0.12]")
    assert said(applied(swapped, FILE)) == [
        "change mapping 10.0.0.12 of VPC blue {'port': 'db'} -> {'port': 'web'}",
        "change mapping 10.0.0.11 of VPC blue {'port': 'web'} -> {'port': 'db'}",
    ]


def test_two_hosts_exchange_vteps() -> None:
    swapped = FILE.replace("192.0.2.1", "x").replace("192.0.2.2", "192.0.2.1").replace("x", "192.0.2.2")
    made = applied(swapped, FILE)
    assert made.faults == ()
    assert [(edit.action, edit.key, edit.after["vtep_ip"]) for edit in made.edits] == [
        ("change", ("host-a",), "192.0.2.2"),
        ("change", ("host-b",), "192.0.2.1"),
    ]


def test_rows_that_the_file_does_not_name_stay_unless_pruned() -> None:
    smaller = "\n".join(line for line in FILE.splitlines() if "db" not in line and "host-b" not in line)
    assert said(applied(smaller, FILE)) == []
    assert [edit.name for edit in applied(smaller, FILE, prune=True).edits] == [
        "host host-b",
        "port db",
        "mapping 10.0.0.12 of VPC blue",
        "mapping 10.0.0.13 of VPC blue",
    ]
    assert applied("ports:\n", FILE, prune=True).faults == ()


def test_a_port_of_the_file_has_the_addresses_that_the_file_says() -> None:
    fewer = FILE.replace("[10.0.0.12, 10.0.0.13]", "[10.0.0.14]")
    assert said(applied(fewer, FILE)) == [
        "add mapping 10.0.0.14 of VPC blue {} -> {'port': 'db'}",
        "delete mapping 10.0.0.12 of VPC blue {'port': 'db'} -> {}",
        "delete mapping 10.0.0.13 of VPC blue {'port': 'db'} -> {}",
    ]


def test_a_port_moves_to_another_vpc_with_its_addresses() -> None:
    two = FILE.replace("hosts:", "  red: {vni: 5002, subnets: [10.0.0.0/24]}\nhosts:")
    moved = two.replace("web: {vpc: blue", "web: {vpc: red")
    assert said(applied(moved, two)) == [
        "add mapping 10.0.0.11 of VPC red {} -> {'port': 'web'}",
        "change port web {'vpc': 'blue'} -> {'vpc': 'red'}",
        "delete mapping 10.0.0.11 of VPC blue {'port': 'web'} -> {}",
    ]


def test_a_file_may_refer_to_what_only_the_database_has() -> None:
    ports = "ports:\n" + FILE.partition("ports:\n")[2].replace("10.0.0.11", "10.0.0.99")
    assert [edit.name for edit in applied(ports, FILE).edits] == [
        "mapping 10.0.0.99 of VPC blue",
        "mapping 10.0.0.11 of VPC blue",
    ]
    assert applied(ports, "vpcs:\n").faults[0].text == "there is no VPC 'blue': correct the name"


def faults(wants: str, there: str, *, prune: bool = False) -> list[str]:
    return [fault.text for fault in applied(wants, there, prune=prune).faults]


@pytest.mark.parametrize(
    ("wants", "fault"),
    [
        ("vpcs:\n  red: {vni: 5001, subnets: [10.0.0.0/24]}", "VNI 5001 is taken by VPC blue: choose another"),
        ("hosts:\n  c: {vtep: 192.0.2.1}", "VTEP 192.0.2.1 is taken by host host-a: choose another"),
        (
            "ports:\n  new: {vpc: blue, mac: '02:00:00:00:00:01'}",
            "MAC 02:00:00:00:00:01 of VPC blue is taken by port web: choose another",
        ),
        (
            "vpcs:\n  blue: {vni: 5001, subnets: [10.0.1.0/24]}",
            "port web no longer fits: address 10.0.0.11 is outside its VPC's subnets (10.0.1.0/24): choose one inside",
        ),
        (
            "vpcs:\n  blue: {vni: 5001, subnets: [10.0.0.0/24], router_mac: '02:00:00:00:00:01'}",
            "MAC 02:00:00:00:00:01 of port web is the router's of VPC blue: choose another",
        ),
    ],
)
def test_what_collides_with_rows_of_the_database(wants: str, fault: str) -> None:
    assert fault in faults(wants, FILE)


def test_what_is_still_needed_is_not_deleted() -> None:
    made = plan.make(wanted.empty(), tables(FILE), absent=[("Vpc", ("blue",)), ("Host", ("host-a",))])
    assert [fault.text for fault in made.faults] == [
        "VPC blue is still needed by port web, port db: delete or change that first",
        "host host-a is still needed by port web: delete or change that first",
    ]
    assert made.operations == ()


def test_a_bad_row_of_the_database_is_in_nobodys_way_and_can_be_mended() -> None:
    there = tables(FILE)
    port = next(row for row in there["Port"].values() if row["name"] == "db")
    port["mac"] = "junk"
    rows = content(FILE.partition("  db:")[0].replace("5001", "5002"))
    assert plan.make(rows, there).faults == ()
    mended = plan.make(content(FILE), there)
    assert said(mended) == ["change port db {'mac': 'junk'} -> {'mac': '02:00:00:00:00:02'}"]


def test_what_is_there_already_is_not_changed_by_adding() -> None:
    rows = content(FILE.replace("5001", "5002"))
    made = plan.make(rows, tables(FILE), only_new=True)
    assert [fault.text for fault in made.faults] == ["VPC blue is there already, with vni 5001: delete it first"]
    assert plan.make(content(FILE), tables(FILE), only_new=True).edits == ()


MANY = """\
vpcs:
  blue: {vni: 1, subnets: [10.0.0.0/24]}
  red: {vni: 2, subnets: [10.0.0.0/24]}
  empty: {vni: 3, subnets: [10.0.0.0/24]}
hosts:
  blue-1: {vtep: 192.0.2.1}
  blue-2: {vtep: 192.0.2.2}
  red-1: {vtep: 192.0.2.3}
  both: {vtep: 192.0.2.4}
  idle: {vtep: 192.0.2.5}
ports:
  b1: {vpc: blue, mac: "02:00:00:00:00:01", host: blue-1, addresses: [10.0.0.11]}
  b2: {vpc: blue, mac: "02:00:00:00:00:02", host: blue-2, addresses: [10.0.0.12]}
  b3: {vpc: blue, mac: "02:00:00:00:00:03", host: both, addresses: [10.0.0.13]}
  r1: {vpc: red, mac: "02:00:00:00:00:04", host: red-1, addresses: [10.0.0.14]}
  r2: {vpc: red, mac: "02:00:00:00:00:05", host: both, addresses: [10.0.0.12]}
  loose: {vpc: red, mac: "02:00:00:00:00:06", addresses: [10.0.0.13]}
"""
BLUE = {"blue-1", "blue-2", "both"}
RED = {"red-1", "both"}


@pytest.mark.parametrize(
    ("old", "new", "hosts"),
    [
        ("vni: 1,", "vni: 9,", BLUE),
        ("vni: 3,", "vni: 9,", set()),
        ("[10.0.0.12]", "[10.0.0.99]", BLUE | RED),
        ("blue-1, addresses: [10.0.0.11]", "blue-1, addresses: []", BLUE),
        ("red-1, addresses", "idle, addresses", RED | {"idle"}),
        ("b1: {vpc: blue", "b1: {vpc: red", BLUE | RED),
        ("b1: {vpc: blue", "b1: {vpc: empty", BLUE),
        ("vpc: red, mac: '02:00:00:00:00:06'", "vpc: empty, mac: '02:00:00:00:00:06', host: idle", RED | {"idle"}),
        ("192.0.2.1}", "192.0.2.9}", BLUE),
        ("192.0.2.4}", "192.0.2.9}", BLUE | RED),
        ("192.0.2.5}", "192.0.2.9}", {"idle"}),
        ("  idle: {vtep: 192.0.2.5}", "  fresh: {vtep: 192.0.2.5}", {"fresh"}),
        ("  loose", "  more: {vpc: blue, mac: '02:00:00:00:00:07', host: idle}\n  loose", BLUE | {"idle"}),
        ("nothing", "", set()),
    ],
)
def test_whom_a_change_concerns(old: str, new: str, hosts: set[str]) -> None:
    there = MANY.replace('"', "'")
    made = applied(there.replace(old, new), there, prune=True)
    assert made.faults == ()
    assert plan.concerned(made.edits, tables(there)) == hosts


def test_a_file_for_an_empty_database_concerns_its_hosts() -> None:
    assert plan.concerned(plan.make(content(MANY), {}).edits, {}) == BLUE | RED | {"idle"}


def test_hosts_that_cannot_reach_each_other_are_noted_and_the_change_is_made() -> None:
    mixed = FILE.replace("192.0.2.2", '"2001:db8::2"')
    made = applied(mixed, FILE)
    assert [edit.after["vtep_ip"] for edit in made.edits] == ["2001:db8::2"]
    assert made.notes == (
        "VPC blue: host-a (IPv4) and host-b (IPv6) cannot reach each other: give its hosts VTEPs of one IP version",
    )
    assert made.operations
    assert applied(FILE, mixed).notes == ()


FITS = FILE.replace("10.0.0.0/24]", '10.0.0.0/24, "fd00::/64"]')


@pytest.mark.parametrize(
    ("wants", "there", "found"),
    [
        ("vpcs: {blue: {vni: 5001, subnets: [10.0.0.0/24], mtu: 1450}}", FILE, None),
        (
            "vpcs: {blue: {vni: 5001, subnets: [10.0.0.0/24], mtu: 1451}}",
            FILE,
            "Vpc blue mtu: MTU 1451 is more than the hosts carry with their tunnel headers: choose at most 1450",
        ),
        ("hosts: {host-b: {vtep: 192.0.2.2, substrate_mtu: 1330}}", FITS, None),
        (
            "hosts: {host-b: {vtep: 192.0.2.2, substrate_mtu: 1329}}",
            FITS,
            "Host host-b substrate_mtu: VPC blue needs an MTU of 1280, and with this host 1279 is carried",
        ),
        (
            "vpcs: {red: {vni: 2, subnets: ['fd00::/64']}}",
            FILE.replace("host-b: {vtep: 192.0.2.2}", "host-b: {vtep: 192.0.2.2, substrate_mtu: 1300}"),
            "Vpc red subnets: guests would have an MTU of 1250, all that the hosts carry, and IPv6 needs 1280",
        ),
        # It did not fit before: whoever mends something else is not kept from it.
        (
            "hosts: {host-c: {vtep: 192.0.2.3}}",
            FITS.replace("host-b: {vtep: 192.0.2.2}", "host-b: {vtep: 192.0.2.2, substrate_mtu: 1300}"),
            None,
        ),
    ],
)
def test_a_vpc_has_no_larger_mtu_than_every_host_carries(wants: str, there: str, found: str | None) -> None:
    faults = [f"{fault.table} {fault.key[0]} {fault.column}: {fault.text}" for fault in applied(wants, there).faults]
    assert len(faults) == (found is not None)
    assert all(fault.startswith(str(found)) for fault in faults), faults


@pytest.mark.parametrize("state", ["closing", "deploying", "active", "releasing", "failed", "available"])
def test_a_machine_that_is_provisioned_is_bound_to_no_other_port(state: str) -> None:
    unbound = FILE.replace("host: host-a, addresses: [10.0.0.11]", "addresses: [10.0.0.11]")
    there = dict(tables(unbound))
    ids = wanted.named(there)[1]
    host, port = (["uuid", ids[ref]] for ref in (("Host", ("host-a",)), ("Port", ("web",))))
    there["Provision"] = {"p": {"host": host, "port": port, "device": "nic0", "state": state}}

    def faults(text: str) -> list[str]:
        return [fault.text for fault in plan.make(content(text), there).faults]

    refused = [f"device nic0 of host host-a is {state} for port web: `lockgate release web` first"]
    moved = unbound.replace("host: host-b", "host: host-a, device: nic0")
    assert faults(moved) == ([] if state == "available" else refused)
    assert faults(moved.replace("nic0", "nic1")) == []
    assert faults(FILE.replace("host: host-a, a", "host: host-a, device: nic0, a")) == []
