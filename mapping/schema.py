"""`mapping.ovsschema`, as data: what each column is when a row does not say, and which columns are sets or maps."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, Final

SCHEMA_FILE: Final = Path(__file__).with_name("mapping.ovsschema")
FRONT_SCHEMA_FILE: Final = Path(__file__).with_name("front.ovsschema")
"""Of the small database in which a front (`mapping.fronts`) reads where it listens, and in what role."""
DATABASE: Final = "Lockgate_Mapping"

DEFAULT_REMOTE: Final = "unix:/run/lockgate/mapping.sock"
"""Where clients look for the database, and `lockgate mapping serve` offers it, unless LOCKGATE_DB or --db says."""

Json = Any
"""A value as RFC 7047 writes it in JSON; its shape depends on the column."""

_ZERO: Final[dict[str, Any]] = {"string": "", "integer": 0, "boolean": False}


def version() -> str:
    """The schema's version."""
    return str(json.loads(SCHEMA_FILE.read_text())["version"])


def tables() -> list[str]:
    """The names of all tables."""
    return list(json.loads(SCHEMA_FILE.read_text())["tables"])


@cache
def columns(table: str) -> dict[str, Any]:
    """Column name -> its type (RFC 7047, 3.2), always in the long form."""
    schema = json.loads(SCHEMA_FILE.read_text())
    return {name: _long(column["type"]) for name, column in schema["tables"][table]["columns"].items()}


def _long(kind: Json) -> Json:
    full = {"key": kind} if isinstance(kind, str) else dict(kind)
    for part in ("key", "value"):
        if isinstance(full.get(part), str):
            full[part] = {"type": full[part]}
    return full


def is_composite(table: str, column: str) -> bool:
    """Whether the column may hold several members: then updates carry what differs, not the new value."""
    return bool(columns(table)[column].get("max", 1) != 1)


def is_map(table: str, column: str) -> bool:
    """Whether the column holds pairs of a key and a value."""
    return "value" in columns(table)[column]


def is_optional(table: str, column: str) -> bool:
    """Whether the column may hold nothing."""
    return bool(columns(table)[column].get("min", 1) == 0)


@cache
def default(table: str, column: str) -> Json:
    """What the column is in a row that an update does not name it for (updates leave defaults out)."""
    kind = columns(table)[column]
    if kind.get("min", 1) == 0:
        return ["map", []] if "value" in kind else ["set", []]
    # A column of another type, or that forbids its zero, is never left out.
    return _ZERO.get(kind["key"]["type"])
