"""A difference between two sets of flows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from flows.flow import Flow


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
        self._flows: dict[int, Flow] = {}
        self.more: dict[int, int] = {}
        """Cookie -> by how many more its flow is wanted. What one row no longer gives another may."""
        self._in_place_of: dict[int, int] = {}
        """Cookie -> that of the flow which takes its place in the switch, by having the same match."""

    def put(self, flows: Iterable[Flow]) -> None:
        """These are wanted, by one more each."""
        for flow in flows:
            self._flows[flow.cookie] = flow
            self.more[flow.cookie] = self.more.get(flow.cookie, 0) + 1

    def remove(self, cookies: Iterable[int]) -> None:
        """Their flows are wanted by one less each."""
        for cookie in cookies:
            self.more[cookie] = self.more.get(cookie, 0) - 1

    def replace(self, old: Iterable[Flow], new: Iterable[Flow]) -> None:
        """The new are wanted in place of the old: what is overwritten need not be deleted."""
        olds, news = list(old), list(new)
        for gone in olds:
            for flow in news:
                if gone.key == flow.key:
                    self._in_place_of[gone.cookie] = flow.cookie
        self.remove(flow.cookie for flow in olds)
        self.put(news)

    def change(self) -> Change:
        """What it all comes to: a flow that stays, or only changes hands, is not touched."""
        added = {cookie: None for cookie, more in self.more.items() if more > 0}
        gone = (cookie for cookie, more in self.more.items() if more < 0)
        delete = tuple(cookie for cookie in gone if self._in_place_of.get(cookie) not in added)
        return Change(tuple(self._flows[cookie] for cookie in added), delete)
