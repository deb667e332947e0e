"""What the commands of `lockgate` share: where the database is, and how results are shown."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mapping import plan, rows, wanted
from mapping.errors import MappingError
from mapping.history import Cause
from mapping.plan import Edit, Plan
from mapping.replica import Replica
from mapping.rows import Tables
from mapping.wanted import Fault, Key, Row
from mapping.writer import Done, Writer, unreachable

_PATIENCE_MS: Final = 10_000
_STYLES: Final = {"add": "green", "change": "yellow", "delete": "red"}


class RefusedError(MappingError):
    """Several things are wrong: one line each."""

    def __init__(self, problems: Sequence[object]) -> None:
        self.problems = [str(problem) for problem in problems]
        super().__init__("\n".join(self.problems))


@dataclass(frozen=True, slots=True)
class Settings:
    """The options that stand before the command. `cause` goes into the database's history with each change."""

    remotes: tuple[str, ...]
    json: bool
    cause: Cause


def settings(context: typer.Context) -> Settings:
    """The options of this run."""
    found = context.find_object(Settings)
    assert found is not None  # noqa: S101 - the callback of the application has made them
    return found


def console() -> Console:
    """Where results go. Lines are not folded when nobody watches: another program reads them."""
    out = Console(highlight=False)
    return out if out.is_terminal else Console(highlight=False, width=1000)


def contents(file: Path) -> bytes:
    """What a file, or standard input, has.

    Raises:
        MappingError: it cannot be read.
    """
    try:
        return sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        raise MappingError(f"{file}: {error.strerror}: name a YAML file, like examples/two-hosts.yaml") from None


def print_json(value: object) -> None:
    """The one thing on standard output under --json."""
    typer.echo(json.dumps(value, indent=2))


def say(context: typer.Context, words: str, **data: object) -> None:
    """What was done: words for people, an object for programs."""
    if settings(context).json:
        print_json(data)
    else:
        console().print(words, markup=False, soft_wrap=True)


def follow(replica: Replica, options: Settings) -> None:
    """Wait until the replica has what the database says.

    Raises:
        MappingError: it does not get it, and why.
    """
    if not replica.wait_in_sync(_PATIENCE_MS):
        if replica.refused:
            raise MappingError(f"the mapping database at {replica.session.remote} refuses: {replica.refused}")
        raise MappingError(unreachable(options.remotes, replica.session.error))


def wait_until(replica: Replica, condition: Callable[[], bool], seconds: float) -> bool:
    """Wait until `condition()` holds, also if it comes to hold by time alone; return whether it does."""
    end = time.monotonic() + seconds
    while not replica.wait_until(condition, int(1000 * max(0.0, min(1.0, end - time.monotonic())))):
        if time.monotonic() >= end:
            return False
    return True


def carry_out(options: Settings, make: Callable[[Tables], Plan], *, dry_run: bool = False) -> None:
    """Carry out a plan and show it; with `dry_run`, show it only.

    Raises:
        MappingError: something is wrong with it, or the database refuses.
    """
    with Writer(options.remotes) as writer:
        if dry_run:
            tables = writer.read()
            done = Done(make(tables), rows.config_seq(tables))
        else:
            done = writer.carry_out(make, options.cause)
    if done.plan.faults:
        raise RefusedError([fault.text for fault in done.plan.faults])
    show_done(options, done, **({"dry_run": True} if dry_run else {}))


def show_done(options: Settings, done: Done, **more: object) -> None:
    """What changed; `more` is added under --json."""
    if options.json:
        edits = [edit_as_json(edit) for edit in done.plan.edits]
        print_json({"edits": edits, "config_seq": done.config_seq, "notes": done.plan.notes, **more})
        return
    out = console()
    for edit in done.plan.edits:
        show_edit(out, edit)
    if not done.plan.edits:
        out.print(f"nothing to do: the database says so already (config_seq {done.config_seq})")
    elif more.get("dry_run"):
        out.print(f"{len(done.plan.edits)} change(s), not applied: this was a dry run")
    else:
        out.print(f"{len(done.plan.edits)} change(s) written, config_seq {done.config_seq}")
    for note in done.plan.notes:
        out.print(Text(f"note: {note}", "yellow"))


def show_edit(out: Console, edit: Edit) -> None:
    """One row that changes, as a line."""
    out.print(Text(f"{edit.sign} {edit.name}", _STYLES[edit.action]), Text(edit.what), sep="  ")


def edit_as_json(edit: Edit) -> dict[str, Any]:
    """One row that changes, for programs."""
    before, after = (wanted.as_json(edit.table, row) for row in (edit.before, edit.after))
    return {"action": edit.action, "table": edit.table, "key": edit.key, "before": before, "after": after}


def full_row(table: str, key: Key, row: Row) -> Row:
    """A row with the columns that are its key."""
    names = ("vpc", "ip") if table == "Mapping" else ("name",)
    return {**dict(zip(names, key, strict=True)), **row}


def show_rows(options: Settings, table: str, found: dict[Key, Row]) -> None:
    """A table of the database."""
    full = [full_row(table, key, row) for key, row in sorted(found.items())]
    if options.json:
        print_json([wanted.as_json(table, row) for row in full])
    elif full:
        # A column in which nothing stands tells nothing.
        columns = [column for column in full[0] if any(row[column] not in plan.NOTHING for row in full)]
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
