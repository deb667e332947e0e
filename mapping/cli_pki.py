"""`lockgate pki`: certificates for everything on the control network."""

# ruff: noqa: PLR0913 - a command has as many options as it needs

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from mapping import pki
from mapping.certificates import ROLES
from mapping.cli_common import print_json, say, settings, show_table
from mapping.pki import Entry, Pki

app = typer.Typer(no_args_is_help=True, help="Certificates of hosts, operators, controllers and database members.")

Role = Literal["member", "operator", "controller", "host"]
Folder = Annotated[
    Path, typer.Option("--pki", envvar="LOCKGATE_PKI", help="The authorities' folder. Its keys make all trust.")
]
Whose = Annotated[str, typer.Argument(help="A host's name as its Host row has it; else any name.")]
Out = Annotated[Path, typer.Option("--out", help="The folder for LOCKGATE_TLS: what is there is replaced.")]
Days = Annotated[float, typer.Option(min=0.01, help="For how long it is good.")]
Finish = Annotated[bool, typer.Option("--finish", help="Let go of the old authority: what it signed is refused.")]


@app.command(epilog="Example: lockgate pki init")
def init(context: typer.Context, folder: Folder = pki.DEFAULT_FOLDER) -> None:
    """Make the authorities: one for each role, in a folder of their keeper's."""
    Pki(folder).init()
    say(context, f"authorities for {', '.join(ROLES)} certificates are in {folder}", folder=str(folder))


@app.command(epilog="Example: lockgate pki issue host host-a --out host-a-tls")
def issue(
    context: typer.Context,
    role: Role,
    name: Whose,
    *,
    out: Out,
    days: Days = pki.DEFAULT_DAYS,
    folder: Folder = pki.DEFAULT_FOLDER,
) -> None:
    """Make a key and a certificate. Put the folder where the holder is; programs that run take up what is replaced."""
    entry = Pki(folder).issue(role, name, out, days=days)
    say(context, f"{role} {name}: good until {_date(entry)}, in {out}", **_as_json(entry))


@app.command(epilog="Example: lockgate pki trust --out member-1-tls")
def trust(context: typer.Context, out: Out, folder: Folder = pki.DEFAULT_FOLDER) -> None:
    """Put the present trust files into a folder: what to give out after `revoke` and `rotate`."""
    Pki(folder).write_trust(out)
    say(context, f"the trust files in {out} are as they should be now", out=str(out))


@app.command(epilog="Example: lockgate pki revoke host host-a")
def revoke(context: typer.Context, role: Role, name: Whose, folder: Folder = pki.DEFAULT_FOLDER) -> None:
    """Revoke all certificates of a name. They are refused wherever the new trust files are (`lockgate pki trust`)."""
    found = Pki(folder).revoke(role, name)
    words = f"{len(found)} certificate(s) of {role} {name} revoked: give out the trust files"
    say(context, words, revoked=[_as_json(each) for each in found])


@app.command(epilog="Example: lockgate pki rotate host")
def rotate(context: typer.Context, role: Role, *, finish: Finish = False, folder: Folder = pki.DEFAULT_FOLDER) -> None:
    """Replace an authority: rotate, give out trust files, issue anew, give out those, rotate --finish, trust files."""
    Pki(folder).rotate(role, finish=finish)
    words = "the old one is trusted no more" if finish else "the old one is still trusted"
    say(context, f"{role} certificates have a new authority; {words}: give out the trust files", role=role)


@app.command(epilog="Example: lockgate pki show --json")
def show(context: typer.Context, folder: Folder = pki.DEFAULT_FOLDER) -> None:
    """List every certificate that was issued."""
    entries = Pki(folder).show()
    if settings(context).json:
        print_json([_as_json(each) for each in entries])
    else:
        columns = ("role", "name", "expires", "state", "serial")
        show_table(columns, ((each.role, each.name, _date(each), each.state, each.serial) for each in entries))


def _date(entry: Entry) -> str:
    return entry.expires.strftime("%Y-%m-%d %H:%M UTC")


def _as_json(entry: Entry) -> dict[str, str]:
    shown = {"role": entry.role, "name": entry.name, "serial": entry.serial, "state": entry.state}
    return {**shown, "expires": entry.expires.isoformat()}
