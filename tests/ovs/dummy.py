"""Two hosts without root: a private Open vSwitch each, with dummy interfaces, their uplinks joined by a unix socket.

    web - br-guest = br-nic - uplink ~~~ wire.sock ~~~ uplink - br-nic = br-guest - db, spy

Frames are put in with `netdev-dummy/receive`; what leaves an interface is in a pcap of its own.
"""

from __future__ import annotations

import os
import re
import signal
import struct
import subprocess
import sys
from collections import Counter
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from typing import Literal, cast

from flows import nic_substrate
from flows.meter import Meter, Meters
from flows.pipeline import BR_GUEST, BR_NIC, Reason
from mapping.model import ROUTER_MAC, Host
from topo import bridges
from topo.ovs import OpenVSwitch
from topo.waiting import wait_until

LOOPBACK = str(IPv4Address(0x7F << 24 | os.getpid()))
"""An address of loopback for each run of the tests. Ryu lets several processes listen at one port of one address, and
the switches of one run would then go to the controller of another."""


_ROUTER_TO_ALL = ip_address("fe80::1").packed + ip_address("ff02::1").packed


class DummyHost:
    """One host, and what its interfaces sent."""

    def __init__(
        self, folder: Path, host: Host, controller: str, uplink_option: str, peer: Host, *, tls: Path | None = None
    ) -> None:
        self._tls = tls
        self.host = host
        self.folder = folder
        options = ["--enable-dummy=system", "--disable-system", "--disable-system-route"]
        self.ovs = OpenVSwitch(folder, vswitchd_options=options)
        self._uplink_option = uplink_option
        self._controller = controller
        self._peer = peer

    def start(self) -> None:
        self.ovs.start()
        made = bridges.HostBridges(
            uplink="uplink",
            mgmt="mgmt",
            vtep_ip=self.host.vtep_ip,
            guest_datapath=self.host.guest_datapath,
            nic_datapath=self.host.nic_datapath,
            controllers=[self._controller],
            datapath_type="dummy",
            tls=self._tls,
        )
        bridges.build(self.ovs.vsctl, made)
        self.ovs.vsctl("set", "Interface", "uplink", self._uplink_option, f"options:tx_pcap={self.folder}/uplink.pcap")
        for tunnel in ("t-vxlan", "t-geneve", "t-gre"):
            # A tunnel with an address of its own needs a local route to it, which cannot be told by hand.
            self.ovs.vsctl("remove", "Interface", tunnel, "options", "local_ip")
        self.address()

    def address(self) -> None:
        """What a real host's kernel knows, told by hand: own address, route, neighbour."""
        address, prefix, net = "ip4addr", 24, "192.0.2.0/24"
        if self.host.vtep_ip.version == 6:
            address, prefix, net = "ip6addr", 64, "2001:db8::/64"
        self.ovs.appctl(f"netdev-dummy/{address}", "br-nic", f"{self.host.vtep_ip}/{prefix}")
        self.ovs.appctl("ovs/route/add", net, "br-nic")
        self.ovs.appctl("tnl/neigh/set", "br-nic", str(self._peer.vtep_ip), vtep_mac(self._peer))

    def plug(self, device: str) -> None:
        bridges.plug(self.ovs.vsctl, device)
        self.ovs.vsctl("set", "Interface", device, f"options:tx_pcap={self.folder}/{device}.pcap")

    def receive(self, interface: str, *frames: bytes) -> None:
        self.ovs.appctl("netdev-dummy/receive", interface, *(frame.hex() for frame in frames))

    def sent(self, interface: str) -> list[bytes]:
        """Frames that the interface has sent since it was made, but for what its router says unasked, now and then."""
        return [frame for frame in self.all_sent(interface) if not _is_advertisement(frame)]

    def all_sent(self, interface: str) -> list[bytes]:
        """Frames that the interface has sent since it was made."""
        return pcap_frames((self.folder / f"{interface}.pcap").read_bytes())

    def drops(self) -> Counter[str]:
        """Packets that both bridges have counted in their DROP tables, by reason."""
        labels = {reason.number: reason.label for reason in Reason}
        counted: Counter[str] = Counter()
        # A packet that the datapath knows what to do with is counted when that is next looked at, or forgotten.
        self.ovs.appctl("revalidator/purge")
        for bridge in (BR_GUEST, BR_NIC):
            for line in self.ovs.ofctl("dump-flows", bridge, "table=DROP").splitlines():
                if found := re.search(r"n_packets=(\d+),.*reg1=(0x[0-9a-f]+)", line):
                    counted[labels[int(found[2], 16)]] += int(found[1])
        return counted

    def ofport(self, interface: str) -> int:
        return int(self.ovs.vsctl("get", "Interface", interface, "ofport"))

    def connected(self, bridge: str) -> bool:
        """Whether the bridge is connected to its controller."""
        return self.ovs.vsctl("get", "Controller", bridge, "is_connected").strip() == "true"

    def cookies(self, bridge: str) -> set[int]:
        """Cookies of every flow in the bridge."""
        dump = self.ovs.ofctl("dump-flows", bridge, "--no-stats")
        return {int(line.split("cookie=")[1].split(",")[0], 16) for line in dump.splitlines() if "cookie=" in line}

    def meters(self, bridge: str) -> Meters:
        """The meters of the bridge."""
        dump = self.ovs.ofctl("dump-meters", bridge, "-O", "OpenFlow15")
        found = re.findall(r"meter=(\d+) (kbps|pktps) .*\s*type=drop rate=(\d+) burst_size=(\d+)", dump)
        return {
            int(number): Meter(cast("Literal['kbps', 'pktps']", unit), int(rate), int(burst))
            for number, unit, rate, burst in found
        }


