"""IPv6 with stock kernels: between guests, in each encapsulation, over an IPv4 and over an IPv6 substrate.

Three hosts, and a guest on each, named after the encapsulation that its host wants; all in one VPC, with addresses of
both families. A fourth guest, alone, shares a host with vxlan and its address with gre, in another VPC.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from ipaddress import ip_address, ip_interface
from itertools import permutations

import pytest
from scapy.contrib.geneve import GENEVE, GeneveOptions
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import (
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
)
from scapy.layers.l2 import GRE, Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet

from flows.nic_substrate import vtep_mac
from flows.pipeline import Reason
from topo import bpf, uplink_filter
from topo.capture import Capture, send
from topo.guest import Guest
from topo.lab import Lab
from topo.spec import UPLINK
from topo.waiting import wait_until

MAPPING = """\
vpcs:
  blue: {{vni: 5001, subnets: [10.0.0.0/24, "fd00::/64"]}}
  red: {{vni: 5002, subnets: ["fd00::/64"]}}
hosts:
  v: {{vtep: "{}", encap: vxlan}}
  g: {{vtep: "{}", encap: geneve}}
  r: {{vtep: "{}", encap: gre}}
ports:
  vxlan: {{vpc: blue, host: v, mac: "02:00:00:00:00:01", addresses: [10.0.0.11, "fd00::11"]}}
  geneve: {{vpc: blue, host: g, mac: "02:00:00:00:00:02", addresses: [10.0.0.12, "fd00::12"]}}
  gre: {{vpc: blue, host: r, mac: "02:00:00:00:00:03", addresses: [10.0.0.13, "fd00::13"]}}
  alone: {{vpc: red, host: v, mac: "02:00:00:00:00:04", addresses: ["fd00::13"]}}
"""
GUESTS = ("vxlan", "geneve", "gre")
SUBSTRATES = {"IPv4": ("192.0.2.1", "192.0.2.2", "192.0.2.3"), "IPv6": ("2001:db8::1", "2001:db8::2", "2001:db8::3")}
MARK = b"what comes by the substrate"
ENCAPS = {"vxlan": VXLAN, "geneve": GENEVE, "gre": GRE}


@pytest.fixture(scope="module", params=SUBSTRATES)
def three(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    file = tmp_path_factory.mktemp("mapping") / "three.yaml"
    file.write_text(MAPPING.format(*SUBSTRATES[request.param]))
    with Lab(f"six{request.param[-1]}n{os.getpid()}") as lab:
        lab.up(file)
        for guest in lab.guests.values():
            wait_until(partial(has_all, guest), 10, f"{guest.name} to have looked for doubles")
        yield lab


def has_all(guest: Guest) -> bool:
    """Whether the kernel takes the guest's IPv6 addresses for its own: none is tentative any more."""
    shown = guest.run(["ip", "-6", "addr", "show", "dev", "eth0"])
    assert "dadfailed" not in shown
    return f"inet6 {guest.ipv6}/64" in shown and "tentative" not in shown


def neighbours(guest: Guest) -> dict[str, dict[str, object]]:
    return {each["dst"]: each for each in json.loads(guest.run(["ip", "-6", "-j", "neigh", "show", "dev", "eth0"]))}


@pytest.mark.parametrize(("source", "target"), list(permutations(GUESTS, 2)))
def test_every_pair_talks_in_both_families_in_the_encapsulation_of_the_receiver(
    three: Lab, source: str, target: str
) -> None:
    guest, other = three.guest(source), three.guest(target)
    outer = IPv6 if ":" in guest.host.spec.vtep else IP
    with Capture(guest.host.namespace, UPLINK, "out") as uplink:
        assert guest.ping(other.ipv6, count=5)
        assert guest.ping(other.ip, count=5)
    wrapped = [packet for packet in map(Ether, uplink.frames) if ENCAPS[target] in packet]
    pings = [packet for packet in wrapped if b"lockgate neighbour probe" not in bytes(packet)]
    assert len(pings) == 10
    for packet in pings:
        assert packet[outer].src == guest.host.spec.vtep.split("/")[0]
        assert packet[outer].dst == other.host.spec.vtep.split("/")[0]


@pytest.mark.parametrize(("source", "target"), list(permutations(GUESTS, 2)))
def test_tcp_passes_whole(three: Lab, source: str, target: str) -> None:
    guest, other = three.guest(source), three.guest(target)
    with other.popen([sys.executable, "-c", SERVER]) as server:
        try:
            wait_until(lambda: ":7" in other.run(["ss", "-ltnH"]), 10, "the server")
            sent = guest.run([sys.executable, "-c", CLIENT, other.ipv6])
            assert server.communicate(timeout=30)[0] == sent
        finally:
            server.kill()


