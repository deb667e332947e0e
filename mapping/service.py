"""The mapping database's server: ovsdb-server with our schema on a file of its own."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, NoReturn

from mapping import schema
from mapping.errors import MappingError

DEFAULT_FILE: Final = Path("/var/lib/lockgate/mapping.db")

_REMOTE: Final = re.compile(r"punix:/.+|ptcp:([0-9]{1,5})(?::[0-9a-f.:\[\]]+)?")
_PATIENCE_SECONDS: Final = 10


def start(folder: Path, remotes: Sequence[str], prefix: Sequence[str] = ()) -> None:
    """Start a server as a daemon that answers when this returns; its file, log and control socket are in `folder`.

    `remotes` are places to listen, as in ovsdb(7): "ptcp:6640:127.0.0.1", "punix:/run/mapping.sock". `prefix` is a
    command to run the server under, like ("ip", "netns", "exec", "control"). The file `mapping.db` is made, or taken
    up as it is.

    Raises:
        MappingError: it cannot be started, and why.
    """
    file, log = folder / "mapping.db", folder / "mapping.log"
    prepare(file, remotes)
    begin = log.stat().st_size if log.exists() else 0
    options = (f"--pidfile={folder}/mapping.pid", f"--unixctl={folder}/mapping.ctl", f"--log-file={log}")
    daemon = ("--detach", "--no-chdir", "-vconsole:off", "-vsyslog:off")
    _run([*prefix, *command(file, remotes), *options, *daemon], f"the mapping database {file} does not start")
    if problem := _cannot_listen(log.read_text(errors="replace")[begin:]):
        stop(folder)
        raise MappingError(problem)


def stop(folder: Path) -> None:
    """Stop the server that `start` made in this folder, and wait until it is gone. None running is no error."""
    try:
        _run(["ovs-appctl", "--timeout=5", "-t", f"{folder}/mapping.ctl", "exit"], "")
    except MappingError:
        return
    pidfile, deadline = folder / "mapping.pid", time.monotonic() + _PATIENCE_SECONDS
    while pidfile.exists() and time.monotonic() < deadline:
        time.sleep(0.01)


def prepare(file: Path, remotes: Sequence[str]) -> None:
    """Make the database's file unless it is there, and the folders that the server needs.

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
    if there:
        _check_schema(file)
    else:
        _run(["ovsdb-tool", "create", str(file), str(schema.SCHEMA_FILE)], f"database {file} cannot be made")


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
    name = _run(["ovsdb-tool", "db-name", str(file)], f"{file} is no database, or cannot be read").strip()
    if name != schema.DATABASE:
        raise MappingError(f"{file} holds the database {name}, not {schema.DATABASE}: choose another file with --file")
    if subprocess.run(["ovsdb-tool", "db-is-standalone", str(file)], check=False, capture_output=True).returncode:
        return  # a cluster's members convert it together
    version = _run(["ovsdb-tool", "db-version", str(file)], f"database {file} cannot be read").strip()
    if version != schema.version():
        raise MappingError(
            f"database {file} has schema version {version}, this program {schema.version()}: "
            f"convert it with `ovsdb-tool convert {file} {schema.SCHEMA_FILE}`"
        )


def command(file: Path, remotes: Sequence[str]) -> list[str]:
    """The server's command line, without what makes it a daemon."""
    return ["ovsdb-server", str(file), *(f"--remote={remote}" for remote in remotes)]


def serve(file: Path, remotes: Sequence[str], ready: Callable[[], None]) -> NoReturn:
    """Run a server as a child until this process is interrupted or terminated, and end the child with it.

    `ready` is called when the server answers. What it warns of goes to standard error.

    Raises:
        MappingError: it cannot be started, or ended by itself, and why.
        KeyboardInterrupt: this process was interrupted, or terminated (SIGTERM).
    """
    prepare(file, remotes)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    argv = [*command(file, remotes), "--unixctl=none", "-vsyslog:off"]
    # In a process group of its own, so that Ctrl-C reaches this process alone, which then ends the child in order.
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True, errors="replace", process_group=0) as server:
        try:
            said = _watch(server.stderr or [], ready)
        finally:
            server.terminate()
    raise MappingError(f"the mapping database {file} has ended: {said or f'exit status {server.returncode}'}")


def _watch(log: Iterable[str], ready: Callable[[], None]) -> str:
    """Follow a server's log until it ends; return why that was, as far as it is said."""
    lines: list[str] = []
    listens = False
    for line in log:
        if problem := _cannot_listen(line):
            raise MappingError(problem)
        if "|ovsdb_server|INFO|ovsdb-server (Open vSwitch)" in line:  # said once it listens
            listens = True
            ready()
        elif "|INFO|" not in line:
            lines = [*lines[-9:], line]
            if listens:
                sys.stderr.write(line)
    return _reason("".join(lines))


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def _cannot_listen(log: str) -> str:
    """Why the server does not listen everywhere it should, from its log: it goes on without."""
    for line in log.splitlines():
        if ": listen failed: " in line:
            remote, _, reason = line.rpartition("|ERR|")[2].partition(": listen failed: ")
            return f"cannot listen at {remote}: {reason}: choose another place, or stop what is there"
    return ""


def _run(argv: Sequence[str], problem: str) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=True)
    except FileNotFoundError:
        raise MappingError(f"{argv[0]} is not installed: install openvswitch-switch") from None
    except subprocess.CalledProcessError as error:
        raise MappingError(f"{problem}: {_reason(error.stderr) or f'exit status {error.returncode}'}") from None
    return done.stdout


def _reason(log: str) -> str:
    """Why a program failed: the end of what it said."""
    if "failed to lock lockfile" in log:
        return "another server has it open: stop that one, or choose another file"
    return (
        log.strip().rpartition("\n")[2].rpartition("|")[2].removeprefix("ovsdb-tool: ").removeprefix("ovsdb-server: ")
    )
