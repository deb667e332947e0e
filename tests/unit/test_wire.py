"""Stamped bytes are those that Ryu's encoder writes, for every shape of flow and any values."""

from __future__ import annotations

import ast
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from types import FrameType

import flows
from controller import wire
from flows.desired import desired
from flows.fields import Field
from flows.flow import Flow, flow
from flows.pipeline import BR_GUEST, BR_NIC
from flows.view import view
from mapping.model import Limits
from tests.build import (
    BLUE,
    DB,
    GUEST_OFPORTS,
    HOST_A,
    HOST_A6,
    HOST_B,
    HOST_B6,
    MAPPINGS,
    NIC_OFPORTS,
    SPY,
    TWO_HOSTS,
    WEB,
    group,
    having,
)

RULES = ["to_guest tcp 80-90 from any", "to_guest icmp from group g", "from_guest 47 to fd00::/64"]
GROUPS = [group("g", BLUE, *RULES), group("less", BLUE, *RULES, stateless=True)]
GROUPED = replace(
    TWO_HOSTS,
    groups={each.uuid: each for each in GROUPS},
    ports={each.uuid: having(each, one) for each, one in zip((WEB, DB), GROUPS, strict=True)},
    mappings={each.uuid: each for each in MAPPINGS if each.port != SPY.uuid},
)
NETS = tuple(map(ip_network, ("10.0.0.99", "10.0.0.128/28", "fd00::99", "fd00::80/124")))
ALLOWED = replace(WEB, allowed=NETS, limits=Limits(1, 2, 3, 4))
MOVING = [
    replace(ALLOWED, moving_to=HOST_B.uuid),
    replace(ALLOWED, host=HOST_B.uuid, previous_host=HOST_A.uuid),
]
FLEETS = [[HOST_A, HOST_B], [HOST_A6, HOST_B6], [HOST_A, HOST_B6], [HOST_A, replace(HOST_B, encap=HOST_A.encap)]]
WORLDS = [
    replace(world, hosts={host.uuid: host for host in fleet})
    for world in (TWO_HOSTS, GROUPED, *(replace(TWO_HOSTS, ports={**TWO_HOSTS.ports, WEB.uuid: web}) for web in MOVING))
    for fleet in FLEETS
]


def every_shape() -> list[Flow]:
    """One flow of each shape that the pipeline knows."""
    made = (
        each
        for world in WORLDS
        for host in world.hosts.values()
        for bridge, ofports in ((BR_GUEST, GUEST_OFPORTS), (BR_NIC, NIC_OFPORTS))
        for each in desired(bridge, view(world, host), ofports).values()
    )
    return list({flow.shape: flow for flow in made}.values())


@contextmanager
def calls_of_flow() -> Iterator[set[tuple[Path, int]]]:
    """The files and lines from which `flow` is called meanwhile."""
    calls: set[tuple[Path, int]] = set()

    def called(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code is flow.__code__ and frame.f_back:
            calls.add((Path(frame.f_back.f_code.co_filename), frame.f_back.f_lineno))

    sys.setprofile(called)
    try:
        yield calls
    finally:
        sys.setprofile(None)


def test_every_rule_makes_a_flow_in_these_worlds() -> None:
    with calls_of_flow() as calls:
        every_shape()
    missed = [
        f"{file.name}:{node.lineno}"
        for file in Path(flows.__path__[0]).glob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == flow.__name__
        if not any((file, line) in calls for line in range(node.lineno, (node.end_lineno or node.lineno) + 1))
    ]
    assert not missed, f"add to WORLDS what has these rules make a flow: {', '.join(missed)}"


def test_stamped_bytes_equal_ryus_for_every_shape_and_random_values() -> None:
    rng = random.Random(1)
    shapes = every_shape()
    assert len(shapes) > 300
    for one in shapes:
        for _ in range(5):
            values = tuple(rng.getrandbits(hole.bits if isinstance(hole, Field) else 32) for hole in one.shape.holes)
            some = Flow(one.shape, values, rng.getrandbits(64))
            bundle_id, xid = rng.getrandbits(32), rng.getrandbits(32)
            assert wire.flow_add(some, bundle_id, xid) == wire.encode(some, bundle_id, xid), str(some)


def test_a_flow_gives_its_match_and_actions_back_from_shape_and_values() -> None:
    for one in every_shape():
        wildcards = [match for match in one.match if match.mask == match.field.ones]
        assert [match.value for match in wildcards] == list(one.values[: len(wildcards)])
        assert str(one).startswith(f"table={one.table.name},priority={one.priority}")
