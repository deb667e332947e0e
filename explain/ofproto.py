"""What Open vSwitch prints -> values: the flows that a packet meets (`ofproto/trace`), ports, flows. Pure.

Flows of others are met like our own, in tables that ours do not have, too; a packet that conntrack looked at goes on
in a section of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from flows.fields import REASON
from flows.flow import COOKIE_MARK, COOKIE_MARK_SHIFT
from flows.meter import Meter, Meters
from flows.pipeline import TABLES

_BRIDGE: Final = re.compile(r'bridge\("(.+)"\)')
_STEP: Final = re.compile(
    r" *(\d+)\. (?:(?P<match>.*?)(?:, )?priority (?P<priority>\d+)(?:, cookie (?P<cookie>0x[0-9a-f]{1,16}))?|.*)"
)
_REASON: Final = re.compile(rf"\b{REASON.name}=(0x[0-9a-f]+)")
_PORT: Final = re.compile(r" *(\w+)\((.+)\): addr:.*")
_STATS: Final = re.compile(r"duration=([\d.]+)s,.*? n_packets=(\d+), n_bytes=(\d+),")
_DIFFERENT: Final = re.compile(
    r"(?P<sign>[-+])(?:table=(?P<table>\d+) )?(?P<match>(?!cookie=|idle_|hard_|importance=|actions=)\S+ )?"
    r"(?:cookie=(?P<cookie>0x[0-9a-f]{1,16}) )?.*?actions=(?P<actions>.*)"
)
_METERS: Final = "OFPST_METER_CONFIG reply"
_METER: Final = re.compile(r"^ *meter=(\d+) (.*) bands=\s*\n((?: *type=.*\n?)*)", re.MULTILINE)
_BAND: Final = re.compile(r"type=drop rate=(\d+) burst_size=(\d+)")


@dataclass(frozen=True, slots=True)
class Step:
    """One flow that a packet meets. `cookie` is None where no flow matched; `notes` say what came of the actions."""

    bridge: str
    table: str
    cookie: int | None
    priority: int
    match: str
    actions: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def reason(self) -> int | None:
        """The number of the reason for which it is dropped here."""
        found = _REASON.search(self.match) if self.table == "DROP" else None
        return int(found[1], 16) if found else None

    def __str__(self) -> str:
        match = f",{self.match}" if self.match else ""
        return f"table={self.table},priority={self.priority}{match} actions={','.join(self.actions) or 'drop'}"


@dataclass(frozen=True, slots=True)
class Difference:
    """A flow that only one of two lists has; `flow` as ovs-ofctl writes and reads it, without its actions."""

    missing: bool
    """Whether it is the desired one, rather than the installed one."""
    table: str
    flow: str
    cookie: int
    actions: str


def steps(said: str) -> list[Step]:
    """The flows in what ofproto/trace has printed, in order."""
    found: list[Step] = []
    bridge, inside = "", False
    for line in said.splitlines():
        if header := _BRIDGE.fullmatch(line):
            bridge, inside = header[1], False
        elif line.startswith("Final flow:"):
            inside = False
        elif bridge and (step := _STEP.fullmatch(line)):
            inside = True
            cookie = int(step["cookie"] or "0", 16) if step["priority"] else None
            table = _table(bridge, step[1])
            found.append(Step(bridge, table, cookie, int(step["priority"] or 0), step["match"] or "", (), ()))
        elif inside and line.startswith("    "):
            text, last = line.strip(), found.pop()
            said_by_switch = text.startswith(("->", ">>"))
            actions = last.actions if said_by_switch else (*last.actions, text)
            notes = (*last.notes, text[2:].strip()) if said_by_switch else last.notes
            found.append(Step(last.bridge, last.table, last.cookie, last.priority, last.match, actions, notes))
    return found


def ports(said: str) -> dict[str, int]:
    """A bridge's port names and numbers, from dump-ports-desc."""
    found = (_PORT.fullmatch(line) for line in said.splitlines())
    return {port[2]: int(port[1]) for port in found if port and port[1].isdigit()}


def counters(said: str) -> Iterator[tuple[float, int, int]]:
    """Age in seconds, packets and bytes of each flow that dump-flows has printed."""
    for found in _STATS.finditer(said):
        yield float(found[1]), int(found[2]), int(found[3])


def differences(said: str, bridge: str) -> Iterator[Difference]:
    """The flows in what diff-flows has printed of installed and desired ones.

    Raises:
        ValueError: there is something else in it.
    """
    for line in said.splitlines():
        found = _DIFFERENT.fullmatch(line)
        if not found:
            raise ValueError(f"ovs-ofctl diff-flows says {line!r}, which is not understood")
        number = found["table"] or "0"
        flow = f"table={number},{found['match'] or ''}".strip(" ,")
        cookie = int(found["cookie"] or "0", 16)
        yield Difference(found["sign"] == "+", _table(bridge, number), flow, cookie, found["actions"])


def meters(said: str) -> Meters:
    """A bridge's meters, from dump-meters. One that is not like ours has a rate of 0, which none of ours has.

    Raises:
        ValueError: there is something else in it.
    """
    rest = [line for line in _METER.sub("", said).splitlines() if line.strip()]
    if not rest or not all(line.startswith(_METERS) for line in rest):
        raise ValueError(f"{said[:100]!r} is no list of meters")
    found: Meters = {}
    for number, words, bands in _METER.findall(said):
        band = _BAND.fullmatch(bands.strip())
        unit: Literal["kbps", "pktps"] = "pktps" if "pktps" in words.split() else "kbps"
        found[int(number)] = Meter(unit, int(band[1]), int(band[2])) if band else Meter(unit, 0, 0)
    return found


def is_ours(cookie: int) -> bool:
    """Whether the cookie has the mark of Lockgate's flows."""
    return cookie >> COOKIE_MARK_SHIFT == COOKIE_MARK


def _table(bridge: str, number: str) -> str:
    names = {str(table.number): name for name, table in TABLES.get(bridge, {}).items()}
    return names.get(number, number)
