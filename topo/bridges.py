"""The three bridges of a host, as one ovs-vsctl transaction that may be run again.

    br-guest  [guest devices][g-* patches]                  the virtual image of the NIC
    br-nic    [n-* patches][tunnels][uplink][LOCAL = VTEP]  pushes and pops
    br-ctl    [mgmt][LOCAL = control address]               the control channel, alone

Everything here is data for ovs-vsctl: a second run writes the same values, and ovs-vsctl sends only what differs, so
it changes nothing. Addresses of the LOCAL ports are the caller's: they belong to the host's own configuration.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from collections.abc import Mapping as MappingABC
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from flows.nic_substrate import vtep_mac
from flows.pipeline import BR_CTL, BR_GUEST, BR_NIC, TABLES
from flows.ports import TUNNEL, UPLINK, guest_patch, nic_patch
from mapping.model import IPAddress

Vsctl = Callable[..., str]
"""Runs ovs-vsctl with these arguments on the host in question, and returns what it printed."""

CONTROLLER: Final = (
    # In band, Open vSwitch adds flows for the controller's address that no dump shows, and a guest could use them.
    "connection_mode=out-of-band",
    "max_backoff=1000",
    "inactivity_probe=5000",
)


@dataclass(frozen=True, slots=True)
class HostBridges:
    """What the bridges of one host are made from.

    `uplink` and `mgmt` are interfaces that exist: the cables to the substrate and to the control network.
    `controllers` are OpenFlow targets, like "ssl:198.51.100.1:6653", for which `tls` is the folder with the host's
    certificate, as `lockgate pki issue` makes it.
    """

    uplink: str
    mgmt: str
    vtep_ip: IPAddress
    guest_datapath: int
    nic_datapath: int
    controllers: Sequence[str]
    datapath_type: str = "netdev"
    tls: Path | None = None


@dataclass(frozen=True, slots=True)
class Existing:
    """Rows that ovs-vsctl cannot find by name, and would make anew: bridge -> what names the row -> its uuid."""

    controllers: MappingABC[str, MappingABC[str, str]] = field(default_factory=dict)
    flow_tables: MappingABC[str, MappingABC[int, str]] = field(default_factory=dict)
    ssl: str | None = None


Commands = list[list[str]]


def build_commands(host: HostBridges, existing: Existing | None = None) -> list[str]:
    """The arguments of the one ovs-vsctl that makes the three bridges what `host` says."""
    existing = existing or Existing()
    commands = [
        *_tls(host, existing),
        *_openflow_bridge(BR_GUEST, host.guest_datapath, host, existing),
        *_openflow_bridge(BR_NIC, host.nic_datapath, host, existing),
        *_port(BR_NIC, host.uplink, f"ofport_request={UPLINK}"),
    ]
    # Left alone, Open vSwitch takes the lowest of all ports' MACs, and those of patch ports are random: plugging a
    # guest would give the VTEP another MAC, and the other hosts would go on using the one that they know.
    # The flows of br-nic know this one.
    commands.append(["set", "Bridge", BR_NIC, f'other-config:hwaddr="{vtep_mac(host.vtep_ip)}"'])
    for encap, number in TUNNEL.items():
        # One port for every remote host: the flows say where to (remote_ip) and for whom (key).
        options = ("options:remote_ip=flow", "options:key=flow", f"options:local_ip={host.vtep_ip}")
        commands += _port(BR_NIC, f"t-{encap}", f"type={encap}", *options, f"ofport_request={number}")
    commands += [
        ["--may-exist", "add-br", BR_CTL],
        ["set", "Bridge", BR_CTL, f"datapath_type={host.datapath_type}", "fail_mode=standalone", "controller=[]"],
        *_port(BR_CTL, host.mgmt),
    ]
    return _arguments(commands)


def plug_commands(device: str) -> list[str]:
    """The arguments that put a guest's device on br-guest, with a patch pair of its own to br-nic."""
    to_nic, to_guest = guest_patch(device), nic_patch(device)
    return _arguments(
        [
            *_port(BR_GUEST, device),
            *_port(BR_GUEST, to_nic, "type=patch", f"options:peer={to_guest}"),
            *_port(BR_NIC, to_guest, "type=patch", f"options:peer={to_nic}"),
        ]
    )


