"""Stamped bytes are those that Ryu's encoder writes, for every shape of flow and any values."""

from __future__ import annotations

import random
from dataclasses import replace

from controller import wire
from flows.desired import desired
from flows.fields import ETH_TYPE, EthType, Field
from flows.flow import Flow, ToController, UseMeter, flow
from flows.pipeline import BR_GUEST, BR_NIC, TABLES
from flows.view import view
from tests.build import BLUE, DB, GUEST_OFPORTS, MAPPINGS, NIC_OFPORTS, SPY, TWO_HOSTS, TWO_HOSTS6, WEB, group, having

RULES = ["to_guest tcp 80-90 from any", "to_guest icmp from group g", "from_guest 47 to fd00::/64"]
GROUP = group("g", BLUE, *RULES)
GROUPED = replace(
    TWO_HOSTS,
    groups={GROUP.uuid: GROUP},
    ports={WEB.uuid: having(WEB, GROUP), DB.uuid: having(DB, GROUP)},
    mappings={each.uuid: each for each in MAPPINGS if each.port != SPY.uuid},
)
TABLE = TABLES[BR_GUEST]["ARP_ANSWER"]
METERED = flow(TABLE, 1, {ETH_TYPE: EthType.ARP}, [UseMeter(1), ToController()])
"""What no flow of these worlds does."""


def every_shape() -> list[Flow]:
    """One flow of each shape that the pipeline knows."""
    flows = [
        each
        for world in (TWO_HOSTS, TWO_HOSTS6, GROUPED)
        for host in world.hosts.values()
        for bridge, ofports in ((BR_GUEST, GUEST_OFPORTS), (BR_NIC, NIC_OFPORTS))
        for each in desired(bridge, view(world, host), ofports).values()
    ]
    return list({flow.shape: flow for flow in [METERED, *flows]}.values())


def test_stamped_bytes_equal_ryus_for_every_shape_and_random_values() -> None:
    rng = random.Random(1)
    shapes = every_shape()
    assert len(shapes) > 100
    for one in shapes:
        for _ in range(20):
            values = tuple(rng.getrandbits(hole.bits if isinstance(hole, Field) else 32) for hole in one.shape.holes)
            some = Flow(one.shape, values, rng.getrandbits(64))
            xid = rng.getrandbits(32)
            assert wire.flow_add(some, xid) == wire.encode(some, xid), str(some)


def test_a_flow_gives_its_match_and_actions_back_from_shape_and_values() -> None:
    for one in every_shape():
        wildcards = [match for match in one.match if match.mask == match.field.ones]
        assert [match.value for match in wildcards] == list(one.values[: len(wildcards)])
        assert str(one).startswith(f"table={one.table.name},priority={one.priority}")
