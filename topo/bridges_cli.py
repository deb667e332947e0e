"""`lockgate bridges`: build the bridges of the host that this runs on, plug guests' devices, unplug them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from enum import Enum
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from flows.pipeline import BR_GUEST
from mapping.cli_common import console, print_json, settings
from mapping.errors import MappingError
from mapping.model import default_datapaths
from mapping.tls import Identity
from topo import bridges, kernel_filter, netns, port_filter, port_watch, tracker, uplink_filter
from topo.bpf import BpfError
from topo.bridges import HostBridges, Vsctl
from topo.ovs import OpenVSwitch

app = typer.Typer(no_args_is_help=True, help="The bridges of this host, in the Open vSwitch that it runs, as root.")

_RUNDIR: Final = "/run/openvswitch"
_TARGET: Final = re.compile(r"(tcp|ssl):(\[[0-9a-f:.]+\]|[0-9.]+):[0-9]{1,5}")
_ELSEWHERE: Final = re.compile(r"but (\S+) is actually attached to bridge (\S+)")
_WRITTEN: Final = {
    "Bridge": "name,datapath_type,fail_mode,protocols,other_config,controller,flow_tables,ports",
    "Port": "name,interfaces",
    "Interface": "name,type,options,ofport_request",
    "Controller": "_uuid,target,connection_mode,max_backoff,inactivity_probe",
    "Flow_Table": "_uuid,name,prefixes",
    "SSL": "_uuid,private_key,certificate,ca_cert",
}
"""What `build` and `plug` may write."""


class Datapath(Enum):
    """Who forwards: the kernel, and cards that take over from it, or Open vSwitch's own process."""

    SYSTEM = "system"
    NETDEV = "netdev"


# What stands in the unit's environment file can be left out by hand, too.
Uplink = Annotated[str, typer.Option(envvar="LOCKGATE_UPLINK", help="The interface to the substrate.")]
Mgmt = Annotated[str, typer.Option(envvar="LOCKGATE_MGMT", help="The interface to the control network.")]
Vtep = Annotated[str, typer.Option(envvar="LOCKGATE_VTEP", help="The host's address on the substrate.")]
Controllers = Annotated[
    list[str],
    typer.Option(
        "--controller",
        envvar="LOCKGATE_CONTROLLERS",
        help="Like ssl:198.51.100.1:6653, with this host's certificate in LOCKGATE_TLS."
        " May be repeated, for controllers of which one runs at a time.",
    ),
]
DatapathType = Annotated[
    Datapath, typer.Option("--datapath", envvar="LOCKGATE_DATAPATH", help="The kernel's, or a process's.")
]
NoFilter = Annotated[
    bool, typer.Option("--no-filter", help="Without the filter that keeps a guest from filling the flow cache.")
]
Devices = Annotated[
    list[str],
    typer.Argument(metavar="DEVICE...", help="Guests' interfaces on this host, as their ports' rows name them."),
]


@app.command(
    epilog="Example: lockgate bridges build --uplink eth1 --mgmt eth2 --vtep 192.0.2.1"
    " --controller ssl:198.51.100.1:6653"
)
def build(  # noqa: PLR0913 - a command has as many options as it needs
    context: typer.Context,
    *,
    uplink: Uplink,
    mgmt: Mgmt,
    vtep: Vtep,
    controller: Controllers,
    datapath: DatapathType = Datapath.SYSTEM,
) -> None:
    """Make br-guest, br-nic and br-ctl what they should be. What is so already is left as it is.

    Both interfaces become ports of bridges, where addresses of theirs do nothing: br-nic is to have the VTEP's
    address, br-ctl the host's address on the control network, by whatever configures the host's network.
    """
    try:
        vtep_ip = ip_address(vtep)
    except ValueError:
        raise MappingError(f"--vtep {vtep}: it is no IP address: write one like 192.0.2.1") from None
    for target in controller:
        if not _TARGET.fullmatch(target):
            raise MappingError(f"--controller {target}: it is no place: write one like ssl:198.51.100.1:6653")
    if uplink == mgmt:
        raise MappingError(f"--mgmt {mgmt}: it is the uplink: the control network needs an interface of its own")
    notes = [note for interface in (uplink, mgmt) for note in _look_at(interface)]
    if len(controller) > 1:
        notes.append(f"{len(controller)} controllers: let one run at a time, as each takes out what another puts in")
    made = HostBridges(
        uplink, mgmt, vtep_ip, *default_datapaths(vtep_ip), controller, datapath.value, tls=_certificate(controller)
    )
    _carry_out(context, partial(_build, made), notes)


@app.command(epilog="Example: lockgate bridges plug blue-web")
def plug(context: typer.Context, devices: Devices, *, no_filter: NoFilter = False) -> None:
    """Put guests' devices on br-guest, each with a patch pair of its own to br-nic, and a filter ahead of it."""
    notes = [note for device in devices for note in _look_at(device)]
    put = bridges.plug if no_filter else _plug_filtered
    _carry_out(context, partial(_each, partial(_plug, put), devices), notes)


