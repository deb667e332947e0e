"""Three hosts' real switches, that say by ofproto/trace what becomes of a frame: over both hosts that it passes.

No controller and no database: flows are those of the pure function, put in place at once. What a first switch wraps is
given to the second as it left the first; what is in it then comes from the second's tunnel port.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Final, Self

from explain.site import as_ofctl
from flows import nic_substrate
from flows.desired import desired
from flows.meter import MeterKind, meter_id
from flows.pipeline import BR_GUEST, BR_NIC, Reason
from flows.view import view
from mapping.model import Snapshot
from tests.ovs.oracle import Verdict
from tests.ovs.oracle_frames import Frame, Outer, frame_bytes, outer_bytes
from topo import bridges
from topo.ovs import OpenVSwitch, pid_of

LABELS: Final = {reason.number: reason.label for reason in Reason}
HOSTS: Final = ("h1", "h2", "h3")
DEVICES: Final = ("d1", "d2", "d3", "d4")
"""The last is of no port."""
VTEPS: Final = {host: (f"192.0.2.{n}", f"2001:db8::{n}") for n, host in enumerate(HOSTS, 1)}
"""Of each host, what its VTEP may be."""

_REASON: Final = re.compile(r"(?:load|set_field):(0x[0-9a-f]+)->(?:NXM_NX_REG1\[\]|reg1)")
_SECTIONS: Final = re.compile(r"^recirc\((\w+)\) - resume|^Datapath actions: (.*)$", re.MULTILINE)
_ITEM: Final = re.compile(r"(\w[\w.-]*)(?:\((.*)\))?")


def vtep_mac(vtep: str) -> str:
    return nic_substrate.vtep_mac(ip_address(vtep))


class Unixctl:
    """A connection to ovs-vswitchd that stays open: what ovs-appctl does, without a process for each question."""

    def __init__(self, ovs: OpenVSwitch) -> None:
        path = f"{ovs.folder}/ovs-vswitchd.{pid_of(ovs.folder / 'ovs-vswitchd.pid')}.ctl"
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(20)
        self._socket.connect(path)

    def ask(self, command: str, *args: str) -> str:
        self._socket.sendall(json.dumps({"id": 0, "method": command, "params": args}).encode())
        said = b""
        while True:
            said += self._socket.recv(1 << 20)
            with contextlib.suppress(ValueError):
                reply = json.loads(said)
                break
        assert reply["error"] is None, (command, args, reply["error"])
        return str(reply["result"])

    def close(self) -> None:
        self._socket.close()


@dataclass
class Packet:
    """A frame on its way through a switch: its bytes, and what has been written since."""

    data: bytes
    sets: dict[str, dict[str, str]]

    def written(self, layer: str, name: str, default: int) -> int:
        """A field, of which the datapath may have written some bits only."""
        text = self.sets.get(layer, {}).get(name)
        if text is None:
            return default
        value, _, mask = text.partition("/")
        number, bits = _number(value), _number(mask) if mask else -1
        return number & bits | default & ~bits

    def bytes(self) -> bytes:
        data = bytearray(self.data)
        for at, name in ((0, "dst"), (6, "src")):
            data[at : at + 6] = self.written("eth", name, int.from_bytes(data[at : at + 6])).to_bytes(6)
        is_ipv4 = data[12:14] == b"\x08\x00"
        at, layer, name = (22, "ipv4", "ttl") if is_ipv4 else (21, "ipv6", "hlimit")
        if bytes(data[12:14]) in (b"\x08\x00", b"\x86\xdd"):
            data[at] = self.written(layer, name, data[at])
        return bytes(data)


def _number(text: str) -> int:
    return int(text.replace(":", ""), 16) if ":" in text else int(text, 0)


@dataclass(frozen=True)
class Left:
    """A frame that leaves by a port, and the outer header that it has got, if any."""

    port: str
    packet: Packet
    header: str = ""


class Switch:
    """One host's."""

    def __init__(self, folder: Path, host: str) -> None:
        self.host = host
        self.ovs = OpenVSwitch(folder, vswitchd_options=["--enable-dummy=system", "--disable-system-route"])
        self.ovs.start()
        number = HOSTS.index(host) + 1
        made = bridges.HostBridges(
            uplink="uplink",
            mgmt="mgmt",
            vtep_ip=ip_address(VTEPS[host][0]),
            guest_datapath=number,
            nic_datapath=16 + number,
            controllers=[],
            datapath_type="dummy",
        )
        bridges.build(self.ovs.vsctl, made)
        for tunnel in ("t-vxlan", "t-geneve", "t-gre"):
            self.ovs.vsctl("remove", "Interface", tunnel, "options", "local_ip")
        # In another order on each, so that a device has not the same number, and so the same zone, everywhere.
        for at in range(len(DEVICES)):
            bridges.plug(self.ovs.vsctl, DEVICES[(at + number) % len(DEVICES)])
        self.mac = vtep_mac(VTEPS[host][0])
        self.unixctl = Unixctl(self.ovs)
        for version, net, size in ((4, "192.0.2.0/24", 24), (6, "2001:db8::/64", 64)):
            own = VTEPS[host][version == 6]
            self.unixctl.ask(f"netdev-dummy/ip{version}addr", "br-nic", f"{own}/{size}")
            self.unixctl.ask("ovs/route/add", net, "br-nic")
        for other in HOSTS:
            for vtep in VTEPS[other]:
                self.unixctl.ask("tnl/neigh/set", "br-nic", vtep, vtep_mac(vtep))
        names = {bridge: self.ovs.ofctl("show", bridge) for bridge in (BR_GUEST, BR_NIC)}
        self.ofports = {
            bridge: {name: int(self.ovs.vsctl("get", "Interface", name, "ofport")) for name in _ports(said)}
            for bridge, said in names.items()
        }
        for device in DEVICES:
            number = meter_id(self.ofports[BR_GUEST][device], MeterKind.PUNT)
            self.ovs.ofctl("add-meter", BR_GUEST, f"meter={number},pktps,burst,band=type=drop,rate=20,burst_size=20")

    def stop(self) -> None:
        self.unixctl.close()
        self.ovs.stop()

    def program(self, rows: Snapshot) -> None:
        """Put the flows in place that the mapping asks for, and no others."""
        host = next(each for each in rows.hosts.values() if each.name == self.host)
        known = view(rows, host)
        mac = nic_substrate.vtep_mac(host.vtep_ip)
        if mac != self.mac:
            # As `lockgate bridges build` does when the host gets another VTEP.
            self.ovs.vsctl("set", "Bridge", BR_NIC, f'other-config:hwaddr="{mac}"')
            self.mac = mac
        for bridge, ofports in self.ofports.items():
            flows = "\n".join(["delete", *map(as_ofctl, desired(bridge, known, ofports).values())])
            self.ovs.ofctl("add-flows", bridge, "--bundle", "-", stdin=flows)

    def trace(self, bridge: str, came: str, data: bytes, states: tuple[str, ...]) -> str:
        nexts = [word for state in states for word in ("--ct-next", f"trk,{state}")]
        return self.unixctl.ask("ofproto/trace", "--names", *nexts, bridge, came, data.hex())