SERVER = """
import hashlib, socket
with socket.create_server(("::", 7), family=socket.AF_INET6) as listening, listening.accept()[0] as there:
    print(hashlib.file_digest(there.makefile("rb"), "sha256").hexdigest())
"""
CLIENT = """
import hashlib, random, socket, sys
data = random.Random(1).randbytes(4 << 20)
with socket.create_connection((sys.argv[1], 7), 20) as there:
    there.sendall(data)
print(hashlib.sha256(data).hexdigest())
"""


def test_packets_as_large_as_the_mtu_pass_whole(three: Lab) -> None:
    assert three.guest("vxlan").ping("fd00::12", count=3, options=["-M", "do", "-s", "1352"])


def test_fragments_pass(three: Lab) -> None:
    assert three.guest("vxlan").ping("fd00::12", count=3, options=["-s", "4000"])


def test_kernels_find_neighbours_and_that_they_are_still_there(three: Lab) -> None:
    guest = three.guest("vxlan")
    assert guest.ping("fd00::12")
    assert neighbours(guest)["fd00::12"]["lladdr"] == "02:00:00:00:00:02"

    # A neighbour that is stale is asked, alone, whether it is still there: from a link-local address.
    guest.run(["ip", "neigh", "change", "fd00::12", "dev", "eth0", "nud", "probe"])
    wait_until(lambda: neighbours(guest)["fd00::12"]["state"] == ["REACHABLE"], 10, "REACHABLE")


def test_the_router_is_a_neighbour_and_says_that_it_is_one(three: Lab) -> None:
    guest = three.guest("vxlan")
    assert not guest.ping("2001:db8:ffff::1", seconds=0.2)
    router = neighbours(guest)["fd00::1"]
    assert (router["lladdr"], "router" in router) == ("0a:00:5e:00:00:01", True)


def test_the_router_answers_on_the_link_and_a_neighbour_does_not(three: Lab) -> None:
    guest, other = three.guest("vxlan"), three.guest("geneve")
    assert guest.ping("fe80::1%eth0", count=3)
    (address,) = re.findall(r"inet6 (fe80::\S+)/64", other.run(["ip", "-6", "addr", "show", "dev", "eth0"]))
    assert not guest.ping(f"{address}%eth0", seconds=0.2)


def test_who_takes_anothers_address_is_told_and_does_not_get_it(three: Lab) -> None:
    guest = three.guest("vxlan")
    guest.run(["ip", "addr", "add", "fd00::12/64", "dev", "eth0"])
    try:
        wait_until(lambda: "dadfailed" in guest.run(["ip", "-6", "addr", "show", "dev", "eth0"]), 10, "dadfailed")
    finally:
        guest.run(["ip", "addr", "del", "fd00::12/64", "dev", "eth0"])
    assert guest.ping("fd00::12")


def test_another_vpc_reaches_none_of_them(three: Lab) -> None:
    with three.guest("geneve").capture("in") as seen:
        assert not three.guest("alone").ping("fd00::12", seconds=0.5)
    assert not [frame for frame in seen.frames if b"\x02\x00\x00\x00\x00\x04" in frame]


def test_nothing_of_a_guests_own_neighbour_discovery_reaches_the_substrate(three: Lab) -> None:
    guest = three.guest("vxlan")
    with guest.host.capture() as wire:
        guest.run(["ip", "link", "set", "dev", "eth0", "down"])
        guest.run(["ip", "link", "set", "dev", "eth0", "up"])
        guest.run(["ip", "addr", "replace", f"{guest.ipv6}/64", "dev", "eth0"])
        guest.run(["ip", "route", "replace", "default", "via", "10.0.0.1"])
        guest.run(["ip", "route", "replace", "default", "via", "fd00::1"])
        wait_until(lambda: has_all(guest), 10, "the address")
        assert guest.ping("fd00::12")
    packets = [Ether(frame) for frame in wire.frames if bytes.fromhex("020000000001") in frame]
    inner = [next(packet[encap].payload for encap in ENCAPS.values() if encap in packet) for packet in packets]
    assert inner
    for packet in inner:
        assert packet.haslayer(ICMPv6EchoRequest) or packet.haslayer(ICMPv6EchoReply)
        assert {packet[IPv6].src, packet[IPv6].dst} == {"fd00::11", "fd00::12"}


def udp(port: int) -> Packet:
    return UDP(sport=50000, dport=port, chksum=0)


