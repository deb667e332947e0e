"""The switches hold what the database says: after whatever is done to the switch, the controller or the database."""

from __future__ import annotations

import re
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from controller.reconciler import SAY_INTERVAL
from flows.pipeline import BR_GUEST, BR_NIC
from mapping.model import Snapshot
from tests.build import (
    BLUE,
    DB,
    HOST_A,
    HOST_B,
    MAPPINGS,
    RED,
    SPY,
    TWO_HOSTS,
    WEB,
    host,
    mapping,
    port,
    snapshot,
)
from tests.conftest import Figure
from tests.database import clear, insert
from tests.ovs.conftest import World, running
from topo.waiting import wait_until

FOREIGN = "table=0,priority=7,cookie=0x99,ip,nw_src=203.0.113.9,actions=drop"

BUSY_APP = """
import os, resource

from ryu.base.app_manager import RyuApp, require_app

resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]


class App(RyuApp):
    pass


require_app("controller.app")
"""
"""The controller, as one whose next connections are beyond the 1,024 that select(2) bears."""


def installed_at(world: World) -> dict[tuple[str, str, int], float]:
    """When each flow was installed, in seconds on the monotonic clock, a little late."""
    return {
        (where.host.name, bridge, int(cookie, 16)): time.monotonic() - float(age)
        for where in (world.a, world.b)
        for bridge in (BR_GUEST, BR_NIC)
        for cookie, age in re.findall(
            r"cookie=(0x[0-9a-f]+), duration=([0-9.]+)s", where.ovs.ofctl("dump-flows", bridge)
        )
    }


def has(world: World, cookie: int) -> bool:
    return cookie in world.a.cookies(BR_NIC)


def test_flows_deleted_behind_our_back_come_back_by_themselves(world: World, figure: Figure) -> None:
    for bridge in (BR_GUEST, BR_NIC):
        world.a.ovs.ofctl("del-flows", bridge)
        start = time.monotonic()
        wait_until(lambda bridge=bridge: len(world.a.cookies(bridge)) > 20, 10, "the flows to come back")  # type: ignore[misc]
        figure(f"{bridge}: flows back", round(time.monotonic() - start, 3), "s")
    world.assert_as_desired()


def test_one_flow_deleted_or_changed_behind_our_back_is_mended(world: World) -> None:
    before = world.a.cookies(BR_NIC)
    world.a.ovs.ofctl("del-flows", BR_NIC, "table=SOURCE_GUARD,ip")
    wait_until(lambda: world.a.cookies(BR_NIC) == before, 10, "the deleted flow to come back")
    world.a.ovs.ofctl("add-flow", BR_NIC, "table=PUSH,priority=0,actions=NORMAL")
    wait_until(lambda: world.a.cookies(BR_NIC) == before, 10, "the miss to drop again")


@pytest.mark.parametrize(
    ("command", "forged"),
    [
        ("mod-flows", "table=PUSH,actions=NORMAL"),
        ("add-flow", "table=PUSH,priority=50,cookie={cookie},actions=NORMAL"),
    ],
)
def test_a_flow_changed_under_its_own_cookie_is_mended(world: World, command: str, forged: str) -> None:
    """mod-flows keeps the cookie, and whoever adds a flow may give it one of ours: cookies alone look right then."""

    def dump() -> list[str]:
        return sorted(world.a.ovs.ofctl("dump-flows", BR_NIC, "--no-stats", "table=PUSH").splitlines())

    before = dump()
    miss = next(line for line in before if "priority=0" in line)
    cookie = miss.split("cookie=")[1].split(",")[0]
    world.a.ovs.ofctl(command, BR_NIC, forged.format(cookie=cookie))
    wait_until(lambda: dump() == before, 10, "the table to be as it was")


def test_meters_that_others_change_or_add_are_mended(world: World) -> None:
    before = world.a.meters(BR_GUEST)
    assert before
    own = next(iter(before))
    for command, meter in (("mod-meter", own), ("add-meter", 7), ("del-meter", own)):
        words = "" if command == "del-meter" else ",kbps,burst,bands=type=drop,rate=9,burst_size=9"
        world.a.ovs.ofctl(command, BR_GUEST, f"meter={meter}{words}", "-O", "OpenFlow15")
        if command != "del-meter":  # it takes flows with it, which is told: all may be well again by now
            assert world.a.meters(BR_GUEST) != before
        world.a.ovs.ofctl("del-flows", BR_GUEST, "table=ARP_REPLY")  # which is told, and has all be read back
        wait_until(lambda: world.a.meters(BR_GUEST) == before, 10, "the meters to be as they were")
    world.assert_as_desired()


