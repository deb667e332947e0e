"""A difference between two sets of flows."""

from __future__ import annotations

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
