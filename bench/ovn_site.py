"""OVN on a private Open vSwitch: both databases, northd, and ovn-controller of one real chassis; the other is a row.

    NB database -> ovn-northd -> SB database -> ovn-controller -> br-int of ovs-vswitchd with the dummy datapath

The ports of the other chassis are bound by us, all at once, where each real chassis would claim its own: that is less
than OVN has to do in practice. `ovn-monitor-all` is set: without it ovn-controller asks for the rows of its datapath
after it has begun, takes them in one by one, and starts many times slower.

`NB_Global.nb_cfg` counts changes, and `Chassis_Private.nb_cfg` says which one this chassis's switch has, as
`Global.config_seq` and `Host.applied_seq` do for Lockgate.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from signal import SIGKILL
from typing import Any, Final

from bench.client import Client, Counter, Operation, insert, update
from bench.layout import Layout, batches, mac
from bench.process import OVN, Process, find
from bench.run import BenchError
from bench.site import VSWITCHD_OPTIONS
from bench.watch import FlowCount
from topo.ovs import OpenVSwitch
from topo.waiting import wait_until

BR_INT: Final = "br-int"


class OvnSite:
    """`patience` bounds each wait, in seconds."""

    def __init__(self, folder: Path, stack: ExitStack, patience: float) -> None:
        self.folder = folder
        self.patience = patience
        self.nb_cfg = 0
        self._uuids: dict[str, str] = {}
        programs = {name: find(name) for name in ("ovn-northd", "ovn-controller")}
        nb, sb = (_database(folder, name, stack) for name in ("nb", "sb"))
        self.client = Client(nb, "OVN_Northbound", ("NB_Global", "nb_cfg"))
        self._sb, follower = (Client(sb, "OVN_Southbound", ("SB_Global", "nb_cfg")) for _ in range(2))
        for client in (self.client, self._sb, follower):
            stack.callback(client.close)
        self.client.transact([{"op": "insert", "table": "NB_Global", "row": {}}])
        self.northd = Process(
            [
                programs["ovn-northd"],
                f"--ovnnb-db=unix:{nb}",
                f"--ovnsb-db=unix:{sb}",
                f"--unixctl={folder}/northd.ctl",
                "-vsyslog:off",
            ],
            folder / "northd.log",
        )
        stack.callback(self.northd.stop)
        self.ovs = OpenVSwitch(folder / "ovs", vswitchd_options=VSWITCHD_OPTIONS)
        stack.callback(self.ovs.stop)
        self.ovs.start()
        ids = {"system-id": "here", "ovn-encap-type": "geneve", "ovn-encap-ip": "192.0.2.1"}
        ids |= {"ovn-remote": f"unix:{sb}", "ovn-bridge-datapath-type": "dummy", "ovn-monitor-all": "true"}
        made = ["set", "Open_vSwitch", ".", *(f'external-ids:{name}="{value}"' for name, value in ids.items())]
        bridge = ["--", "add-br", BR_INT, "--", "set", "Bridge", BR_INT, "datapath_type=dummy", "fail_mode=secure"]
        port = ["--", "add-port", BR_INT, "local", "--", "set", "Interface", "local", "external-ids:iface-id=p0"]
        self.ovs.vsctl(*made, *bridge, *port)
        self.flow_count = FlowCount(self.ovs.folder, [BR_INT])
        self._argv = [programs["ovn-controller"], f"unix:{self.ovs.folder}/db.sock", "-vsyslog:off"]
        self._env = {**self.ovs.env, "OVN_RUNDIR": str(folder)}
        self._controller: Process | None = None
        stack.callback(self.kill)
        self.start(wait=False)
        self._there = self._chassis()
        wait_until(self._has_chassis, 20, "ovn-controller to make its chassis")
        self._applied = Counter(follower, "Chassis_Private", "nb_cfg", "here")

    @property
    def controller(self) -> Process:
        """ovn-controller, running."""
        if self._controller is None:
            raise BenchError("ovn-controller does not run")
        return self._controller

    def start(self, *, wait: bool = True) -> float:
        """Start ovn-controller; return the seconds from then until the switch had the last flow."""
        if wait:
            # Known to the SB database before it starts, but not yet reported.
            self.change()
            wait_until(lambda: self._sb_cfg() == self.nb_cfg, self.patience, "ovn-northd")
        begin = time.monotonic()
        self._controller = Process(self._argv, self.folder / "controller.log", self._env)
        return self.wait_applied() - begin if wait else 0.0

    def kill(self) -> None:
        """Kill ovn-controller: told to end in order it would take its chassis away."""
        if self._controller:
            self._controller.stop(SIGKILL)
            self._controller = None

    def empty(self) -> None:
        """Delete every flow of the switch."""
        self.ovs.ofctl("del-flows", BR_INT)

    def change(self, operations: Sequence[Operation] = ()) -> None:
        """Do the operations on the NB database, as one change."""
        self.nb_cfg = self.client.change(operations)

    def wait_applied(self, within: float | None = None) -> float:
        """Wait until ovn-controller says that the switch has the last change; return when it had the last flow."""

        def applied(within: float) -> bool:
            self.northd.check()
            self.controller.check()
            return self._applied.reached(self.nb_cfg, within)

        return self.flow_count.until(applied, self.patience if within is None else within)[1]

    def build(self, layout: Layout) -> None:
        """The switches and the router, without ports of guests."""
        for index, _ in enumerate(layout.subnets):
            self.change(_switch(layout, index) if len(layout.subnets) > 1 else [insert("Logical_Switch", name="s0")])
        self._learn("Logical_Switch")
        self.wait_applied()

    def add_ports(self, layout: Layout) -> None:
        """All ports, in transactions of a thousand, and bind those there once northd has made their bindings."""
        for numbers in batches(layout):
            self.change(list(self._ports(layout, numbers)))
        unbound = [["logical_port", "!=", "p0"], ["type", "==", ""]]
        row = {"chassis": ["uuid", self._there], "up": True}
        deadline = time.monotonic() + self.patience
        while self._sb_cfg() < self.nb_cfg:
            if time.monotonic() > deadline:
                raise TimeoutError("ovn-northd does not follow")
            time.sleep(0.01)
        (done,) = self._sb.transact([{"op": "update", "table": "Port_Binding", "where": unbound, "row": row}])
        if done["count"] != layout.ports - 1:
            raise BenchError(f"{done['count']} ports could be bound, of {layout.ports - 1}")
        self.change()
        self._learn("Logical_Switch_Port")

    def readdress(self, layout: Layout, port: int) -> None:
        """Give a port its other address."""
        addresses = f"{mac(port)} {layout.changed_ip(port)}"
        self.change([update("Logical_Switch_Port", self._uuids[f"p{port}"], addresses=addresses)])

    def _learn(self, table: str) -> None:
        self._uuids |= {row["name"]: row["_uuid"][1] for row in self.client.select(table)}

    def _ports(self, layout: Layout, numbers: range) -> Iterator[Operation]:
        members: dict[str, list[Any]] = {}
        for number in numbers:
            row = {"name": f"p{number}", "addresses": f"{mac(number)} {layout.ip(number)}"}
            yield insert("Logical_Switch_Port", f"p{number}", **row)
            members.setdefault(f"s{number // layout.each}", []).append(["named-uuid", f"p{number}"])
        for switch, ports in members.items():
            where = [["_uuid", "==", ["uuid", self._uuids[switch]]]]
            mutations = [["ports", "insert", ["set", ports]]]
            yield {"op": "mutate", "table": "Logical_Switch", "where": where, "mutations": mutations}

    def _chassis(self) -> str:
        """The row of the other chassis."""
        encap = insert("Encap", "encap", type="geneve", ip="192.0.2.2", chassis_name="there")
        results = self._sb.transact([encap, insert("Chassis", name="there", encaps=["named-uuid", "encap"])])
        return str(results[1]["uuid"][1])

    def _has_chassis(self) -> bool:
        self.controller.check()
        return bool(self._sb.select("Chassis_Private", [["name", "==", "here"]]))

    def _sb_cfg(self) -> int:
        self.northd.check()
        return max((int(row["nb_cfg"]) for row in self._sb.select("SB_Global")), default=-1)


def version() -> str:
    """What OVN says of itself."""
    said = subprocess.run([find("ovn-controller"), "--version"], capture_output=True, text=True, check=True).stdout
    return said.splitlines()[0].replace("ovn-controller", "OVN")


def _switch(layout: Layout, index: int) -> list[Operation]:
    """A switch, and its port to the router; the first one makes the router."""
    subnet = layout.subnets[index]
    mac = f"0a:00:00:00:{index >> 8:02x}:{index & 255:02x}"
    network = f"{layout.gateway(subnet)}/{subnet.prefixlen}"
    ref = ["named-uuid", "rp"]
    if index:
        router = {"op": "mutate", "table": "Logical_Router", "where": [], "mutations": [["ports", "insert", ref]]}
    else:
        router = insert("Logical_Router", name="r", ports=ref)
    options = ["map", [["router-port", f"r-s{index}"]]]
    return [
        insert("Logical_Router_Port", "rp", name=f"r-s{index}", mac=mac, networks=network),
        router,
        insert("Logical_Switch_Port", "sp", name=f"s{index}-r", type="router", addresses="router", options=options),
        insert("Logical_Switch", name=f"s{index}", ports=["named-uuid", "sp"]),
    ]


def _database(folder: Path, name: str, stack: ExitStack) -> Path:
    installed = Path("/usr/share/ovn")
    schema = (OVN / "usr/share/ovn" if OVN.is_dir() else installed) / f"ovn-{name}.ovsschema"
    if not schema.exists():
        raise BenchError(f"{schema} is not there: install Debian's package ovn-common (`make bench` does it)")
    file, path = folder / f"{name}.db", folder / f"{name}.sock"
    subprocess.run([find("ovsdb-tool"), "create", str(file), str(schema)], check=True)
    argv = [find("ovsdb-server"), str(file), f"--remote=punix:{path}", f"--unixctl={folder}/{name}.ctl"]
    server = Process([*argv, "-vsyslog:off"], folder / f"{name}.log")
    stack.callback(server.stop)
    wait_until(path.exists, 10, f"the server of {file} to listen")
    return path
