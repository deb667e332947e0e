"""What each role may write in the mapping database, as OVSDB checks it (ovsdb(7), "Role-Based Access Control").

The rules are rows of the database. A certificate's common name is the client's; for a host it must be the name in the
row that it writes, and for an operator that in the entry of the history that he adds. Reading is not restricted: OVSDB
has no rules for it.
"""

from __future__ import annotations

from typing import Any, Final

from mapping import schema
from mapping.rows import REPORTED_COLUMNS

_RULES: Final = ("RBAC_Role", "RBAC_Permission")
_ANYBODY: Final = ""

Operation = dict[str, Any]


def operations() -> list[Operation]:
    """What makes the rules in the database what they should be, whatever they were."""
    found: list[Operation] = [{"op": "delete", "table": table, "where": []} for table in _RULES]
    for role, tables in _permissions().items():
        references = []
        for table, (whose, everything, columns) in tables.items():
            row = {
                "table": table,
                "authorization": whose,
                "insert_delete": everything,
                "update": ["set", sorted(columns)],
            }
            found.append({"op": "insert", "table": "RBAC_Permission", "uuid-name": f"{role}_{table}", "row": row})
            references.append([table, ["named-uuid", f"{role}_{table}"]])
        row = {"name": role, "permissions": ["map", references]}
        found.append({"op": "insert", "table": "RBAC_Role", "row": row})
    return found


def _permissions() -> dict[str, dict[str, tuple[str, bool, tuple[str, ...]]]]:
    """Role -> table -> the column that must hold the client's name, whether rows come and go, columns to write."""
    written = [table for table in schema.tables() if table not in _RULES]
    everything = {table: (_ANYBODY, True, tuple(schema.columns(table))) for table in written}
    return {
        # Who adds an entry is who it names, nobody changes one, and nobody deletes another's.
        "operator": {**everything, "History": ("certificate", True, ())},
        "controller": {"Host": (_ANYBODY, False, REPORTED_COLUMNS)},
        "host": {"Host": ("name", False, REPORTED_COLUMNS)},
    }
