"""The least client of an OVSDB server: transactions, and one monitor, over a unix socket.

The measurements write and look with this one, for Lockgate's database and OVN's alike, so that what Lockgate's own
clients cost is only in the figures where it belongs.
"""

from __future__ import annotations

import itertools
import json
import select
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from bench.run import BenchError
from mapping.session import Message, Splitter

Operation = dict[str, Any]

ANSWER_SECONDS: Final = 120
_NEVER: Final = "00000000-0000-0000-0000-000000000000"


class Client:
    """A connection. `counter` is the column that counts changes up: (table, column) of a table with one row."""

    def __init__(self, path: Path, database: str, counter: tuple[str, str]) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))
        self._database = database
        self._table, self._column = counter
        self._splitter = Splitter()
        self._ids = itertools.count(1)
        self._updates: list[Message] = []

    def close(self) -> None:
        """End the connection."""
        self._socket.close()

    def fileno(self) -> int:
        """The socket, to be waited for."""
        return self._socket.fileno()

    def call(self, method: str, params: list[Any]) -> Any:  # noqa: ANN401 - JSON
        """Ask, wait, and return the result."""
        request = self._send(method, params)
        deadline = time.monotonic() + ANSWER_SECONDS
        while select.select([self._socket], [], [], max(0.0, deadline - time.monotonic()))[0]:
            result = None
            for message in self._receive():
                if message.get("id") == request:
                    result = message
                else:
                    self._updates.append(message)
            if result:
                return self._checked(result)
        raise BenchError(f"{self._database} does not answer within {ANSWER_SECONDS} s")

    def transact(self, operations: Sequence[Operation]) -> list[Any]:
        """Do these operations in one transaction; return each one's result."""
        return list(self.call("transact", [self._database, *operations]))

    def select(self, table: str, where: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """Rows of a table."""
        (result,) = self.transact([{"op": "select", "table": table, "where": list(where)}])
        return list(result["rows"])

    def change(self, operations: Sequence[Operation] = ()) -> int:
        """Do these operations, and count them as one change; return its number."""
        results = self.transact([*operations, *self._counting()])
        return int(results[-1]["rows"][0][self._column])

    def ask(self, operations: Sequence[Operation]) -> None:
        """As `change`, but go on at once; `take` then looks at the answer when it has come."""
        self._send("transact", [self._database, *operations, *self._counting()])

    def _counting(self) -> Sequence[Operation]:
        where = {"table": self._table, "where": []}
        count = {"op": "mutate", **where, "mutations": [[self._column, "+=", 1]]}
        return count, {"op": "select", **where, "columns": [self._column]}

    def monitor(self, table: str, columns: Sequence[str], where: Sequence[Any] = (True,)) -> dict[str, Any]:
        """Follow rows of a table from now on; return those that there are."""
        request = {table: [{"columns": list(columns), "where": list(where)}]}
        _, _, rows = self.call("monitor_cond_since", [self._database, "bench", request, _NEVER])
        return dict(rows.get(table, {}))

    def take(self) -> list[str]:
        """The updates that have arrived, as text. Does not wait."""
        while select.select([self._socket], [], [], 0)[0]:
            self._updates += self._receive()
        updates, self._updates = self._updates, []
        for message in updates:
            self._checked(message)
        return [json.dumps(message["params"]) for message in updates if message.get("method") == "update3"]

    def _send(self, method: str, params: list[Any]) -> int:
        request = next(self._ids)
        self._socket.sendall(json.dumps({"id": request, "method": method, "params": params}).encode())
        return request

    def _checked(self, message: Message) -> Any:  # noqa: ANN401 - JSON
        result = message.get("result")
        errors = [each for each in result if isinstance(each, dict) and "error" in each] if result else []
        if error := message.get("error") or errors:
            raise BenchError(f"{self._database} refuses: {error}")
        return result

    def _receive(self) -> list[Message]:
        data = self._socket.recv(1 << 18)
        if not data:
            raise BenchError(f"the server of {self._database} has gone")
        messages = self._splitter.feed(data)
        for message in messages:
            if message.get("method") == "echo":
                reply = {"id": message["id"], "result": message["params"], "error": None}
                self._socket.sendall(json.dumps(reply).encode())
        return [message for message in messages if message.get("method") != "echo"]


class Counter:
    """Follows a number in one row, like how far an agent says that it is."""

    def __init__(self, client: Client, table: str, column: str, row_name: str) -> None:
        self.value = 0
        self._client = client
        self._column = column
        for row in client.monitor(table, [column], [["name", "==", row_name]]).values():
            self._take(row)

    def reached(self, number: int, within: float) -> bool:
        """Wait until the number is this, at most so many seconds; return whether it is."""
        deadline = time.monotonic() + within
        while True:
            for text in self._client.take():
                for rows in json.loads(text)[2].values():
                    for row in rows.values():
                        self._take(row)
            if self.value >= number:
                return True
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            select.select([self._client], [], [], left)

    def _take(self, update: dict[str, Any]) -> None:
        for row in update.values():
            if row and self._column in row:
                self.value = int(row[self._column])


def insert(table: str, row_name: str = "", **columns: object) -> Operation:
    """An RFC 7047 insert, to be referred to by `row_name`."""
    return {"op": "insert", "table": table, "row": columns, **({"uuid-name": row_name} if row_name else {})}


def update(table: str, uuid: str, **columns: object) -> Operation:
    """An RFC 7047 update of one row."""
    return {"op": "update", "table": table, "where": [["_uuid", "==", ["uuid", uuid]]], "row": columns}
