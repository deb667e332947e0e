"""The `lockgate` command."""

from __future__ import annotations

import itertools
import shlex
import sys
from typing import Annotated

import typer
from rich.console import Console

from explain import cli as cli_explain
from mapping import cli_apply, cli_change, cli_look, cli_mapping, cli_move, cli_pki, cli_port, cli_rows, cli_status
from mapping.cli_common import RefusedError, Settings, print_json
from mapping.errors import MappingError
from mapping.history import Cause, author
from mapping.schema import DEFAULT_REMOTE
from mapping.session import check_remote
from provision import cli as cli_provision
from topo.bridges_cli import app as bridges_app
from topo.lab_cli import app as lab_app

app = typer.Typer(no_args_is_help=True, add_completion=True, pretty_exceptions_enable=False)

Database = Annotated[
    str,
    typer.Option(
        "--db",
        envvar="LOCKGATE_DB",
        help="The mapping database, like ssl:198.51.100.1:6641 or unix:PATH; several servers are separated by commas.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, errors too. May also stand after the command.")]

Reason = Annotated[
    str,
    typer.Option("--reason", "-m", help="Why, for `lockgate history`. May also stand after the command."),
]


@app.callback(epilog="Example: lockgate apply -f examples/two-hosts.yaml")
def options(
    context: typer.Context, db: Database = DEFAULT_REMOTE, as_json: AsJson = False, reason: Reason = ""
) -> None:
    """Lockgate: the NIC of a bare-metal host as the trust boundary of a cloud network."""
    try:
        remotes = tuple(check_remote(remote.strip()) for remote in db.split(","))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--db") from None
    context.obj = Settings(
        remotes, as_json, Cause(author(), shlex.join(["lockgate", *_split(sys.argv[1:])[1]]), reason.strip())
    )


app.command("apply", epilog="Example: lockgate apply -f examples/two-hosts.yaml --dry-run")(cli_apply.apply)
app.command("status", epilog="Example: lockgate --db tcp:198.51.100.1:6640 status")(cli_status.status)
app.command("trace", epilog="Example: lockgate trace web db --proto tcp --port 443")(cli_explain.trace)
app.command("explain", epilog="Example: lockgate explain 0x10c6c3949bd5b275")(cli_explain.explain)
app.command("audit", epilog="Example: lockgate audit --host host-a --mend")(cli_explain.audit)
app.command("get", epilog="Example: lockgate get ports web db")(cli_look.get)
app.command("describe", epilog="Example: lockgate describe port web")(cli_look.describe)
app.command("diff", epilog="Example: lockgate diff -f examples/two-hosts.yaml")(cli_look.diff)
app.command("edit", epilog="Example: lockgate edit port web -m 'more bandwidth'")(cli_change.edit)
app.command("delete", epilog="Example: lockgate delete ports web db")(cli_change.delete)
app.command("export", epilog="Example: lockgate export > all.yaml")(cli_look.export)
app.command("import", epilog="Example: lockgate import -f all.yaml --dry-run")(cli_change.import_)
app.command("watch", epilog="Example: lockgate watch ports")(cli_look.watch)
app.command("history", epilog="Example: lockgate history -n 5")(cli_look.history)
app.command("provision", epilog="Example: lockgate provision web --host host-a --image https://198.51.100.1/web.iso")(
    cli_provision.provision
)
app.command("release", epilog="Example: lockgate release web")(cli_provision.release)
app.command("attest", epilog="Example: lockgate attest host-a --watch --policy mend")(cli_provision.attest)
for _name in ("vpc", "host", "group", "port", "mapping"):
    app.add_typer(getattr(cli_rows, _name), name=_name)
cli_rows.port.command("show", epilog="Example: lockgate port show web --json")(cli_port.show)
cli_rows.mapping.command("serve", epilog="Example: lockgate mapping serve --listen ptcp:6640:127.0.0.1 --file m.db")(
    cli_mapping.serve
)
_EXAMPLES = {"status": "", "backup": " nightly.db", "restore": " nightly.db", "compact": " --file m.db", "convert": ""}
for _name, _rest in _EXAMPLES.items():
    cli_rows.mapping.command(_name, epilog=f"Example: lockgate mapping {_name}{_rest}")(getattr(cli_mapping, _name))
app.add_typer(cli_pki.app, name="pki")
app.add_typer(bridges_app, name="bridges")
cli_rows.port.command("move", epilog="Example: lockgate port move web --host host-b --live")(cli_move.move)
cli_rows.host.command("drain", epilog="Example: lockgate host drain host-a --to host-b --live -m 'a new fan'")(
    cli_move.drain
)
app.add_typer(lab_app, name="lab")


def main() -> None:
    """Run the command. Exit status: 0 done, 1 refused or failed, 2 wrong usage, 130 interrupted."""
    ours, rest = _split(sys.argv[1:])
    as_json = ours[:1] == ["--json"]
    try:
        code = app([*ours, *rest], prog_name="lockgate", standalone_mode=False)
    except RefusedError as error:
        code = _refused(error.problems, as_json=as_json)
    except MappingError as error:
        code = _refused([str(error)], as_json=as_json)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        code = _refused([f"{place}{error.strerror}: name another place, or run this as who may"], as_json=as_json)
    except typer.TyperException as error:
        code = _misused(error, as_json=as_json)
    sys.exit(int(code or 0))


def _refused(problems: list[str], *, as_json: bool) -> int:
    """Say what is wrong, a line each."""
    lines = ["; ".join(filter(None, map(str.strip, problem.splitlines()))) for problem in problems]
    if as_json:
        print_json({"error": "\n".join(lines), "problems": lines})
    else:
        out = Console(stderr=True, highlight=False)
        for line in lines:
            out.print(line, style="red", markup=False, soft_wrap=True)
    return 1


def _misused(error: typer.TyperException, *, as_json: bool) -> int:
    """Say what is wrong with how the command was given; of a group without a command, its help has been shown."""
    if said := " ".join(error.format_message().split()):
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "lockgate"
        _refused([f"{said.rstrip('.')}: `{command} --help` shows how"], as_json=as_json)
    return error.exit_code


def _split(words: list[str]) -> tuple[list[str], list[str]]:
    """--json and the reason, which people write last; and the rest. What follows `--` is not ours to read."""
    end = words.index("--") if "--" in words else len(words)
    first: list[str] = []
    rest: list[str] = []
    read = iter(words[:end])
    for word in read:
        if word in ("-m", "--reason"):
            first += [word, *itertools.islice(read, 1)]
        elif word == "--json":
            first.insert(0, word)
        else:
            (first if word.startswith("--reason=") else rest).append(word)
    return first, [*rest, *words[end:]]


if __name__ == "__main__":
    main()
