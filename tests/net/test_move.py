"""A live move loses no packet: guest a moves from h1 to h3 while it and b, on h2, send each other 1,000 packets/s.

Guest a has a second interface, eth1, that is plugged on h3 from the beginning, as `lockgate port move --live` wants it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from tests.conftest import Figure
from tests.net.conftest import TWO_HOSTS, MakeLab
from topo import bridges, netns
from topo.guest import Guest
from topo.lab import Lab
from topo.waiting import wait_until

pytestmark = pytest.mark.alone

H3 = "  h3: {{vtep: 192.0.2.3, encap: {}}}\n"
C = '  c: {vpc: red, host: h1, mac: "02:00:00:00:00:0c", addresses: [10.0.0.12]}\n'
PORT = 7777
RATE, PAUSE = 950, 0.1
"""Packets a second that must have been sent, and the longest pause in seconds: else short losses would be missed."""

SENDER = """
import signal, socket, struct, sys, time
going = True
def end(*_):
    global going
    going = False
signal.signal(signal.SIGTERM, end)
frame, devices = bytes.fromhex(sys.argv[1]), sys.argv[2:]
outs = []
for device in devices:
    out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    out.bind((device, 0))
    outs.append(out)
sent, longest, begun = 0, 0.0, time.monotonic()
next_at = last = begun
while going:
    for out in outs:
        out.send(frame + struct.pack("!I", sent) + bytes(18))
    sent += 1
    now = time.monotonic()
    longest, last = max(longest, now - last), now
    next_at += 0.001
    time.sleep(max(0, next_at - time.monotonic()))
print(sent, sent / (last - begun), longest)
"""
"""Sends a UDP packet with a number, a thousand times a second, out of each of these devices, until it is ended.

Prints how many, how many a second, and the longest pause between two, in seconds."""

RECEIVER = f"""
import json, select, signal, socket, struct, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
ins = []
for device in sys.argv[1:]:
    into = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
    into.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    into.bind((device, 0))
    ins.append(into)
print("ready", flush=True)
seen, idle = {{}}, 30
while ready := select.select(ins, [], [], idle)[0]:
    for into in ready:
        frame, place = into.recvfrom(2048)
        if place[2] != socket.PACKET_OUTGOING and frame[23] == 17 and frame[36:38] == struct.pack("!H", {PORT}):
            seen.setdefault(place[0], set()).add(struct.unpack("!I", frame[42:46])[0])
            idle = 3
