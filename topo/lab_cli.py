"""`lockgate lab`: up, status, exec, down."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from mapping.cli_common import print_json, say, settings
from mapping.errors import MappingError
from topo.lab import DEFAULT, Lab
from topo.netns import CommandError
from topo.spec import LabError

EXAMPLE = Path(__file__).parent.parent / "examples" / "two-hosts.yaml"

app = typer.Typer(no_args_is_help=True, help="Hosts and their guests in network namespaces of this machine, as root.")

Name = Annotated[str, typer.Option("--name", "-n", help="Which lab: several stand side by side.")]


@app.command(epilog="Example: lockgate lab up -f examples/two-hosts.yaml")
def up(
    context: typer.Context,
    file: Annotated[Path, typer.Option("--file", "-f", help="The mapping to build hosts and guests for.")] = EXAMPLE,
    name: Name = DEFAULT,
) -> None:
    """Make the lab that a mapping file describes, and program it. One that is so already is left as it is."""
    started = time.monotonic()
    out = Console(highlight=False, soft_wrap=True, quiet=settings(context).json)
    with _as_root():
        lab = Lab(name, lambda text: out.print(f"[dim]{time.monotonic() - started:6.1f} s[/dim]  {text}"))
        lab.up(file)
        if settings(context).json:
            print_json(lab.status())
    option = "" if name == DEFAULT else f" -n {name}"
    guests = list(lab.guests.values())
    out.print("\nTry next:")
    if len(guests) > 1 and (peers := [guest for guest in guests[1:] if guest.spec.vpc == guests[0].spec.vpc]):
        out.print(f"  lockgate lab exec{option} {guests[0].name} -- ping -c 3 {peers[0].ip}")
        via = f"lockgate lab exec{option} {{host}} --"
        out.print(f"  lockgate --db {lab.control.remote} trace {guests[0].name} {peers[0].name} --via '{via}'")
    for host in list(lab.hosts)[:1]:
        out.print(f"  lockgate lab exec{option} {host} -- ovs-ofctl -O OpenFlow15 --names dump-flows br-nic")
    out.print(f"  lockgate --db {lab.control.remote} status")
    out.print(f"  lockgate lab down{option}")


@app.command(epilog="Example: lockgate lab status --json")
def status(context: typer.Context, name: Name = DEFAULT) -> None:
    """Show what a lab is made of, and whether it runs. Exit status 1 if it is not up."""
    with _as_root():
        found = Lab(name).status()
    if settings(context).json:
        print_json(found)
    else:
        _show(found)
    raise typer.Exit(found["state"] != "up")


@app.command("exec", epilog="Example: lockgate lab exec blue-web -- ping -c 3 10.0.0.12")
def execute(
    where: Annotated[str, typer.Argument(metavar="NAME", help="A guest, a host, `control` or `substrate`.")],
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND...", help="What to run there.")],
    name: Name = DEFAULT,
) -> None:
    """Run a command in a guest, a host, or one of the two networks."""
    with _as_root():
        argv, env = Lab(name).command(where, command)
    os.execvpe(argv[0], argv, os.environ | env)  # noqa: S606  # no shell is wanted


@app.command(epilog="Example: lockgate lab down")
def down(context: typer.Context, name: Name = DEFAULT) -> None:
    """Remove a lab, whatever state it is in: its processes, namespaces and folder."""
    with _as_root():
        Lab(name).down()
    say(context, f"lab {name} is no more", lab=name)


@contextmanager
def _as_root() -> Iterator[None]:
    """Errors become one line. SIGTERM and a closed terminal are as Ctrl-C: what was begun is removed."""
    if os.geteuid():
        raise MappingError("a lab is made of network namespaces, which only root may make: run it with sudo")
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.default_int_handler)
    try:
        yield
    except (CommandError, LabError, OSError) as error:
        raise MappingError(str(error)) from None


def _show(found: dict[str, object]) -> None:
    out = Console(highlight=False, soft_wrap=True)
    database = found["database"] or "not running"
    controller = "running" if found["controller"] else "not running"
    out.print(f"lab {found['lab']}: {found['state']}    database: {database}    controller: {controller}")
    for kind, columns in (
        ("hosts", ("name", "vtep", "control", "switch", "programmed")),
        ("guests", ("name", "vpc", "host", "addresses", "mac", "filtered")),
    ):
        rows = found[kind]
        if isinstance(rows, list) and rows:
            table = Table(*columns, title=kind, title_justify="left", box=None)
            for row in rows:
                table.add_row(*(_cell(row[column]) for column in columns))
            out.print(table)


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{count} {name}" for name, count in value.items() if count) or "none"
    return ", ".join(value) if isinstance(value, list) else str(value)