def unplug_commands(device: str) -> list[str]:
    """The arguments that take a guest's device and its patch pair away."""
    ports = ((BR_GUEST, device), (BR_GUEST, guest_patch(device)), (BR_NIC, nic_patch(device)))
    return _arguments([["--if-exists", "del-port", bridge, port] for bridge, port in ports])


def build(vsctl: Vsctl, host: HostBridges) -> None:
    """Make the three bridges of a host what `host` says, in one transaction."""
    vsctl(*build_commands(host, read_existing(vsctl)))


def plug(vsctl: Vsctl, device: str) -> None:
    """Put a guest's device on br-guest, with its patch pair to br-nic, in one transaction."""
    vsctl(*plug_commands(device))


def unplug(vsctl: Vsctl, device: str) -> None:
    """Take a guest's device and its patch pair away, in one transaction."""
    vsctl(*unplug_commands(device))


def read_existing(vsctl: Vsctl) -> Existing:
    """Ask Open vSwitch which controller and flow table rows its bridges have, and which TLS row there is."""
    listed = vsctl(
        "--format=json",
        *("--", "--columns=name,controller,flow_tables", "list", "Bridge"),
        *("--", "--columns=_uuid,target", "list", "Controller"),
        *("--", "--columns=_uuid", "list", "SSL"),
    )
    bridges, controllers, ssl = (json.loads(line)["data"] for line in listed.splitlines())
    targets = {uuid[1]: target for uuid, target in controllers}
    return Existing(
        {name: {targets[uuid]: uuid for uuid in _uuids(rows)} for name, rows, _ in bridges},
        {name: {number: uuid[1] for number, uuid in tables[1]} for name, _, tables in bridges},
        next((uuid[1] for (uuid,) in ssl), None),
    )


def _uuids(references: list[Any]) -> list[str]:
    """A set of references as OVSDB's JSON writes it: one alone stands bare."""
    return [uuid[1] for uuid in (references[1] if references[0] == "set" else [references])]


def _tls(host: HostBridges, existing: Existing) -> Commands:
    if host.tls is None:
        return []
    command, row = _row("SSL", "ssl", existing.ssl)
    files = (("private_key", "key"), ("certificate", "cert"), ("ca_cert", "controller"))
    columns = [f'{column}="{host.tls}/{file}.pem"' for column, file in files]
    return [[*command, *columns], ["set", "Open_vSwitch", ".", f"ssl={row}"]]


def _openflow_bridge(bridge: str, datapath: int, host: HostBridges, existing: Existing) -> Commands:
    commands = [
        ["--may-exist", "add-br", bridge],
        [
            *("set", "Bridge", bridge),
            f"datapath_type={host.datapath_type}",
            # Without a controller the flows stay as they are, and a bridge that never had any drops.
            "fail_mode=secure",
            "protocols=OpenFlow15",
            f"other-config:datapath-id={datapath:016x}",
            "other-config:disable-in-band=true",
        ],
    ]
    controllers = []
    known_targets = existing.controllers.get(bridge, {})
    for index, target in enumerate(host.controllers):
        command, row = _row("Controller", f"{bridge}-c{index}", known_targets.get(target))
        commands.append([*command, f'target="{target}"', *CONTROLLER])
        controllers.append(row)
    tables = []
    known_tables = existing.flow_tables.get(bridge, {})
    for table in TABLES[bridge].values():
        command, row = _row("Flow_Table", f"{bridge}-t{table.number}", known_tables.get(table.number))
        prefixes = ",".join(map(str, table.prefixes))
        commands.append([*command, f"name={table.name}", *([f"prefixes={prefixes}"] if prefixes else [])])
        tables.append(f"{table.number}={row}")
    both = (f"controller=[{','.join(controllers)}]", f"flow_tables={{{','.join(tables)}}}")
    return [*commands, ["set", "Bridge", bridge, *both]]


def _row(table: str, name: str, uuid: str | None) -> tuple[list[str], str]:
    """How to write a row that is there, or to make it; and how to refer to it."""
    return (["set", table, uuid], uuid) if uuid else ([f"--id=@{name}", "create", table], f"@{name}")


def _port(bridge: str, port: str, *columns: str) -> Commands:
    commands = [["--may-exist", "add-port", bridge, port]]
    return [*commands, ["set", "Interface", port, *columns]] if columns else commands


def _arguments(commands: Commands) -> list[str]:
    return [word for command in commands for word in ("--", *command)][1:]
