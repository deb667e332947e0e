"""`lockgate port move` and `lockgate host drain`: at once, or so that no packet is lost."""

# ruff: noqa: PLR0913 - a command has as many options as it needs

from __future__ import annotations

import time
from contextlib import closing
from typing import Annotated

import typer

from mapping import cli_live, cli_names, plan, wanted
from mapping import drain as drains
from mapping import status as state
from mapping.cli_common import RefusedError, Settings, carry_out, console, follow, settings
from mapping.errors import MappingError
from mapping.plan import Plan
from mapping.replica import Replica
from mapping.rows import Tables
from mapping.wanted import Content, Fault, Key, Row
from mapping.writer import Writer

_SEATS = ("host", "moving_to", "previous_host")

Name = Annotated[str, typer.Argument(help="Its name.", autocompletion=cli_names.complete("Port"))]
HostName = Annotated[
    str, typer.Option("--host", help="The host that it moves to.", autocompletion=cli_names.complete("Host"))
]
HostArgument = Annotated[
    str, typer.Argument(metavar="HOST", help="The host's name.", autocompletion=cli_names.complete("Host"))
]
To = Annotated[
    str | None,
    typer.Option("--to", help="The host that all of them go to.", autocompletion=cli_names.complete("Host")),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the changes, and make none.")]
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
    if not live:
        carry_out(options, lambda tables: _at_once(name, host_name, device, tables))
        return
    if device:
        raise MappingError(f"port {name} cannot move live to another device: its name is the same on both hosts")
    cli_live.move(options, {(name,): host_name}, timeout)
    if not options.json:
        console().print(f"port {name} is on {host_name}; every live host that is concerned knows")


def _at_once(name: str, host: str, device: str | None, tables: Tables) -> Plan:
    content, _ = wanted.named(tables)
    (key,) = cli_names.keys("Port", [name], content)
    row: Row = content["Port"][key]
    bound = row["host"] is not None
    row = {column: value for column, value in row.items() if column != "device" or bound}
    row = {**row, **dict.fromkeys(_SEATS), "host": host, **({"device": device} if device else {})}
    if faults := tuple(wanted.complete("Port", key, row)):
        return Plan((), faults, ())
    return plan.make({**wanted.empty(), "Port": {key: row}}, tables)


def drain(
    context: typer.Context,
    name: HostArgument,
    *,
    to: To = None,
    live: Live = False,
    timeout: Timeout = 30.0,
    dry_run: DryRun = False,
) -> None:
    """Move every port of a host to others, in one transaction: each to the live host that then has the fewest ports.

    With --live as `port move --live` does, all at once. The guests themselves are the operator's to move. The host
    stays, and may be given ports.
    """
    options = settings(context)
    places = [to] if to else _live(options)
    if live and not dry_run:
        with Writer(options.remotes) as writer:
            content, _ = wanted.named(writer.read())
        moved, faults = _moved(name, to, places, content)
        if faults:
            raise RefusedError([fault.text for fault in faults])
        # Those that an earlier run has begun to move, or moved and not yet ended.
        begun = {key: str(row["host"]) for key, row in content["Port"].items() if row["previous_host"] == name}
        cli_live.move(options, {key: str(row["host"]) for key, row in moved.items()} | begun, timeout)
        if not options.json:
            console().print(f"host {name} has no port any more; every live host that is concerned knows")
        return

    def make(tables: Tables) -> Plan:
        moved, faults = _moved(name, to, places, wanted.named(tables)[0])
        return Plan((), tuple(faults), ()) if faults else plan.make({**wanted.empty(), "Port": moved}, tables)

    carry_out(options, make, dry_run=dry_run)


def _moved(name: str, to: str | None, live_hosts: list[str], content: Content) -> tuple[dict[Key, Row], list[Fault]]:
    """The ports of a host as they are to be; and what is wrong with that."""
    for host in filter(None, (name, to)):
        cli_names.keys("Host", [host], content)
    if to == name:
        raise MappingError(f"host {name} cannot be emptied into itself: name another with --to")
    places = live_hosts if to else drains.places(name, content, live_hosts)
    if not places and any(row["host"] == name for row in content["Port"].values()):
        raise MappingError(f"no other host is live that ports of {name} could go to: name one with --to")
    return drains.spread(name, content, places)


def _live(options: Settings) -> list[str]:
    replica = Replica(options.remotes, state.HOST_COLUMNS)
    with closing(replica.session):
        follow(replica, options)
        hosts = state.report(replica.tables, replica.snapshot, time.time()).hosts
    return [host.name for host in hosts if host.live]
