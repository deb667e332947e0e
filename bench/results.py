"""The rows that the program finds out, as a table for people and as JSON for programs."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.table import Table


@dataclass
class Row:
    """One figure, and what it is to be measured against.

    `target` bounds the ratio where there is a reference, else the value; a row without one is for information.
    """

    name: str
    value: float
    unit: str
    reference: float | None = None
    reference_is: str = ""
    """What the reference is, in words."""
    target: float | None = None
    at_least: bool = False
    """Whether more is better, so that the target is to be reached from above."""
    ratio: float | None = None
    """How many times the reference, unless it is found in another way (as a median of ratios)."""
    note: str = ""
    group: str = ""
    failed: bool = False
    """Whether this stands for what could not be measured."""

    def __post_init__(self) -> None:
        if self.ratio is None and self.reference:
            self.ratio = self.value / self.reference

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; None without one."""
        if self.failed:
            return False
        if self.target is None:
            return None
        # With a reference that could not be measured there is no ratio, and nothing is reached.
        measured = self.value if self.reference is None else self.ratio
        if measured is None or math.isnan(measured):
            return False
        return measured >= self.target if self.at_least else measured <= self.target

    def as_json(self) -> dict[str, object]:
        """For the file: what is not a number is null there."""
        columns = {**asdict(self), "met": self.met}
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in columns.items()
        }


def table(rows: Sequence[Row], title: str) -> Table:
    """All rows, by group."""
    shown = Table(title=title)
    for heading in ("figure", "value", "reference", "ratio", "target", ""):
        shown.add_column(heading, justify="left" if heading in ("figure", "reference", "") else "right")
    group = ""
    for row in rows:
        if row.group != group:
            group = row.group
            shown.add_section()
            shown.add_row(f"[bold]{group}[/]")
        reference = f"{number(row.reference)} {row.unit} {row.reference_is}" if row.reference is not None else ""
        name = f"{row.name} [dim]({row.note})[/]" if row.note else row.name
        shown.add_row(name, f"{number(row.value)} {row.unit}", reference.strip(), number(row.ratio), *_verdict(row))
    return shown


def _verdict(row: Row) -> tuple[str, str]:
    if row.target is None:
        return "", "[red]failed[/]" if row.failed else ""
    bound = "≥" if row.at_least else "≤"
    unit = f" {row.unit}" if row.reference is None and row.unit else ""
    return f"{bound} {row.target:g}{unit}", "[green]met[/]" if row.met else "[red]missed[/]"


def number(value: float | None) -> str:
    """A figure as it is shown: three digits count."""
    if value is None or math.isnan(value):
        return ""
    return f"{value:.0f}" if abs(value) >= 100 or value == 0 else f"{value:.3g}"


def write(rows: Iterable[Row], file: Path) -> None:
    """Write the rows as JSON."""
    # A file that root left is replaced rather than written to: an ordinary user may do the former only.
    file.unlink(missing_ok=True)
    file.write_text(json.dumps([row.as_json() for row in rows], indent=2, ensure_ascii=False) + "\n")
