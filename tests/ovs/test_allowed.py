"""What a port may send from besides its own addresses, and addresses that move between ports.

web (10.0.0.11) is on host-a, db (10.0.0.12) on host-b, both in VPC blue; both are allowed 10.0.0.100 and fd00::100, and
web also 10.0.0.128/28. spy is on host-b, in VPC red, and allowed 10.0.0.100 too.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from typing import Any

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6NDOptSrcLLAddr, IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet

from flows.pipeline import Reason
from tests.build import BLUE, DB, HOST_A, HOST_B, MAPPINGS, RED, SPY, TWO_HOSTS, WEB, mapping, snapshot
from tests.ovs.conftest import World
from tests.ovs.test_forwarding import PROBE, Wires, outer

BOTH = (IPv4Network("10.0.0.100"), IPv6Network("fd00::100"))
WEB_TOO = replace(WEB, allowed=(BOTH[0], IPv4Network("10.0.0.128/28"), BOTH[1]))
DB_TOO = replace(DB, allowed=BOTH)
SPY_TOO = replace(SPY, allowed=BOTH[:1])
VIP = [mapping("10.0.0.100", WEB), mapping("fd00::100", WEB)]
EVERYONE = "ff:ff:ff:ff:ff:ff"
NOBODY = str(IPv4Address(0))


@pytest.fixture(scope="module")
def wires(world: World) -> Iterator[Wires]:
    world.write(snapshot(HOST_A, HOST_B, BLUE, RED, WEB_TOO, DB_TOO, SPY_TOO, MAPPINGS, VIP))
    world.assert_as_desired()
    yield Wires(world)
    world.write(TWO_HOSTS)
    world.assert_as_desired()


def udp(mac: str, src: str, dst: str) -> Packet:
    ip = IPv6(src=src, dst=dst) if ":" in src else IP(src=src, dst=dst)
    return Ether(src=mac, dst="0a:00:5e:00:00:01") / ip / UDP(sport=9, dport=9) / b"what is allowed"


def arp(mac: str, sender: str, target: str, op: int = 1) -> Packet:
    return Ether(src=mac, dst=EVERYONE) / ARP(op=op, hwsrc=mac, psrc=sender, pdst=target)


def dropped(wires: Wires, frame: Packet, into: str, reason: Reason) -> None:
    before = wires.world.drops()
    assert wires.after(frame, into) == {}
    counted = wires.world.drops() - before
    counted.pop(PROBE, None)
    assert dict(counted) == {reason.label: 1}


@pytest.mark.parametrize("src", ["10.0.0.11", "10.0.0.100", "10.0.0.128", "10.0.0.143", "fd00::11", "fd00::100"])
def test_a_guest_sends_from_what_it_is_allowed_to_another_host(wires: Wires, src: str) -> None:
    left = wires.after(udp(WEB.mac, src, "fd00::12" if ":" in src else "10.0.0.12"), "web")
    assert set(left) == {"uplink-a", "db"}


@pytest.mark.parametrize("src", ["10.0.0.99", "10.0.0.127", "10.0.0.144", "fd00::101"])
def test_and_from_nothing_else(wires: Wires, src: str) -> None:
    dst = "fd00::12" if ":" in src else "10.0.0.12"
    dropped(wires, udp(WEB.mac, src, dst), "web", Reason.SPOOFED_IP)
    dropped(wires, outer(udp(WEB.mac, src, dst)), "uplink-b", Reason.SOURCE_NOT_MAPPED)


def test_what_another_port_is_allowed_is_not_ours(wires: Wires) -> None:
    """Db is not allowed the network, and spy's own VPC is another one than that of the address."""
    dropped(wires, udp(DB.mac, "10.0.0.130", "10.0.0.11"), "db", Reason.SPOOFED_IP)
    dropped(wires, udp(SPY.mac, "10.0.0.100", "10.0.0.11"), "spy", Reason.NO_MAPPING)


