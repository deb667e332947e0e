"""A host's bridges against what they must be: what Open vSwitch's own database says, by name. Pure.

Flows are `explain.audit`'s to compare. Here is the rest that decides where a packet goes, or who sees it: which ports
are on which bridge, how patches and tunnels are joined, who may change flows, and what happens when nobody does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from collections.abc import Mapping as MappingABC
from dataclasses import dataclass
from typing import Any, Final

from explain.hosts import NonsenseError
from flows.pipeline import BR_CTL, BR_GUEST, BR_NIC
from flows.ports import TUNNEL, UPLINK, guest_patch, nic_patch
from mapping.model import Host

LISTED: Final = {
    "Open_vSwitch": ("manager_options",),
    "Bridge": (
        *("name", "ports", "controller", "fail_mode", "other_config", "protocols", "mirrors"),
        *("netflow", "sflow", "ipfix", "stp_enable", "rstp_enable", "mcast_snooping_enable"),
    ),
    "Port": ("_uuid", "name", "interfaces", "tag", "trunks"),
    "Interface": ("_uuid", "name", "type", "options", "ofport"),
    "Controller": ("_uuid", "target", "connection_mode"),
    "SSL": ("bootstrap_ca_cert",),
}
"""Tables and columns of Open vSwitch's database that are looked at: ovs-vswitchd.conf.db(5)."""

_GUEST: Final = re.compile(r"g-(.+)")
_NIC: Final = re.compile(r"n-(.+)")
_PLAIN: Final = re.compile(r"[A-Za-z0-9_.:-]+")

_JUNK: Final = (ValueError, LookupError, TypeError, AttributeError, RecursionError)
"""What comes of reading what a host in wrong hands has made up."""

