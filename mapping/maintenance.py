"""What is done to the mapping database as a whole: looking at its servers, backup, restore, compaction, conversion."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import ovs.timeval

from mapping import cluster, fronts, roles, schema, service
from mapping.errors import MappingError
from mapping.session import Session
from mapping.tls import Identity
from mapping.writer import Writer

_SECONDS: Final = 5
_DATABASE: Final = {
    "op": "select",
    "table": "Database",
    "where": [["name", "==", schema.DATABASE]],
    "columns": ["model", "connected", "leader", "index"],
}


@dataclass(frozen=True, slots=True)
class Seen:
    """A server, as it says over the network. `index` is the newest entry of the cluster's log that it has."""

    remote: str
    problem: str = ""
    model: str = ""
    connected: bool = False
    leader: bool = False
    index: int | None = None


@dataclass(frozen=True, slots=True)
class Member:
    """The member of this machine, as it says on its control socket; `clients` are connections, by server."""

    file: str
    size: int
    role: str = ""
    leader: str = ""
    entries: int = 0
    members: dict[str, str] = field(default_factory=dict)
    """Member's address -> how it is."""
    clients: dict[str, int] = field(default_factory=dict)
    problem: str = ""


def look(remote: str) -> Seen:
    """Ask the server at a place about itself."""
    session, deadline = Session([remote]), ovs.timeval.msec() + _SECONDS * 1000
    try:
        request = 0
        while ovs.timeval.msec() < deadline and not session.unreachable:
            for message in session.run():
                if message.get("id") == request:
                    return _seen(remote, message)
            if session.connected and not request:
                request = session.request("transact", ["_Server", _DATABASE])
            session.block(100)
        return Seen(remote, session.error or f"no answer in {_SECONDS} s")
    finally:
        session.close()


def _seen(remote: str, message: dict[str, Any]) -> Seen:
    rows = message["result"][0].get("rows", []) if message.get("result") else []
    if not rows:
        return Seen(remote, f"it serves no database {schema.DATABASE}, or does not have it yet")
    row = rows[0]
    index = row["index"] if isinstance(row["index"], int) else None
    problem = "" if row["connected"] else "cut off from the rest of the cluster"
    return Seen(remote, problem, row["model"], row["connected"], row["leader"], index)


def member(file: Path) -> Member | None:
    """What runs on this machine with this file; None if nothing does."""
    folder = file.parent
    try:
        clients = {"member": _sessions(service.appctl(folder, "mapping", "memory/show"))}
    except MappingError:
        return None
    for role in fronts.ROLES:
        try:
            clients[role] = _sessions(service.appctl(folder, role, "memory/show"))
        except MappingError:
            continue
    size = file.stat().st_size if file.exists() else 0
    try:
        text = service.appctl(folder, "mapping", "cluster/status", schema.DATABASE)
    except MappingError:
        return Member(str(file), size, clients=clients)
    said = dict(re.findall(r"^([A-Z][A-Za-z ]+): (.*)$", text, re.MULTILINE))
    first, last = re.findall(r"\d+", said.get("Log", "0 0"))[:2]
    members = dict(re.findall(r"^    \w+ \(\w+ at ([^)]+)\) ?(.*)$", text, re.MULTILINE))
    entries = int(last) - int(first)
    problem = ""
    if (place := cluster.damage(file)) is not None:
        problem = (
            f"the file is damaged at byte {place}: start this member again with --cluster and --join: it joins anew"
        )
    return Member(str(file), size, said.get("Role", ""), said.get("Leader", ""), entries, members, clients, problem)


def _sessions(memory: str) -> int:
    found = re.search(r"\bsessions:(\d+)", memory)
    return int(found[1]) if found else 0


def backup(remotes: Sequence[str], out: Path) -> int:
    """Write all of the database, as of one moment, into a file; returns its size in bytes.

    Raises:
        MappingError: the database cannot be reached, or the file not be written.
    """
    content = _client(remotes, "backup", schema.DATABASE)
    new = out.with_name(f".{out.name}.new")
    try:
        new.write_text(content)
        new.replace(out)
    except OSError as error:
        raise MappingError(f"{out}: {error.strerror}: choose another place for the backup") from None
    return len(content)


def restore(remotes: Sequence[str], file: Path) -> int:
    """Make the database what a backup says, in one transaction, and count it as a change; returns its `config_seq`.

    Only who may do all, as on a member's own unix socket, can do this: it writes the rules of the roles as well.

    Raises:
        MappingError: the file is no backup of this database, or the database refuses.
    """
    problem = f"{file} is no backup that `lockgate mapping backup` wrote"
    name = service.run(["ovsdb-tool", "db-name", str(file)], problem).strip()
    if name != schema.DATABASE:
        raise MappingError(f"{file} is a backup of {name}, not of {schema.DATABASE}: name another")
    with Writer(remotes) as writer:
        before = writer.transact([], "before a restore").config_seq
        _client(remotes, "--force", "restore", schema.DATABASE, stdin=file)
        # What counts changes must not go back: whoever waits for a number would take an old one for it.
        count = {"op": "update", "table": "Global", "where": [], "row": {"config_seq": before}}
        return writer.transact([count, *roles.operations()], f"restored from {file}").config_seq


def compact(file: Path) -> tuple[int, int]:
    """Have this machine's member write its file anew, without what is past; returns its size before and after."""
    before = file.stat().st_size if file.exists() else 0
    service.appctl(file.parent, "mapping", "ovsdb-server/compact", schema.DATABASE)
    return before, file.stat().st_size if file.exists() else 0


def convert(remotes: Sequence[str]) -> tuple[str, str]:
    """Bring the running database, on all its members, to this program's schema; returns the versions before and after.

    Only who may do all can do this. Rows stay; new columns get their defaults.

    Raises:
        MappingError: the database refuses, because what it holds does not fit.
    """
    before = str(json.loads(_client(remotes, "get-schema", schema.DATABASE))["version"])
    if before != schema.version():
        _client(remotes, "convert", str(schema.SCHEMA_FILE))
    with Writer(remotes) as writer:
        writer.transact(roles.operations(), f"converted from schema {before} to {schema.version()}")
    return before, schema.version()


def _client(remotes: Sequence[str], *words: str, stdin: Path = Path(os.devnull)) -> str:
    """Run ovsdb-client on the database."""
    options = [word for word in words if word.startswith("-")]
    command, *rest = [word for word in words if not word.startswith("-")]
    if any(remote.startswith("ssl:") for remote in remotes):
        identity = Identity.from_environment()
        if identity is None:
            raise MappingError("ssl: needs a certificate: set LOCKGATE_TLS to a folder that `lockgate pki` made")
        options += fronts.tls_options(identity, "member")
    # Members pass on to their leader what only it can do.
    argv = ["ovsdb-client", "--no-leader-only", "--timeout=60", *options, command, ",".join(remotes), *rest]
    with stdin.open() as given:
        done = subprocess.run(argv, stdin=given, capture_output=True, text=True, check=False)
    if done.returncode:
        why = service.reason(done.stderr).removeprefix("ovsdb-client: ")
        raise MappingError(f"the mapping database at {', '.join(remotes)} does not {command}: {why}")
    return done.stdout
