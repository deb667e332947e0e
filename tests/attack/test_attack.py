"""Every attack of the table in docs/security.md, on a lab of three hosts with real traffic: tests/attack/setting.py.

After each one nothing of it has been seen anywhere but where its case says, on any port of the lab; every frame is
counted under the reason that the table names, and under no other; and legitimate traffic goes on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from flows.pipeline import BR_GUEST, TABLES, Reason
from tests.attack.case import Case, at_guest
from tests.attack.cases import CASES
from tests.attack.judge import Judge
from tests.attack.world import World
from topo import port_filter

NAMED = {case.name: case for case in CASES}
COOKIE = "0xa77ac4"
DROP = TABLES[BR_GUEST]["DROP"].number


def attack(world: World, case: Case) -> list[str]:
    """Make an attack, and say what is not as its case says."""
    judge = Judge(world)
    world.send(case)
    world.ping_all()
    return judge.problems(case)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_attack(world: World, case: Case) -> None:
    assert attack(world, case) == []


def add_flow(host: str, bridge: str, flow: str) -> Callable[[World], None]:
    """A flow that is not the controller's, which therefore leaves it alone."""

    def add(world: World) -> None:
        world.lab.host(host).ofctl("add-flow", bridge, f"cookie={COOKIE},table=0,priority=65000,{flow}")

    return add


def unfiltered(world: World) -> None:
    """The attacker's port without the filter ahead of it."""
    world.lab.host("host-a").run(["ip", "link", "set", "dev", "web", "xdp", "off"])


SABOTAGE: dict[str, tuple[str, Callable[[World], None], list[str]]] = {
    "a guest on the same host sees it": (
        "spoofed MAC",
        add_flow("host-a", "br-guest", f"in_port=web,dl_src=02:00:00:00:00:14,actions=output:near,goto_table:{DROP}"),
        ["host-a, br-guest: 4 counted as spoofed_mac, not 5", "near: seen, and must not be"],
    ),
    "a guest on the same host hears what another listens to": (
        "MLD report",
        add_flow("host-a", "br-guest", f"in_port=web,icmp6,icmp_type=143,actions=output:near,goto_table:{DROP}"),
        ["host-a, br-guest: 2 counted as mld, not 4", "near: seen, and must not be"],
    ),
    "the substrate sees it": (
        "to a VTEP",
        add_flow("host-a", "br-nic", "in_port=n-web,ip,nw_dst=192.0.2.2,actions=output:uplink"),
        ["host-a, br-nic: 2 counted as no_mapping, not 3", "host-a uplink out: seen", "host-b uplink in: seen"],
    ),
    "it is dropped and not counted": (
        "ARP reply",
        add_flow("host-a", "br-guest", "in_port=web,arp,arp_op=2,actions=drop"),
        ["host-a, br-guest: 0 counted as arp_not_request, not 2"],
    ),
    "the filter is not there": (
        "LLDP",
        unfiltered,
        ["host-a, br-guest: 3 counted as unknown_ethertype, not 0", "counters of Open vSwitch and kernel"],
    ),
    "it reaches the host itself": (
        "plain UDP to the VTEP",
        add_flow("host-b", "br-nic", "in_port=uplink,udp,tp_dst=53,actions=LOCAL"),
        ["host-b, br-nic: 6 counted as not_tunnel, not 8", "host-b VTEP: seen"],
    ),
}
"""What goes wrong -> the attack that meets it, what makes it go wrong, and how what is said of it begins."""


@pytest.mark.parametrize("what", SABOTAGE)
def test_what_goes_wrong_is_noticed(world: World, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.attack.judge._SECONDS", 1)
    name, sabotage, said = SABOTAGE[what]
    sabotage(world)
    try:
        found = attack(world, NAMED[name])
    finally:
        for host in world.lab.hosts.values():
            for bridge in ("br-guest", "br-nic"):
                host.ofctl("del-flows", bridge, f"cookie={COOKIE}/-1")
        port_filter.attach(world.lab.host("host-a").namespace, "web")
        world.settled = None
    for beginning in said:
        assert any(problem.startswith(beginning) for problem in found), found


def test_another_reason_than_the_table_names_is_noticed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.attack.judge._SECONDS", 1)
    wrong = dataclasses.replace(NAMED["spoofed IP"], fate=at_guest(Reason.SPOOFED_ARP))
    assert attack(world, wrong) == [
        "host-a, br-guest: 0 counted as spoofed_arp, not 5",
        "host-a, br-guest: 5 counted as spoofed_ip, not 0",
    ]
