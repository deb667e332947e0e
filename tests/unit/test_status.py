"""Status rows -> words."""

from typing import Any

from mapping import rows, status
from mapping.model import RowId
from mapping.rows import Row
from mapping.status import Report
from tests.build import filled

NOW = 1_800_000_000.0


def host(number: int, said: dict[str, str], applied: int = 5, drops: dict[str, int] | None = None) -> Row:
    vtep = f"192.0.2.{number}"
    dpids = {"guest_datapath": f"{number:016x}", "nic_datapath": f"{number + 100:016x}"}
    reported = {"status": pairs(said), "drops": pairs(drops or {}), "applied_seq": applied}
    return {**filled("Host", {"name": f"host-{number}", "vtep_ip": vtep, "encap": "vxlan", **dpids}), **reported}


def pairs(said: dict[str, Any]) -> list[Any]:
    return ["map", [list(pair) for pair in said.items()]]


def well(heard: float = NOW) -> dict[str, str]:
    return {"guest": "connected", "nic": "connected", "controller": "c1", "heard": str(int(heard))}


def report(*hosts: Row) -> Report:
    found = {f"r{number}": row for number, row in enumerate(hosts)}
    tables: dict[str, dict[RowId, Row]] = {"Global": {"r9": {"config_seq": 5}}, "Host": found}
    tables |= {table: {} for table in ("Vpc", "Port", "Mapping")}
    return status.report(tables, rows.read(tables), NOW)


def test_all_is_well() -> None:
    made = report(host(1, well(NOW - 9), drops={"no_mapping": 2, "spoofed_ip": 7}))
    assert made.summary == ("All is well: every host has applied config_seq 5.",)
    assert (made.ok, made.counts["Host"]) == (True, 1)
    (one,) = made.hosts
    assert (one.heard, one.lag, one.live) == (9, 0, True)
    assert list(one.drops.items()) == [("spoofed_ip", 7), ("no_mapping", 2)]


def test_hosts_of_one_vpc_that_cannot_reach_each_other_are_named() -> None:
    hosts = {f"r{number}": host(number, well()) for number in range(1, 6)}
    hosts["r5"]["vtep_ip"] = "2001:db8::5"
    vpc = {"name": "blue", "vni": 1, "subnets": "10.0.0.0/24", "router_mac": "0a:00:5e:00:00:01"}
    ports = {
        f"p{number}": {
            "name": f"p{number}",
            "vpc": ["uuid", "v1"],
            "mac": f"02:00:00:00:00:0{number}",
            "host": ["uuid", f"r{number}"],
            "device": "p",
        }
        for number in range(1, 6)
    }
    tables: dict[str, dict[RowId, Row]] = {
        "Global": {"r9": {"config_seq": 5}},
        "Host": hosts,
        "Vpc": {"v1": filled("Vpc", vpc)},
    }
    tables |= {"Port": {uuid: filled("Port", port) for uuid, port in ports.items()}, "Mapping": {}}
    made = status.report(tables, rows.read(tables), NOW)
    sides = "host-1, host-2, host-3 and 1 more (IPv4) and host-5 (IPv6)"
    assert made.summary == (f"VPC blue: {sides} cannot reach each other: give its hosts VTEPs of one IP version",)
    del tables["Port"]["p5"]
    assert status.report(tables, rows.read(tables), NOW).ok


def test_hosts_of_which_the_same_is_said_are_said_together() -> None:
    lost = [host(number, {**well(), "nic": "absent"}) for number in range(1, 8)]
    alike = [host(number, {**well(), "problem": "oh"}) for number in (8, 9)]
    first, second = report(*lost, *alike).summary
    assert first.startswith(
        "hosts host-1, host-2, host-3, host-4, host-5 and 2 more: their NIC bridge not connected to"
    )
    assert second == "hosts host-8, host-9: oh"


def test_what_is_not_wrong_and_may_be_why_something_does_not_work() -> None:
    vpc = {"name": "blue", "vni": 1, "subnets": "10.0.0.0/24", "router_mac": "0a:00:5e:00:00:01", "mtu": 1400}
    port = {"name": "p1", "vpc": ["uuid", "v1"], "mac": "02:00:00:00:00:01", "host": ["set", []], "device": "p1"}
    tables: dict[str, dict[RowId, Row]] = {"Global": {"r9": {"config_seq": 5}}, "Host": {}}
    tables |= {"Vpc": {"v1": filled("Vpc", vpc)}, "Port": {"p1": filled("Port", port)}, "Mapping": {}}
    made = status.report(tables, rows.read(tables), NOW)
    assert made.ok
    assert [note.partition(":")[0] for note in made.notes] == [
        "port(s) p1 on no host, so unreachable",
        "port(s) p1 without an address",
    ]


