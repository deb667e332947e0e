"""A cluster's member's file: made when it begins the cluster or joins it (ovsdb(7), "Clustered Database").

ovsdb-server takes a record that it cannot read for the last, half-written one, and goes on without it and all that come
after it (seen with 3.1). A member that has so forgotten what it had acknowledged may help to elect a leader that does
not know it either. So a file that is damaged before its end is not served: the member joins anew, under a new id, and
then has its former self taken out of the cluster.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from mapping import schema, service
from mapping.errors import MappingError

_RECORD: Final = re.compile(rb"OVSDB CLUSTER ([0-9]+) ([0-9a-f]{40})\n")
_MEMBERS: Final = b"OVSDB CLUSTER "
_SERVER: Final = re.compile(r"^    \w+ \((\w+) at ([^)]+)\)( \(self\))?", re.MULTILINE)
_ADDRESS: Final = re.compile(r"(?:ssl|tcp):[0-9a-f.:\[\]]+:[0-9]{1,5}|unix:/.+")


def prepare(file: Path, address: str, join: Sequence[str]) -> None:
    """Make the file of a member at `address`: of a new cluster, or of the one that the members at `join` are in.

    A file that is there stays as it is: a member knows its cluster from it. One that is damaged is put aside, if there
    is a member to join. Without an address a file that is no member's is left alone.

    Raises:
        MappingError: an address is written wrongly, the file is not a member's, or damaged, or it cannot be made.
    """
    for place in (address, *join) if address or join else ():
        if not _ADDRESS.fullmatch(place):
            raise MappingError(
                f"{place!r} is no member's address: write --cluster ssl:IP:PORT, like ssl:198.51.100.1:6644"
            )
    if file.exists():
        damaged = damage(file)
        if damaged is None:
            if address and not is_members(file):
                mend = "make a new cluster of it with `lockgate mapping backup` and `restore`"
                raise MappingError(f"{file} is no cluster member's: {mend}")
            return
        if not join:
            raise MappingError(
                f"{file} is damaged at byte {damaged}: start this member with --cluster and --join, as a new one: "
                "the file is kept beside, and it joins anew"
            )
        kept = file.with_name(f"{file.name}.damaged-{time.time_ns()}")
        file.rename(kept)
        sys.stderr.write(f"{file} is damaged at byte {damaged}: it is now {kept.name}, and this member joins anew\n")
    elif not address:
        return
    problem = f"database {file} cannot be made"
    file.parent.mkdir(parents=True, exist_ok=True)
    if join:
        service.run(["ovsdb-tool", "join-cluster", str(file), schema.DATABASE, address, *join], problem)
        return
    begin = file.with_name(f".{file.name}.begin")
    service.create(begin)
    service.run(["ovsdb-tool", "create-cluster", str(file), str(begin), address], problem)
    begin.unlink()


def is_members(file: Path) -> bool:
    """Whether a file, which is there, is that of a cluster's member, and not that of a server alone."""
    with file.open("rb") as content:
        return content.read(len(_MEMBERS)) == _MEMBERS


def damage(file: Path) -> int | None:
    """Where a member's file cannot be read, in bytes from its beginning, though it goes on after that; None: nowhere.

    Nor does it go on where an entry of the log is left out. At its very end there may be a record that was not written
    whole: nobody was told that it was.
    """
    content = file.read_bytes()
    place, last = 0, 0
    while header := _RECORD.match(content, place):
        end = header.end() + int(header[1])
        text = content[header.end() : end]
        if hashlib.sha1(text, usedforsecurity=False).hexdigest() != header[2].decode():
            break
        record = json.loads(text)
        if record.get("index", 0) > last + 1 > 1 or record.get("commit_index", 0) > last > 0:
            return place
        last = record.get("index", record.get("prev_index", last))
        place = end
    return place if not content or _RECORD.search(content, place + 1) else None


def former_selves(folder: Path) -> list[str] | None:
    """The ids of servers that this machine's member was before it joined anew; None while it has not joined yet.

    Raises:
        MappingError: it does not run.
    """
    servers = _SERVER.findall(service.appctl(folder, "mapping", "cluster/status", schema.DATABASE))
    own = next((address for _, address, is_self in servers if is_self), None)
    return None if own is None else [server for server, address, is_self in servers if address == own and not is_self]


def settle(folder: Path) -> bool:
    """Have this machine's member's former selves taken out of its cluster; true when there are none left."""
    try:
        found = former_selves(folder)
        for server in found or ():
            service.appctl(folder, "mapping", "cluster/kick", schema.DATABASE, server)
    except MappingError:
        return False
    return found == []
