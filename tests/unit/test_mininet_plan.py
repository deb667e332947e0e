"""Mininet's topologies as values: who is where, and a mapping that the database takes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mapping import document
from topo.mininet_plan import Plan, baremetal, leafspine
from topo.spec import LabError

PLANS = [
    baremetal(),
    baremetal(hosts=3, guests=2),
    baremetal(vpcs=2, encap="geneve"),
    baremetal(hosts=5, guests=3, vpcs=4, loss=5),
    leafspine(),
    leafspine(hosts=7, leaves=3, spines=2),
    baremetal(hosts=64, guests=3),
]


@pytest.mark.parametrize("plan", PLANS)
def test_its_mapping_is_valid(plan: Plan) -> None:
    read = document.read(plan.document().encode(), "plan")
    assert read.problems == ()


@pytest.mark.parametrize("plan", PLANS)
def test_it_gives_nothing_twice(plan: Plan) -> None:
    for values in (
        [guest.name for guest in plan.guests],
        [guest.mac for guest in plan.guests],
        [(guest.vpc, address) for guest in plan.guests for address in guest.addresses],
        [host.vtep for host in plan.hosts],
        [host.control for host in plan.hosts],
    ):
        assert len(values) == len(set(values))


@pytest.mark.parametrize("plan", PLANS)
def test_every_host_is_on_the_substrate_once(plan: Plan) -> None:
    hosts = {host.name for host in plan.hosts}
    assert sorted(one for one, _ in plan.cables if one in hosts) == sorted(hosts)
    assert {other for _, other in plan.cables} <= set(plan.switches)


def test_guests_are_dealt_out_in_turn() -> None:
    assert [(guest.name, guest.host) for guest in baremetal(hosts=2, guests=2).guests] == [
        ("guest_a", "host1"),
        ("guest_b", "host2"),
        ("guest_c", "host1"),
        ("guest_d", "host2"),
    ]
    assert [guest.name for guest in baremetal(hosts=28, guests=1).guests][25:] == ["guest_z", "guest_aa", "guest_ab"]


def test_two_vpcs_share_the_first_address_and_not_the_last() -> None:
    addresses = {guest.name: guest.addresses for guest in baremetal(vpcs=2).guests}
    assert addresses["blue_a"] == ["10.0.0.11/24", "10.1.0.11/24"]
    assert addresses["green_a"] == ["10.0.0.11/24", "10.2.0.11/24"]


def test_what_is_lost_on_the_way() -> None:
    assert baremetal(loss=5).expected_loss("host1", "host2") == pytest.approx(18.55, abs=0.01)
    assert baremetal(loss=5).expected_loss("host1", "host1") == 0
    fabric = leafspine(loss=3)
    assert fabric.expected_loss("host1", "host3") == pytest.approx(100 * (1 - 0.97**4))
    assert fabric.expected_loss("host1", "host2") == pytest.approx(100 * (1 - 0.97**8))


@pytest.mark.parametrize(
    ("make", "params", "problem"),
    [
        (baremetal, {"hosts": 0}, "hosts=0: use 1 to 64"),
        (baremetal, {"hosts": 65}, "hosts=65: use 1 to 64"),
        (baremetal, {"guests": 0}, "guests=0"),
        (baremetal, {"hosts": 64, "guests": 4}, "use 1 to 200"),
        (baremetal, {"loss": -1}, "loss=-1: use 0 to 100 percent"),
        (baremetal, {"vpcs": 0}, "vpcs=0"),
        (baremetal, {"delay": 5}, "delay=5: give a number and its unit, like 5ms"),
        (leafspine, {"spines": 0}, "spines=0"),
    ],
)
def test_what_cannot_be_is_refused(make: Callable[..., Plan], params: dict[str, int], problem: str) -> None:
    with pytest.raises(LabError, match=problem):
        make(**params)
