"""A private mapping database for tests, written to in raw RFC 7047 operations."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Self, TypeVar

from mapping import schema
from mapping.model import RowId, Snapshot
from mapping.rows import raw
from mapping.session import Message, Session
from topo.ovs import end

Operation = dict[str, Any]
T = TypeVar("T")


class Database:
    """A standalone ovsdb-server with the mapping schema in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.remote = f"unix:{folder}/mapping.sock"
        self.pidfile = folder / "mapping.pid"
        self.file = folder / "mapping.db"
        self._folder = folder
        self._session: Session | None = None
        self.config_seq = 0
        self._inserted: dict[str, str] = {}
        subprocess.run(["ovsdb-tool", "create", str(self.file), str(schema.SCHEMA_FILE)], check=True)

    def __enter__(self) -> Self:
        self.start()
        self.transact([{"op": "insert", "table": "Global", "row": {}}])
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        argv = ["ovsdb-server", f"--remote=p{self.remote}", f"--unixctl={self._folder}/mapping.ctl"]
        argv += [f"--pidfile={self.pidfile}", f"--log-file={self._folder}/mapping.log", "-vconsole:off"]
        subprocess.run([*argv, "--detach", "--no-chdir", str(self.file)], check=True)

    def stop(self) -> None:
        if self._session:
            self._session.close()
            self._session = None
        end(self.pidfile)

    def transact(self, operations: Iterable[Operation]) -> None:
        """Do the operations, and count them as one change of the configuration: `config_seq` is its number then.

        A row may be referred to by the `uuid-name` that it was inserted by in an earlier transaction, too.
        """
        operations = list(operations)
        here = {operation["uuid-name"] for operation in operations if "uuid-name" in operation}
        known = {name: uuid for name, uuid in self._inserted.items() if name not in here}
        operations = [json.loads(json.dumps(each), object_hook=lambda row: _resolve(row, known)) for each in operations]
        if self._session is None:
            self._session = Session([self.remote])
        self._wait(lambda _: self._connected(), "connect")
        count = {"op": "mutate", "table": "Global", "where": [], "mutations": [["config_seq", "+=", 1]]}
        read = {"op": "select", "table": "Global", "where": [], "columns": ["config_seq"]}
        request = self._session.request("transact", [schema.DATABASE, *operations, count, read])
        (reply,) = self._wait(
            lambda messages: [message for message in messages if message.get("id") == request], "answer"
        )
        errors = [result for result in reply["result"] if result and result.get("error")]
        if reply.get("error") or errors:
            raise ValueError(reply.get("error") or errors)
        for operation, result in zip(operations, reply["result"], strict=False):
            if "uuid-name" in operation:
                self._inserted[operation["uuid-name"]] = result["uuid"][1]
        self.config_seq = reply["result"][-1]["rows"][0]["config_seq"]

    def _connected(self) -> bool:
        return self._session is not None and self._session.connected

    def _wait(self, wanted: Callable[[list[Message]], T], what: str) -> T:
        assert self._session
        deadline = time.monotonic() + 10
        while not (found := wanted(self._session.run())):
            assert time.monotonic() < deadline, f"the database does not {what}"
            self._session.block(100)
        return found

    def write(self, world: Snapshot) -> None:
        """Make the database hold this and nothing else, in one transaction."""
        self.transact([*clear(), *insert(world)])


def _resolve(row: dict[str, Any], known: dict[str, str]) -> dict[str, Any]:
    return {
        column: ["uuid", known[value[1]]]
        if isinstance(value, list) and value[:1] == ["named-uuid"] and value[1] in known
        else value
        for column, value in row.items()
    }


def clear() -> list[Operation]:
    """Delete every row but the one that counts."""
    tables = ("Mapping", "Port", "SecurityGroup", "Vpc", "Host")
    return [{"op": "delete", "table": table, "where": []} for table in tables]


def insert(world: Snapshot) -> list[Operation]:
    """Insert every row of a snapshot. References are by names within the transaction, not by the snapshot's uuids."""

    def name(uuid: RowId) -> str:
        return "r" + uuid.replace("-", "")

    def ref(uuid: RowId) -> list[str]:
        return ["named-uuid", name(uuid)]

    rows: list[tuple[str, RowId, dict[str, Any]]] = []
    for host in world.hosts.values():
        row: dict[str, Any] = {"name": host.name, "vtep_ip": str(host.vtep_ip), "encap": str(host.encap)}
        row |= {"guest_datapath": f"{host.guest_datapath:016x}", "nic_datapath": f"{host.nic_datapath:016x}"}
        rows.append(("Host", host.uuid, row))
    for vpc in world.vpcs.values():
        row = {"name": vpc.name, "vni": vpc.vni, "router_mac": vpc.router_mac}
        row |= {"mtu": vpc.mtu} if vpc.mtu else {}
        row |= {"subnets": ["set", [str(subnet) for subnet in vpc.subnets]]}
        rows.append(("Vpc", vpc.uuid, row))
    groups = world.groups.values()
    rows += [("SecurityGroup", group.uuid, {**raw(group), "vpc": ref(group.vpc)}) for group in groups]
    for port in world.ports.values():
        row = {"name": port.name, "vpc": ref(port.vpc), "mac": port.mac, "device": port.device}
        seats = {"host": port.host, "moving_to": port.moving_to, "previous_host": port.previous_host}
        row |= {column: ref(there) for column, there in seats.items() if there}
        row |= {column: raw(port)[column] for column in ("allowed", "limits", "boot")}
        row |= {"groups": ["set", [ref(group) for group in port.groups]]}
        rows.append(("Port", port.uuid, row))
    rows += [
        ("Mapping", mapping.uuid, {"vpc": ref(mapping.vpc), "ip": str(mapping.ip), "port": ref(mapping.port)})
        for mapping in world.mappings.values()
    ]
    return [{"op": "insert", "table": table, "uuid-name": name(uuid), "row": row} for table, uuid, row in rows]
