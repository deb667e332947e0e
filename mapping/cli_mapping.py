"""`lockgate mapping serve` and what else an operator does with the mapping database as a whole."""

# ruff: noqa: PLR0913 - a command has as many options as it needs

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from mapping import cluster, maintenance, service, supervisor
from mapping.cli_common import console, print_json, say, settings, show_table
from mapping.errors import MappingError
from mapping.supervisor import Plan
from mapping.tls import Identity

DatabaseFile = Annotated[
    Path, typer.Option("--file", envvar="LOCKGATE_FILE", help="The database's file. Made if it is not there.")
]
Listen = Annotated[
    list[str] | None,
    typer.Option(
        envvar="LOCKGATE_LISTEN",
        help="Where whoever connects may do all: punix:PATH, which is the place of --db unless given; pssl:PORT:IP for "
        "relays; in a lab ptcp:PORT:IP. May be repeated.",
    ),
]
Operators = Annotated[
    list[str] | None, typer.Option(envvar="LOCKGATE_FOR_OPERATORS", help="Where operators connect, like pssl:6641:IP.")
]
Controllers = Annotated[
    list[str] | None,
    typer.Option(envvar="LOCKGATE_FOR_CONTROLLERS", help="Where controllers of many hosts connect, like pssl:6642:IP."),
]
Hosts = Annotated[
    list[str] | None, typer.Option(envvar="LOCKGATE_FOR_HOSTS", help="Where hosts connect, like pssl:6640:IP.")
]
Cluster = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        envvar="LOCKGATE_CLUSTER",
        help="Be a member of a cluster, at this address of this machine, like ssl:IP:6644: the first, or see --join.",
    ),
]
Join = Annotated[
    list[str] | None,
    typer.Option(envvar="LOCKGATE_JOIN", help="Join the cluster that this member is in. May be repeated."),
]
Relay = Annotated[
    list[str] | None,
    typer.Option(
        envvar="LOCKGATE_RELAY",
        help="Hold no database, pass on that of the servers here, like ssl:IP:6643. May be repeated.",
    ),
]


def serve(
    context: typer.Context,
    *,
    listen: Listen = None,
    operators: Operators = None,
    controllers: Controllers = None,
    hosts: Hosts = None,
    cluster_address: Cluster = None,
    join: Join = None,
    relay: Relay = None,
    file: DatabaseFile = service.DEFAULT_FILE,
) -> None:
    """Serve the mapping database in the foreground, until Ctrl-C.

    Over TLS with the certificate in LOCKGATE_TLS; each role has a place of its own. One process is enough on one
    machine; three members make a cluster that survives the loss of one; relays serve many hosts.
    """
    options = settings(context)
    # ovsdb-server would take a relative path from a folder of its own.
    given = [f"punix:{Path(place[6:]).absolute()}" if place.startswith("punix:") else place for place in listen or []]
    own = [f"p{remote}" for remote in options.remotes if remote.startswith("unix:")]
    fronts = {"operator": operators or [], "controller": controllers or [], "host": hosts or []}
    fronts = {role: places for role, places in fronts.items() if places}
    if not given or (fronts and not any(place.startswith("punix:") for place in given)):
        given = [*own, *given]
    if not given:
        raise MappingError(f"nowhere to listen for {', '.join(options.remotes)}: say where with --listen")
    given.sort(key=lambda place: not place.startswith("punix:"))
    if fronts and not given[0].startswith("punix:"):
        raise MappingError("fronts need a unix socket on this machine: add --listen punix:PATH")
    identity = Identity.from_environment()
    if identity is None and any(place.startswith("pssl:") for place in given):
        raise MappingError("pssl: needs a certificate: set LOCKGATE_TLS to a folder that `lockgate pki` made")
    file = file.absolute()
    if not relay:
        cluster.prepare(file, cluster_address or "", join or [])
    plan = Plan(file, given, fronts, identity, relay or [])
    places = [*given, *(place for places in fronts.values() for place in places)]

    def ready() -> None:
        if options.json:
            print_json({"file": str(file), "listening": places})
        else:
            out = console()
            served = f"relay of {', '.join(relay)}" if relay else f"mapping database {file}"
            out.print(f"{served} at {', '.join(places)}; Ctrl-C ends it", markup=False, soft_wrap=True)
        if any(place.startswith("ptcp:") for place in places):
            typer.echo("ptcp: is neither encrypted nor knows who connects: only for a lab on one machine", err=True)

    supervisor.serve(plan, ready)


def status(context: typer.Context, file: DatabaseFile = service.DEFAULT_FILE) -> None:
    """Show every server of --db: whether it answers, who leads, how far it is; and this machine's member.

    Exit status 1 if a server does not answer, or is cut off, or this member's file is damaged.
    """
    options = settings(context)
    seen = [maintenance.look(remote) for remote in options.remotes]
    own = maintenance.member(file.absolute())
    newest = max((each.index for each in seen if each.index is not None), default=0)
    lag = {each.remote: None if each.index is None else newest - each.index for each in seen}
    if options.json:
        servers = [{**dataclasses.asdict(each), "lag": lag[each.remote]} for each in seen]
        print_json({"servers": servers, "member": dataclasses.asdict(own) if own else None})
    else:
        lines = (
            (
                each.remote,
                each.model,
                "yes" if each.leader else "",
                _text(each.index),
                _text(lag[each.remote]),
                each.problem,
            )
            for each in seen
        )
        show_table(("server", "model", "leads", "log index", "behind by", "problem"), lines)
        if own:
            _show_member(own)
    if any(each.problem for each in seen) or (own and own.problem):
        raise typer.Exit(1)


def _text(number: int | None) -> str:
    return "" if number is None else str(number)


def _show_member(own: maintenance.Member) -> None:
    out = console()
    role = f", {own.role}, leader {own.leader}, {own.entries} log entries" if own.role else ""
    out.print(f"\nhere: {own.file}, {own.size} bytes{role}", markup=False, soft_wrap=True)
    if own.problem:
        out.print(own.problem, style="red", markup=False, soft_wrap=True)
    show_table(("connected to", "clients"), ((name, str(count)) for name, count in own.clients.items()))
    if own.members:
        show_table(("member", "how it is"), own.members.items())


Backup = Annotated[Path, typer.Argument(metavar="FILE", help="The backup.")]


def backup(context: typer.Context, out: Backup) -> None:
    """Write the whole database, as of one moment, into a file."""
    size = maintenance.backup(settings(context).remotes, out)
    say(context, f"{out}: {size} bytes", file=str(out), size=size)


def restore(context: typer.Context, file: Backup) -> None:
    """Make the database what a backup says, in one transaction. On a member's machine, over its unix socket."""
    config_seq = maintenance.restore(settings(context).remotes, file)
    say(context, f"restored from {file}, config_seq {config_seq}", file=str(file), config_seq=config_seq)


def compact(context: typer.Context, file: DatabaseFile = service.DEFAULT_FILE) -> None:
    """Have this machine's member write its file anew, without what is past."""
    before, after = maintenance.compact(file.absolute())
    say(context, f"{file}: {before} bytes before, {after} after", file=str(file), before=before, after=after)


def convert(context: typer.Context) -> None:
    """Bring the running database to this program's schema, rows and all. On a member's machine, by its unix socket."""
    before, after = maintenance.convert(settings(context).remotes)
    say(context, f"schema version {before} is now {after}", before=before, after=after)
