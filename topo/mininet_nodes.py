"""What a Mininet lab is made of: bare-metal hosts, guests, the switches of the substrate, and the control network.

Mininet's nodes are shells in namespaces without a name. Each of these gets the name that a lab gives it, so that all
of `topo` works on it as on any lab's: `ip netns exec lg-mn1234-h-host1 ovs-vsctl show` does, too.

None of them touches the machine's own Open vSwitch, or puts an interface into the machine's own namespace.
"""

from __future__ import annotations

import json
from typing import Any, Final

from mininet.node import Host as MininetHost
from mininet.node import Node, Switch

from flows.pipeline import BR_GUEST, BR_NIC
from topo import netns
from topo.guest import PORT, Guest
from topo.host import Host
from topo.mininet_control import ControlProcess
from topo.removal import FOLDER, prefix
from topo.spec import CONTROL_IP, CONTROL_NETWORK, GuestSpec, HostSpec
from topo.waiting import wait_until

BRIDGE: Final = "br0"
_CONVERGED_SECONDS: Final = 20
_PARTS: Final = 100_000
"""Loss is done by random numbers below this."""
# In centiseconds: the least that the kernel takes, so that a spanning tree stands after about four seconds. When it
# changes, the kernel forgets where addresses were by their age alone, so that is short, too.
_QUICK: Final = "stp_state 1 forward_delay 200 hello_time 100 max_age 600 ageing_time 500"


class Named(Node):
    """A node whose namespace has a name from the moment that there is one."""

    controlIntf = None  # Mininet asks a switch for it, and sets it only outside of a namespace

    def __init__(self, name: str, namespace: str, **params: Any) -> None:
        self.namespace = namespace
        super().__init__(name, **params | {"inNamespace": True})

    def startShell(self, mnopts: str | None = None) -> None:
        """Start the shell, which makes the namespace."""
        super().startShell(mnopts)
        netns.attach(self.namespace, self.pid)


class BareMetalHost(Named, Switch):
    """A bare-metal host: its own Open vSwitch with br-guest, br-nic and br-ctl, between `uplink` and `mgmt`."""

    def __init__(self, name: str, lab: str, spec: HostSpec, **params: Any) -> None:
        namespace = f"{prefix(lab)}h-{name}"
        self.host = Host(spec, namespace, FOLDER / lab / "hosts" / name)
        super().__init__(name, namespace=namespace, dpid=f"{spec.nic_datapath:x}", **params)
        # So that ovs-vsctl, ovs-ofctl and ovs-appctl, typed at the node, talk to this host's.
        self.cmd("export " + " ".join(f"{name}={value}" for name, value in self.host.ovs.env.items()))

    def start(self, _controllers: object) -> None:
        """Start Open vSwitch and build the bridges. The controllers are Lockgate's own."""
        self.host.ovs.start()
        self.host.build_bridges()

    def stop(self, deleteIntfs: bool = True) -> None:
        """Stop Open vSwitch."""
        self.host.ovs.stop()
        super().stop(deleteIntfs)

    def dpctl(self, *args: str) -> str:
        """ovs-ofctl on both bridges that have flows: `dpctl dump-flows`."""
        return "".join(f"{bridge}\n{self.host.ofctl(args[0], bridge, *args[1:])}" for bridge in (BR_GUEST, BR_NIC))


class GuestNode(Named, MininetHost):
    """A guest: one port, eth0. These, and no other nodes, are what Mininet calls hosts, and pings."""

    def __init__(self, name: str, lab: str, spec: GuestSpec, **params: Any) -> None:
        self.spec = spec
        self.guest: Guest
        super().__init__(name, **params | {"namespace": f"{prefix(lab)}g-{name}", "ip": spec.addresses[0]})

    def plug(self, host: BareMetalHost) -> None:
        """Give the port what the mapping says, and put its device on the host's br-guest."""
        self.guest = Guest(self.spec, self.namespace, host.host)
        for namespace, device in ((self.namespace, PORT), (host.namespace, self.spec.device)):
            netns.ip(namespace, f"link set dev {device} mtu {self.spec.mtu}")
        self.guest.connect()

    def address(self, number: int) -> str:
        """One of its addresses. Of several VPCs, guests share the first, and no other VPC has the last."""
        return self.spec.addresses[number].split("/")[0]

    def echoes(self) -> int:
        """How many pings by others the guest has received since it is there."""
        rows = [line.split() for line in self._read("/proc/net/snmp").splitlines() if line.startswith("Icmp:")]
        return int(dict(zip(*rows, strict=True))["InEchos"])

    def frames(self) -> int:
        """How many frames the guest's port has received since it is there."""
        rows = dict(line.split(":") for line in self._read("/proc/net/dev").splitlines()[2:])
        return int({name.strip(): values for name, values in rows.items()}[PORT].split()[1])

    def _read(self, file: str) -> str:
        return netns.run(self.namespace, ["cat", file])


