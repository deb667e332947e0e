"""An address that two guests share, in the manner of VRRP: a and c, on h1, are allowed it, and b, on h2, talks to it.

It is where the mapping says, whatever the guests announce, and moves by one call while traffic flows.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6NDOptDstLLAddr, IPv6
from scapy.layers.l2 import ARP, Ether

from tests.conftest import Figure
from topo.guest import Guest
from topo.lab import Lab
from topo.waiting import wait_until

VIP, VIP6 = "10.0.0.100", "fd00::100"
MAPPING = f"""\
vpcs:
  red: {{vni: 5001, subnets: [10.0.0.0/24, "fd00::/64"]}}
hosts:
  h1: {{vtep: 192.0.2.1}}
  h2: {{vtep: 192.0.2.2}}
ports:
  a: {{vpc: red, host: h1, mac: "02:00:00:00:00:0a", addresses: [10.0.0.10, "fd00::10", {VIP}, "{VIP6}"]}}
  b: {{vpc: red, host: h2, mac: "02:00:00:00:00:0b", addresses: [10.0.0.11, "fd00::11"]}}
  c: {{vpc: red, host: h1, mac: "02:00:00:00:00:0c", addresses: [10.0.0.12, "fd00::12"], allowed: [{VIP}, "{VIP6}"]}}
"""
PINGS = 300
EVERYBODY, ALL_NODES = "ff:ff:ff:ff:ff:ff", "ff02::1"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    file = tmp_path_factory.mktemp("mapping") / "shared.yaml"
    file.write_text(MAPPING)
    with Lab(f"vip{os.getpid()}") as lab:
        lab.up(file)
        for vip, bits in ((VIP, 32), (VIP6, 128)):
            lab.guest("c").run(
                ["ip", "addr", "add", f"{vip}/{bits}", "dev", "eth0", *(["nodad"] if bits == 128 else [])]
            )
        wait_until(lambda: lab.guest("b").ping(VIP) and lab.guest("b").ping(VIP6), 20, "the shared address")
        yield lab


def move(lab: Lab, vip: str, port: str) -> None:
    argv = [sys.executable, "-m", "mapping.cli", "mapping", "move", "red", vip, port]
    env = os.environ | {"LOCKGATE_DB": lab.control.remote}
    subprocess.run(argv, env=env, check=True, capture_output=True)


def has_it(lab: Lab, vip: str) -> set[str]:
    """Which of the guests get what b sends to the address."""
    guests = {name: lab.guest(name) for name in ("a", "c")}
    with guests["a"].capture("in") as at_a, guests["c"].capture("in") as at_c:
        assert lab.guest("b").ping(vip, count=3)
        wait_until(lambda: any(map(_is_ping, [*at_a.frames, *at_c.frames])), 10, "the pings to be seen")
    return {name for name, seen in (("a", at_a), ("c", at_c)) if any(map(_is_ping, seen.frames))}


def _is_ping(frame: bytes) -> bool:
    v4 = frame[12:14] == b"\x08\x00" and frame[23] == 1 and frame[34] == 8
    return v4 or (frame[12:14] == b"\x86\xdd" and frame[20] == 58 and frame[54] == 128)


def announce(guest: Guest) -> None:
    """Say to all that the shared address is here: as ARP request and reply, and as unsolicited advertisement."""
    mac = guest.spec.mac
    for operation in (1, 2):
        arp = ARP(op=operation, hwsrc=mac, psrc=VIP, pdst=VIP, hwdst=EVERYBODY)
        guest.send(bytes(Ether(src=mac, dst=EVERYBODY) / arp))
    head = Ether(src=mac, dst="33:33:00:00:00:01") / IPv6(src=VIP6, dst=ALL_NODES, hlim=255)
    guest.send(bytes(head / ICMPv6ND_NA(tgt=VIP6, R=0, S=0, O=1) / ICMPv6NDOptDstLLAddr(lladdr=mac)))


@pytest.mark.parametrize("vip", [VIP, VIP6])
def test_an_announcement_takes_no_address_over(lab: Lab, vip: str) -> None:
    announce(lab.guest("c"))
    assert has_it(lab, vip) == {"a"}


@pytest.mark.parametrize("vip", [VIP, VIP6])
def test_a_shared_address_moves_by_one_call_while_traffic_flows(lab: Lab, figure: Figure, vip: str) -> None:
    pinging = lab.guest("b").popen(["ping", "-n", "-c", str(PINGS), "-i", "0.01", "-W", "2", vip])
    try:
        with pinging, lab.guest("a").capture("in") as at_a, lab.guest("c").capture("in") as at_c:
            wait_until(lambda: sum(map(_is_ping, at_a.frames)) > PINGS // 10, 20, "pings to arrive at a")
            move(lab, vip, "c")
            wait_until(lambda: sum(map(_is_ping, at_c.frames)) > PINGS // 10, 20, "pings to arrive at c")
            said = pinging.communicate(timeout=60)[0]
        (received,) = re.findall(r"(\d+) received", said)
        figure("lost by the move", PINGS - int(received), f"of {PINGS} pings")
        assert int(received) > PINGS * 0.9
        assert has_it(lab, vip) == {"c"}
    finally:
        pinging.kill()
        move(lab, vip, "a")
    wait_until(lambda: has_it(lab, vip) == {"a"}, 20, "it to be back")