def test_an_empty_database() -> None:
    assert report().summary[0].startswith("The database answers, and knows no host yet")


def test_what_is_wrong_is_said_in_words() -> None:
    bad = {**host(6, well()), "vtep_ip": "junk"}
    absent = {**well(), "nic": "absent"}
    made = report(
        host(1, {}),
        host(2, well(NOW - 31)),
        host(3, absent),
        host(4, well(), 3),
        host(5, {**well(), "problem": "oh"}),
        bad,
    )
    assert not made.ok
    starts = [
        "host host-1: no controller has ever reported: start `ryu-manager controller.app`",
        "host host-2: no report for over 30 s: the last flows stay",
        "host host-3: its NIC bridge not connected to the controller: the last flows stay",
        "host host-4 (2): some changes are not applied yet",
        "host host-5: oh",
        "1 row(s) cannot be used and map nowhere, the rest works",
    ]
    assert [line.startswith(start) for line, start in zip(made.summary, starts, strict=True)] == [True] * len(starts)
    assert [row.name for row in made.bad] == ["host-6"]
    assert [one.live for one in made.hosts] == [False, False, False, True, True, True]


def test_what_failed_while_a_host_was_given_away_comes_first() -> None:
    tables: dict[str, dict[RowId, Row]] = {"Global": {"r9": {"config_seq": 5}}, "Host": {"r1": host(1, well())}}
    tables |= {table: {} for table in ("Vpc", "Port", "Mapping")}
    active = {"state": "active", "port": "web", "power": "on", "problem": None}
    closed = {"state": "failed", "port": "db", "power": "off", "problem": "br-nic: a flow is strange:\x1b[2J mend it"}
    made = status.report(tables, rows.read(tables), NOW, {"host-2": closed, "host-1": active})
    assert made.summary == ("host host-2, for port db: br-nic: a flow is strange:?[2J mend it",)
    assert not made.ok
    assert status.report(tables, rows.read(tables), NOW, {"host-1": active}).ok


def test_how_far_each_host_is_with_a_change_and_why_not() -> None:
    rows = [
        host(1, well(), applied=4),
        host(2, well(), applied=5),
        host(3, well(), applied=9),
        host(4, {}, applied=0),
        host(5, well(NOW - 42), applied=3),
        host(6, {**well(), "guest": "absent", "nic": "unknown"}, applied=3),
        host(7, {**well(), "problem": "br-nic: no answer"}, applied=3),
        host(8, {**well(), "nic": "absent", "problem": "br-guest: oh"}, applied=3),
        host(9, well(), applied=0),
    ]
    tables: dict[str, dict[RowId, Row]] = {"Host": {f"r{number}": row for number, row in enumerate(rows)}}
    names = {f"host-{number}" for number in range(1, 9)} | {"gone"}
    found = status.confirmations(tables, 5, names, {"host-2": 70, "host-3": 30}, NOW)
    assert [(one.host, one.state, one.ms) for one in found] == [
        ("host-3", "applied", 30),
        ("host-2", "applied", 70),
        ("host-4", "not live", None),
        ("host-5", "not live", None),
        ("host-6", "not live", None),
        ("host-8", "not live", None),
        ("host-1", "late", None),
        ("host-7", "late", None),
    ]
    assert [one.why.partition(": ")[0] for one in found] == [
        "",
        "",
        "no controller has ever reported",
        "no report for 42 s",
        "its guest bridge and its NIC bridge not connected to the controller",
        "its NIC bridge not connected to the controller",
        "1 change(s) not applied yet",
        "br-nic",
    ]


def test_nonsense_from_a_controller_is_not_believed() -> None:
    (one,) = report(host(1, {"guest": "maybe", "heard": "yesterday"}, 99)).hosts
    assert (one.heard, one.lag, one.live) == (None, 0, False)
    assert report(host(1, {"heard": "9" * 50})).hosts[0].heard is None
