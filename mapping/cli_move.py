"""`lockgate port move`: at once, or so that no packet is lost."""

# ruff: noqa: PLR0913 - a command has as many options as it needs

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import Annotated

import typer

from mapping import cli_names, plan, wanted
from mapping import status as state
from mapping.cli_common import RefusedError, Settings, console, follow, settings, show_done
from mapping.errors import MappingError
from mapping.plan import Plan
from mapping.replica import Replica
from mapping.rows import Tables
from mapping.wanted import Row
from mapping.writer import Done, Writer

_SEATS = ("host", "moving_to", "previous_host")

Name = Annotated[str, typer.Argument(help="Its name.", autocompletion=cli_names.complete("Port"))]
HostName = Annotated[
    str, typer.Option("--host", help="The host that it moves to.", autocompletion=cli_names.complete("Host"))
]
Device = Annotated[str | None, typer.Option(help="The guest's interface there; as it was unless given.")]
Live = Annotated[bool, typer.Option("--live", help="In three steps, each when every live host has the one before.")]
Timeout = Annotated[float, typer.Option(min=0, help="Seconds that each step of --live may take.")]


def move(
    context: typer.Context,
    name: Name,
    host_name: HostName,
    device: Device = None,
    *,
    live: Live = False,
    timeout: Timeout = 30.0,
) -> None:
    """Move a port to another host. Its device keeps its name there unless told otherwise.

    With --live no packet to it is lost, if its device is on both hosts meanwhile. Broken off, it goes on when repeated.
    """
    options = settings(context)
    if live and device:
        raise MappingError(f"port {name} cannot move live to another device: its name is the same on both hosts")
    if not live:
        _step(options, name, lambda row: _at_once(row, host_name, device))
        return
    for number, step in enumerate((_begin, _turn, _end), 1):
        done, hosts = _step(options, name, partial(step, name, host_name), quiet=number < 3)
        _wait(options, done, hosts, timeout)
    if not options.json:
        console().print(f"port {name} is on {host_name}; every live host that is concerned knows")


def _at_once(row: Row, host: str, device: str | None) -> Row:
    bound = row["host"] is not None
    row = {column: value for column, value in row.items() if column != "device" or bound}
    return {**row, **dict.fromkeys(_SEATS), "host": host, **({"device": device} if device else {})}


def _begin(name: str, host: str, row: Row) -> Row:
    """The new host gets ready, and the others take packets from both."""
    if row["host"] is None:
        raise MappingError(f"port {name} is on no host: move it without --live")
    if row["host"] == host:  # the last steps are left; or a move away from there, which this ends
        return {**row, "moving_to": None}
    if row["moving_to"] not in (None, host) or row["previous_host"] is not None:
        raise MappingError(f"port {name} is moving to {row['moving_to'] or row['host']}: end that move first")
    return {**row, "moving_to": host}


def _turn(_name: str, host: str, row: Row) -> Row:
    """Packets go to the new host; the old one sends on what still arrives there."""
    if row["host"] == host:
        return row
    return {**row, "host": host, "moving_to": None, "previous_host": row["host"]}


def _end(_name: str, _host: str, row: Row) -> Row:
    """The old host forgets it."""
    return {**row, "previous_host": None}


def _step(
    options: Settings, name: str, change: Callable[[Row], Row], *, quiet: bool = False
) -> tuple[Done, frozenset[str]]:
    hosts: frozenset[str] = frozenset()

    def make(tables: Tables) -> Plan:
        nonlocal hosts
        content, _ = wanted.named(tables)
        (key,) = cli_names.keys("Port", [name], content)
        rows = wanted.empty()
        row = rows["Port"][key] = change(content["Port"][key])
        if faults := tuple(wanted.complete("Port", key, row)):
            return Plan((), faults, ())
        made = plan.make(rows, tables)
        # With nothing to change, an earlier run may have written the same, and given up waiting.
        hosts = plan.concerned(made.edits or plan.make(rows, {}).edits, tables)
        return made

    with Writer(options.remotes) as writer:
        done = writer.carry_out(make, options.cause)
    if done.plan.faults:
        raise RefusedError([fault.text for fault in done.plan.faults])
    if not (quiet and options.json):
        show_done(options, done)
    return done, hosts


def _wait(options: Settings, done: Done, hosts: frozenset[str], seconds: float) -> None:
    replica = Replica(options.remotes, state.HOST_COLUMNS)
    late: list[str] = []

    def applied() -> bool:
        nonlocal late
        found = state.confirmations(replica.tables, done.config_seq, hosts, {}, time.time())
        late = [each.host for each in found if each.state == "late"]
        return replica.current and replica.config_seq >= done.config_seq and not late

    with closing(replica.session):
        follow(replica, options)
        if not replica.wait_until(applied, int(seconds * 1000)):
            raise MappingError(
                f"step written, but not applied after {seconds:g} s by {', '.join(late) or 'all'}: "
                "look with `lockgate status`, and give the command again: it goes on where it is"
            )
