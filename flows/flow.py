"""A flow as a value, checked by its table when it is made."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from flows.fields import REASON, Field, port
from flows.pipeline import TABLES, Reason, Table

COOKIE_MARK: Final = 0x10C6
"""Upper 16 bits of every cookie of ours: only flows that carry it are ever touched."""
COOKIE_MARK_SHIFT: Final = 48


@dataclass(frozen=True, slots=True)
class Match:
    """One field's value, under a mask."""

    field: Field
    value: int
    mask: int

    def __str__(self) -> str:
        text = f"{self.field.name}={self.field.notation(self.value)}"
        return text if self.mask == self.field.ones else f"{text}/{self.field.notation(self.mask)}"


@dataclass(frozen=True, slots=True)
class SetField:
    """Write a value into a field."""

    field: Field
    value: int

    def __str__(self) -> str:
        return f"set_field:{self.field.notation(self.value)}->{self.field.name}"


@dataclass(frozen=True, slots=True)
class Copy:
    """Copy one whole field into another of the same width."""

    source: Field
    target: Field

    def __str__(self) -> str:
        return f"move:{self.source.name}->{self.target.name}"


@dataclass(frozen=True, slots=True)
class Output:
    """Send the packet out of a port."""

    port: int

    def __str__(self) -> str:
        return f"output:{port(self.port)}"


@dataclass(frozen=True, slots=True)
class OutputInPort:
    """Send the packet back where it came from."""

    def __str__(self) -> str:
        return "in_port"


@dataclass(frozen=True, slots=True)
class Goto:
    """Go on to a later table of the same bridge."""

    table: str

    def __str__(self) -> str:
        return f"goto_table:{self.table}"


Action = SetField | Copy | Output | OutputInPort | Goto


@dataclass(frozen=True)
class Flow:
    """One rule. Equal flows have equal cookies; a flow with other content has another cookie."""

    table: Table
    priority: int
    match: tuple[Match, ...]
    actions: tuple[Action, ...]

    def __post_init__(self) -> None:
        table = self.table
        undeclared = [match.field for match in self.match if match.field not in table.match]
        if undeclared:
            raise ValueError(f"table {table.name} does not declare a match on {undeclared}: {self}")
        for action in self.actions:
            if isinstance(action, Goto):
                if action.table != "DROP" and action.table not in table.exits:
                    raise ValueError(f"table {table.name} does not declare the exit {action.table}: {self}")
                if TABLES[table.bridge][action.table].number <= table.number:
                    raise ValueError(f"a flow can only go forward: {self}")
            elif isinstance(action, Output | OutputInPort) and not table.outputs:
                raise ValueError(f"table {table.name} does not declare an output: {self}")
            elif isinstance(action, SetField) and action.field is REASON:
                declared = {reason.number for reason in (table.miss, *table.named_misses) if reason}
                if action.value not in declared:
                    raise ValueError(f"table {table.name} does not declare this reason: {self}")

    @cached_property
    def cookie(self) -> int:
        """Our mark, and 48 bits of a hash of everything the flow says: cookies alone tell what differs."""
        digest = hashlib.blake2b(str(self).encode(), digest_size=6).digest()
        return COOKIE_MARK << COOKIE_MARK_SHIFT | int.from_bytes(digest)

    def __str__(self) -> str:
        match = "".join(f",{match}" for match in self.match)
        actions = ",".join(map(str, self.actions)) or "drop"
        return f"table={self.table.name},priority={self.priority}{match} actions={actions}"


FieldMatch = dict[Field, int | tuple[int, int]]
"""What a flow matches: field -> value, or (value, mask)."""


def flow(table: Table, priority: int, match: FieldMatch, actions: Iterable[Action]) -> Flow:
    """A flow from plain values."""
    matches = [
        Match(field, value[0], value[1]) if isinstance(value, tuple) else Match(field, value, field.ones)
        for field, value in match.items()
    ]
    return Flow(table, priority, tuple(matches), tuple(actions))


def drop(reason: Reason) -> tuple[Action, ...]:
    """The actions of every rule that rejects: write down why, and go to where it is counted."""
    return SetField(REASON, reason.number), Goto("DROP")
