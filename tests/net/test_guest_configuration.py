"""Guests configure themselves by stock programs: dhclient, dhclient -6, systemd-networkd, and the kernel.

Two hosts, guests a and c on one and b on the other, in one VPC with addresses of both families; b and c keep those that
the lab gave them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.dhcp6 import DUID_LL, DHCP6_Solicit, DHCP6OptClientId, DHCP6OptIA_NA
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import ICMPv6ND_RA, ICMPv6ND_RS, IPv6
from scapy.layers.l2 import Ether

from tests.net import stock_client
from tests.net.stock_client import Client, addresses, mtu, routes
from topo import netns
from topo.guest import Guest
from topo.lab import Lab
from topo.waiting import wait_until

MAPPING = """\
vpcs:
  blue:
    vni: 5001
    subnets: [10.0.0.0/24, "fd00::/64"]
    dns: [10.0.0.53, "fd00::53"]
    routes: {10.9.0.0/16: 10.0.0.254}
hosts:
  h1: {vtep: 192.0.2.1}
  h2: {vtep: 192.0.2.2}
ports:
  a: {vpc: blue, host: h1, mac: "02:00:00:00:00:0a", addresses: [10.0.0.10, "fd00::10"]}
  b: {vpc: blue, host: h2, mac: "02:00:00:00:00:0b", addresses: [10.0.0.11, "fd00::11"]}
  c: {vpc: blue, host: h1, mac: "02:00:00:00:00:0c", addresses: [10.0.0.12, "fd00::12"]}
"""
MTU = 1450
"""What VXLAN over IPv4 leaves of 1500 bytes."""
DAY = 86400
SHORT_LEASE = "echo 'send dhcp-lease-time 10;' >> /etc/dhcp/dhclient.conf"
EARLY = "echo 'supersede dhcp-renewal-time 3; supersede dhcp-rebinding-time 6;' >> /etc/dhcp/dhclient.conf"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    file = tmp_path_factory.mktemp("mapping") / "two.yaml"
    file.write_text(MAPPING)
    with Lab(f"conf{os.getpid()}") as lab:
        lab.up(file)
        yield lab


@pytest.fixture
def guest(lab: Lab) -> Guest:
    return lab.guest("a")


def dhclient(*options: str) -> str:
    """As Debian's ifupdown runs it, but in the foreground."""
    return f"dhclient -d -lf /run/leases -pf /run/pid {' '.join(options)} eth0"


def name_servers(client: Client) -> list[str]:
    return [line.split()[1] for line in client.read("/etc/resolv.conf").splitlines() if line.startswith("nameserver")]


def test_dhclient_has_the_guest_configured(guest: Guest) -> None:
    with stock_client.run(guest, "", dhclient("-4")) as client:
        wait_until(lambda: "default" in routes(guest), 20, "a way out")
        assert 0 < addresses(guest)["10.0.0.10/24"] <= DAY
        assert routes(guest) == {"default": "10.0.0.1", "10.0.0.0/24": "", "10.9.0.0/16": "10.0.0.254"}
        assert mtu(guest) == MTU
        assert name_servers(client) == ["10.0.0.53"]
        assert guest.ping("10.0.0.11", count=3)


def test_dhclient_renews_with_the_server_and_else_with_any(guest: Guest) -> None:
    """It is set to renew after 3 s and, when nobody answers that, to ask everybody after 6."""
    with stock_client.run(guest, EARLY, dhclient("-4")), guest.capture("out") as sent:

        def asked(dst: str) -> bool:
            packets = [Ether(frame) for frame in sent.frames if frame[23:24] == b"\x11"]
            renewals = [packet for packet in packets if BOOTP in packet and packet[BOOTP].ciaddr == "10.0.0.10"]
            return any(packet[IP].dst == dst for packet in renewals)

        def extended() -> bool:
            return addresses(guest).get("10.0.0.10/24", 0) >= DAY - 1

        wait_until(extended, 20, "an address")
        wait_until(lambda: asked("10.0.0.1") and extended(), 20, "the lease to be renewed")
        assert not asked("255.255.255.255")

        guest.run(["nft", "add table ip t; add chain ip t c { type filter hook output priority 0; }"])
        guest.run(["nft", "add rule ip t c udp dport 67 drop"])
        try:
            wait_until(lambda: asked("255.255.255.255") and extended(), 30, "the lease to be rebound")
        finally:
            guest.run(["nft", "delete table ip t"])