OF_HOSTS: dict[str, Packet] = {
    "vxlan": udp(4789) / VXLAN(flags=8, vni=5001),
    "geneve": udp(6081) / GENEVE(vni=5001, proto=0x6558),
    "gre": GRE(key_present=1, key=5001, proto=0x6558),
}
OF_NOBODY: dict[str, Packet] = {
    "vxlan": udp(4789) / VXLAN(flags=0x0C, vni=5001),
    "geneve": udp(6081) / GENEVE(vni=5001, proto=0x6558, options=GeneveOptions(classid=0x0102, type=0x80)),
    "gre": GRE(key_present=1, seqnum_present=1, key=5001, proto=0x6558),
}
"""Tunnel headers that hosts write, and such as none does."""
EXTENSIONS: list[Packet] = [IPv6ExtHdrDestOpt(), IPv6ExtHdrHopByHop(), IPv6ExtHdrFragment()]


def tunnelled(header: Packet, source: Guest, target: Guest) -> bytes:
    """A packet from one guest to another, behind this header, from host to host."""
    here, there = (str(ip_interface(guest.host.spec.vtep).ip) for guest in (source, target))
    outer = Ether(src=vtep_mac(ip_address(here)), dst=vtep_mac(ip_address(there)))
    outer /= IPv6(src=here, dst=there) if ":" in here else IP(src=here, dst=there)
    inner = Ether(src=source.spec.mac, dst=target.spec.mac) / IPv6(src=source.ipv6, dst=target.ipv6, nh=59) / MARK
    return bytes(outer / header / inner)


@pytest.mark.parametrize("target", GUESTS)
def test_the_filter_ahead_of_the_uplink_lets_in_what_hosts_write_and_nothing_else(three: Lab, target: str) -> None:
    guest, others = three.guest(target), [three.guest(name) for name in GUESTS if name != target]
    host, six = guest.host, ":" in guest.host.spec.vtep
    right = OF_HOSTS[target]
    wrong = [OF_NOBODY[target], *(extension / right for extension in EXTENSIONS if six)]
    uplink_filter.attach(host.namespace, UPLINK)
    try:
        with guest.capture("in") as seen:
            frames = [tunnelled(header, others[0], guest) for header in (*wrong, right)]
            send(three.substrate, f"h{host.spec.number}", *frames)
            seen.wait_for(lambda frame: MARK in frame)
            for other in others:
                assert other.ping(guest.ipv6)
                assert other.ping(guest.ip)
        assert sum(MARK in frame for frame in seen.frames) == 1
        counted = uplink_filter.counted(bpf.attached(host.namespace)[UPLINK])
        found = {reason: each.packets for reason, each in counted.items() if each.packets}
        assert found == {Reason.FILTER_TUNNELS: len(wrong)}
    finally:
        host.run(["ip", "link", "set", "dev", UPLINK, "xdp", "off"])


def test_a_switch_that_restarts_is_found_again(three: Lab) -> None:
    three.guest("vxlan").host.restart_vswitchd()
    three.control.wait_applied()
    wait_until(lambda: three.guest("vxlan").ping("fd00::12"), 10, "the way to be known")
    assert three.guest("geneve").ping("fd00::11", count=5)


MIXED = MAPPING.format("192.0.2.1", "2001:db8::2", "2001:db8::3")


def test_hosts_of_different_versions_do_not_reach_each_other_and_it_is_said(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    file = tmp_path_factory.mktemp("mapping") / "mixed.yaml"
    file.write_text(MIXED)
    with Lab(f"sixmix{os.getpid()}") as lab:
        lab.up(file)
        for guest in lab.guests.values():
            wait_until(partial(has_all, guest), 10, f"{guest.name} to have looked for doubles")
        assert lab.guest("geneve").ping("fd00::13")
        assert not lab.guest("vxlan").ping("fd00::12", seconds=0.2)
        assert not lab.guest("geneve").ping("10.0.0.11", seconds=0.2)
        dumped = lab.host("v").ofctl("dump-flows", "br-nic", "table=DROP")
        counted = [line for line in dumped.splitlines() if "reg1=0x1a" in line and "n_packets=0," not in line]
        assert ["n_packets=1," in line for line in counted] == [True]
        argv, env = lab.command("control", [sys.executable, "-m", "mapping.cli", "status"])
        shown = subprocess.run(argv, env=os.environ | env, capture_output=True, text=True, check=True).stdout
        assert "VPC blue: v (IPv4) and g, r (IPv6) cannot reach each other" in shown
