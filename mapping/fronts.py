"""Where clients reach the mapping database over TLS: a front for each role.

    hosts ---- ssl ---> front of hosts --------+
    controllers ------> front of controllers --+--- unix socket ---> member (or relay), which trusts members alone
    operators --------> front of operators ----+                         ^ Raft, relays

A front is an ovsdb-server that relays the database of this machine's member. As a process of its own it trusts one
authority: a stolen host's certificate does not get through the handshake where operators connect, nor where members
speak Raft. What it lets its clients write are the rules of their role (`mapping.roles`). And whoever misuses it, by
messages without end, has at most the front of his own role to bring down, which is started again.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from mapping import schema
from mapping.errors import MappingError
from mapping.tls import Identity

ROLES: Final = ("operator", "controller", "host")
_MEMORY: Final = "4294967296"
"""Bytes of address space that a front may take, unless LOCKGATE_FRONT_BYTES says: it keeps what it is sent of a message
until the end of that comes, so one that is sent a message without end ends there."""

_PLACE: Final = re.compile(r"pssl:([0-9]{1,5}):[0-9a-f.:\[\]]+")

Fronts = Mapping[str, Sequence[str]]
"""Role -> places to listen, like "pssl:6640:198.51.100.1"."""


def check(fronts: Fronts, identity: Identity | None) -> None:
    """Raise `MappingError` if a place is written wrongly, or there is no certificate to serve with."""
    for place in (place for places in fronts.values() for place in places):
        found = _PLACE.fullmatch(place)
        if not found or int(found[1]) not in range(1, 65536):
            raise MappingError(f"cannot listen at {place!r}: write pssl:PORT:IP, like pssl:6640:198.51.100.1")
        if identity is None:
            raise MappingError(f"{place} needs a certificate: set LOCKGATE_TLS to a folder that `lockgate pki` made")


def command(role: str, places: Sequence[str], core: Path, folder: Path, identity: Identity) -> list[str]:
    """The command line of a front that listens at `places` and follows the member at the unix socket `core`.

    Where it listens, and in what role, it reads from a database of its own in `folder`, which is made anew: that is
    the one way to tell ovsdb-server about roles. Nobody may write there, because no role has any rule in it.

    Raises:
        MappingError: the database cannot be made.
    """
    file = folder / f"{role}.db"
    named = [(f"place{number}", place) for number, place in enumerate(places)]
    rows = [
        {"op": "insert", "table": "Place", "uuid-name": name, "row": {"target": place, "role": role}}
        for name, place in named
    ]
    references = ["set", [["named-uuid", name] for name, _ in named]]
    front = {"op": "insert", "table": "Front", "row": {"places": references}}
    file.unlink(missing_ok=True)
    (folder / f".{role}.db.~lock~").unlink(missing_ok=True)
    for argv in (
        ["ovsdb-tool", "create", str(file), str(schema.FRONT_SCHEMA_FILE)],
        ["ovsdb-tool", "transact", str(file), json.dumps(["Lockgate_Front", *rows, front])],
    ):
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode:
            raise MappingError(f"{file} cannot be made: {done.stderr.strip()}: make room, or choose another --file")
    return [
        *("prlimit", f"--as={os.environ.get('LOCKGATE_FRONT_BYTES', _MEMORY)}", "ovsdb-server"),
        *(str(file), f"relay:{schema.DATABASE}:unix:{core}", "--remote=db:Lockgate_Front,Front,places"),
        *tls_options(identity, role),
    ]


def tls_options(identity: Identity, role: str) -> list[str]:
    """What makes ovsdb-server serve with this identity those, and only those, who have a certificate of `role`."""
    files = (("private-key", "key"), ("certificate", "cert"), ("ca-cert", role))
    return [*(f"--{option}={identity.file(what)}" for option, what in files), "--ssl-protocols=TLSv1.2"]