def apply(lab: Lab, mapping: str) -> None:
    argv = [sys.executable, "-m", "mapping.cli", "--db", lab.control.remote, "apply", "--prune", "-f", "-"]
    subprocess.run(argv, input=mapping, text=True, capture_output=True, check=True)


def test_dhclient_begins_again_when_its_address_is_no_longer_mapped(guest: Guest, lab: Lab) -> None:
    with stock_client.run(guest, SHORT_LEASE, dhclient("-4")):
        wait_until(lambda: "10.0.0.10/24" in addresses(guest), 20, "an address")
        apply(lab, MAPPING.replace("10.0.0.10", "10.0.0.20"))
        try:
            wait_until(lambda: list(addresses(guest)) == ["10.0.0.20/24"], 30, "the other address")
            assert guest.ping("10.0.0.11", count=3)
        finally:
            apply(lab, MAPPING)


def test_a_kernel_and_dhclient_have_ipv6_by_default(guest: Guest) -> None:
    with stock_client.run(guest, "", dhclient("-6")) as client:
        wait_until(lambda: addresses(guest, 6), 20, "an address")
        assert 0 < addresses(guest, 6)["fd00::10/128"] <= DAY
        assert (routes(guest, 6)["default"], routes(guest, 6)["fd00::/64"]) == ("fe80::1", "")
        assert ipv6_mtu(guest) == MTU
        wait_until(lambda: name_servers(client) == ["fd00::53"], 10, "the DNS server")
        wait_until(lambda: guest.ping("fd00::11"), 10, "the address to be no double")
        # The kernel asks, alone, whether the router is still there.
        guest.run(["ip", "neigh", "change", "fe80::1", "dev", "eth0", "nud", "probe"])
        wait_until(lambda: "REACHABLE" in guest.run(["ip", "neigh", "show", "fe80::1"]), 10, "the router to answer")


NETWORK = """
[Match]
Name=eth0
[Network]
DHCP=yes
[DHCPv4]
UseMTU=yes
"""
NETWORKD = "/lib/systemd/systemd-networkd"


def test_systemd_networkd_has_the_guest_configured(guest: Guest) -> None:
    setup = f"""
        mkdir -p /etc/systemd/network
        echo '{NETWORK}' > /etc/systemd/network/eth0.network
        install -d -o systemd-network /run/systemd/netif /run/systemd/netif/links /run/systemd/netif/leases
    """
    with stock_client.run(guest, setup, NETWORKD) as client:
        wait_until(lambda: addresses(guest) and addresses(guest, 6), 30, "addresses of both families")
        assert 0 < addresses(guest)["10.0.0.10/24"] <= DAY
        assert 0 < addresses(guest, 6)["fd00::10/128"] <= DAY
        wait_until(lambda: "default" in routes(guest), 10, "the way out")
        assert {"default": "10.0.0.1", "10.9.0.0/16": "10.0.0.254"}.items() <= routes(guest).items()
        assert (routes(guest, 6)["default"], routes(guest, 6)["fd00::/64"]) == ("fe80::1", "")
        assert (mtu(guest), ipv6_mtu(guest)) == (MTU, MTU)
        (index,) = guest.run(["cat", "/sys/class/net/eth0/ifindex"]).split()
        wait_until(lambda: dns(client, index) == {"10.0.0.53", "fd00::53"}, 10, "the DNS servers")
        wait_until(lambda: guest.ping("fd00::11"), 10, "the address to be no double")
        assert guest.ping("10.0.0.11", count=3)


def dns(client: Client, index: str) -> set[str]:
    lines = client.read(f"/run/systemd/netif/links/{index}").splitlines()
    return {word for line in lines if line.startswith("DNS=") for word in line.removeprefix("DNS=").split()}


