"""A flow as a value: a shape, checked by its table when it is first made, and the values that fill it.

Flows by the hundred thousand differ only in addresses and numbers. What they have in common, the shape, is made once:
it is checked once, hashed once, and encoded once (`controller.wire`).
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Final, NamedTuple

from flows.fields import REASON, WORDS, Field, port
from flows.pipeline import TABLES, Reason, Table

COOKIE_MARK: Final = 0x10C6
"""Upper 16 bits of every cookie of ours: only flows that carry it are ever touched."""
COOKIE_MARK_SHIFT: Final = 48
OUR_COOKIES: Final = COOKIE_MARK << COOKIE_MARK_SHIFT
"""A cookie that is the mark alone."""


class Match(NamedTuple):
    """One field's value, under a mask."""

    field: Field
    value: int
    mask: int

    def __str__(self) -> str:
        if word := WORDS.get((self.field, self.value, self.mask)):
            return f"{self.field.name}={word}"
        text = f"{self.field.name}={self.field.notation(self.value)}"
        return text if self.mask == self.field.ones else f"{text}/{self.field.notation(self.mask)}"


class SetField(NamedTuple):
    """Write a value into a field."""

    field: Field
    value: int

    def __str__(self) -> str:
        return f"set_field:{self.field.notation(self.value)}->{self.field.name}"


class Copy(NamedTuple):
    """Copy a field into another, which is filled: of a wider one the low bits. Or `bits` of it from bit `start` on."""

    source: Field
    target: Field
    start: int = 0
    bits: int = 0

    def __str__(self) -> str:
        if self.bits:
            part = f"[{self.start}..{self.start + self.bits - 1}]"
            return f"move:{self.source.name}{part}->{self.target.name}{part}"
        low_bits = "" if self.source.bits == self.target.bits else f"[0..{self.target.bits - 1}]"
        return f"move:{self.source.name}{low_bits}->{self.target.name}"


class CheckLarger(NamedTuple):
    """Write into the lowest bit of a register whether the frame, with its Ethernet header, has more bytes.

    Open vSwitch goes on both ways with one cached flow (`check_pkt_larger` of ovs-actions(7)), and counts each packet
    in the flows of either.
    """

    size: int
    target: Field

    def __str__(self) -> str:
        return f"check_pkt_larger({self.size})->{self.target.name}[0]"


class Output(NamedTuple):
    """Send the packet out of a port."""

    port: int

    def __str__(self) -> str:
        return f"output:{port(self.port)}"


@dataclass(frozen=True, slots=True)
class OutputInPort:
    """Send the packet back where it came from. No tuple: without fields it would equal every other that has none."""

    def __str__(self) -> str:
        return "in_port"


@dataclass(frozen=True, slots=True)
class ToController:
    """Hand the whole packet to the controller: only after a meter. No tuple, likewise."""

    def __str__(self) -> str:
        return "controller"


class UseMeter(NamedTuple):
    """Go on only if the meter lets the packet through."""

    meter: int

    def __str__(self) -> str:
        return f"meter:{self.meter}"


class Track(NamedTuple):
    """Have the connection tracker look the packet up in a zone, and go on in a table with what it says."""

    zone: int
    table: str

    def __str__(self) -> str:
        return f"ct(table={self.table},zone={self.zone})"


class Commit(NamedTuple):
    """Have the connection tracker remember the packet's connection, in a zone."""

    zone: int

    def __str__(self) -> str:
        return f"ct(commit,zone={self.zone})"


class Conjunction(NamedTuple):
    """The packet has met one of two clauses. When it has met both, `fields.CONJUNCTION` is the number."""

    number: int
    clause: int

    def __str__(self) -> str:
        return f"conjunction({self.number},{self.clause}/2)"


class Goto(NamedTuple):
    """Go on to a later table of the same bridge."""

    table: str

    def __str__(self) -> str:
        return f"goto_table:{self.table}"


