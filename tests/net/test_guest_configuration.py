"""Guests configure themselves by stock programs: dhclient, dhclient -6, systemd-networkd, and the kernel.

Two hosts, a guest on each, a and b, in one VPC with addresses of both families; b keeps those that the lab gave it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from scapy.layers.dhcp import BOOTP
from scapy.layers.inet import IP
from scapy.layers.inet6 import ICMPv6ND_RA, IPv6
from scapy.layers.l2 import Ether

from tests.net import stock_client
from tests.net.stock_client import Client, addresses, mtu, routes
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