def test_allowed_is_not_delivered(wires: Wires) -> None:
    dropped(wires, udp(DB.mac, "10.0.0.12", "10.0.0.130"), "db", Reason.NO_MAPPING)


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (arp(WEB.mac, "10.0.0.100", "10.0.0.100"), Reason.ARP_OWN_ADDRESS),
        (arp(DB.mac, "10.0.0.100", "10.0.0.100"), Reason.ARP_OWN_ADDRESS),
        (arp(DB.mac, NOBODY, "10.0.0.100"), Reason.ARP_OWN_ADDRESS),
        (arp(WEB.mac, NOBODY, "10.0.0.130"), Reason.ARP_OWN_ADDRESS),
        (arp(DB.mac, "10.0.0.100", "10.0.0.100", op=2), Reason.ARP_OWN_ADDRESS),
        (arp(WEB.mac, "10.0.0.130", "10.0.0.130"), Reason.ARP_UNMAPPED),
        (arp(WEB.mac, "10.0.0.99", "10.0.0.99"), Reason.SPOOFED_ARP),
        (
            Ether(src=DB.mac, dst="33:33:ff:00:01:00")
            / IPv6(src="::", dst="ff02::1:ff00:100")
            / ICMPv6ND_NS(tgt="fd00::100"),
            Reason.ND_OWN_ADDRESS,
        ),
        (
            Ether(src=DB.mac, dst="33:33:00:00:00:01")
            / IPv6(src="fd00::100", dst="ff02::1")
            / ICMPv6ND_NA(tgt="fd00::100"),
            Reason.ND_ADVERTISED,
        ),
    ],
)
def test_an_announcement_changes_nothing_and_nobody_is_told_of_a_double(
    wires: Wires, frame: Packet, reason: Reason
) -> None:
    dropped(wires, frame, "web" if frame.src == WEB.mac else "db", reason)


def test_who_may_take_an_address_over_still_learns_who_has_it(wires: Wires) -> None:
    (answer,) = wires.after(arp(DB.mac, "10.0.0.12", "10.0.0.100"), "db")["db"]
    assert (Ether(answer)[ARP].hwsrc, Ether(answer)[ARP].psrc) == (WEB.mac, "10.0.0.100")
    solicitation = ICMPv6ND_NS(tgt="fd00::100") / ICMPv6NDOptSrcLLAddr(lladdr=DB.mac)
    asks = Ether(src=DB.mac, dst="33:33:ff:00:01:00") / IPv6(src="fd00::12", dst="ff02::1:ff00:100") / solicitation
    (answer,) = wires.after(asks, "db")["db"]
    assert Ether(answer).src == WEB.mac


def test_an_address_moves_by_one_call(wires: Wires) -> None:
    from_db = udp(DB.mac, "10.0.0.12", "10.0.0.100")
    from_web = udp(WEB.mac, "10.0.0.11", "10.0.0.100")
    assert set(wires.after(from_db, "db")) == {"uplink-b", "web"}
    move(wires, "db")
    assert set(wires.after(from_web, "web")) == {"uplink-a", "db"}
    dropped(wires, from_db, "db", Reason.TO_ITSELF)
    # Who had it may send from it as before.
    assert set(wires.after(udp(WEB.mac, "10.0.0.100", "10.0.0.12"), "web")) == {"uplink-a", "db"}
    move(wires, "web")
    assert set(wires.after(from_db, "db")) == {"uplink-b", "web"}


def move(wires: Wires, port: str) -> None:
    argv = [sys.executable, "-m", "mapping.cli", "mapping", "move", "blue", "10.0.0.100", port]
    subprocess.run(argv, env=os.environ | {"LOCKGATE_DB": wires.world.database.remote}, check=True, capture_output=True)
    wires.world.database.config_seq += 1
    wires.world.wait_applied()
    wires.world.assert_as_desired()


def test_two_ports_of_a_host_may_be_allowed_the_same_and_lose_it_one_by_one(wires: Wires) -> None:
    also = replace(
        SPY, uuid="also", name="also", device="also", vpc=BLUE.uuid, allowed=WEB_TOO.allowed, host=HOST_A.uuid
    )
    rows: list[Any] = [HOST_A, HOST_B, BLUE, RED, DB_TOO, SPY_TOO, MAPPINGS, VIP]
    try:
        wires.world.write(snapshot(*rows, WEB_TOO, also))
        wires.world.assert_as_desired()
        wires.world.write(snapshot(*rows, WEB, also))
        wires.world.assert_as_desired()
        assert set(wires.after(outer(udp(WEB.mac, "10.0.0.130", "10.0.0.12")), "uplink-b")) == {"db"}
        wires.world.write(snapshot(*rows, WEB))
        wires.world.assert_as_desired()
        dropped(wires, outer(udp(WEB.mac, "10.0.0.130", "10.0.0.12")), "uplink-b", Reason.SOURCE_NOT_MAPPED)
    finally:
        wires.world.write(snapshot(*rows, WEB_TOO))
