"""One site: a mapping database, a host's switch, and ryu-manager. All private, in a folder."""

from __future__ import annotations

import re
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from ipaddress import IPv4Address
from pathlib import Path
from signal import SIGKILL
from typing import Final

from bench.client import Client, Counter, Operation, update
from bench.content import VTEPS, Content
from bench.process import Process
from bench.run import BenchError
from bench.watch import FlowCount, Monitor, arrivals
from flows.pipeline import BR_GUEST, BR_NIC
from mapping import schema, service
from mapping.model import default_datapaths
from mapping.pki import Pki
from mapping.tls import Identity
from topo import bridges
from topo.ovs import OpenVSwitch, end
from topo.waiting import wait_until

LOOPBACK: Final = "127.0.0.1"
BRIDGES: Final = (BR_NIC, BR_GUEST)
VSWITCHD_OPTIONS: Final = ("--enable-dummy=system", "--disable-system", "--disable-system-route")
_SETTLED_SECONDS: Final = 2
PATIENCE: Final = 300
"""Seconds for the slowest of loads."""


class Database:
    """The mapping database with this content, served; with `tls` the controller reaches it by a front, as at a site."""

    def __init__(self, folder: Path, content: Content, stack: ExitStack, *, tls: bool = False) -> None:
        self.socket = folder / "mapping.sock"
        self.remote = f"unix:{self.socket}"
        """Where the controller finds it."""
        self.tls = {name: folder / name for name in ("member", "controller", "host")} if tls else {}
        """Role -> the folder of its certificate."""
        content.write(folder / "mapping.db")
        fronts, places = {}, [f"p{self.remote}"]
        if tls:
            pki, port = Pki(folder / "pki"), free_port()
            pki.init()
            for role, out in self.tls.items():
                pki.issue(role, "here", out)
            self.remote, fronts = f"ssl:{LOOPBACK}:{port}", {"controller": [f"pssl:{port}:{LOOPBACK}"]}
        service.start(folder, places, fronts=fronts, identity=Identity(self.tls["member"]) if tls else None)
        # By its pid: one that is busy with a million rows may not listen to being told.
        for name in ("mapping", *fronts):
            stack.callback(end, folder / f"{name}.pid")

    def client(self, stack: ExitStack) -> Client:
        """A connection, closed with the stack."""
        client = Client(self.socket, schema.DATABASE, ("Global", "config_seq"))
        stack.callback(client.close)
        return client


