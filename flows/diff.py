"""Desired minus installed, by cookie."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from flows.desired import Flows
from flows.flow import Flow


@dataclass(frozen=True, slots=True)
class Change:
    """What makes a switch's flows the desired ones: flows to add, and cookies whose flows to delete."""

    add: tuple[Flow, ...] = ()
    delete: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.add or self.delete)

    def __str__(self) -> str:
        return f"{len(self.add)} flows to add, {len(self.delete)} to delete"


def diff(desired: Flows, installed: Collection[int]) -> Change:
    """The change from the installed cookies to the desired flows; a flow that is in both is not touched."""
    have = frozenset(installed)
    return Change(
        tuple(flow for cookie, flow in desired.items() if cookie not in have),
        tuple(sorted(have - desired.keys())),
    )