class Bridge(Named, Switch):
    """A switch that is a Linux bridge, of all interfaces that its node has when it is started."""

    options = ""

    def start(self, _controllers: object) -> None:
        """Make the bridge."""
        interfaces = "".join(f"link set dev {name} master {BRIDGE} up\n" for name in self.intfNames())
        options = f"type bridge {self.options}"
        netns.ip(self.namespace, f"link add dev {BRIDGE} {options}\n{interfaces}link set dev {BRIDGE} up")

    def dpctl(self, *_args: str) -> str:
        """It has no flows."""
        return "a Linux bridge\n"


class SubstrateSwitch(Bridge):
    """A switch of the substrate. With `loops` it speaks the spanning tree protocol; that of number 0 is the root."""

    def __init__(self, name: str, lab: str, number: int, *, loops: bool = False, **params: Any) -> None:
        self._loops = loops
        self._losing: list[str] = []
        if loops:
            self.options = f"{_QUICK} priority {number}"
        super().__init__(name, namespace=f"{prefix(lab)}s-{name}", dpid=f"{number + 1:x}", **params)

    def lose(self, interface: str, loss: float, *, both_ways: bool) -> None:
        """Lose percent of the frames that are forwarded to an interface, or also of those that come from it."""
        directions = ("oifname", "iifname") if both_ways else ("oifname",)
        less = f"numgen random mod {_PARTS} < {round(loss / 100 * _PARTS)}"
        self._losing += [f'{direction} "{interface}" {less} counter drop' for direction in directions]

    def start(self, controllers: object) -> None:
        """Make the bridge, and lose what is to be lost there."""
        super().start(controllers)
        if self._losing:
            # Only now: rules that are there before the namespace's first bridge see no packet (Linux 6.18).
            chain = "\n".join(["type filter hook forward priority 0", *self._losing])
            rules = f"table bridge loss {{\nchain forward {{\n{chain}\n}}\n}}\n"
            netns.run(self.namespace, ["nft", "-f", "-"], stdin=rules)

    def converge(self) -> None:
        """Wait until the spanning tree, if there is one, has decided what each port does."""
        if self._loops:
            what = f"the spanning tree of {self}"
            wait_until(lambda: self._states() <= {"forwarding", "blocking"}, _CONVERGED_SECONDS, what)

    def _states(self) -> set[str]:
        return {port["state"] for port in json.loads(netns.run(self.namespace, ["bridge", "-j", "link"]))}


class ControlNetwork(Bridge):
    """The control network: only hosts are on it, and at its address the mapping database and ryu-manager."""

    def __init__(self, name: str, lab: str, mapping: str, **params: Any) -> None:
        self.services = ControlProcess(lab)
        self._mapping = mapping
        super().__init__(name, namespace=f"{prefix(lab)}control", dpid="ffff", **params)
        # So that `lockgate`, typed at the node, talks to this database.
        self.cmd(f"export LOCKGATE_DB={self.services.remote} PATH=$PATH:{self.services.commands}")

    def start(self, controllers: object) -> None:
        """Make the network, and start the mapping database with the lab's mapping."""
        super().start(controllers)
        netns.ip(self.namespace, f"addr add {CONTROL_IP}/{CONTROL_NETWORK.prefixlen} dev {BRIDGE}")
        self.services.start_database(self._mapping)