def _ports(said: str) -> list[str]:
    return re.findall(r"^ \w+\((\S+)\): addr:", said, re.MULTILINE)


class Switches:
    """All three, programmed with one mapping at a time."""

    def __init__(self, folder: Path) -> None:
        self.hosts = {host: Switch(folder / host, host) for host in HOSTS}
        self.traces: list[str] = []
        """What the switches said of the last frame."""
        self.tracked: list[tuple[str, str]] = []
        """Of it: the ports, by host and device, whose zones the tracker was asked about, or told to keep it in."""
        self.asked = 0
        self._rows = Snapshot()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for switch in self.hosts.values():
            switch.stop()

    def program(self, rows: Snapshot) -> None:
        self._rows = rows
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda switch: switch.program(rows), self.hosts.values()))

    def _begin(self) -> None:
        self.traces.clear()
        self.tracked.clear()

    def from_guest(self, host: str, device: str, frame: Frame, states: tuple[str, str]) -> Verdict:
        self._begin()
        return self._follow(host, BR_GUEST, f"in_port={device}", frame_bytes(frame), states)

    def from_wire(self, host: str, outer: Outer, state: str) -> Verdict:
        self._begin()
        # Open vSwitch believes a tunnel packet's source MAC (docs/security.md), and would then send there.
        known = any(outer.src in vteps for vteps in VTEPS.values())
        src = vtep_mac(outer.src) if known else "0a:00:00:00:00:99"
        return self._from_wire(host, outer, outer_bytes(outer, src, self.hosts[host].mac), state)

    def from_kernel(self, host: str, outer: Outer) -> Verdict:
        self._begin()
        data = outer_bytes(outer, self.hosts[host].mac, "0a:00:00:00:00:99")
        return self._follow(host, BR_NIC, "in_port=LOCAL", data, ())

    def _from_wire(self, host: str, outer: Outer, data: bytes, state: str) -> Verdict:
        verdict = self._follow(host, BR_NIC, "in_port=uplink", data, ())
        if verdict.what != "popped":
            return verdict
        assert outer.inner
        return self._popped(host, outer, frame_bytes(outer.inner), state)

    def _popped(self, host: str, outer: Outer, inner: bytes, state: str) -> Verdict:
        ends = "tun_ipv6_src={},tun_ipv6_dst={}" if ":" in outer.src else "tun_src={},tun_dst={}"
        came = f"in_port=t-{outer.kind},tun_id={outer.vni},{ends.format(outer.src, outer.dst)}"
        if outer.oam and outer.kind == "geneve":
            came += ",tun_flags=oam"
        return self._follow(host, BR_NIC, came, inner, (state,))

    def _follow(self, host: str, bridge: str, came: str, data: bytes, states: tuple[str, ...]) -> Verdict:
        switch = self.hosts[host]
        said = self._trace(switch, bridge, came, data, states)
        zones = re.findall(r"Datapath actions: ct\(zone=(\d+)|[(,]ct\(zone=(\d+)", said)
        device = came.removeprefix("in_port=")
        own_zone = str(switch.ofports[BR_GUEST].get(device))
        if len(states) > 1 and zones and own_zone not in zones[0]:
            # The sender's port tracks nothing: the first tracker that is asked is the receiver's.
            said = self._trace(switch, bridge, came, data, states[1:])
        self._note_zones(switch, said, len(data))
        larger = _larger(said, len(data))
        reasons = [] if larger else _REASON.findall(said)
        left, punted = _carried_out(said, data)
        if reasons:
            assert not left, said
            return Verdict("dropped", host, reason=LABELS[int(reasons[-1], 16)], told=punted)
        if not left:
            return Verdict(("too big" if larger else "asked") if punted else "nothing", host, device)
        (one,) = left
        return self._arrived(host, bridge, device, one, states[-1] if states else "new")

    def _note_zones(self, switch: Switch, said: str, size: int) -> None:
        devices = {str(switch.ofports[BR_GUEST][device]): device for device in DEVICES}
        for name, inside in _in_order(said, size):
            if name == "ct":
                found = re.search(r"zone=(\d+)", inside)
                port = switch.host, devices.get(found[1], found[1]) if found else "zone 0"
                if port not in self.tracked:
                    self.tracked.append(port)

    def _trace(self, switch: Switch, bridge: str, came: str, data: bytes, states: tuple[str, ...]) -> str:
        self.asked += 1
        said = switch.trace(bridge, came, data, states)
        self.traces.append(f"{switch.host}: {bridge} {came} {states} {data.hex()}\n{said}")
        return said

    def _arrived(self, host: str, bridge: str, device: str, left: Left, state: str) -> Verdict:
        if left.port.startswith("popped"):
            return Verdict("popped", host)
        data = left.packet.bytes()
        macs = data[6:12].hex(":"), data[:6].hex(":")
        ttl = data[22] if data[12:14] == b"\x08\x00" else data[21] if data[12:14] == b"\x86\xdd" else 0
        if left.header:
            return self._over(host, left, state)
        if bridge == BR_NIC and left.port in ("br-nic", "LOCAL"):
            return Verdict("to the kernel", host)
        if left.port == "uplink":
            return Verdict("out", host)
        if bridge == BR_GUEST and left.port == device:
            return Verdict("answered", host, device, *macs, ttl, answer=_answer(left.packet))
        return Verdict("delivered", host, left.port, *macs, ttl)

    def _over(self, host: str, left: Left, state: str) -> Verdict:
        """What the first host has wrapped, at the second one."""
        found = re.search(r"src=([^,()]+),dst=([^,()]+),(?:proto|label)", left.header)
        macs = re.search(r"eth\(dst=([0-9a-f:]+),src=([0-9a-f:]+)", left.header)
        kind = next(word for word in ("geneve", "vxlan", "gre") if f"{word}(" in left.header)
        vni = re.search(r"vni=(0x[0-9a-f]+)|key=(0x[0-9a-f]+)", left.header)
        assert found, left.header
        assert macs, left.header
        assert vni, left.header
        outer = Outer(kind, found[1], found[2], None, int(vni[1] or vni[2], 16))
        there = next(name for name, vteps in VTEPS.items() if outer.dst in vteps)
        assert left.port == "uplink", left
        assert (macs[1], macs[2]) == (vtep_mac(outer.dst), self.hosts[host].mac), (left.header, there, host)
        inner = left.packet.bytes()
        verdict = self._follow(there, BR_NIC, "in_port=uplink", outer_bytes(outer, macs[2], macs[1], inner), ())
        return self._popped(there, outer, inner, state) if verdict.what == "popped" else verdict


