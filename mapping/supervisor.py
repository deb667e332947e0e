"""`lockgate mapping serve`: a member (or relay) and its fronts, run as children, for as long as this process runs."""

from __future__ import annotations

import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from mapping import cluster, fronts, service
from mapping.errors import MappingError
from mapping.fronts import Fronts
from mapping.tls import Identity
from mapping.writer import Writer

_LOOK_SECONDS: Final = 1.0
"""How often the trust files, and the list of members, are looked at."""
_FORGET_SECONDS: Final = 60.0
"""How often what is old in the history is deleted: operators with a role may delete no entry of another."""
_MEMBER: Final = "mapping"
_LISTENS: Final = "|ovsdb_server|INFO|ovsdb-server (Open vSwitch)"


@dataclass(frozen=True, slots=True)
class Plan:
    """What to serve: the database in `file`, or a relay of the servers at `relay`.

    The member listens at `remotes`, the first of which is a unix socket. `identity` is needed for all TLS.
    """

    file: Path
    remotes: Sequence[str]
    fronts: Fronts
    identity: Identity | None
    relay: Sequence[str] = ()

    @property
    def core(self) -> Path:
        """Where fronts reach the member."""
        return Path(self.remotes[0].removeprefix("punix:"))


class _Child:
    """A server, and the thread that reads what it says."""

    def __init__(self, name: str, argv: Sequence[str], control: Path, said: Said) -> None:
        self.name = name
        self.listens = False
        self.warned: list[str] = []
        options = [f"--unixctl={control}", "-vsyslog:off"]
        # In a process group of its own, so that Ctrl-C reaches this process alone, which then ends the child in order.
        self.process = subprocess.Popen(
            [*argv, *options], stderr=subprocess.PIPE, text=True, errors="replace", process_group=0
        )
        self._said = said
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self.process.stderr or []:
            self._said.put((self, line))
        self._said.put((self, ""))


Said = queue.SimpleQueue[tuple[_Child, str]]
"""Who said a line; an empty one is the last."""


def serve(plan: Plan, ready: Callable[[], None]) -> NoReturn:
    """Serve until this process is interrupted or terminated, and end the children with it.

    `ready` is called when the database answers everywhere. What the servers warn of goes to standard error. A front
    that ends is started again; when the trust files change, clients are made to prove themselves anew.

    Raises:
        MappingError: it cannot be started, or ended by itself, and why.
        KeyboardInterrupt: this process was interrupted, or terminated (SIGTERM).
    """
    fronts.check(plan.fronts, plan.identity)
    if plan.identity:
        plan.identity.check()
    service.prepare(plan.file, plan.remotes, relay=bool(plan.relay))
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    supervisor = _Supervisor(plan, ready)
    try:
        supervisor.run()
    finally:
        supervisor.stop()


class _Supervisor:
    """The children, and what is done about what they say."""

    def __init__(self, plan: Plan, ready: Callable[[], None]) -> None:
        self._plan = plan
        self._ready: Callable[[], None] | None = ready
        self._said: Said = queue.SimpleQueue()
        self._children: dict[str, _Child] = {}
        self._trusted: dict[str, int] = {}
        """Server -> when the trust file was written that all its clients have proven themselves by."""
        self._deaf: set[str] = set()
        """Servers of which it is said that they do not listen."""
        self._settled = bool(plan.relay) or not cluster.is_members(plan.file)

    def run(self) -> NoReturn:
        self._launch(_MEMBER)
        self._trusted = self._trust_files()
        looked = forgot = time.monotonic()
        while True:
            with suppress(queue.Empty):
                self._take(*self._said.get(timeout=_LOOK_SECONDS))
            # By the clock, and not when nothing is said: a member that others take for its former self says much.
            if time.monotonic() > looked + _LOOK_SECONDS:
                self._look_at_trust()
                self._settled = self._settled or cluster.settle(self._plan.file.parent)
                looked = time.monotonic()
            if self._plan.fronts and not self._plan.relay and time.monotonic() > forgot + _FORGET_SECONDS:
                self._forget()
                forgot = time.monotonic()

    def _forget(self) -> None:
        # It may be without a majority, or not made yet: then later.
        with suppress(MappingError, ValueError), Writer([f"unix:{self._plan.core}"], timeout_ms=2000) as writer:
            writer.forget()

    def stop(self) -> None:
        for child in self._children.values():
            child.process.terminate()
        for child in self._children.values():
            child.process.wait()

    def _launch(self, name: str) -> None:
        plan, folder = self._plan, self._plan.file.parent
        if name == _MEMBER:
            argv = service.command(plan.file, plan.remotes, plan.identity, plan.relay)
        else:
            assert plan.identity is not None  # noqa: S101 - as checked
            argv = fronts.command(name, plan.fronts[name], plan.core, folder, plan.identity)
        self._children[name] = _Child(name, argv, folder / f"{name}.ctl", self._said)

    def _take(self, child: _Child, line: str) -> None:
        if not line:
            self._ended(child)
        elif problem := service.cannot_listen(line):
            raise MappingError(problem)
        elif _LISTENS in line:
            child.listens = True
            self._listens(child)
        elif "|INFO|" not in line:
            child.warned = [*child.warned[-9:], line]
            if child.listens:
                sys.stderr.write(line if child.name == _MEMBER else f"{child.name}: {line}")

    def _listens(self, child: _Child) -> None:
        if child.name == _MEMBER:
            for role in self._plan.fronts:
                self._launch(role)
        if self._ready and all(each.listens for each in self._children.values()):
            self._ready()
            self._ready = None

    def _ended(self, child: _Child) -> None:
        """A front is started again; the member is what all of this is for."""
        status = child.process.wait()
        why = service.reason("".join(child.warned)) or f"exit status {status}"
        if child.name == _MEMBER:
            raise MappingError(f"the mapping database {self._plan.file} has ended: {why}")
        if not child.listens:
            raise MappingError(f"the front of {child.name}s does not start: {why}")
        sys.stderr.write(f"{child.name}: the front has ended ({why}), and is started again\n")
        self._launch(child.name)

    def _trust_files(self) -> dict[str, int]:
        """Server -> when the file of the authority that it trusts was written."""
        identity = self._plan.identity
        if identity is None:
            return {}
        files = {_MEMBER: identity.file("member"), **{role: identity.file(role) for role in self._plan.fronts}}
        return {name: file.stat().st_mtime_ns for name, file in files.items() if file.exists()}

    def _look_at_trust(self) -> None:
        """Servers take up new trust files by themselves, but ask nobody twice: who is connected connects again."""
        now = self._trust_files()
        # What was removed is new when it comes again.
        self._trusted = {name: written for name, written in self._trusted.items() if name in now}
        for name, written in now.items():
            if written != self._trusted.get(name) and (name not in self._children or self._ask_again(name)):
                self._trusted[name] = written

    def _ask_again(self, name: str) -> bool:
        """Whether a server has cut its clients off. One that is being started, or is busy, is asked again soon."""
        try:
            service.appctl(self._plan.file.parent, name, "ovsdb-server/reconnect")
        except MappingError as error:
            if name not in self._deaf:
                sys.stderr.write(
                    f"{name}: the trust files are new, and it cannot be told yet, so again soon: {error}\n"
                )
            self._deaf.add(name)
            return False
        self._deaf.discard(name)
        sys.stderr.write(f"{name}: the trust files are new: clients connect again\n")
        return True