def test_flows_of_others_are_left_alone_and_unknown_ones_with_our_mark_are_not(world: World) -> None:
    world.a.ovs.ofctl("add-flow", BR_NIC, FOREIGN)
    stale = 0x10C6_0000_0000_0001
    world.a.ovs.ofctl("add-flow", BR_NIC, f"table=0,priority=8,cookie={stale},ip,actions=drop")
    try:
        wait_until(lambda: not has(world, stale), 10, "the stale flow to go")
        world.write(snapshot(HOST_A, HOST_B, BLUE, RED, WEB, DB, SPY, MAPPINGS[:2]))
        world.write(TWO_HOSTS)
        assert has(world, 0x99)
    finally:
        world.a.ovs.ofctl("del-flows", BR_NIC, "cookie=0x99/-1")
    world.assert_as_desired()


def test_a_killed_controller_leaves_the_flows_and_its_successor_changes_none(world: World) -> None:
    before = installed_at(world)
    world.controller.stop(signal.SIGKILL)
    assert installed_at(world).keys() == before.keys()
    world.controller.start()
    world.write(TWO_HOSTS)  # the same rows: what is confirmed now is confirmed by the successor
    after = installed_at(world)
    assert after.keys() == before.keys()
    assert all(after[flow] < time + 0.5 for flow, time in before.items()), "a flow was replaced"


def test_nothing_is_swept_before_the_database_is_read(world: World) -> None:
    before = installed_at(world)
    world.controller.stop()
    world.database.stop()
    world.controller.start()
    wait_until(lambda: world.a.connected(BR_NIC), 20, "the switch to connect")
    assert installed_at(world).keys() == before.keys()
    world.database.start()
    world.wait_applied()
    after = installed_at(world)
    assert after.keys() == before.keys()
    assert all(after[flow] < time + 0.5 for flow, time in before.items()), "a flow was replaced"


def test_a_lost_database_changes_nothing_and_its_return_is_followed(world: World) -> None:
    before = installed_at(world)
    world.database.stop()
    world.controller.says("lost")
    assert installed_at(world).keys() == before.keys()
    world.database.start()
    world.write(snapshot(HOST_A, HOST_B, BLUE, WEB, DB, MAPPINGS[:2]))
    world.assert_as_desired()
    world.write(TWO_HOSTS)
    world.assert_as_desired()


def test_a_switch_that_restarts_empty_is_programmed_again(world: World, figure: Figure) -> None:
    world.b.ovs.stop_vswitchd()
    world.b.ovs.start_vswitchd()
    start = time.monotonic()
    world.assert_as_desired()
    figure("programmed again after ovs-vswitchd", round(time.monotonic() - start, 3), "s")
    world.b.address()


def test_many_changes_make_few_lines_of_log_and_all_are_counted(world: World) -> None:
    def said() -> list[int]:
        lines = re.findall(r"host-a br-nic: (\d+) flows added, (\d+) deleted", world.controller.log.read_text())
        return [int(added) - int(deleted) for added, deleted in lines]

    time.sleep(2 * SAY_INTERVAL)  # what was before has been said
    before, start = said(), time.monotonic()
    there = len(world.a.cookies(BR_NIC))
    extra = [mapping(f"10.0.0.{100 + number}", DB) for number in range(20)]
    for number in range(1, len(extra) + 1):
        world.write(snapshot(HOST_A, HOST_B, BLUE, RED, WEB, DB, SPY, MAPPINGS, extra[:number]))
    more = len(world.a.cookies(BR_NIC)) - there
    assert more >= len(extra)
    wait_until(lambda: sum(said()) - sum(before) == more, 10, "the log to say all")
    lines, seconds = len(said()) - len(before), time.monotonic() - start
    assert lines <= seconds / SAY_INTERVAL + 1
    world.write(TWO_HOSTS)


def test_a_device_that_is_plugged_later_is_programmed_then(world: World) -> None:
    extra = port("extra", BLUE, "02:00:00:00:00:77", HOST_A)
    world.write(snapshot(HOST_A, HOST_B, BLUE, RED, WEB, DB, SPY, extra, MAPPINGS, mapping("10.0.0.77", extra)))
    without = world.a.cookies(BR_GUEST)
    world.a.plug("extra")
    wait_until(lambda: len(world.a.cookies(BR_GUEST)) > len(without) + 90, 10, "the device's rules")
    world.assert_as_desired()
    world.write(TWO_HOSTS)
    world.assert_as_desired()