def _larger(said: str, size: int) -> bool:
    """Whether a frame is more than the datapath is told to compare it with."""
    found = re.search(r"check_pkt_len\(size=(\d+)", said)
    return found is not None and size > int(found[1])


def _answer(packet: Packet) -> tuple[str, ...]:
    """Whom an answer is from and for, as its own fields say."""
    arp = packet.sets.get("arp")
    if arp:
        assert packet.data[12:14] == b"\x08\x06"
        assert arp.get("op", "2") == "2", arp
        here = packet.data
        own, asked = str(ip_address(here[28:32])), str(ip_address(here[38:42]))
        return arp.get("sip", own), arp.get("tip", asked), arp.get("sha", here[22:28].hex(":"))
    ends = packet.sets.get("ipv4") or packet.sets.get("ipv6") or {}
    at, size = (26, 4) if packet.data[12:14] == b"\x08\x00" else (22, 16)
    ends_now = [str(ip_address(packet.data[at + n * size : at + (n + 1) * size])) for n in range(2)]
    return ends.get("src", ends_now[0]), ends.get("dst", ends_now[1])


def _carried_out(said: str, data: bytes) -> tuple[list[Left], bool]:
    """What the datapath does with a frame: where it leaves, and whether the controller gets it."""
    left: list[Left] = []
    punted = False
    packet, header = Packet(data, {}), ""
    for name, inside in _in_order(said, len(data)):
        if name == "userspace" and "controller" in inside:
            punted = True
        elif name == "set":
            layer, fields = _split(inside)[0]
            now = dict(pair.split("=", 1) for pair in fields.split(",") if "=" in pair)
            packet = replace(packet, sets={**packet.sets, layer: {**packet.sets.get(layer, {}), **now}})
        elif name == "tnl_push":
            header = inside
        elif name == "tnl_pop":
            left.append(Left("popped", packet))
        elif name not in ("drop", "meter", "ct", "ct_clear", "userspace"):
            left.append(Left(name, packet, header))
            header = ""
    return left, punted