class Site:
    """The host that `content` calls `here`, with a device for each port that is there.

    With `kept`, the switch is let in also while ryu-manager does not run, as where a service manager starts it. With
    `tls`, all of it speaks TLS.
    """

    def __init__(
        self,
        folder: Path,
        content: Content,
        stack: ExitStack,
        *,
        kept: bool = False,
        tls: bool = False,
    ) -> None:
        self.folder = folder
        self.database = Database(folder, content, stack, tls=tls)
        self.client = self.database.client(stack)
        self.config_seq = 0
        self._applied = Counter(self.database.client(stack), "Host", "applied_seq", "here")
        self.listens = free_port()
        """The port of loopback that ryu-manager listens at."""
        self._kept = stack.enter_context(socket.create_server((LOOPBACK, self.listens))) if kept else None
        self._nobody = self._pointed = free_port()
        self.ovs = OpenVSwitch(folder / "ovs", vswitchd_options=VSWITCHD_OPTIONS)
        stack.callback(self.ovs.stop)
        self.ovs.start()
        vtep = IPv4Address(VTEPS + 1)
        made = bridges.HostBridges(
            *("uplink", "mgmt", vtep, *default_datapaths(vtep), [self._target(self._nobody)]),
            datapath_type="dummy",
            tls=self.database.tls.get("host"),
        )
        bridges.build(self.ovs.vsctl, made)
        for device in content.devices:
            bridges.plug(self.ovs.vsctl, device)
        self.flow_count = FlowCount(self.ovs.folder, BRIDGES)
        self._controller: Process | None = None
        stack.callback(self.kill)

    @property
    def controller(self) -> Process:
        """ryu-manager, running."""
        if self._controller is None:
            raise BenchError("ryu-manager does not run")
        return self._controller

    def start(self, through: int | None = None) -> float:
        """Start ryu-manager; return the seconds from then until the switch had the last flow.

        `through` is a port of loopback that the switch is to connect to instead of ryu-manager's own.
        """
        # A number that no earlier controller has reported, so that reaching it says something of this one.
        self.change()
        argv = [str(Path(sys.executable).with_name("ryu-manager")), "controller.app"]
        argv += ["--ofp-listen-host", LOOPBACK, f"--ofp-{'ssl' if self.database.tls else 'tcp'}-listen-port"]
        argv += [str(self.listens)]
        env = {"LOCKGATE_DB": self.database.remote}
        if tls := self.database.tls.get("controller"):
            env["LOCKGATE_TLS"] = str(tls)
            argv += [
                "--ctl-privkey",
                f"{tls}/key.pem",
                "--ctl-cert",
                f"{tls}/cert.pem",
                "--ca-certs",
                f"{tls}/host.pem",
            ]
        begin = time.monotonic()
        self._controller = Process(argv, self.folder / "controller.log", env, self._kept)
        wait_until(self._listening, PATIENCE, "ryu-manager to listen")
        self._point_at(through or self.listens)
        return self.wait_applied() - begin

    def stop(self) -> None:
        """Kill ryu-manager, and have the switch not look for it until it listens again.

        Open vSwitch waits from 1 to 8 s before it tries again, the longer the more often it was refused: that would be
        in the figures by chance. `kill` leaves it so.
        """
        self._point_at(self._nobody)
        self.kill()

    def kill(self) -> None:
        """Kill ryu-manager."""
        if self._controller:
            self._controller.stop(SIGKILL)
            self._controller = None

    def _listening(self) -> bool:
        self.controller.check()
        # Asked by connecting, it would take us for a switch.
        listening = rf" 0100007F:{self.listens:04X} \S+ 0A "
        return bool(re.search(listening, Path("/proc/net/tcp").read_text()))

    def _point_at(self, port: int) -> None:
        """Have the switch look for its controller at this port of loopback."""
        if port == self._pointed:
            return
        self._pointed = port
        target = f'target="{self._target(port)}"'
        uuids = self.ovs.vsctl("--bare", "--columns=_uuid", "find", "Controller").split()
        self.ovs.vsctl(*[word for uuid in uuids for word in ("--", "set", "Controller", uuid, target)][1:])

    def _target(self, port: int) -> str:
        return f"{'ssl' if self.database.tls else 'tcp'}:{LOOPBACK}:{port}"

    def settle(self) -> None:
        """Let the switch be done with what it still does afterwards, and its connections become old.

        After a connection that lived short it waits longer before the next.
        """
        time.sleep(_SETTLED_SECONDS)

    def change(self, operations: Sequence[Operation] = ()) -> None:
        """Do the operations as one change."""
        self.config_seq = self.client.change(operations)

    def wait_applied(self) -> float:
        """Wait until the controller says that the switch has the last change; return when it had the last flow."""

        def applied(within: float) -> bool:
            self.controller.check()
            return self._applied.reached(self.config_seq, within)

        try:
            return self.flow_count.until(applied, PATIENCE)[1]
        except TimeoutError as error:
            raise TimeoutError(f"{error}: {(self.folder / 'controller.log').read_text()[-1000:]}") from error

    def empty(self) -> None:
        """Delete every flow of the switch, behind the controller's back if it runs."""
        for bridge in BRIDGES:
            self.ovs.ofctl("del-flows", bridge)


class Changes:
    """Single changes of a site: what is asked for, and when both bridges have it."""

    def __init__(self, site: Site, stack: ExitStack, match: Sequence[str] = ()) -> None:
        self._site = site
        nic, guest = (Monitor(site.ovs.folder, bridge, match, stack) for bridge in BRIDGES)

        self.fields = {nic: "nw_dst", guest: "arp_tpa"}
        """The field that an address is matched in, in the flows that each bridge's monitor tells of."""

    def expected(self, ip: str) -> dict[Monitor, str]:
        """What each bridge's monitor tells when the bridge has the flows of an address."""
        return {monitor: f" {field}={ip} " for monitor, field in self.fields.items()}

    def give(self, mapping: str, ip: str) -> float:
        """Give a mapping this address; return the milliseconds from asking until both bridges have its flows.

        The database's transaction is in it: the switch often has the flow before the database's reply is read.
        """
        begin = time.monotonic()
        self._site.change([update("Mapping", mapping, ip=ip)])
        return (max(arrivals(self.expected(ip), 60).values()) - begin) * 1000


def free_port() -> int:
    """A TCP port of loopback that nobody uses now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])
