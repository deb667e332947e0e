"""A cluster's member's file: made once, when it begins the cluster or joins it (ovsdb(7), "Clustered Database")."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from mapping import schema, service
from mapping.errors import MappingError

_ADDRESS: Final = re.compile(r"(?:ssl|tcp):[0-9a-f.:\[\]]+:[0-9]{1,5}|unix:/.+")


def prepare(file: Path, address: str, join: Sequence[str]) -> None:
    """Make the file of a member at `address`: of a new cluster, or of the one that the members at `join` are in.

    A file that is there stays as it is: a member knows its cluster from it.

    Raises:
        MappingError: an address is written wrongly, the file is not a member's, or it cannot be made.
    """
    for place in (address, *join):
        if not _ADDRESS.fullmatch(place):
            raise MappingError(
                f"{place!r} is no member's address: write --cluster ssl:IP:PORT, like ssl:198.51.100.1:6644"
            )
    if file.exists():
        service.run(
            ["ovsdb-tool", "db-is-clustered", str(file)],
            f"{file} is no cluster member's: make a new cluster of it with `lockgate mapping backup` and `restore`",
        )
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
