"""Stamped bytes are those that Ryu's encoder writes, for every shape of flow and any values."""

from __future__ import annotations

import random

from controller import wire
from flows.desired import desired
from flows.fields import Field
from flows.flow import Flow, Output
from flows.pipeline import BR_GUEST, BR_NIC
from flows.view import view
from tests.build import GUEST_OFPORTS, NIC_OFPORTS, TWO_HOSTS, TWO_HOSTS6


def every_shape() -> list[Flow]:
    """One flow of each shape that the pipeline knows."""
    flows = [
        flow
        for world in (TWO_HOSTS, TWO_HOSTS6)
        for host in world.hosts.values()
        for bridge, ofports in ((BR_GUEST, GUEST_OFPORTS), (BR_NIC, NIC_OFPORTS))
        for flow in desired(bridge, view(world, host), ofports).values()
    ]
    return list({flow.shape: flow for flow in flows}.values())


def test_stamped_bytes_equal_ryus_for_every_shape_and_random_values() -> None:
    rng = random.Random(1)
    shapes = every_shape()
    assert len(shapes) > 100
    for flow in shapes:
        holes = [part for part in (*flow.shape.match, *flow.shape.actions) if isinstance(part, Field) or part is Output]
        for _ in range(20):
            values = tuple(rng.getrandbits(hole.bits if isinstance(hole, Field) else 32) for hole in holes)
            some = Flow(flow.shape, values, rng.getrandbits(64))
            xid = rng.getrandbits(32)
            assert wire.flow_add(some, xid) == wire.encode(some, xid), str(some)


def test_a_flow_gives_its_match_and_actions_back_from_shape_and_values() -> None:
    for flow in every_shape():
        wildcards = [match for match in flow.match if match.mask == match.field.ones]
        assert [match.value for match in wildcards] == list(flow.values[: len(wildcards)])
        assert str(flow).startswith(f"table={flow.table.name},priority={flow.priority}")
