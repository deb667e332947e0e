"""Rows -> the YAML file that `mapping.document` reads."""

from __future__ import annotations

from typing import Any

import yaml

from mapping import wanted
from mapping.document import SECTIONS
from mapping.plan import NOTHING
from mapping.wanted import FIELDS, Content, Key, Row


def write(content: Content) -> str:
    """What, applied to an empty database, gives these rows. What says nothing is left out."""
    found: dict[str, dict[str, Any]] = {}
    for section, table in SECTIONS.items():
        if rows := content.get(table):
            found[section] = {key[0]: _fields(table, key, row) for key, row in sorted(rows.items())}
    for (_, ip), row in sorted(content.get("Mapping", {}).items()):
        found["ports"][str(row["port"])].setdefault("addresses", []).append(ip)
    return yaml.safe_dump(found, sort_keys=False, default_flow_style=None, width=110) if found else "{}\n"


def _fields(table: str, key: Key, row: Row) -> dict[str, Any]:
    said = wanted.as_json(table, row)
    if table == "Port" and (row["host"] is None or row["device"] == key[0]):
        del said["device"]
    fields = {word: said[field.column] for word, field in FIELDS[table].items() if field.column in said}
    return {
        word: list(value) if isinstance(value, tuple) else value
        for word, value in fields.items()
        if value not in NOTHING and value != {} and value is not False
    }
