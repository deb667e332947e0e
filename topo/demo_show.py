"""What a demonstration expects and what it has seen, for people and for programs."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Callable
from typing import Final

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from topo.demo_frames import Packet, Tunnelled
from topo.lab import Lab

_WIDTH: Final = 110
"""Columns, when nobody watches whose terminal would have a width."""
_HEX_COLUMNS: Final = 16


@dataclasses.dataclass(frozen=True, slots=True)
class Check:
    """One claim: what was expected, what was seen, and whether that will do."""

    what: str
    expected: str
    seen: str
    ok: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Figure:
    """What was measured."""

    what: str
    value: float
    unit: str


@dataclasses.dataclass(slots=True)
class Step:
    """One step as it goes on. What it claims goes through `check` and `equal`, what it measured through `figure`."""

    number: int
    title: str
    expected: str
    out: Console | None
    checks: list[Check] = dataclasses.field(default_factory=list)
    figures: list[Figure] = dataclasses.field(default_factory=list)
    started: float = dataclasses.field(default_factory=time.monotonic)

    def begin(self) -> None:
        """Say what is going to be shown."""
        self.show(Text.assemble((f"\n{self.number:2}  {self.title}", "bold")))
        self.say(f"Expected: {self.expected}")

    def say(self, text: str) -> None:
        """Tell a person what happens."""
        self.show(Text(f"    {text}", "dim"))

    def show(self, what: RenderableType) -> None:
        """Show something to a person."""
        if self.out:
            self.out.print(what, soft_wrap=isinstance(what, Text))

    def check(self, what: str, seen: object, ok: bool, expected: object = "") -> None:
        """A claim that holds or does not."""
        found = Check(what, str(expected), str(seen), ok)
        self.checks.append(found)
        mark = ("  ok  ", "bold green") if ok else ("  NO  ", "bold red")
        wanted = f" (expected: {expected})" if found.expected not in ("", found.seen) else ""
        self.show(Text.assemble(mark, f"{what}: ", (found.seen, "green" if ok else "red"), wanted))

    def equal(self, what: str, expected: object, seen: object) -> None:
        """A claim that what was seen is what was expected."""
        self.check(what, seen, seen == expected, expected)

    def figure(self, what: str, value: float, unit: str) -> None:
        """A number that was measured, and that decides nothing."""
        self.figures.append(Figure(what, value, unit))
        self.show(Text.assemble("      ", f"{what}: ", (f"{value:g} {unit}", "cyan")))

    @property
    def ok(self) -> bool:
        """Whether it holds."""
        return not self.problems

    @property
    def problems(self) -> list[str]:
        """What does not hold, in words. A step has to claim something."""
        if not self.checks:
            return ["claims nothing"]
        return [f"{check.what}: {check.seen} (expected: {check.expected})" for check in self.checks if not check.ok]

    def end(self) -> None:
        """Report the step to a program."""
        if not self.out:
            report = {
                "step": self.number,
                "title": self.title,
                "expected": self.expected,
                "ok": self.ok,
                "seconds": round(time.monotonic() - self.started, 3),
                "checks": [dataclasses.asdict(check) for check in self.checks],
                "figures": [dataclasses.asdict(figure) for figure in self.figures],
            }
            print(json.dumps(report), flush=True)


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """One part of a demonstration: what it shows, what is to be expected, and how it is done."""

    title: str
    expected: str
    play: Callable[[Lab, Step], None]


def console() -> Console:
    """Where people read."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH)


def side_by_side(sent: bytes, wire: bytes, arrived: bytes) -> Table:
    """The fields of one packet on its way: at one guest, on the substrate, and at the other guest."""
    table = Table("", "as the guest sends it", "on the substrate", "as the guest receives it", box=None, padding=(0, 2))
    tunnel = Tunnelled.read(wire)
    if tunnel:
        for name, value in (
            ("outer eth_src", tunnel.outer.eth_src),
            ("outer eth_dst", tunnel.outer.eth_dst),
            ("outer source", tunnel.outer.src),
            ("outer destination", tunnel.outer.dst),
            ("encapsulation", tunnel.encap),
            ("VNI", tunnel.vni),
        ):
            table.add_row(name, "-", Text(str(value), "yellow"), "-")
    plain = [Packet.read(frame) for frame in (sent, tunnel.inner if tunnel else b"", arrived)]
    for name in ("eth_src", "eth_dst", "src", "dst"):
        label = {"src": "source", "dst": "destination"}.get(name, name)
        table.add_row(label, *(Text(str(getattr(packet, name, "?")), "green") for packet in plain))
    table.add_row("bytes", *(str(len(frame)) for frame in (sent, wire, arrived)))
    return table


def hexdump(frame: bytes, inner_at: int) -> Text:
    """A frame in hexadecimal: outer headers in yellow, the inner frame in green."""
    dump = Text()
    for start in range(0, len(frame), _HEX_COLUMNS):
        row = frame[start : start + _HEX_COLUMNS]
        dump.append(f"    {start:04x} ", "dim")
        for offset, byte in enumerate(row, start):
            dump.append(f" {byte:02x}", "yellow" if offset < inner_at else "green")
        dump.append("   " * (_HEX_COLUMNS - len(row)) + "  ")
        for offset, byte in enumerate(row, start):
            shown = chr(byte) if 0x20 <= byte < 0x7F else "."
            dump.append(shown, "yellow" if offset < inner_at else "green")
        dump.append("\n")
    dump.rstrip()
    return dump