def ipv6_mtu(guest: Guest) -> int:
    return int(guest.run(["cat", "/proc/sys/net/ipv6/conf/eth0/mtu"]))


FLOODER = """
import signal, socket, sys
going = True
def end(*_):
    global going
    going = False
signal.signal(signal.SIGTERM, end)
out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
out.bind(("eth0", 0))
frames = [bytes.fromhex(each) for each in sys.argv[1:]]
print("begins", flush=True)
while going:
    for frame in frames:
        out.send(frame)
"""
C = "02:00:00:00:00:0c"
C_LINK_LOCAL = "fe80::ff:fe00:c"
DISCOVER = (
    UDP(sport=68, dport=67)
    / BOOTP(chaddr=bytes.fromhex(C.replace(":", "")))
    / DHCP(options=[("message-type", "discover"), "end"])
)
SOLICIT = UDP(sport=546, dport=547) / DHCP6_Solicit() / DHCP6OptClientId(duid=DUID_LL(lladdr=C)) / DHCP6OptIA_NA(iaid=1)
ASKED = [
    Ether(src=C) / IP(src="0.0.0.0", dst="255.255.255.255") / DISCOVER,  # noqa: S104 - the address of who has none
    Ether(src=C) / IPv6(src=C_LINK_LOCAL, dst="ff02::1:2") / SOLICIT,
    Ether(src=C) / IPv6(src=C_LINK_LOCAL, dst="ff02::2", hlim=255) / ICMPv6ND_RS(),
    Ether(src=C) / IP(src="10.0.0.12", dst="10.0.0.1") / UDP(sport=7, dport=7),  # no such port
    Ether(src=C) / IP(src="10.0.0.12", dst="10.0.0.11") / UDP(sport=7, dport=7) / bytes(MTU - 27),  # one byte too many
]


def test_a_guest_that_asks_without_end_keeps_no_other_of_its_host_from_being_answered(lab: Lab, guest: Guest) -> None:
    """Guest c asks the controller for all that it answers, as fast as it can; a configures itself from nothing."""
    netns.ip(lab.guest("c").host.namespace, "link set dev c mtu 1500")
    netns.ip(lab.guest("c").namespace, "link set dev eth0 mtu 1500")
    with lab.guest("c").popen([sys.executable, "-c", FLOODER, *(bytes(frame).hex() for frame in ASKED)]) as flooder:
        try:
            assert flooder.stdout
            assert flooder.stdout.readline() == "begins\n"
            wait_until(lambda: asked_too_much(lab, "c"), 60, "c to have asked too much")
            before = asked_too_much(lab, "c")
            with stock_client.run(guest, "", dhclient("-4")):
                wait_until(lambda: "default" in routes(guest), 20, "a way out")
                wait_until(lambda: "default" in routes(guest, 6), 20, "the router")
                assert "10.0.0.10/24" in addresses(guest)
            wait_until(lambda: asked_too_much(lab, "c") > before, 60, "c to be still at it")
        finally:
            flooder.terminate()
    assert asked_too_much(lab, "a") == 0


def asked_too_much(lab: Lab, port: str) -> int:
    argv = [sys.executable, "-m", "mapping.cli", "--db", lab.control.remote, "--json", "port", "show", port]
    shown = json.loads(subprocess.run(argv, text=True, capture_output=True, check=True).stdout)
    return int(shown["traffic"].get("asked_too_much", {"packets": 0})["packets"])


def test_the_router_advertises_itself_unasked(lab: Lab) -> None:
    """When the controller starts it begins with one of the guests."""
    lab.kill_controller()
    with lab.guest("a").capture("in") as at_a, lab.guest("b").capture("in") as at_b:

        def advertised() -> bool:
            frames = [Ether(frame) for frame in (*at_a.frames, *at_b.frames)]
            return any(ICMPv6ND_RA in each and each[IPv6].dst == "ff02::1" for each in frames)

        assert not advertised()
        lab.start_controller()
        wait_until(advertised, 10, "an advertisement to all nodes")
