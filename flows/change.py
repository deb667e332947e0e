"""A difference between two sets of flows."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from functools import reduce

from flows.flow import Flow, Shape, cookie, filled


@dataclass(frozen=True, slots=True)
class Change:
    """What makes a switch's flows others: cookies whose flows to delete, and flows to add.

    A flow that is added takes the place of one with the same table, priority and match.
    """

    add: tuple[Flow, ...] = ()
    delete: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.add or self.delete)

    def __str__(self) -> str:
        return f"{len(self.add)} flows to add, {len(self.delete)} to delete"


class Tally:
    """What several things want of a switch's flows, summed up: one may take what another gives."""

    def __init__(self) -> None:
        self.wanted: list[Flow] = []
        """Flows, each as often as it is wanted by one more."""
        self.unwanted: list[int] = []
        """Cookies, each as often as its flow is wanted by one less."""
        self.in_place_of: dict[int, int] = {}
        """Cookie -> that of the flow which takes its place in the switch, by having the same match."""

    def overwrite(self, shape: Shape, old: tuple[int, ...], new: tuple[int, ...]) -> None:
        """The flow of this shape with the new values is wanted in place of that with the old."""
        gone, flow = cookie(shape, old), filled(shape, new)
        self.unwanted.append(gone)
        self.wanted.append(flow)
        if old[: shape.exact] == new[: shape.exact]:
            self.in_place_of[gone] = flow.cookie

    def replace(self, old: Collection[Flow], new: Collection[Flow]) -> None:
        """The new are wanted in place of the old: what is overwritten need not be deleted."""
        for gone in old:
            for flow in new:
                if gone.key == flow.key:
                    self.in_place_of[gone.cookie] = flow.cookie
        self.unwanted += [flow.cookie for flow in old]
        self.wanted += new

    def change(self) -> Change:
        """What it all comes to: a flow that stays, or only changes hands, is not touched."""
        added = {flow.cookie: flow for flow in self.wanted}
        gone = dict.fromkeys(self.unwanted)
        if both := added.keys() & gone.keys():
            more = Counter(flow.cookie for flow in self.wanted if flow.cookie in both)
            more.subtract(cookie for cookie in self.unwanted if cookie in both)
            for cookie in both:
                if more[cookie] <= 0:
                    del added[cookie]
                if more[cookie] >= 0:
                    del gone[cookie]
        overwritten = self.in_place_of
        return Change(tuple(added.values()), tuple(cookie for cookie in gone if overwritten.get(cookie) not in added))

    @property
    def more(self) -> int:
        """By how many the flows become more, as often as they are wanted."""
        return len(self.wanted) - len(self.unwanted)

    @property
    def digest(self) -> int:
        """What the sum without carry of the flows' cookies changes by, as often as they are wanted."""
        return reduce(operator.xor, self.unwanted, reduce(operator.xor, [flow.cookie for flow in self.wanted], 0))
