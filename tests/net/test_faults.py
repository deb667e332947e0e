"""Traffic between guests a, on h1, and b, on h2, while things die or are tampered with: nothing here is simulated."""

from __future__ import annotations

import re
import statistics
import time

import pytest

from flows.pipeline import BR_GUEST, BR_NIC
from tests.conftest import Figure
from tests.net.conftest import MakeLab
from topo.host import Host
from topo.lab import Lab
from topo.pings import pinging
from topo.waiting import wait_until

BRIDGES = (BR_GUEST, BR_NIC)


def flows(host: Host, bridge: str) -> dict[str, tuple[float, int]]:
    """Cookie -> (when the flow was installed, in seconds on the monotonic clock and a little late; packets)."""
    dump = host.ovs.ofctl("dump-flows", bridge)
    return {
        cookie: (time.monotonic() - float(age), int(packets))
        for cookie, age, packets in re.findall(r"cookie=(\w+), duration=([0-9.]+)s,.*?n_packets=(\d+)", dump)
    }


def all_flows(lab: Lab) -> dict[tuple[str, str, str], tuple[float, int]]:
    return {
        (host.name, bridge, cookie): seen
        for host in lab.hosts.values()
        for bridge in BRIDGES
        for cookie, seen in flows(host, bridge).items()
    }


def assert_none_replaced(before: dict[tuple[str, str, str], tuple[float, int]], lab: Lab) -> None:
    after = all_flows(lab)
    assert after.keys() == before.keys()
    for flow, (installed_at, packets) in before.items():
        assert after[flow][0] < installed_at + 0.5, f"{flow} was replaced"
        assert after[flow][1] >= packets, f"{flow} counts anew"


def test_the_first_packet_is_neither_lost_nor_late(make_lab: MakeLab, figure: Figure) -> None:
    """Each round is a new lab, whose switches have never sent a tunnel packet. Unresolved neighbours cost a second.

    What else is new at a first packet, the datapath's flows, is the measure: it is paid again after they are deleted.
    """
    first, again = [], []
    for _ in range(4):
        lab = make_lab()
        first.append(rtt(lab))
        for host in lab.hosts.values():
            host.ovs.appctl("dpctl/del-flows")
        again.append(rtt(lab))
        lab.down()
    figure("first packet", first, "ms")
    figure("same with the datapath's flows deleted", again, "ms")
    assert statistics.median(first) < 10 * statistics.median(again)


def rtt(lab: Lab) -> float:
    """Milliseconds that one ping took. Lost is an error."""
    said = lab.guest("a").run(["ping", "-n", "-c", "1", "-W", "3", lab.guest("b").ip])
    found = re.search(r"time=([0-9.]+) ms", said)
    assert found, said
    return float(found[1])


def test_a_killed_and_restarted_controller_loses_nothing_and_replaces_no_flow(lab: Lab) -> None:
    before = all_flows(lab)
    with pinging(lab.guest("a"), lab.guest("b").ip) as pings:
        lab.kill_controller()
        assert_none_replaced(before, lab)
        lab.start_controller()
        for host in lab.hosts.values():
            for bridge in BRIDGES:
                wait_until(lambda: connected(host, bridge), 20, f"{host.name} {bridge} to connect")  # noqa: B023
        lab.control.wait_applied()
        assert_none_replaced(before, lab)
    assert pings.lost == 0, pings


def connected(host: Host, bridge: str) -> bool:
    return host.ovs.vsctl("get", "Controller", bridge, "is_connected").strip() == "true"


def test_a_killed_and_restarted_database_loses_nothing_and_replaces_no_flow(lab: Lab) -> None:
    before = all_flows(lab)
    with pinging(lab.guest("a"), lab.guest("b").ip) as pings:
        lab.kill_database()
        assert_none_replaced(before, lab)
        lab.start_database()
        lab.control.wait_applied()
        assert_none_replaced(before, lab)
    assert pings.lost == 0, pings


@pytest.mark.parametrize("bridge", BRIDGES)
def test_flows_deleted_behind_our_back_come_back_and_so_does_traffic(lab: Lab, bridge: str, figure: Figure) -> None:
    host = lab.host("h1")
    wanted = flows(host, bridge).keys()
    with pinging(lab.guest("a"), lab.guest("b").ip) as pings:
        host.ovs.ofctl("del-flows", bridge)
        start = time.monotonic()
        wait_until(lambda: flows(host, bridge).keys() == wanted, 10, "the flows")
        figure("flows back", round(time.monotonic() - start, 3), "s")
        wait_until(lambda: lab.guest("a").ping(lab.guest("b").ip), 10, "the guests' traffic")
    figure("pings lost meanwhile", pings.lost, f"of {pings.sent}, one every 10 ms")


def test_a_vswitchd_that_restarts_empty_is_programmed_and_forwards_again(lab: Lab, figure: Figure) -> None:
    host = lab.host("h2")
    wanted = {bridge: flows(host, bridge).keys() for bridge in BRIDGES}
    host.restart_vswitchd()
    start = time.monotonic()
    for bridge in BRIDGES:
        wait_until(lambda: flows(host, bridge).keys() == wanted[bridge], 20, f"the flows of {bridge}")  # noqa: B023
    figure("flows back after ovs-vswitchd", round(time.monotonic() - start, 3), "s")
    wait_until(lambda: lab.guest("a").ping(lab.guest("b").ip), 20, "the guests' traffic")
    figure("traffic back after ovs-vswitchd", round(time.monotonic() - start, 3), "s")
