"""`lockgate edit | delete | import`: changes of several rows at once, in one transaction."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from pathlib import Path
from typing import Annotated, Final

import typer

from mapping import cli_apply, cli_names, document, export, plan, wanted
from mapping.cli_common import RefusedError, carry_out, console, settings
from mapping.cli_names import KindArgument, NameArgument, SomeNamesArgument
from mapping.errors import MappingError
from mapping.plan import Plan
from mapping.rows import Tables
from mapping.wanted import Fault
from mapping.writer import Writer

_EDITORS: Final = ("VISUAL", "EDITOR")

File = Annotated[Path, typer.Option("--file", "-f", help="The YAML file; - is standard input.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the changes, and make none.")]


def delete(context: typer.Context, kind: KindArgument, names: SomeNamesArgument) -> None:
    """Delete rows, in one transaction: all of them or none. The addresses of a port go with it."""
    table = cli_names.table(kind)

    def make(tables: Tables) -> Plan:
        content, _ = wanted.named(tables)
        absent = {(table, key) for key in cli_names.keys(table, names, content)}
        if table == "Port":
            absent |= {("Mapping", key) for key, row in content["Mapping"].items() if row["port"] in names}
        return plan.make(wanted.empty(), tables, absent=absent)

    carry_out(settings(context), make)


def import_(context: typer.Context, *, file: File, dry_run: DryRun = False) -> None:
    """Make the database say what a file says and nothing else, in one transaction: as `lockgate export` left it."""
    cli_apply.apply(context, file=file, prune=True, dry_run=dry_run)


def edit(context: typer.Context, kind: KindArgument, name: NameArgument) -> None:
    """Change a row in an editor, $VISUAL or $EDITOR, as YAML; what belongs to it is shown as in a file.

    What is refused is kept in a file, which `lockgate apply -f` takes. So is what somebody else has changed meanwhile.
    """
    options, table = settings(context), cli_names.table(kind)
    with Writer(options.remotes) as writer:
        content, _ = wanted.named(writer.read())
    keys = cli_names.keys(table, [name], content)
    before = {**wanted.empty(), **cli_names.with_addresses(content, table, {key: content[table][key] for key in keys})}
    text = export.write(before)
    with tempfile.NamedTemporaryFile("w", prefix="lockgate-", suffix=".yaml", delete=False) as kept:
        kept.write(text)
    file = Path(kept.name)
    _run_editor(file)
    if file.read_text() == text and not options.json:
        file.unlink()
        console().print("nothing to do: the text is as it was")
        return
    read = document.read(file.read_bytes(), str(file))

    def make(tables: Tables) -> Plan:
        now, _ = wanted.named(tables)
        for where, rows in before.items():
            for key, row in rows.items():
                if now[where].get(key) != row:
                    said = f"{wanted.describe(where, key)} was changed meanwhile: edit it again; your text is in {file}"
                    return Plan((), (Fault(where, key, "", said),), ())
        made = plan.make(read.rows, tables, absent=plan.left_out(read.rows, tables, prune=False))
        return Plan(made.edits, tuple(_located(read, made)), made.operations, made.notes)

    if read.problems:
        raise RefusedError(read.problems)
    carry_out(options, make)
    file.unlink()


def _located(read: document.Document, made: Plan) -> list[Fault]:
    """The faults, each with its place in the file, which stays."""
    return [fault._replace(text=str(read.locate([fault])[0])) for fault in made.faults]


def _run_editor(file: Path) -> None:
    words = next((shlex.split(os.environ[name]) for name in _EDITORS if os.environ.get(name)), ["vi"])
    try:
        done = subprocess.run([*words, str(file)], check=False)
    except OSError as error:
        raise MappingError(f"editor {words[0]}: {error.strerror}: name another with EDITOR") from None
    if done.returncode:
        raise MappingError(f"editor {words[0]} ended with status {done.returncode}: nothing is changed, see {file}")