@app.command(epilog="Example: lockgate bridges unplug blue-web")
def unplug(context: typer.Context, devices: Devices) -> None:
    """Take guests' devices and their patch pairs off the bridges."""
    _carry_out(context, partial(_each, bridges.unplug, devices), [])


@app.command(epilog="Example: lockgate bridges watch")
def watch() -> None:
    """Keep the filters ahead of guests' ports in step with the mapping, and report what they refuse, until ended.

    Filters take the ports' own limits of packets from br-guest. Without this they go on, and `lockgate port show` does
    not say what they refuse.
    """
    port_watch.watch(_switch())


def _certificate(controllers: list[str]) -> Path | None:
    """The folder of this host's certificate, if a controller is reached over TLS.

    Raises:
        MappingError: there is none that can be used.
    """
    secure = next((target for target in controllers if target.startswith("ssl:")), None)
    if secure is None:
        return None
    identity = Identity.from_environment()
    if identity is None:
        raise MappingError(
            f"--controller {secure}: this host has to prove who it is: make it a certificate with"
            " `lockgate pki issue host`, and name its folder in LOCKGATE_TLS"
        )
    identity.check()
    return identity.folder


def _plug(put: Callable[[Vsctl, str], None], vsctl: Vsctl, device: str) -> None:
    put(vsctl, device)
    tracker.limit(vsctl, _switch().appctl)


def _plug_filtered(vsctl: Vsctl, device: str) -> None:
    """Put the filter ahead of a device before any frame of it gets past; not ahead of what is another bridge's."""
    known = vsctl("--bare", "--columns=name", "find", "Interface", f"name={device}").strip()
    if known and vsctl("iface-to-br", device).strip() != BR_GUEST:
        bridges.plug(vsctl, device)  # raises
    try:
        port_filter.attach(None, device)
    except BpfError as error:
        raise MappingError(f"{error}; or, where the card bounds what a guest makes it learn, --no-filter") from None
    bridges.plug(vsctl, device)


def _build(made: HostBridges, vsctl: Vsctl) -> None:
    # First, so that there is no moment in which the tunnel ends are there, and open to all.
    kernel_filter.guard(made.datapath_type)
    try:
        uplink_filter.attach(None, made.uplink)
    except BpfError as error:
        raise MappingError(str(error)) from None
    bridges.build(vsctl, made)
    tracker.limit(vsctl, _switch().appctl)


def _each(change: Callable[[Vsctl, str], None], devices: list[str], vsctl: Vsctl) -> None:
    for device in devices:
        change(vsctl, device)


def _carry_out(context: typer.Context, change: Callable[[Vsctl], None], notes: list[str]) -> None:
    options = settings(context)
    vsctl = _switch().vsctl
    try:
        before = _written(vsctl)
        change(vsctl)
        changed = _written(vsctl) != before
    except netns.CommandError as error:
        raise MappingError(_said(str(error))) from None
    except FileNotFoundError:
        raise MappingError("ovs-vsctl: it is not installed: install openvswitch-switch") from None
    if options.json:
        print_json({"changed": changed, "notes": notes})
        return
    out = console()
    out.print("done" if changed else "nothing to do: it is so already")
    for note in notes:
        out.print(f"note: {note}", style="yellow", markup=False)


def _switch() -> OpenVSwitch:
    return OpenVSwitch(Path(os.environ.get("OVS_RUNDIR", _RUNDIR)))


def _written(vsctl: Vsctl) -> list[Any]:
    """What Open vSwitch has been told, as far as it is ours to tell."""
    words = [word for table, columns in _WRITTEN.items() for word in ("--", f"--columns={columns}", "list", table)]
    return [sorted(json.loads(line)["data"], key=str) for line in vsctl("--format=json", *words).splitlines()]


def _said(problem: str) -> str:
    """What ovs-vsctl said, with the mend where that is known."""
    said = problem.rpartition("exit status")[2].partition(": ")[2].splitlines()[-1].removeprefix("ovs-vsctl: ")
    if "database connection failed" in said:
        return "Open vSwitch does not answer: start openvswitch-switch, and run this as root"
    if elsewhere := _ELSEWHERE.search(said):
        port, bridge = elsewhere.groups()
        return f"{port}: it is a port of bridge {bridge}: take it off there first, by `ovs-vsctl del-port {port}`"
    return said or problem


def _look_at(interface: str) -> list[str]:
    """What is not as it should be with an interface that is to become a bridge's port.

    Raises:
        MappingError: there is none of this name.
    """
    try:
        shown = netns.run(None, ["ip", "-j", "address", "show", "dev", interface])
    except netns.CommandError:
        raise MappingError(f"interface {interface}: this host has none: `ip link` shows those that it has") from None
    link = json.loads(shown)[0]
    found = [] if "UP" in link["flags"] else [f"{interface} is down: `ip link set dev {interface} up`"]
    addresses = [f"{each['local']}/{each['prefixlen']}" for each in link["addr_info"] if each["scope"] == "global"]
    if addresses:
        found.append(f"{interface} has {', '.join(addresses)}, which does nothing on a bridge's port: take it off")
    return found
