"""`lockgate port show`: one port, where it is, and what has been counted there."""

from __future__ import annotations

import time
from typing import Annotated, Any, Final

import typer
from rich.text import Text

from mapping import rows, status, wanted
from mapping.cli_common import RefusedError, console, print_json, settings, show_table
from mapping.rows import PORT_COUNTERS, Row
from mapping.writer import Writer

Name = Annotated[str, typer.Argument(metavar="PORT", help="The port's name.")]

_WAYS: Final = {"from_guest": "sent by the guest", "to_guest": "received by the guest"}


def show(context: typer.Context, name: Name) -> None:
    """Show a port: its addresses, its host, and the packets and bytes counted there by direction and reason to drop.

    Controllers report these counters every ten seconds, from when the port came to its host.
    """
    options = settings(context)
    with Writer(options.remotes) as writer:
        found = _read(writer, name)
    if options.json:
        print_json(found)
    else:
        _show(found)


def _read(writer: Writer, name: str) -> dict[str, Any]:
    (ports,) = writer.select(("Port", [["name", "==", name]], ["_uuid", *rows.READ_COLUMNS["Port"]]))
    if not ports:
        (others,) = writer.select(("Port", [], ["name"]))
        raise RefusedError([f"there is no port {name}: {wanted.suggest(name, sorted(row['name'] for row in others))}"])
    port = ports[0]
    columns = [*rows.READ_COLUMNS["Host"], *rows.STATUS_COLUMNS["Host"], PORT_COUNTERS]
    vpcs, mappings, hosts, counts = writer.select(
        ("Vpc", [["_uuid", "==", port["vpc"]]], ["name", "vni"]),
        ("Mapping", [["port", "==", port["_uuid"]]], ["ip"]),
        # A port without a host has an empty set there: no row has the port's own id.
        ("Host", [["_uuid", "==", port["_uuid"] if port["host"] == ["set", []] else port["host"]]], columns),
        ("Global", [], ["config_seq"]),
    )
    host = status.of_host(hosts[0], counts[0]["config_seq"], time.time()) if hosts else None
    return {
        "name": name,
        "vpc": vpcs[0]["name"],
        "vni": vpcs[0]["vni"],
        "mac": port["mac"],
        "addresses": sorted(row["ip"] for row in mappings),
        "host": host.name if host else None,
        "device": port["device"],
        "live": bool(host and host.live),
        "heard": host.heard if host else None,
        "traffic": _counters(hosts[0], name) if hosts else {},
    }


def _counters(host: Row, port: str) -> dict[str, dict[str, int]]:
    """What was counted -> packets and bytes."""
    found: dict[str, dict[str, int]] = {}
    for key, count in rows.as_dict(host[PORT_COUNTERS]).items():
        name, _, counter = key.partition("/")
        what, _, unit = counter.rpartition("_")
        if name == port and unit in ("packets", "bytes"):
            found.setdefault(status.printable(what), {"packets": 0, "bytes": 0})[unit] = count
    return found


def _show(found: dict[str, Any]) -> None:
    out = console()
    addresses = ", ".join(found["addresses"]) or "no address"
    out.print(
        Text(f"port {found['name']} of VPC {found['vpc']} (VNI {found['vni']}): {found['mac']}, {addresses}", "bold")
    )
    if found["host"] is None:
        out.print(Text("on no host: its addresses map nowhere; `lockgate port move` gives it one", "yellow"))
        return
    out.print(f"on host {found['host']}, by its interface {found['device']}", markup=False)
    if not found["live"]:
        out.print(Text("no controller serves that host now: look with `lockgate status`", "yellow"))
    if not found["traffic"]:
        out.print("nothing counted yet")
        return
    lines = [
        (_WAYS.get(what, f"dropped, {what}"), count) for what, count in sorted(found["traffic"].items(), key=_order)
    ]
    show_table(("", "packets", "bytes"), ((what, str(count["packets"]), str(count["bytes"])) for what, count in lines))


def _order(item: tuple[str, dict[str, int]]) -> tuple[bool, str]:
    return item[0] not in _WAYS, item[0]