def _is_advertisement(frame: bytes) -> bool:
    return frame[6:12] == bytes.fromhex(ROUTER_MAC.replace(":", "")) and _ROUTER_TO_ALL in frame


def vtep_mac(host: Host) -> str:
    return nic_substrate.vtep_mac(host.vtep_ip)


def pcap_frames(data: bytes) -> list[bytes]:
    """Whole frames of a pcap file (little endian), as far as it has been written."""
    frames, offset = [], 24
    while offset + 16 <= len(data):
        (length,) = struct.unpack_from("<I", data, offset + 8)
        if offset + 16 + length > len(data):
            break
        frames.append(data[offset + 16 : offset + 16 + length])
        offset += 16 + length
    return frames


class Controller:
    """ryu-manager, as a user starts it."""

    def __init__(self, folder: Path, database: str, port: int, metrics_port: int, tls: Path | None = None) -> None:
        self._tls = tls
        self.log = folder / "controller.log"
        self.metrics = f"{LOOPBACK}:{metrics_port}"
        self.env: dict[str, str] = {}
        """More for its environment."""
        self.app = "controller.app"
        self._database = database
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        argv = [str(Path(sys.executable).with_name("ryu-manager")), self.app]
        argv += ["--ofp-listen-host", LOOPBACK, "--ofp-tcp-listen-port", str(self._port)]
        env = os.environ | {"LOCKGATE_DB": self._database, "LOCKGATE_METRICS": self.metrics} | self.env
        if self._tls:
            env["LOCKGATE_TLS"] = str(self._tls)
            argv += ["--ofp-ssl-listen-port", str(self._port), "--ctl-privkey", f"{self._tls}/key.pem"]
            argv += ["--ctl-cert", f"{self._tls}/cert.pem", "--ca-certs", f"{self._tls}/host.pem"]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(argv, stdout=log, stderr=log, env=env)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self._process:
            self.signal(how)
            self._process.wait(10)

    def ended(self) -> int | None:
        """With what it has ended by itself; None if it has not."""
        return self._process.poll() if self._process else None

    def signal(self, what: signal.Signals) -> None:
        assert self._process
        self._process.send_signal(what)

    def says(self, text: str, seconds: float = 15) -> None:
        wait_until(lambda: text in self.log.read_text(), seconds, f"{text!r} in the controller's log")