_IN_WRONG_HANDS: Final = "ovs-vsctl prints what it never does: look whether the host is in wrong hands"

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is not as it must be, and what puts it right: arguments of one ovs-vsctl, or nothing."""

    what: str
    mend: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.what


def arguments() -> list[str]:
    """What to give ovs-vsctl, so that it prints what `read` reads."""
    words = ["--format=json"]
    for table, columns in LISTED.items():
        words += ["--", f"--columns={','.join(columns)}", "list", table]
    return words


def read(printed: str) -> dict[str, list[Row]]:
    """Table -> rows, each column -> plain value: a set as list, a map as dict.

    Raises:
        NonsenseError: it is not what ovs-vsctl prints.
    """
    try:
        return _tables(printed)
    except _JUNK:
        raise NonsenseError(_IN_WRONG_HANDS) from None


def _tables(printed: str) -> dict[str, list[Row]]:
    tables: dict[str, list[Row]] = {}
    for (table, _), line in zip(LISTED.items(), printed.splitlines(), strict=True):
        content = json.loads(line)
        tables[table] = [
            {name: _plain(value) for name, value in zip(content["headings"], row, strict=True)}
            for row in content["data"]
        ]
    return tables


def _plain(value: Any) -> Any:  # noqa: ANN401 - as RFC 7047 writes it
    if isinstance(value, list):
        kind, content = value
        if kind == "set":
            return [_plain(each) for each in content]
        return dict(content) if kind == "map" else content
    return value


def faults(tables: MappingABC[str, list[Row]], host: Host, controllers: frozenset[str] = frozenset()) -> list[Fault]:
    """Everything that is not as it must be on a host. `controllers`: the targets that it must have; none: any.

    Raises:
        NonsenseError: the tables are not those of Open vSwitch.
    """
    try:
        return list(_Look(tables, host, controllers).faults())
    except _JUNK:
        raise NonsenseError(_IN_WRONG_HANDS) from None


class _Look:
    def __init__(self, tables: MappingABC[str, list[Row]], host: Host, controllers: frozenset[str]) -> None:
        self._tables = tables
        self._host = host
        self._wanted = controllers
        self._bridges = {row["name"]: row for row in tables["Bridge"]}
        self._ports = {row["_uuid"]: row for row in tables["Port"]}
        self._interfaces = {row["_uuid"]: row for row in tables["Interface"]}
        self._controllers = {row["_uuid"]: row for row in tables["Controller"]}

    def faults(self) -> Iterator[Fault]:
        for row in self._tables["Open_vSwitch"]:
            if _many(row["manager_options"]):
                yield Fault("somebody may change the bridges from outside: a manager is set", ("del-manager",))
        if any(row["bootstrap_ca_cert"] for row in self._tables["SSL"]):
            text = "any authority would do for the controller's certificate: bootstrap_ca_cert is set"
            yield Fault(text, ("set", "SSL", ".", "bootstrap_ca_cert=false"))
        for name in (BR_GUEST, BR_NIC, BR_CTL):
            if name not in self._bridges:
                yield Fault(f"there is no {name}: build the bridges again")
            else:
                yield from self._watched(name)
        if BR_GUEST in self._bridges:
            yield from self._openflow(BR_GUEST, self._host.guest_datapath)
            yield from self._guest_ports()
        if BR_NIC in self._bridges:
            yield from self._openflow(BR_NIC, self._host.nic_datapath)
            yield from self._nic_ports()
        if BR_CTL in self._bridges:
            yield from self._ctl_ports()

    def _openflow(self, name: str, datapath: int) -> Iterator[Fault]:
        bridge = self._bridges[name]
        if bridge["fail_mode"] != "secure":
            said = bridge["fail_mode"] or "not set"
            text = f"{name} would forward by itself without a controller: fail_mode is {said}, not secure"
            yield Fault(text, ("set", "Bridge", name, "fail_mode=secure"))
        other = bridge["other_config"]
        if other.get("disable-in-band") != "true":
            text = f"{name} may have hidden flows for its controller: in-band control is not disabled"
            yield Fault(text, ("set", "Bridge", name, "other-config:disable-in-band=true"))
        if other.get("datapath-id") != f"{datapath:016x}":
            text = f"{name} has datapath id {other.get('datapath-id')}, not {datapath:016x}"
            yield Fault(text, ("set", "Bridge", name, f"other-config:datapath-id={datapath:016x}"))
        if _many(bridge["protocols"]) != ["OpenFlow15"]:
            text = f"{name} speaks {', '.join(_many(bridge['protocols'])) or 'any OpenFlow'}, not OpenFlow15 alone"
            yield Fault(text, ("set", "Bridge", name, "protocols=OpenFlow15"))
        found = [self._controllers[uuid] for uuid in _many(bridge["controller"])]
        for row in found:
            if row["connection_mode"] != "out-of-band":
                text = f"{name} speaks in band to its controller {row['target']}: a guest could use its hidden flows"
                yield Fault(text, ("set", "Controller", row["_uuid"], "connection_mode=out-of-band"))
        targets = {row["target"] for row in found}
        if not targets:
            yield Fault(f"{name} has no controller: build the bridges again")
        elif self._wanted and targets != self._wanted:
            yield Fault(f"{name} obeys {_in_words(targets)}, not {_in_words(self._wanted)}: build the bridges again")

    def _watched(self, name: str) -> Iterator[Fault]:
        for column in ("mirrors", "netflow", "sflow", "ipfix"):
            if _many(self._bridges[name][column]):
                yield Fault(f"{name} shows its packets to somebody: {column} is set", ("clear", "Bridge", name, column))
        for column in ("stp_enable", "rstp_enable", "mcast_snooping_enable"):
            if self._bridges[name][column]:
                text = f"{name} obeys what its ports send: {column} is set"
                yield Fault(text, ("set", "Bridge", name, f"{column}=false"))
        for uuid in _many(self._bridges[name]["ports"]):
            port = self._ports[uuid]
            if [self._interfaces[each]["name"] for each in _many(port["interfaces"])] != [port["name"]]:
                yield Fault(f"{name} has a port {port['name']!r} of other interfaces than its own: plug it again")

    def _guest_ports(self) -> Iterator[Fault]:
        devices = self._devices()
        for port, interface in self._on(BR_GUEST):
            if port == BR_GUEST or (interface["type"] in ("", "system", "tap", "dummy") and port in devices):
                yield from self._untagged(BR_GUEST, port)
                continue
            found = _GUEST.fullmatch(port)
            if not found or interface["type"] != "patch" or interface["options"].get("peer") != nic_patch(found[1]):
                yield _unexpected(BR_GUEST, port)

    def _devices(self) -> set[str]:
        """Devices that have a patch pair: who plugs one gives it both."""
        patches = {found[1] for port, _ in self._on(BR_GUEST) if (found := _GUEST.fullmatch(port))}
        return patches & {found[1] for port, _ in self._on(BR_NIC) if (found := _NIC.fullmatch(port))}

    def _nic_ports(self) -> Iterator[Fault]:
        numbers = {f"t-{encap}": (str(encap), number) for encap, number in TUNNEL.items()}
        missing = set(numbers)
        uplinks = 0
        for port, interface in self._on(BR_NIC):
            kind, options = interface["type"], interface["options"]
            if port == BR_NIC:
                continue
            if port in numbers:
                missing.discard(port)
                encap, number = numbers[port]
                must = {"remote_ip": "flow", "key": "flow", "local_ip": str(self._host.vtep_ip)}
                if (kind, options, interface["ofport"]) != (encap, must, number):
                    yield Fault(f"{BR_NIC} has a tunnel {port} that is not as it must be: build the bridges again")
            elif interface["ofport"] == UPLINK and kind in ("", "system", "dummy"):
                uplinks += 1
                yield from self._untagged(BR_NIC, port)
            else:
                found = _NIC.fullmatch(port)
                if not found or kind != "patch" or options.get("peer") != guest_patch(found[1]):
                    yield _unexpected(BR_NIC, port)
        if missing:
            yield Fault(f"{BR_NIC} has no {_in_words(missing)}: build the bridges again")
        if uplinks != 1:
            yield Fault(f"{BR_NIC} has no uplink at OpenFlow port {UPLINK}: build the bridges again")

    def _ctl_ports(self) -> Iterator[Fault]:
        """The control network's cable, and nothing else: above all no patch to where guests are."""
        others = [(port, interface) for port, interface in self._on(BR_CTL) if port != BR_CTL]
        cables = [port for port, interface in others if interface["type"] in ("", "system", "dummy")]
        for port, _ in others:
            if port not in cables[:1]:
                yield _unexpected(BR_CTL, port)

    def _untagged(self, bridge: str, port: str) -> Iterator[Fault]:
        row = next(row for row in self._ports.values() if row["name"] == port)
        if row["tag"] not in ([], 0) or _many(row["trunks"]):
            text = f"{bridge} takes {port} for a port of a VLAN"
            yield Fault(text, ("clear", "Port", port, "tag", "trunks") if _PLAIN.fullmatch(port) else ())

    def _on(self, bridge: str) -> Iterator[tuple[str, Row]]:
        for uuid in _many(self._bridges[bridge]["ports"]):
            port = self._ports[uuid]
            for interface in _many(port["interfaces"]):
                yield port["name"], self._interfaces[interface]


def _unexpected(bridge: str, port: str) -> Fault:
    mend = ("del-port", bridge, port) if _PLAIN.fullmatch(port) else ()
    return Fault(f"{bridge} has a port {port!r} that does not belong there", mend)


def _many(value: Any) -> list[Any]:  # noqa: ANN401
    """A set of one stands bare."""
    return value if isinstance(value, list) else [value] if value not in ("", None) else []


def _in_words(names: set[str] | frozenset[str]) -> str:
    return ", ".join(sorted(names))
