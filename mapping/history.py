"""Who changed what, when, how and why: rows of the table History, written in the transaction that they tell of.

With TLS the database takes only entries whose `certificate` is the client's own, lets nobody change one, and nobody
delete another's (`mapping.roles`). All else is what the client says: it is for colleagues who ask later. A program that
writes without `mapping.writer.Writer.carry_out`, or deletes its own entry, leaves a gap in the numbers. Old entries are
deleted by whoever has no role: a client that has none, with each change, and the member now and then.
"""

from __future__ import annotations

import getpass
import socket
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from mapping.plan import Edit, Operation
from mapping.tls import Identity

KEPT: Final = 1000
"""How many of the last changes are told of."""
_LINES: Final = 50
_WIDTH: Final = 300
"""How many edits of one change are told of, and how many characters of each, of a command and of a reason."""

COLUMNS: Final = ("config_seq", "at", "who", "certificate", "command", "reason", "edits")


class Cause(NamedTuple):
    """Whose doing a change is."""

    who: str
    command: str
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.who}: {self.command}{f' ({self.reason})' if self.reason else ''}"


class Entry(NamedTuple):
    """A change, as the database remembers it."""

    config_seq: int
    at: int
    """In unix seconds, by the clock of who made it."""
    who: str
    certificate: str
    """The name in the certificate that it was written with, as the database has checked; empty if there was none."""
    command: str
    reason: str
    edits: tuple[str, ...]
    """What was done to each row, in words; the last says how many more there were."""


def author() -> str:
    """Who runs this program, where; with TLS as whose certificate says.

    Raises:
        MappingError: there should be a certificate, and is none.
    """
    if identity := Identity.from_environment():
        return f"{identity.name} at {socket.gethostname()}"
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # an id without a name
        user = "somebody"
    return f"{user}@{socket.gethostname()}"


def operations(
    cause: Cause, edits: Sequence[Edit], config_seq: int, at: float, certificate: str
) -> tuple[Operation, ...]:
    """What, in the transaction of these edits, remembers them; `config_seq` is what the database has after it.

    `certificate` is the name in that of the connection; empty if it has none.
    """
    lines = [_cut(f"{edit.sign} {edit.name}  {edit.what}".strip()) for edit in edits[:_LINES]]
    if len(edits) > _LINES:
        lines.append(f"and {len(edits) - _LINES} more")
    row = {
        "config_seq": config_seq,
        "at": int(at),
        "who": _cut(cause.who),
        "certificate": certificate,
        "command": _cut(cause.command),
        "reason": _cut(cause.reason),
        "edits": "\n".join(lines),
    }
    insert = {"op": "insert", "table": "History", "row": row}
    return (insert,) if certificate else (insert, forget(config_seq))


def forget(config_seq: int) -> Operation:
    """What deletes all but the entries that are kept, when the last change has this number."""
    return {"op": "delete", "table": "History", "where": [["config_seq", "<=", config_seq - KEPT]]}


def read(rows: Iterable[dict[str, Any]]) -> list[Entry]:
    """The rows as the database has them, the newest first."""
    entries = [Entry(**{**row, "edits": tuple(row["edits"].splitlines())}) for row in rows]
    return sorted(entries, key=lambda entry: (entry.config_seq, entry.at), reverse=True)


def _cut(text: str) -> str:
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 5]}[...]"
