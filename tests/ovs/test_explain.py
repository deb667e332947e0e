"""`lockgate trace`, `explain` and `audit` on real switches.

host-a has web; host-b has db, in the same VPC, and spy, in another. A command "on a host" is run with that host's
Open vSwitch in its environment.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows import drops
from flows.pipeline import BR_GUEST, BR_NIC, Reason
from tests.ovs.conftest import World
from tests.ovs.dummy import DummyHost, vtep_mac
from tests.ovs.test_cli import Lockgate


@pytest.fixture
def lockgate(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Lockgate:
    for host in (world.a, world.b):
        (tmp_path / host.host.name).symlink_to(host.folder)
    monkeypatch.setenv("LOCKGATE_DB", world.database.remote)
    monkeypatch.setenv("LOCKGATE_VIA", f"env OVS_RUNDIR={tmp_path}/{{host}}")
    return Lockgate(monkeypatch, capsys, world.database.remote)


@pytest.fixture
def alone(world: World) -> Iterator[World]:
    """The world without its controller, which comes back afterwards and mends all."""
    world.controller.stop()
    yield world
    world.controller.start()
    world.assert_as_desired()


def met(found: Any) -> list[tuple[str, str, str, list[list[str]]]]:  # noqa: ANN401 - JSON
    return [
        (each["host"], each["bridge"], each["table"], [row["key"] for row in each["rows"]]) for each in found["met"]
    ]


def test_a_packet_is_followed_across_both_hosts_and_the_rows_behind_its_flows_named(lockgate: Lockgate) -> None:
    found = lockgate("--json", "trace", "web", "db", "--proto", "tcp", "--port", "443").json
    assert (found["verdict"], found["reason"]) == ("delivered", "")
    assert found["text"] == "delivered to port db on host-b, by its interface db"
    way = iter(met(found))
    key_flows: list[tuple[str, str, str, list[list[str]]]] = [
        ("host-a", BR_GUEST, "CLASSIFY", [["web"]]),
        ("host-a", BR_GUEST, "IP_GUARD", [["blue", "10.0.0.11"]]),
        ("host-a", BR_NIC, "CLASSIFY", [["web"]]),
        ("host-a", BR_NIC, "PUSH", [["blue", "10.0.0.12"]]),
        ("host-a", BR_NIC, "CLASSIFY", [["host-b"]]),
        ("host-b", BR_NIC, "CLASSIFY", [["host-a"]]),
        ("host-b", BR_NIC, "CLASSIFY", [["host-b"]]),
        ("host-b", BR_NIC, "SOURCE_GUARD", [["blue", "10.0.0.11"]]),
        ("host-b", BR_NIC, "DELIVER", [["blue", "10.0.0.12"]]),
        ("host-b", BR_GUEST, "CLASSIFY", [["db"]]),
    ]
    assert [each for each in key_flows if each not in way] == [], "not met, or not in this order"
    assert "tcp_dst=443" in found["packet"]
    (push,) = (each["words"] for each in found["met"] if each["table"] == "PUSH")
    assert push.endswith("to MAC 02:00:00:00:00:02 (db), tunnelled to host-b (VTEP 192.0.2.2), out by t-geneve")
    back = lockgate("--json", "trace", "db", "fd00::11").json
    assert back["verdict"] == "delivered"


def test_people_read_the_same_in_words(lockgate: Lockgate) -> None:
    shown = lockgate("trace", "web", "db").out
    assert re.search(r"^host-b br-guest\n  CLASSIFY     from g-db: ", shown, re.MULTILINE)
    assert re.search(r"from g-db: out by db\n.*, port db\n", shown)
    assert shown.splitlines()[-1].startswith("delivered to port db on host-b")


def test_where_a_packet_is_dropped_and_why(lockgate: Lockgate) -> None:
    found = lockgate("--json", "trace", "web", "10.0.0.99", code=1).json
    assert (found["verdict"], found["reason"]) == ("dropped", "no_mapping")
    assert found["mend"] == "map it, with `lockgate mapping add blue 10.0.0.99 PORT`"
    assert met(found)[-2:] == [("host-a", BR_NIC, "PUSH", [[]]), ("host-a", BR_NIC, "DROP", [["web"]])]
    # Another VPC's port has an address that this VPC maps elsewhere.
    assert lockgate("--json", "trace", "web", "spy").json["text"].startswith("delivered to port db on host-b")


def test_a_flow_in_the_way_that_the_database_does_not_ask_for(lockgate: Lockgate, alone: World) -> None:
    in_the_way = "cookie=7,table=DELIVER,priority=500,ip,nw_dst=10.0.0.12 actions=drop"
    alone.b.ovs.ofctl("add-flow", BR_NIC, in_the_way)
    found = lockgate("--json", "trace", "web", "db", code=1).json
    assert found["text"] == "dropped at host-b br-nic DELIVER, by no flow of ours"
    assert found["mend"].endswith("look with `lockgate audit --host host-a --host host-b`")
    assert [each["table"] for each in found["met"] if not each["as_desired"]] == ["DELIVER"]
    alone.b.ovs.ofctl("del-flows", BR_NIC, "cookie=7/-1")

    alone.b.ovs.ofctl("del-flows", BR_NIC)
    assert "no flow matched" in lockgate("trace", "web", "db", code=1).out


def test_a_way_that_the_substrate_does_not_know_yet(lockgate: Lockgate, alone: World) -> None:
    world = alone  # no controller probes for the way meanwhile
    world.a.ovs.appctl("tnl/neigh/flush")
    try:
        found = lockgate("--json", "trace", "web", "db", code=1).json
    finally:
        world.a.ovs.appctl("tnl/neigh/set", "br-nic", str(world.b.host.vtep_ip), vtep_mac(world.b.host))
    assert (found["verdict"], "neighbor cache miss" in found["text"]) == ("lost", True)
    assert "try again" in found["mend"]


def cookie_of(host: DummyHost, bridge: str, *which: str) -> str:
    found = re.search(r"cookie=(\w+)", host.ovs.ofctl("dump-flows", bridge, ",".join(which)))
    assert found
    return found[1]


def test_the_row_behind_a_cookie(lockgate: Lockgate, world: World) -> None:
    cookie = cookie_of(world.a, BR_NIC, "table=PUSH", "ip", "nw_dst=10.0.0.12")
    (place,) = lockgate("--json", "explain", cookie).json
    assert (place["host"], place["bridge"], place["table"]) == ("host-a", BR_NIC, "PUSH")
    assert [row["key"] for row in place["rows"]] == [["blue", "10.0.0.12"]]
    assert (place["desired"], place["installed"]) == (True, True)
    assert place["packets"] is not None
    (counted,) = (cookie for cookie, reason in drops.host_cookies(BR_NIC).items() if reason is Reason.NO_MAPPING)
    shown = lockgate("explain", f"{counted:#x}").out
    assert "counted as no_mapping" in shown
    assert {line.split()[0] for line in shown.splitlines()[-2:]} == {"host-a", "host-b"}
    lockgate("explain", "0x7", code=1)


def test_a_reason_is_explained_without_any_host(lockgate: Lockgate) -> None:
    found = lockgate("--json", "explain", "spoofed_mac", "--via", "/nowhere").json
    assert found["meaning"] == Reason.SPOOFED_MAC.meaning
    assert found["by"] == ["br-guest CLASSIFY"]


def spoil(world: World) -> None:
    """One flow of each kind that an audit may find, on br-nic of host-b."""
    ofctl = world.b.ovs.ofctl
    mine = cookie_of(world.b, BR_NIC, "table=DELIVER", "ip", "nw_dst=10.0.0.12", "tun_id=0x1389")
    gone = cookie_of(world.b, BR_NIC, "table=SOURCE_GUARD", "ip", "nw_src=10.0.0.11")
    ofctl("mod-flows", BR_NIC, f"table=DELIVER,cookie={mine}/-1,actions=drop")
    ofctl("del-flows", BR_NIC, f"cookie={gone}/-1")
    ofctl("add-flow", BR_NIC, "cookie=0x10c6000000000001,table=PUSH,priority=7,ip,nw_dst=10.9.9.9 actions=drop")
    ofctl("add-flow", BR_NIC, "table=9,actions=drop")


def test_an_audit_compares_meters_as_well(lockgate: Lockgate, alone: World) -> None:
    ofctl = alone.b.ovs.ofctl
    numbers = sorted(alone.b.meters(BR_GUEST))
    ofctl("mod-meter", BR_GUEST, f"meter={numbers[0]},kbps,burst,band=type=drop,rate=9,burst_size=9")
    ofctl("del-meter", BR_GUEST, f"meter={numbers[1]}")
    ofctl("add-meter", BR_GUEST, "meter=4000,pktps,band=type=drop,rate=5")
    wanted = {("changed", "meter"), ("missing", "meter"), ("stale", "meter")}
    found = lockgate("--json", "audit", code=1).json["differences"]
    assert wanted <= {(each["kind"], each["table"]) for each in found}
    lockgate("audit", "--mend")
    assert lockgate("--json", "audit").json["differences"] == []


def kinds(found: Any) -> list[tuple[str, str, list[list[str]]]]:  # noqa: ANN401 - JSON
    return sorted((each["kind"], each["table"], [row["key"] for row in each["rows"]]) for each in found["differences"])


def test_an_audit_finds_what_differs_and_mends_it_without_a_controller(lockgate: Lockgate, alone: World) -> None:
    clean = lockgate("--json", "audit").json
    assert clean == {"hosts": ["host-a", "host-b"], "differences": [], "mended": 0, "not_asked": {}}
    spoil(alone)
    found = lockgate("--json", "audit", code=1).json
    spoilt = [
        ("changed", "DELIVER", [["blue", "10.0.0.12"]]),
        ("missing", "SOURCE_GUARD", [["blue", "10.0.0.11"]]),
        ("stale", "PUSH", []),
        ("stranger", "9", []),
    ]
    assert kinds(found) == spoilt
    shown = lockgate("audit", code=1).out
    assert "changed at host-b br-nic DELIVER: mapping 10.0.0.12 of VPC blue -> port db on host-b" in shown

    assert lockgate("--json", "audit", "--mend").json["mended"] == 3
    assert kinds(lockgate("--json", "audit").json) == spoilt[-1:], "a flow of others was touched"
    assert lockgate("--json", "audit", "--host", "host-b", "--mend", "--strangers").json["mended"] == 1
    assert lockgate("audit").out == "2 host(s) hold what the database says\n"
    assert lockgate("--json", "trace", "web", "db").json["verdict"] == "delivered"


def test_what_an_audit_mends_the_controller_agrees_with(lockgate: Lockgate, world: World) -> None:
    spoil(world)
    lockgate("audit", "--mend", "--strangers")
    world.assert_as_desired()
    assert lockgate("--json", "audit").json["differences"] == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["trace", "wob", "db"], "there is no port wob: did you mean 'web'?"),
        (["trace", "web", "nobody"], "there is no port nobody: "),
        (["explain", "spoofed_mag"], "spoofed_mag is no cookie, like 0x10c6c3949bd5b275, and no reason: did you mean "),
        (["audit", "--host", "host-c"], "there is no host host-c: "),
        (["audit", "--via", "/nowhere {host}"], "host host-a cannot be asked by `/nowhere host-a ...`: there is no "),
        (
            ["trace", "web", "db", "--via", "sh -c 'exit 3'"],
            "host host-a cannot be asked by `sh -c 'exit 3' ...`: exit",
        ),
        (["trace", "web", "db", "--via", "'"], '--via "\'": No closing quotation: write a command, like'),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, list) else "",
)
def test_what_cannot_be_is_one_line_with_the_mend(lockgate: Lockgate, words: list[str], says: str) -> None:
    run = lockgate(*words, code=1)
    assert (run.err or run.out).startswith(says)
    assert "Traceback" not in run.err


def test_a_host_in_wrong_hands_harms_nobody_who_asks_it(lockgate: Lockgate, tmp_path: Path) -> None:
    """It answers with what terminals obey, with what looks almost like a trace, and with anything."""
    true = f"OVS_RUNDIR={tmp_path}/$1"
    flow = '0. \\033[31mx, priority 1, cookie 0x7\\n    set_field:a->b->c\\n    output:"g-web"\\n'
    trace = f'bridge("br-guest")\\n {flow}'
    for answer in (f"printf '{trace}'", "head -c 3000 /dev/urandom", "echo", "printf '\\033]0;mine\\007' >&2; exit 1"):
        script = tmp_path / "rogue"
        script.write_text(
            f'#!/bin/sh\ncase "$*" in *dump-ports-desc*) export {true}; shift; exec "$@";; esac\n{answer}\n'
        )
        script.chmod(0o755)
        for words in (["trace", "web", "db"], ["audit"], ["explain", "0x10c6000000000001"]):
            run = lockgate(*words, "--via", f"{script} {{host}}", code=1)
            assert not set(run.out + run.err) & {"\033", "\a"}


def test_nothing_that_a_shell_would_read_is_said_on_a_host(
    lockgate: Lockgate, alone: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over ssh a shell reads the words again. This one reads them twice."""
    assert alone.a.host.name == "host-a"
    script = tmp_path / "far"
    script.write_text('#!/bin/sh\nexport OVS_RUNDIR="$1"; shift; eval "$*"\n')
    script.chmod(0o755)
    monkeypatch.setenv("LOCKGATE_VIA", f"{script} {tmp_path}/{{host}}")
    spoil(alone)
    assert lockgate("--json", "audit", "--mend", "--strangers").json["mended"] == 4
    assert lockgate("--json", "trace", "web", "fd00::12").json["verdict"] == "delivered"