print(json.dumps({{device: sorted(numbers) for device, numbers in seen.items()}}))
"""
"""Prints, by device, the numbers that came in, when none has come for 3 s."""


@pytest.fixture(params=["vxlan", "geneve", "gre"])
def lab(request: pytest.FixtureRequest, make_lab: MakeLab, tmp_path: Path) -> Lab:
    """h1 sends on by the tunnel that packets came by, if h3 wants the same encapsulation; else by another."""
    file = tmp_path / "three.yaml"
    file.write_text(TWO_HOSTS.replace("ports:\n", H3.format(request.param) + "ports:\n") + C)
    lab = make_lab(file)
    guest, there = lab.guest("a"), lab.host("h3")
    spec = guest.spec
    netns.ip(
        guest.namespace,
        f"link add dev eth1 address {spec.mac} mtu {spec.mtu} type veth"
        f" peer name {spec.device} mtu {spec.mtu} netns {there.namespace}\n"
        "link set dev eth1 up",
    )
    netns.run(guest.namespace, ["ethtool", "-K", "eth1", "tx", "off"])
    netns.ip(there.namespace, f"link set dev {spec.device} up")
    bridges.plug(there.vsctl, spec.device)
    return lab


def frame(source: Guest, target: Guest) -> str:
    packet = Ether(src=source.spec.mac, dst="0a:00:5e:00:00:01") / IP(src=source.ip, dst=target.ip)
    # The sender adds what follows: 22 bytes.
    return (bytes(packet / UDP(sport=PORT, dport=PORT, chksum=0) / bytes(22))[:-22]).hex()


def start(guest: Guest, program: str, *words: str) -> subprocess.Popen[str]:
    return guest.popen([sys.executable, "-c", program, *words])


def lockgate(lab: Lab, *words: str) -> str:
    argv = [sys.executable, "-m", "mapping.cli", *words]
    env = os.environ | {"LOCKGATE_DB": lab.control.remote}
    return subprocess.run(argv, env=env, check=True, capture_output=True, text=True).stdout


Rates = dict[str, tuple[float, float]]
"""Whom they were sent to -> packets a second, and the longest pause between two, in seconds."""


def lost(lab: Lab, *words: str, at: str, to: str) -> tuple[dict[str, int], dict[str, set[str]], Rates]:
    """Run a command that moves a while packets flow both ways; how many were lost, and which devices they came by."""
    a, b = lab.guest("a"), lab.guest("b")
    receivers = {"a": start(a, RECEIVER, "eth0", "eth1"), "b": start(b, RECEIVER, "eth0")}
    for receiver in receivers.values():
        assert receiver.stdout
        assert receiver.stdout.readline() == "ready\n"
    before = counted(lab, at)
    senders = {"b": start(a, SENDER, frame(a, b), "eth0", "eth1"), "a": start(b, SENDER, frame(b, a), "eth0")}
    try:
        wait_until(lambda: counted(lab, at) > before + 200, 20, "packets to flow")
        lockgate(lab, *words)
        wait_until(lambda: counted(lab, to) > 200, 20, "packets to flow there")
    finally:
        for sender in senders.values():
            sender.send_signal(signal.SIGTERM)
    found: dict[str, int] = {}
    by: dict[str, set[str]] = {}
    rates: Rates = {}
    for name, receiver in receivers.items():
        count, rate, pause = senders[name].communicate(timeout=20)[0].split()
        sent, rates[name] = int(count), (float(rate), float(pause))
        seen: dict[str, list[int]] = json.loads(receiver.communicate(timeout=60)[0])
        found[name] = sent - len(set().union(*seen.values()))
        by[name] = set(seen)
    return found, by, rates


def counted(lab: Lab, host: str) -> int:
    """Packets from b to a that br-nic of a host has delivered."""
    dump = lab.host(host).ovs.ofctl("dump-flows", "br-nic", "table=DELIVER")
    return sum(int(line.split("n_packets=")[1].split(",")[0]) for line in dump.splitlines() if "10.0.0.10" in line)


def test_a_live_move_loses_no_packet(lab: Lab, figure: Figure) -> None:
    """Nor does a host that is drained, with two ports."""
    there = ("port", "move", "a", "--host", "h3", "--live")
    lockgate(lab, "port", "move", "c", "--host", "h3")
    back = ("host", "drain", "h3", "--to", "h1", "--live")
    for words, at, to in ((there, "h1", "h3"), (back, "h3", "h1")):
        found, by, rates = lost(lab, *words, at=at, to=to)
        figure(f"{words[1]}: lost by the guest that moves", found["a"], "packets")
        figure(f"{words[1]}: lost by its peer", found["b"], "packets")
        assert found == {"a": 0, "b": 0}
        assert by["a"] == {"eth0", "eth1"}, "some came here, and some there"
        slowest, pause = min(rate for rate, _ in rates.values()), max(pause for _, pause in rates.values())
        figure(
            f"{words[1]}: sent each way, at least", round(slowest), f"packets/s, paused {pause * 1000:.0f} ms at most"
        )
        if slowest < RATE or pause > PAUSE:
            pytest.fail(
                f"the measurement failed, not the move, which lost nothing: {slowest:.0f} packets/s with a pause of "
                f"{pause * 1000:.0f} ms would miss short losses: run it on a machine with nothing else to do"
            )
