"""`lockgate get | describe | diff | export | watch | history`: what the database says, and said."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import typer

from mapping import cli_names, document, plan, rows, wanted
from mapping import export as export_file
from mapping.cli_common import (
    RefusedError,
    Settings,
    console,
    contents,
    edit_as_json,
    follow,
    full_row,
    print_json,
    settings,
    show_done,
    show_edit,
    show_rows,
    show_table,
)
from mapping.cli_names import KindArgument, KindOrAllArgument, NameArgument, NamesArgument
from mapping.history import Entry
from mapping.replica import Replica
from mapping.rows import Tables
from mapping.status import printable
from mapping.wanted import Content, Key, Row
from mapping.writer import Done, Writer

DIFFERS: Final = 3
"""Exit status of `lockgate diff` when there is a difference."""
_PAUSE_MS: Final = 3_600_000

File = Annotated[Path, typer.Option("--file", "-f", help="The YAML file; - is standard input.")]
Prune = Annotated[bool, typer.Option("--prune", help="As if every row that the file does not name were to go.")]
Yaml = Annotated[bool, typer.Option("--yaml", help="Print YAML, which `lockgate apply` takes.")]
Newest = Annotated[int, typer.Option("--last", "-n", min=1, help="How many changes.")]


def get(context: typer.Context, kind: KindArgument, names: NamesArgument = None, *, yaml: Yaml = False) -> None:
    """Show rows: all of a kind, or those named."""
    options, table = settings(context), cli_names.table(kind)
    content = _read(options)
    keys = cli_names.keys(table, names or [], content)
    found = {key: row for key, row in content[table].items() if not names or key in keys}
    if yaml:
        typer.echo(export_file.write({**wanted.empty(), **cli_names.with_addresses(content, table, found)}), nl=False)
    else:
        show_rows(options, table, found)


def describe(context: typer.Context, kind: KindArgument, name: NameArgument) -> None:
    """Show a row, what belongs to it, and what was done to it last."""
    options, table = settings(context), cli_names.table(kind)
    with Writer(options.remotes) as writer:
        content, entries = wanted.named(writer.read())[0], writer.history()
    (key,) = cli_names.keys(table, [name], content)
    row = full_row(table, key, content[table][key])
    ports, addresses = _belongings(table, key, content)
    changes = [entry for entry in entries if any(_tells_of(line, table, key) for line in entry.edits)]
    if options.json:
        print_json(
            {
                "row": wanted.as_json(table, row),
                "ports": [wanted.as_json("Port", full_row("Port", *port)) for port in ports],
                "addresses": [full_row("Mapping", *address) for address in addresses],
                "history": [entry._asdict() for entry in changes],
            }
        )
        return
    out = console()
    show_table(("column", "value"), ((column, plan.show(value)) for column, value in row.items()))
    if ports:
        out.print()
        columns = ("port", "vpc", "host", "mac")
        show_table(columns, ([port[0][0], *(plan.show(port[1][column]) for column in columns[1:])] for port in ports))
    if addresses:
        out.print()
        lines = ((key[1], key[0], plan.show(address["port"])) for key, address in addresses)
        show_table(("address", "vpc", "port"), lines)
    if changes:
        out.print()
        _show_history(changes, lambda line: _tells_of(line, table, key))


def diff(context: typer.Context, *, file: File, prune: Prune = False) -> None:
    """Show what `lockgate apply` would change. Exit status: 0 nothing, 3 something, 1 the file is refused."""
    options = settings(context)
    read = document.read(contents(file), str(file))
    if read.problems:
        raise RefusedError(read.problems)
    with Writer(options.remotes) as writer:
        tables = writer.read()
    planned = plan.make(read.rows, tables, absent=plan.left_out(read.rows, tables, prune=prune))
    if planned.faults:
        raise RefusedError(sorted(read.locate(planned.faults)))
    show_done(options, Done(planned, rows.config_seq(tables)), dry_run=True)
    if planned.edits:
        raise typer.Exit(DIFFERS)


def export(context: typer.Context) -> None:
    """Print all that operators have written, as YAML that `lockgate import` takes; with --json, the rows by table."""
    options = settings(context)
    content = _read(options)
    if options.json:
        print_json(
            {
                table: [wanted.as_json(table, full_row(table, *item)) for item in sorted(found.items())]
                for table, found in content.items()
            }
        )
    else:
        typer.echo(export_file.write(content), nl=False)


def history(context: typer.Context, *, last: Newest = 20) -> None:
    """Show who changed what, when, how and why: the last changes, the newest first."""
    options = settings(context)
    with Writer(options.remotes) as writer:
        entries = writer.history()[:last]
    if options.json:
        print_json([entry._asdict() for entry in entries])
    elif entries:
        _show_history(entries)
    else:
        console().print("none")


def watch(context: typer.Context, kind: KindOrAllArgument = "all") -> None:
    """Show each change as it comes, until Ctrl-C; with --json a line each."""
    options = settings(context)
    tables = wanted.TABLES if kind == "all" else (cli_names.table(kind),)
    replica = Replica(options.remotes)
    with closing(replica.session):
        follow(replica, options)
        before = replica.content()
        if not options.json:
            console().print(f"config_seq {replica.config_seq}; what comes now is shown, Ctrl-C ends it")
        while True:
            seen = rows.config_seq(before)
            replica.wait_until(partial(_is_newer, replica, seen), _PAUSE_MS)
            after = replica.content()
            _show_change(options, before, after, tables)
            before = after


def _is_newer(replica: Replica, seen: int) -> bool:
    return replica.current and replica.config_seq != seen


def _show_change(options: Settings, before: Tables, after: Tables, tables: Iterable[str]) -> None:
    new, gone = wanted.named(after)[0], wanted.named(before)[0]
    left = {(table, key) for table, found in gone.items() for key in found if key not in new[table]}
    edits = [edit for edit in plan.edits(new, gone, left) if edit.table in tables]
    seq = rows.config_seq(after)
    if options.json and edits:
        typer.echo(json.dumps({"config_seq": seq, "edits": [edit_as_json(edit) for edit in edits]}))
    elif edits:
        out = console()
        out.print(f"config_seq {seq}, {time.strftime('%H:%M:%S')}", style="bold")
        for edit in edits:
            show_edit(out, edit)


def _read(options: Settings) -> Content:
    with Writer(options.remotes) as writer:
        return wanted.named(writer.read())[0]


def _belongings(table: str, key: Key, content: Content) -> tuple[list[tuple[Key, Row]], list[tuple[Key, Row]]]:
    """The ports, and the addresses, that belong to a row or it to."""
    name = key[0]
    column = {"Vpc": "vpc", "Host": "host", "SecurityGroup": "groups"}.get(table)
    ports = [port for port, row in content["Port"].items() if column and name in wanted.texts(row[column])]
    if table == "Mapping":
        ports = [(str(content["Mapping"][key]["port"]),)]
    having = {name for (name,) in ports} if table != "Port" else {name}
    addresses = (
        [] if table == "Mapping" else sorted(item for item in content["Mapping"].items() if item[1]["port"] in having)
    )
    return [(port, content["Port"][port]) for port in sorted(ports)], addresses


def _tells_of(line: str, table: str, key: Key) -> bool:
    return line[2:].partition("  ")[0] == wanted.describe(table, key)


def _show_history(entries: Iterable[Entry], which: cli_names.Which = lambda _: True) -> None:
    out = console()
    for entry in entries:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.at))
        proven = f"{entry.certificate}: " if entry.certificate else ""
        lines = [f"  {entry.command}", f"  why: {entry.reason}" if entry.reason else ""]
        lines += [f"    {line}" for line in filter(which, entry.edits)]
        # One operator's key is no leave to write to another's terminal.
        said = printable(f"config_seq {entry.config_seq}  {when}  {proven}{entry.who}")
        out.print(said, style="bold", markup=False)
        for line in filter(None, map(printable, lines)):
            out.print(line, markup=False)
