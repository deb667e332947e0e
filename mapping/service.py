"""The mapping database's server: ovsdb-server with our schema on a file of its own."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

from mapping import roles, schema
from mapping.errors import MappingError
from mapping.fronts import ROLES, Fronts, tls_options
from mapping.fronts import check as check_fronts
from mapping.fronts import command as front_command
from mapping.tls import Identity

DEFAULT_FILE: Final = Path("/var/lib/lockgate/mapping.db")

_REMOTE: Final = re.compile(r"punix:/.+|p(?:tcp|ssl):([0-9]{1,5})(?::[0-9a-f.:\[\]]+)?")
_PATIENCE_SECONDS: Final = 10


def start(
    folder: Path,
    remotes: Sequence[str],
    prefix: Sequence[str] = (),
    fronts: Fronts = MappingProxyType({}),
    identity: Identity | None = None,
) -> None:
    """Start a server as a daemon that answers when this returns; its file, log and control socket are in `folder`.

    `remotes` are places to listen, as in ovsdb(7): "ptcp:6640:127.0.0.1", "punix:/run/mapping.sock". `prefix` is a
    command to run the server under, like ("ip", "netns", "exec", "control"). The file `mapping.db` is made, or taken
    up as it is; of a cluster's member it must be there. Fronts need a unix socket among the places.

    Raises:
        MappingError: it cannot be started, and why.
    """
    file = folder / "mapping.db"
    check_fronts(fronts, identity)
    prepare(file, remotes)
    _start(folder, "mapping", [*prefix, *command(file, remotes, identity)])
    for role, places in fronts.items():
        assert identity is not None  # noqa: S101 - as checked
        (core, *_) = _sockets(remotes)
        _start(folder, role, [*prefix, *front_command(role, places, core, folder, identity)])


def _start(folder: Path, name: str, argv: Sequence[str]) -> None:
    log = folder / f"{name}.log"
    begin = log.stat().st_size if log.exists() else 0
    options = (f"--pidfile={folder}/{name}.pid", f"--unixctl={folder}/{name}.ctl", f"--log-file={log}")
    daemon = ("--detach", "--no-chdir", "-vconsole:off", "-vsyslog:off")
    run([*argv, *options, *daemon], f"the mapping database {folder}/{name}.db does not start")
    if problem := cannot_listen(log.read_text(errors="replace")[begin:]):
        stop(folder)
        raise MappingError(problem)


def stop(folder: Path) -> None:
    """Stop the servers that `start` made in this folder, and wait until they are gone. None running is no error."""
    for name in (*ROLES, "mapping"):
        try:
            appctl(folder, name, "exit")
        except MappingError:
            continue
        pidfile, deadline = folder / f"{name}.pid", time.monotonic() + _PATIENCE_SECONDS
        while pidfile.exists() and time.monotonic() < deadline:
            time.sleep(0.01)


def appctl(folder: Path, name: str, *words: str) -> str:
    """Say something to a server that `start` or `serve` made: "mapping", or a front by its role.

    Raises:
        MappingError: it does not run, or refuses.
    """
    control = folder / f"{name}.ctl"
    argv = ["ovs-appctl", "--timeout=5", "-t", str(control), *words]
    return run(argv, f"is `lockgate mapping serve` running, with this --file? nobody answers at {control}")


def prepare(file: Path, remotes: Sequence[str], *, relay: bool = False) -> None:
    """Make the database's file unless it is there, and the folders that the server needs. A relay needs no file.

    Raises:
        MappingError: the file is no database, or one with another schema; or it cannot be made.
    """
    sockets = _sockets(remotes)
    try:
        for path in (file, *sockets):
            path.parent.mkdir(parents=True, exist_ok=True)
        there = file.exists()
    except OSError as error:
        mend = "run as root, or choose places with --file and --db"
        raise MappingError(f"{error.filename}: {error.strerror}: {mend}") from None
    for path in sockets:
        # ovsdb-server would take the place of whoever listens there.
        if _answers(path):
            raise MappingError(
                f"cannot listen at punix:{path}: it is in use: choose another place, or stop what is there"
            )
    if relay:
        return
    if there:
        _check_schema(file)
    else:
        create(file)


def create(file: Path) -> None:
    """Make a database with nothing in it but the rules of the roles.

    Raises:
        MappingError: it cannot be made.
    """
    new = file.with_name(f".{file.name}.new")
    new.unlink(missing_ok=True)
    run(["ovsdb-tool", "create", str(new), str(schema.SCHEMA_FILE)], f"database {file} cannot be made")
    rules = json.dumps([schema.DATABASE, *roles.operations()])
    run(["ovsdb-tool", "transact", str(new), rules], f"database {file} cannot be made")
    new.with_name(f".{new.name}.~lock~").unlink(missing_ok=True)
    new.replace(file)


def _sockets(remotes: Sequence[str]) -> list[Path]:
    """Check how the places to listen are written; return those that are paths."""
    for remote in remotes:
        found = _REMOTE.fullmatch(remote)
        if not found or int(found[1] or 1) not in range(1, 65536):
            raise MappingError(
                f"cannot listen at {remote!r}: write punix:PATH or ptcp:PORT:IP, like ptcp:6640:127.0.0.1"
            )
    return [Path(remote.removeprefix("punix:")) for remote in remotes if remote.startswith("punix:")]


def _check_schema(file: Path) -> None:
    problem = f"{file} is no database, or cannot be read: choose another with --file"
    name = run(["ovsdb-tool", "db-name", str(file)], problem).strip()
    if name != schema.DATABASE:
        raise MappingError(f"{file} holds the database {name}, not {schema.DATABASE}: choose another file with --file")
    if subprocess.run(["ovsdb-tool", "db-is-standalone", str(file)], check=False, capture_output=True).returncode:
        return  # a cluster's members convert it together
    version = run(["ovsdb-tool", "db-version", str(file)], f"database {file} cannot be read").strip()
    if version != schema.version():
        raise MappingError(
            f"database {file} has schema version {version}, this program {schema.version()}: "
            f"`ovsdb-tool convert {file} {schema.SCHEMA_FILE}`, serve it, and run `lockgate mapping convert`"
        )


def command(
    file: Path, remotes: Sequence[str], identity: Identity | None = None, relay: Sequence[str] = ()
) -> list[str]:
    """The command line of the server of a file, or of a relay, without what makes it a daemon."""
    options = tls_options(identity, "member") if identity else []
    served = f"relay:{schema.DATABASE}:{','.join(relay)}" if relay else str(file)
    return ["ovsdb-server", served, *(f"--remote={remote}" for remote in remotes), *options]


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def cannot_listen(log: str) -> str:
    """Why a server does not listen everywhere it should, from its log: it goes on without."""
    for line in log.splitlines():
        if ": listen failed: " in line:
            remote, _, reason = line.rpartition("|ERR|")[2].partition(": listen failed: ")
            return f"cannot listen at {remote}: {reason}: choose another place, or stop what is there"
    return ""


def run(argv: Sequence[str], problem: str) -> str:
    """Run a program and return what it printed; what goes wrong is told after `problem`."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=True)
    except FileNotFoundError:
        raise MappingError(f"{argv[0]} is not installed: install openvswitch-switch") from None
    except subprocess.CalledProcessError as error:
        raise MappingError(f"{problem}: {reason(error.stderr) or f'exit status {error.returncode}'}") from None
    return done.stdout


def reason(log: str) -> str:
    """Why a program failed: the end of what it said."""
    if "failed to lock lockfile" in log:
        return "another server has it open: stop that one, or choose another file"
    return (
        log.strip().rpartition("\n")[2].rpartition("|")[2].removeprefix("ovsdb-tool: ").removeprefix("ovsdb-server: ")
    )
