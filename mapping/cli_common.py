"""What the commands of `lockgate` share: where the database is, and how results are shown."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mapping import plan
from mapping.errors import MappingError
from mapping.plan import Edit, Plan
from mapping.replica import Replica
from mapping.rows import Tables
from mapping.wanted import Fault, Key, Row
from mapping.writer import Done, Writer, unreachable

_PATIENCE_MS: Final = 10_000
_STYLES: Final = {"add": ("+", "green"), "change": ("~", "yellow"), "delete": ("-", "red")}


class RefusedError(MappingError):
    """Several things are wrong: one line each."""

    def __init__(self, problems: Sequence[object]) -> None:
        self.problems = [str(problem) for problem in problems]
        super().__init__("\n".join(self.problems))


@dataclass(frozen=True, slots=True)
class Settings:
    """The options that stand before the command. `comment` goes into the database's log with each change."""

    remotes: tuple[str, ...]
    json: bool
    comment: str


def settings(context: typer.Context) -> Settings:
    """The options of this run."""
    found = context.find_object(Settings)
    assert found is not None  # noqa: S101 - the callback of the application has made them
    return found


def console() -> Console:
    """Where results go. Lines are not folded when nobody watches: another program reads them."""
    out = Console(highlight=False)
    return out if out.is_terminal else Console(highlight=False, width=1000)


def print_json(value: object) -> None:
    """The one thing on standard output under --json."""
    typer.echo(json.dumps(value, indent=2))


_NOTHING: Final = (None, ())
"""Values of a column that may hold nothing, and does."""


def follow(replica: Replica, options: Settings) -> None:
    """Wait until the replica has what the database says.

    Raises:
        MappingError: it does not get it, and why.
    """
    if not replica.wait_in_sync(_PATIENCE_MS):
        if replica.refused:
            raise MappingError(f"the mapping database at {replica.session.remote} refuses: {replica.refused}")
        raise MappingError(unreachable(options.remotes, replica.session.error))


def carry_out(options: Settings, make: Callable[[Tables], Plan]) -> None:
    """Carry out a plan and show it.

    Raises:
        MappingError: something is wrong with it, or the database refuses.
    """
    with Writer(options.remotes) as writer:
        done = writer.carry_out(make, options.comment)
    if done.plan.faults:
        raise RefusedError([fault.text for fault in done.plan.faults])
    show_done(options, done)


def show_done(options: Settings, done: Done, **more: object) -> None:
    """What changed; `more` is added under --json."""
    if options.json:
        edits = [_edit(edit) for edit in done.plan.edits]
        print_json({"edits": edits, "config_seq": done.config_seq, "notes": done.plan.notes, **more})
        return
    out = console()
    for edit in done.plan.edits:
        sign, style = _STYLES[edit.action]
        out.print(Text(f"{sign} {edit.name}", style), Text(_columns(edit)), sep="  ")
    if not done.plan.edits:
        out.print(f"nothing to do: the database says so already (config_seq {done.config_seq})")
    elif more.get("dry_run"):
        out.print(f"{len(done.plan.edits)} change(s), not applied: this was a dry run")
    else:
        out.print(f"{len(done.plan.edits)} change(s) written, config_seq {done.config_seq}")
    for note in done.plan.notes:
        out.print(Text(f"note: {note}", "yellow"))


def _columns(edit: Edit) -> str:
    if edit.action == "change":
        pairs = ((column, edit.before[column], edit.after[column]) for column in edit.after)
        return ", ".join(f"{column} {plan.show(before)} -> {plan.show(after)}" for column, before, after in pairs)
    row = edit.after or edit.before
    return ", ".join(f"{column} {plan.show(value)}" for column, value in row.items() if value not in _NOTHING)


def _edit(edit: Edit) -> dict[str, Any]:
    return {"action": edit.action, "table": edit.table, "key": edit.key, "before": edit.before, "after": edit.after}


def show_rows(options: Settings, table: str, found: dict[Key, Row]) -> None:
    """A table of the database."""
    names = ("vpc", "ip") if table == "Mapping" else ("name",)
    full = [{**dict(zip(names, key, strict=True)), **row} for key, row in sorted(found.items())]
    if options.json:
        print_json(full)
    elif full:
        # A column in which nothing stands tells nothing.
        columns = [column for column in full[0] if any(row[column] not in _NOTHING for row in full)]
        show_table(columns, ([plan.show(row[column]) for column in columns] for row in full))
    else:
        console().print("none")


def show_table(columns: Iterable[str], lines: Iterable[Sequence[str]]) -> None:
    """Columns side by side, without frames."""
    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for line in lines:
        table.add_row(*map(Text, line))
    console().print(table)


def missing(table: str, key: Key, text: str) -> Plan:
    """The plan that says that a row to be changed is not there."""
    return Plan((), (Fault(table, key, "", text),), ())
