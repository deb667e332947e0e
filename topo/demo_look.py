"""What a demonstration reads off its lab: captures, counters, flows, and what the mapping says should be seen."""

from __future__ import annotations

import contextlib
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from flows.pipeline import BR_GUEST, BR_NIC, Reason, reasons
from mapping.model import Encap
from topo import netns
from topo.capture import Capture
from topo.demo_frames import Packet, Tunnelled
from topo.guest import Guest
from topo.host import Host
from topo.lab import Lab
from topo.spec import LabError
from topo.waiting import wait_until

BRIDGES: Final = (BR_GUEST, BR_NIC)
_BACKGROUND: Final = {Reason.NEIGHBOUR_PROBE, Reason.NOT_TUNNEL, Reason.ARP_OWN_ADDRESS}
"""Drops that go on without anyone's doing: hosts ask for each other, and a bridge floods what it has not learnt."""
_COUNTED_SECONDS: Final = 5
_DROP: Final = re.compile(r"n_packets=(\d+),.*\breg1=(0x\w+)")
_FLOW: Final = re.compile(r"cookie=0x(\w+), duration=([0-9.]+)s,.*?n_packets=(\d+)")

Drops = dict[str, int]


class Installed(NamedTuple):
    """A flow: between which moments it was installed, on the monotonic clock, and how many packets it has counted.

    Its age is told at some moment while the program runs that asks for it, which on a busy machine takes its time.
    """

    earliest: float
    latest: float
    packets: int


Flows = dict[tuple[str, str, int], Installed]
"""(Host, bridge, cookie) -> the flow."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the mapping says that an address of a VPC is."""

    vni: int
    mac: str
    host: str
    vtep: str
    encap: Encap


def place(lab: Lab, vpc: str, ip: str) -> Place:
    """What the mapping database says now."""
    snapshot = lab.control.snapshot()
    for mapping in snapshot.mappings.values():
        port = snapshot.ports[mapping.port]
        if snapshot.vpcs[mapping.vpc].name == vpc and mapping.ip == ip and port.host:
            host = snapshot.hosts[port.host]
            return Place(snapshot.vpcs[mapping.vpc].vni, port.mac, host.name, str(host.vtep_ip), host.encap)
    raise LabError(f"the mapping names no place for {ip} of {vpc}")


def wire(lab: Lab, host: Host) -> Capture:
    """See what a host puts on the substrate, where the substrate receives it."""
    return Capture(lab.substrate, f"h{host.spec.number}", "in")


def the_one(frames: Iterable[bytes], wanted: Callable[[bytes], bool], what: str) -> bytes:
    """The frame that is wanted, of which there has to be one.

    Raises:
        LabError: there is none, or another one.
    """
    found = [frame for frame in frames if wanted(frame)]
    if len(found) != 1:
        raise LabError(f"{what}: one frame expected, {len(found)} seen")
    return found[0]


def is_ping(frame: bytes) -> bool:
    """Whether a plain frame is an echo request."""
    packet = Packet.read(frame)
    return packet is not None and packet.is_echo_request


def carries_ping(frame: bytes) -> bool:
    """Whether a frame is a tunnel packet around an echo request."""
    tunnel = Tunnelled.read(frame)
    return tunnel is not None and is_ping(tunnel.inner)


def of_tenants(frames: Iterable[bytes]) -> list[Tunnelled]:
    """The tunnel packets of VPCs: hosts probe each other in none."""
    return [tunnel for frame in frames if (tunnel := Tunnelled.read(frame)) and tunnel.vni]


def from_address(frames: Iterable[bytes], guest: Guest) -> list[bytes]:
    """Frames that come from a guest's MAC or IPv4 address, on whatever network."""
    packets = ((frame, Packet.read(frame)) for frame in frames)
    mac = bytes.fromhex(guest.spec.mac.replace(":", ""))
    return [frame for frame, packet in packets if mac in frame[:12] or (packet and str(packet.src) == guest.ip)]


def mac_of(namespace: str, interface: str) -> str:
    """An interface's MAC."""
    return str(json.loads(netns.run(namespace, ["ip", "-j", "link", "show", "dev", interface]))[0]["address"])


def drops(host: Host) -> Drops:
    """What the host's switch has dropped until now, by reason.

    Raises:
        LabError: it does not count all that it should.
    """
    counted: Counter[str] = Counter()
    for bridge in BRIDGES:
        labels = {reason.number: reason.label for reason in reasons(bridge)}
        for packets, number in _DROP.findall(host.ofctl("dump-flows", bridge, "table=DROP")):
            counted[labels[int(number, 16)]] += int(packets)
        if missing := set(labels.values()) - set(counted):
            raise LabError(f"{host.name}: {bridge} has no flow that counts {', '.join(sorted(missing))}")
    return dict(counted)


def dropped_since(host: Host, before: Drops, wanted: Drops) -> Drops:
    """What has been dropped since, without what is dropped all the time; when it has come to what is wanted."""

    def growth() -> Drops:
        grown = {label: count - before.get(label, 0) for label, count in drops(host).items()}
        background = {reason.label for reason in _BACKGROUND}
        return {label: count for label, count in sorted(grown.items()) if count and label not in background}

    def complete() -> bool:
        grown = growth()
        return all(grown.get(label, 0) >= count for label, count in wanted.items())

    with contextlib.suppress(TimeoutError):  # what is there then is what was seen
        wait_until(complete, _COUNTED_SECONDS, "drops to be counted")
    return growth()


def in_words(counts: Drops) -> str:
    """Drops as text."""
    return ", ".join(f"{label} {count}" for label, count in sorted(counts.items())) or "nothing"


def lockgate(lab: Lab, *args: str) -> str:
    """Run the `lockgate` command on the lab's mapping database."""
    return netns.run(None, [sys.executable, "-m", "mapping.cli", "--db", lab.control.remote, *args])


def reported_drops(lab: Lab, host: Host) -> dict[str, int]:
    """Drops by reason as `lockgate status` has them from the database."""
    report: dict[str, Any] = json.loads(lockgate(lab, "--json", "status"))
    return next(row["drops"] for row in report["hosts"] if row["name"] == host.name)


def installed(lab: Lab, *hosts: Host) -> Flows:
    """The flows of both bridges of some hosts, or of all."""
    found: Flows = {}
    for host in hosts or lab.hosts.values():
        for bridge in BRIDGES:
            asked = time.monotonic()
            dump = host.ofctl("dump-flows", bridge)
            told = time.monotonic()
            for cookie, age, packets in _FLOW.findall(dump):
                between = (asked - float(age), told - float(age))
                found[host.name, bridge, int(cookie, 16)] = Installed(*between, int(packets))
    return found


def running(pids: Iterable[int]) -> list[int]:
    """Those of the processes that run still; not those that have ended and whose parent has not looked yet."""
    found = []
    for pid in pids:
        with contextlib.suppress(OSError):
            # proc(5), stat: "pid (name) state ...", and the name may hold anything.
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX":
                found.append(pid)
    return found


def since(started: float) -> float:
    """Seconds since then."""
    return round(time.monotonic() - started, 3)
