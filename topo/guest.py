"""A guest of the lab: a network namespace that sees one ordinary Ethernet port, eth0."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from ipaddress import ip_interface

from topo import bridges, netns, port_filter
from topo.capture import Capture, Direction, send
from topo.host import Host
from topo.spec import GuestSpec

PORT = "eth0"


class Guest:
    """`host` is where it is plugged now."""

    def __init__(self, spec: GuestSpec, namespace: str, host: Host) -> None:
        self.spec = spec
        self.name = spec.name
        self.namespace = namespace
        self.host = host

    @property
    def ip(self) -> str:
        """Its first address, without the prefix."""
        return str(ip_interface(self.spec.addresses[0]).ip)

    @property
    def ipv6(self) -> str:
        """Its first IPv6 address, without the prefix."""
        return next(str(ip.ip) for ip in map(ip_interface, self.spec.addresses) if ip.version == 6)

    def create(self) -> None:
        """Make the guest, and plug its device on its host's br-guest."""
        spec = self.spec
        netns.add(self.namespace)
        netns.ip(
            self.namespace,
            f"link add dev {PORT} address {spec.mac} mtu {spec.mtu} type veth"
            f" peer name {spec.device} mtu {spec.mtu} netns {self.host.namespace}",
        )
        self.connect()

    def connect(self) -> None:
        """Give the guest's port its addresses, and plug its device, which is there, on its host's br-guest."""
        spec = self.spec
        if any(ip_interface(address).version == 6 for address in spec.addresses):
            netns.speak_ipv6(self.namespace, PORT)
        lines = [f"addr replace {address} dev {PORT}" for address in spec.addresses]
        lines.append(f"link set dev {PORT} up")
        lines += [f"route add default via {gateway}" for gateway in (spec.gateway, spec.gateway_ipv6) if gateway]
        netns.ip(self.namespace, "\n".join(lines))
        # The userspace datapath reads frames as they are: checksums that are left to the hardware would be missing.
        netns.run(self.namespace, ["ethtool", "-K", PORT, "tx", "off"])
        self._plug()

    def move(self, host: Host) -> None:
        """Take its device to another host. What the mapping says of it is the caller's to change."""
        bridges.unplug(self.host.vsctl, self.spec.device)
        netns.ip(self.host.namespace, f"link set dev {self.spec.device} netns {host.namespace}")
        self.host = host
        self._plug()

    def run(self, argv: Sequence[str], seconds: float = 60) -> str:
        """Run a program in the guest and return what it printed."""
        return netns.run(self.namespace, argv, seconds=seconds)

    def popen(self, argv: Sequence[str]) -> subprocess.Popen[str]:
        """Start a program in the guest. The caller ends it."""
        return netns.popen(self.namespace, argv)

    def ping(self, address: str, count: int = 1, seconds: float = 3, options: Sequence[str] = ()) -> bool:
        """Whether every one of `count` pings to an address is answered, each within `seconds`."""
        return len(self.round_trips(address, count, seconds, options)) == count

    def round_trips(self, address: str, count: int = 1, seconds: float = 3, options: Sequence[str] = ()) -> list[float]:
        """How many milliseconds each of `count` pings took, up to the first that is not answered within `seconds`.

        Each is a program of its own: one that sends several waits for the last only twice as long as for the slowest
        before (iputils), and calls lost what comes later.
        """
        found: list[float] = []
        while len(found) < count:
            try:
                said = self.run(["ping", "-n", "-c", "1", "-W", str(seconds), *options, address])
            except netns.CommandError:
                break
            found += map(float, re.findall(r" time=([0-9.]+) ms", said))
        return found

    def filtered(self) -> dict[str, int]:
        """Its frames that the filter ahead of its port has refused, by why, as `port_filter.refused` says it."""
        try:
            return port_filter.refused(self.host.namespace, self.spec.device)
        except (netns.CommandError, OSError):  # the port is not there
            return {}

    def capture(self, direction: Direction = "both") -> Capture:
        """See what passes the guest's port, from now on."""
        return Capture(self.namespace, PORT, direction)

    def send(self, *frames: bytes) -> None:
        """Send frames out of the guest's port, as they are."""
        send(self.namespace, PORT, *frames)

    def _plug(self) -> None:
        netns.ip(self.host.namespace, f"link set dev {self.spec.device} up")
        # First: no frame gets past unseen, and a port that takes no filter is not plugged.
        port_filter.attach(self.host.namespace, self.spec.device)
        self.host.plug(self.spec.device)
