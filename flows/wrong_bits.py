"""Rules for a MAC that is not the one it must be, which look at as little of it as tells."""

from __future__ import annotations

from collections.abc import Iterator

from flows.fields import Field
from flows.flow import FieldMatch, Flow, drop, flow
from flows.pipeline import Reason, Table
from flows.priority import WRONG_BIT


def wrong_bits(table: Table, match: FieldMatch, field: Field, own: int, reason: Reason) -> Iterator[Flow]:
    """One rule for each bit of a MAC that is wrong, of falling priority; `match` is what else must be so.

    An exact match that misses makes the datapath cache a flow for each MAC that a guest invents. These look at one bit
    after the other until one differs, so that all the MACs there are fall into at most 48 cached flows.
    """
    for bit in range(field.bits):
        yield flow(table, WRONG_BIT - bit, {**match, field: (~own & 1 << bit, 1 << bit)}, drop(reason))