Action = (
    SetField
    | Copy
    | CheckLarger
    | Output
    | OutputInPort
    | ToController
    | UseMeter
    | Track
    | Commit
    | Conjunction
    | Goto
)
FieldMatch = dict[Field, int | tuple[int, int]]
"""What a flow matches: field -> value, or (value, mask). What a field requires (ovs-fields(7)) comes before it."""


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """What flows have in common that differ only in values. There is one object for each shape.

    A flow's values are, in order, those of the fields that it matches exactly, and of what it does: the fields that it
    sets, its meters, and the ports that it outputs to. A masked match, and what a miss writes as its reason, is part
    of the shape.
    """

    table: Table
    priority: int
    match: tuple[Field | Match, ...]
    actions: tuple[Field | type[Output | UseMeter] | Action, ...]
    holes: tuple[Field | type[Output | UseMeter], ...] = field(init=False)
    """What its flows' values are for, in order."""
    exact: int = field(init=False)
    """How many of its flows' values are matched; the others are written."""
    hash: hashlib.blake2b = field(init=False)
    """Of the shape, to go on with into its flows' cookies: copying it costs half of hashing anew."""
    pack: Callable[..., bytes] = field(init=False)
    """What packs its flows' values to be hashed, in network order: 64 bits each, or 128 where one is so wide."""

    def __post_init__(self) -> None:
        self._check()
        self._check_meters()
        holes = tuple(part for part in (*self.match, *self.actions) if isinstance(part, Field | type))
        ways = [TABLES[self.table.bridge][part.table].number for part in self.actions if isinstance(part, Goto | Track)]
        text = f"{self.table.name} {self.priority} {self.match} {self.actions} {self.table.number} {ways}"
        object.__setattr__(self, "holes", holes)
        object.__setattr__(self, "exact", sum(isinstance(part, Field) for part in self.match))
        # Shortened first, so that the text, and the values of a flow after it, are one block to be hashed: 128 bytes.
        short = hashlib.blake2b(text.encode(), digest_size=16).digest()
        object.__setattr__(self, "hash", hashlib.blake2b(short, digest_size=6))
        wide = any(isinstance(part, Field) and part.bits > 64 for part in holes)
        object.__setattr__(self, "pack", _pack_wide if wide else struct.Struct(f"!{len(holes)}Q").pack)

    def _check(self) -> None:
        table, where = self.table, f"table {self.table.name}, priority {self.priority}: it does not declare"
        for part in self.match:
            matched = part.field if isinstance(part, Match) else part
            if matched not in table.match:
                raise ValueError(f"{where} a match on {matched}")
        for action in self.actions:
            if isinstance(action, Goto | Track):
                if action.table != "DROP" and action.table not in table.exits:
                    raise ValueError(f"{where} the exit {action.table}")
                if TABLES[table.bridge][action.table].number <= table.number:
                    raise ValueError(f"{where} an exit backwards, to {action.table}")
            elif (action is Output or isinstance(action, OutputInPort | ToController)) and not table.outputs:
                raise ValueError(f"{where} an output")
            elif isinstance(action, SetField) and action.field is REASON:
                declared = {reason.number for reason in (table.miss, *table.named_misses) if reason}
                if action.value not in declared:
                    raise ValueError(f"{where} the reason {action.value}")

    def _check_meters(self) -> None:
        punt = ToController()
        if punt in self.actions and UseMeter not in self.actions[: self.actions.index(punt)]:
            raise ValueError(f"table {self.table.name}, priority {self.priority}: no meter before the controller")


def _pack_wide(*values: int) -> bytes:
    """What struct cannot: it has no format of 128 bits."""
    return b"".join([value.to_bytes(16) for value in values])


class Flow(NamedTuple):
    """One rule. Equal flows have equal cookies; a flow with other content has another cookie."""

    shape: Shape
    values: tuple[int, ...]
    cookie: int
    """As `cookie` makes it: cookies alone tell what differs."""

    @property
    def table(self) -> Table:
        """The table that it is in."""
        return self.shape.table

    @property
    def priority(self) -> int:
        """Higher wins."""
        return self.shape.priority

    @property
    def key(self) -> tuple[object, ...]:
        """What a switch has one flow of at most: adding another puts it in this one's place."""
        shape = self.shape
        return shape.table.number, shape.priority, shape.match, self.values[: shape.exact]

    @property
    def match(self) -> tuple[Match, ...]:
        """What a packet must be."""
        values = iter(self.values)
        return tuple(
            part if isinstance(part, Match) else Match(part, next(values), part.ones) for part in self.shape.match
        )

    @property
    def actions(self) -> tuple[Action, ...]:
        """What is done to it."""
        values = iter(self.values[self.shape.exact :])
        actions: list[Action] = []
        for part in self.shape.actions:
            if isinstance(part, Field):
                actions.append(SetField(part, next(values)))
            elif isinstance(part, type):
                actions.append(part(next(values)))
            else:
                actions.append(part)
        return tuple(actions)

    def __str__(self) -> str:
        match = "".join(f",{match}" for match in self.match)
        actions = ",".join(map(str, self.actions)) or "drop"
        return f"table={self.table.name},priority={self.priority}{match} actions={actions}"


_shape = cache(Shape)
_tuple: Final = tuple.__new__


def cookie(shape: Shape, values: tuple[int, ...]) -> int:
    """Our mark, and 48 bits of a hash of everything that the flow with this shape and values says."""
    digest = shape.hash.copy()
    digest.update(shape.pack(*values))
    return OUR_COOKIES | int.from_bytes(digest.digest())


def filled(shape: Shape, values: tuple[int, ...]) -> Flow:
    """The flow with this shape and values."""
    # As a tuple is made: half the time of `Flow(...)`, and there are many.
    return _tuple(Flow, (shape, values, cookie(shape, values)))


def flow(table: Table, priority: int, match: FieldMatch, actions: Iterable[Action]) -> Flow:
    """A flow from plain values.

    Raises:
        ValueError: its table does not declare a match, an exit, an output or a reason of it; or it hands packets to the
            controller that no meter has let through.
    """
    values: list[int] = []
    matched: list[Field | Match] = []
    for matched_field, value in match.items():
        if isinstance(value, tuple):
            matched.append(Match(matched_field, *value))
        else:
            matched.append(matched_field)
            values.append(value)
    done: list[Field | type[Output | UseMeter] | Action] = []
    for action in actions:
        if type(action) is SetField and action.field is not REASON:
            done.append(action.field)
            values.append(action.value)
        elif type(action) is Output:
            done.append(Output)
            values.append(action.port)
        elif type(action) is UseMeter:
            done.append(UseMeter)
            values.append(action.meter)
        else:
            done.append(action)
    return filled(_shape(table, priority, tuple(matched), tuple(done)), tuple(values))


def drop(reason: Reason) -> tuple[Action, ...]:
    """The actions of every rule that rejects: write down why, and go to where it is counted."""
    return SetField(REASON, reason.number), Goto("DROP")
