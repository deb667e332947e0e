"""A bare-metal host of the lab: a network namespace with an Open vSwitch of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from ipaddress import ip_interface
from pathlib import Path
from typing import Final

from flows.pipeline import BR_CTL, BR_NIC
from topo import bridges, kernel_filter, netns, tracker
from topo.bridges import HostBridges
from topo.capture import Capture, Direction
from topo.ovs import OpenVSwitch
from topo.spec import CONTROL_IP, MGMT, UPLINK, HostSpec

OPENFLOW_PORT: Final = 6653
DATAPATH: Final = "LOCKGATE_DATAPATH"
"""The variable that says who forwards: "system" is the kernel, where it has Open vSwitch's module."""


class Host:
    """`ofctl`, `vsctl` and `appctl` talk to the host's own Open vSwitch.

    `controller` is its OpenFlow target, and `tls` makes the folder of its certificate, if the lab has any.
    """

    def __init__(
        self,
        spec: HostSpec,
        namespace: str,
        folder: Path,
        controller: str = f"tcp:{CONTROL_IP}:{OPENFLOW_PORT}",
        tls: Callable[[], Path | None] = lambda: None,
    ) -> None:
        self._controller = controller
        self._tls = tls
        self.spec = spec
        self.name = spec.name
        self.namespace = namespace
        self.ovs = OpenVSwitch(folder, namespace)
        self.vsctl = self.ovs.vsctl
        self.ofctl = self.ovs.ofctl
        self.appctl = self.ovs.appctl

    def create(self, substrate: str, control: str, mtu: int) -> None:
        """Make the host, its cables to br0 of the namespaces `substrate` and `control`, and its bridges."""
        netns.add(self.namespace)
        for cable, network, cable_mtu in ((UPLINK, substrate, mtu), (MGMT, control, 1500)):
            far = f"h{self.spec.number}"
            netns.ip(
                self.namespace,
                f"link add dev {cable} mtu {cable_mtu} type veth peer name {far} mtu {cable_mtu} netns {network}\n"
                f"link set dev {cable} up",
            )
            # Open vSwitch in userspace takes frames from a packet socket, where checksums that are left to the
            # hardware are still missing: whatever sends to it through a veth must finish them.
            netns.run(network, ["ethtool", "-K", far, "tx", "off"])
            netns.ip(network, f"link set dev {far} master br0 up")
        self.ovs.start()
        self.build_bridges()
        watch = [sys.executable, "-m", "topo.port_watch", str(self.ovs.folder)]
        netns.start(self.namespace, watch, self.ovs.folder / "port_watch.log", os.environ | {"PYTHONUNBUFFERED": "1"})

    def build_bridges(self) -> None:
        """Make the bridges what they should be: what is so already is left as it is."""
        spec = self.spec
        config = HostBridges(
            uplink=UPLINK,
            mgmt=MGMT,
            vtep_ip=ip_interface(spec.vtep).ip,
            guest_datapath=spec.guest_datapath,
            nic_datapath=spec.nic_datapath,
            controllers=[self._controller],
            tls=self._tls(),
            datapath_type=os.environ.get(DATAPATH, "netdev"),
        )
        kernel_filter.guard(config.datapath_type, self.namespace)
        bridges.build(self.vsctl, config)
        self._begin()

    def restart_vswitchd(self) -> None:
        """Stop ovs-vswitchd and start it again: its bridges come back without any flow."""
        self.ovs.stop_vswitchd()
        self.ovs.start_vswitchd()
        self._begin()

    def plug(self, device: str) -> None:
        """Put a guest's device on br-guest, and bound its connections."""
        bridges.plug(self.vsctl, device)
        self.limit_connections()

    def limit_connections(self, connections: int = tracker.CONNECTIONS) -> None:
        """Bound the connections of each guest."""
        tracker.limit(self.vsctl, self.appctl, connections)

    def run(self, argv: Sequence[str], seconds: float = 60) -> str:
        """Run a program in the host's namespace and return what it printed."""
        return netns.run(self.namespace, argv, seconds=seconds)

    def popen(self, argv: Sequence[str]) -> subprocess.Popen[str]:
        """Start a program in the host's namespace. The caller ends it."""
        return netns.popen(self.namespace, argv)

    def capture(self, interface: str = UPLINK, direction: Direction = "both") -> Capture:
        """See what passes an interface of the host, from now on."""
        return Capture(self.namespace, interface, direction)

    def _begin(self) -> None:
        """What ovs-vswitchd forgets when it ends is told it each time it starts: limits of the tracker, and addresses.

        The LOCAL ports are made by it, and go with it.
        """
        self.limit_connections()
        nodad = ""
        if ip_interface(self.spec.vtep).version == 6:
            netns.speak_ipv6(self.namespace, BR_NIC)
            # Nobody else has it, and until the kernel knew so it would answer nobody.
            nodad = " nodad"
        netns.ip(
            self.namespace,
            f"addr replace {self.spec.vtep} dev {BR_NIC}{nodad}\nlink set dev {BR_NIC} up\n"
            f"addr replace {self.spec.control} dev {BR_CTL}\nlink set dev {BR_CTL} up",
        )
