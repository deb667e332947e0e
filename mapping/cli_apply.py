"""`lockgate apply`."""

# ruff: noqa: PLR0913 - a command has as many options as it needs

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from mapping import document, plan, rows
from mapping import status as state
from mapping.cli_common import (
    RefusedError,
    Settings,
    console,
    contents,
    follow,
    settings,
    show_done,
    show_table,
    wait_until,
)
from mapping.document import Document
from mapping.errors import MappingError
from mapping.plan import Plan
from mapping.replica import Replica
from mapping.rows import Tables
from mapping.status import Confirmation
from mapping.writer import Done, Writer

File = Annotated[Path, typer.Option("--file", "-f", help="The YAML file; - is standard input.")]
Prune = Annotated[bool, typer.Option("--prune", help="Delete every row that the file does not name.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the changes, and make none.")]
Wait = Annotated[bool, typer.Option("--wait", help="Wait until every live host that the changes concern has them.")]
Timeout = Annotated[float, typer.Option(min=0, help="Seconds to wait with --wait.")]


def apply(
    context: typer.Context,
    *,
    file: File,
    prune: Prune = False,
    dry_run: DryRun = False,
    wait: Wait = False,
    timeout: Timeout = 30.0,
) -> None:
    """Make the database say what a file says, in one transaction.

    Rows that the file does not name stay as they are, unless --prune is given. A second time there is nothing to do.
    """
    options = settings(context)
    read = document.read(contents(file), str(file))

    def make(tables: Tables) -> Plan:
        return plan.make(read.rows, tables, absent=plan.left_out(read.rows, tables, prune=prune))

    with Writer(options.remotes) as writer:
        if read.problems:
            raise RefusedError(_all_problems(read, writer, make))
        if dry_run:
            tables = writer.read()
            done = Done(make(tables), rows.config_seq(tables))
        elif wait:
            _carry_out_and_wait(options, writer, read, make, timeout)
            return
        else:
            done = writer.carry_out(make, options.cause)
    _refuse_faults(read, done.plan)
    show_done(options, done, dry_run=dry_run)


def _all_problems(read: Document, writer: Writer, make: Callable[[Tables], Plan]) -> list[document.Problem]:
    """Those of the file, and those that show against the database, if that can be reached."""
    try:
        faults = make(writer.read()).faults
    except MappingError:
        faults = ()
    return sorted({*read.problems, *read.locate(faults)})


def _refuse_faults(read: Document, planned: Plan) -> None:
    if planned.faults:
        raise RefusedError(sorted(read.locate(planned.faults)))


def _carry_out_and_wait(
    options: Settings, writer: Writer, read: Document, make: Callable[[Tables], Plan], seconds: float
) -> None:
    """Carry out the plan; show it, and how far each host is with it that it concerns."""
    replica = Replica(options.remotes, state.HOST_COLUMNS)
    hosts: frozenset[str] = frozenset()

    def make_and_follow(tables: Tables) -> Plan:
        nonlocal hosts
        made = make(tables)
        # With nothing to change, an earlier run may have written the same, and given up waiting.
        hosts = plan.concerned(made.edits or plan.make(read.rows, {}).edits, tables)
        if hosts and not made.faults:
            follow(replica, options)
        return made

    with closing(replica.session):
        done = writer.carry_out(make_and_follow, options.cause)
        since = time.monotonic()
        _refuse_faults(read, done.plan)
        found: tuple[Confirmation, ...] = ()
        try:
            if hosts:
                found = _wait(replica, done, hosts, since, seconds)
        finally:
            # Not before: it takes its time when there are many, and would be measured as the hosts'.
            if not options.json:
                show_done(options, done)
    late = [each.host for each in found if each.state == "late"]
    if options.json:
        confirmed = [dataclasses.asdict(each) for each in found]
        show_done(options, done, dry_run=False, hosts=confirmed, not_applied=late)
    else:
        _show_confirmed(found)
    if late and options.json:
        raise typer.Exit(1)
    if late:
        raise MappingError(
            f"written, but not applied after {seconds:g} s by {', '.join(late)}: look with `lockgate status`"
        )


def _wait(
    replica: Replica, done: Done, hosts: frozenset[str], since: float, seconds: float
) -> tuple[Confirmation, ...]:
    """Wait until every live one of these hosts has applied this; return how far each is."""
    ms: dict[str, int] = {}
    found: tuple[Confirmation, ...] = ()
    heard = state.HeardHosts()

    def look() -> bool:
        nonlocal found
        heard.look(replica.tables, time.monotonic())
        for row in replica.tables["Host"].values() if done.plan.edits else ():
            if row["name"] in hosts and row["applied_seq"] >= done.config_seq:
                ms.setdefault(row["name"], round((time.monotonic() - since) * 1000))
        found = state.confirmations(replica.tables, done.config_seq, hosts, ms, time.time(), heard)
        late = [each.host for each in found if each.state == "late"]
        missing = state.in_words(late) if late else "the mapping database"
        spinner.update(Text(f"config_seq {done.config_seq} is written, waiting for {missing}"))
        # Hosts that the change adds have no row here before the change has arrived here as well.
        return replica.current and replica.config_seq >= done.config_seq and not late

    screen = Console(stderr=True)
    spinner = screen.status("")
    if screen.is_terminal:
        spinner.start()
    try:
        if wait_until(replica, look, seconds) or replica.current:
            return found
    finally:
        spinner.stop()
    raise MappingError(
        f"written, but the mapping database at {replica.session.remote} went away ({replica.session.error}), "
        "and with it the hosts' reports: look with `lockgate status`"
    )


def _show_confirmed(found: tuple[Confirmation, ...]) -> None:
    if not found:
        console().print("no host is concerned: nothing to wait for")
        return
    lines = ((each.host, each.state, "" if each.ms is None else f"{each.ms} ms", each.why) for each in found)
    show_table(("host", "state", "after", "why not"), lines)
    states = {each.state for each in found}
    if states == {"not live"}:
        console().print("no host that is concerned is live: nothing to wait for")
    elif "late" not in states:
        console().print("applied by every live host that is concerned")