def _in_order(said: str, size: int) -> Iterator[tuple[str, str]]:
    """The actions that a frame of this size meets; a tracker it comes back from, to other actions."""
    sections, at = dict[str, str](), ""
    for resumed, actions in _SECTIONS.findall(said):
        at = resumed or at
        if not resumed:
            sections[at] = actions
    following = [""]
    while following:
        for name, inside in _actions(sections[following.pop()], size):
            if name == "recirc":
                following.append(inside)
            else:
                yield name, inside


def _actions(text: str, size: int) -> Iterator[tuple[str, str]]:
    for name, inside in _split(text):
        if name == "check_pkt_len":
            parts = _split(inside.partition(",")[2])
            taken = dict(parts)["gt" if size > int(inside.partition(",")[0].removeprefix("size=")) else "le"]
            yield from _actions(taken, size)
        elif name == "clone":
            yield from _actions(inside, size)
        else:
            yield name, inside


def _split(text: str) -> list[tuple[str, str]]:
    """`a,b(c,d(e)),f` -> a, b with c,d(e), f."""
    parts, depth, start = [], 0, 0
    for at, sign in enumerate(text + ","):
        depth += (sign == "(") - (sign == ")")
        if sign == "," and not depth:
            parts.append(text[start:at])
            start = at + 1
    found: list[tuple[str, str]] = []
    for part in parts:
        match = _ITEM.fullmatch(part.strip())
        assert match, (part, text)
        found.append((match[1], match[2] or ""))
    return found