def test_a_datapath_that_no_host_row_names_is_refused_until_one_does(world: World) -> None:
    other = host("host-b", "192.0.2.2", HOST_B.encap)
    other = replace(other, guest_datapath=0xAAAA, nic_datapath=0xBBBB)
    world.database.write(snapshot(HOST_A, other, BLUE, RED, WEB, DB, SPY, MAPPINGS))
    wait_until(lambda: not world.b.cookies(BR_NIC), 10, "the flows of a host that is named no more to go")
    world.controller.says("no Host row names it any more")
    world.b.ovs.vsctl("--", "set-controller", BR_GUEST, "tcp:127.0.0.1:1")  # leave, and come as a stranger
    try:
        wait_until(lambda: not world.b.connected(BR_GUEST), 10, "it to leave")
    finally:
        target = world.b.ovs.vsctl("get", "Controller", BR_NIC, "target").strip().strip('"')
        out_of_band = ("set", "Controller", BR_GUEST, "connection_mode=out-of-band")
        world.b.ovs.vsctl("set-controller", BR_GUEST, target, "--", *out_of_band)
    world.controller.says(f"datapath {HOST_B.guest_datapath:016x} at")
    world.controller.says("refused: no Host row names it")
    assert not world.b.cookies(BR_GUEST)
    world.write(TWO_HOSTS)
    world.assert_as_desired()


BAD = {
    "MAC": ("Port", "web", {"mac": "junk"}),
    "address": ("Mapping", None, {"ip": "10.0.0.999"}),
    "VTEP": ("Host", "host-a", {"vtep_ip": "192.0.2.x"}),
    "subnets": ("Vpc", "blue", {"subnets": "10.0.0.0/33"}),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_row_is_logged_and_isolated_and_the_rest_works(world: World, case: str) -> None:
    table, name, columns = BAD[case]
    where = [["name", "==", name]] if name else [["ip", "==", "10.0.0.11"]]
    world.database.transact([{"op": "update", "table": table, "where": where, "row": columns}])
    try:
        (value,) = columns.values()
        world.controller.says(value)
        bad = world.snapshot().bad
        assert [row.table for row in bad] == [table]
        assert value in str(bad[0])
        wait_until(
            lambda: world.b.cookies(BR_NIC) == world.desired(world.b, BR_NIC)[0], 10, "the rest to be as desired"
        )
        assert any("0x138a" in line for line in world.b.ovs.ofctl("dump-flows", BR_NIC).splitlines()), "VPC red is gone"
    finally:
        world.write(TWO_HOSTS)
    world.assert_as_desired()


ORDERS: dict[str, list[Snapshot]] = {
    "hosts first": [snapshot(HOST_A, HOST_B), snapshot(HOST_A, HOST_B, BLUE, RED, WEB, DB, SPY), TWO_HOSTS],
    "mappings first": [
        snapshot(BLUE, RED, *(replace(row, host=None) for row in (WEB, DB, SPY)), MAPPINGS),
        snapshot(HOST_A, HOST_B, BLUE, RED, *(replace(row, host=None) for row in (WEB, DB, SPY)), MAPPINGS),
        TWO_HOSTS,
    ],
}


@pytest.mark.parametrize("order", ORDERS)
def test_rows_in_any_order_end_in_the_same_flows(world: World, order: str) -> None:
    final = {bridge: world.a.cookies(bridge) for bridge in (BR_GUEST, BR_NIC)}
    for state in ORDERS[order]:
        world.database.transact([*clear(), *insert(state)])
    world.wait_applied()
    world.assert_as_desired()
    assert {bridge: world.a.cookies(bridge) for bridge in (BR_GUEST, BR_NIC)} == final


def test_connections_beyond_the_first_thousand_are_served_as_those(tmp_path: Path) -> None:
    app = tmp_path / "busy_app.py"
    app.write_text(BUSY_APP)
    with running(tmp_path, TWO_HOSTS, app=str(app)) as world:
        world.database.stop()
        world.controller.says("lost")
        world.database.start()
        world.write(snapshot(HOST_A, HOST_B, BLUE, WEB, DB, MAPPINGS[:2]))
        world.assert_as_desired()
