"""How rows are named on the command line: a kind, and names; and which there are, for the shell to complete."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Annotated, Final

import typer

from mapping import wanted
from mapping.cli_common import RefusedError
from mapping.errors import MappingError
from mapping.schema import DEFAULT_REMOTE
from mapping.session import check_remote
from mapping.wanted import Content, Key, Row
from mapping.writer import Writer

Which = Callable[[str], bool]

KINDS: Final = {"vpc": "Vpc", "host": "Host", "group": "SecurityGroup", "port": "Port", "mapping": "Mapping"}
_AT_MOST_MS: Final = 2000
"""How long a shell waits for names at most."""


def table(kind: str) -> str:
    """The table of a kind, which may be written in the plural.

    Raises:
        MappingError: there is no such kind.
    """
    found = KINDS.get(kind) or KINDS.get(kind.removesuffix("s"))
    if found is None:
        raise MappingError(f"kind {kind!r}: choose {', '.join(f'{known}s' for known in KINDS)}")
    return found


def text(table: str, key: Key) -> str:
    """A row's name as it is written on the command line: an address of a VPC as VPC/ADDRESS."""
    return "/".join(key) if table == "Mapping" else key[0]


def keys(table: str, names: Iterable[str], content: Content) -> list[Key]:
    """The keys of these rows.

    Raises:
        RefusedError: some are not there.
    """
    found, problems = [], []
    for name in names:
        key = tuple(name.partition("/")[::2]) if table == "Mapping" else (name,)
        if key in content[table]:
            found.append(key)
        else:
            problems.append(none_such(table, key, content[table]))
    if problems:
        raise RefusedError(problems)
    return found


def none_such(table: str, key: Key, there: Iterable[Key]) -> str:
    """What to say about a row that is not there."""
    mend = "look with `lockgate mapping list`"
    if table != "Mapping":
        mend = wanted.suggest(key[0], sorted(name for (name,) in there))
    elif not all(key):
        return f"mapping {key[0]!r}: write VPC/ADDRESS, like blue/10.0.0.11"
    return f"there is no {wanted.describe(table, key)}: {mend}"


def with_addresses(content: Content, table: str, found: dict[Key, Row]) -> dict[str, dict[Key, Row]]:
    """These rows and, of ports, their addresses; of addresses, their ports: as a file has them.

    Such a port comes with all of its addresses: those that a file does not list are taken from it.
    """
    if table == "Mapping":
        ports = {str(row["port"]) for row in found.values()}
        table, found = "Port", {key: row for key, row in content["Port"].items() if key[0] in ports}
    if table != "Port":
        return {table: found}
    addresses = {key: row for key, row in content["Mapping"].items() if (str(row["port"]),) in found}
    return {"Port": found, "Mapping": addresses}


def _complete_kind(incomplete: str) -> list[str]:
    return [f"{kind}s" for kind in KINDS if f"{kind}s".startswith(incomplete)]


def _complete_name(context: typer.Context, incomplete: str) -> list[str]:
    try:
        kind = table(str(context.params.get("kind")))
    except MappingError:
        return []
    return [name for name in _names(context, kind) if name.startswith(incomplete)]


def complete(table: str) -> Callable[[typer.Context, str], list[str]]:
    """What completes names of this table."""

    def names(context: typer.Context, incomplete: str) -> list[str]:
        return [name for name in _names(context, table) if name.startswith(incomplete)]

    return names


def _names(context: typer.Context, table: str) -> list[str]:
    """Those that the database has; none, if it does not answer at once."""
    db = context.find_root().params.get("db") or os.environ.get("LOCKGATE_DB") or DEFAULT_REMOTE
    try:
        with Writer([check_remote(each.strip()) for each in str(db).split(",")], _AT_MOST_MS) as writer:
            return sorted(text(table, key) for key in wanted.named(writer.read())[0][table])
    except (MappingError, ValueError):
        return []


KindArgument = Annotated[
    str,
    typer.Argument(metavar="KIND", help="vpcs, hosts, groups, ports or mappings.", autocompletion=_complete_kind),
]
KindOrAllArgument = Annotated[
    str,
    typer.Argument(
        metavar="[KIND]", help="vpcs, hosts, groups, ports or mappings; else all.", autocompletion=_complete_kind
    ),
]
_NAME_HELP: Final = "A row's name; of a mapping VPC/ADDRESS."
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help=_NAME_HELP, autocompletion=_complete_name)]
NamesArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[NAME]...", help=_NAME_HELP, autocompletion=_complete_name)
]
SomeNamesArgument = Annotated[
    list[str], typer.Argument(metavar="NAME...", help=_NAME_HELP, autocompletion=_complete_name)
]
