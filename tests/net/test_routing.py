"""Stock tools between the subnets of a VPC, over IPv4 and IPv6, and between guests that got their MTU wrong.

near and same are on one subnet, far is on another, each on a host of its own but near and far; stock kernels.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from functools import partial

import pytest

from tests.net.test_ipv6 import CLIENT, has_all
from topo import netns
from topo.guest import PORT, Guest
from topo.lab import Lab
from topo.waiting import wait_until

MAPPING = """\
vpcs:
  blue: {vni: 5001, subnets: [10.0.0.0/24, 10.0.1.0/24, "fd00::/64", "fd00:0:0:1::/64"]}
hosts:
  v: {vtep: 192.0.2.1, encap: vxlan}
  g: {vtep: 192.0.2.2, encap: geneve}
ports:
  near: {vpc: blue, host: v, mac: "02:00:00:00:00:01", addresses: [10.0.0.11, "fd00::11"]}
  same: {vpc: blue, host: g, mac: "02:00:00:00:00:02", addresses: [10.0.0.12, "fd00::12"]}
  far: {vpc: blue, host: g, mac: "02:00:00:00:00:03", addresses: [10.0.1.12, "fd00:0:0:1::12"]}
  beside: {vpc: blue, host: v, mac: "02:00:00:00:00:04", addresses: [10.0.1.13, "fd00:0:0:1::13"]}
"""
SAME, FAR, BESIDE = ("10.0.0.12", "fd00::12"), ("10.0.1.12", "fd00:0:0:1::12"), ("10.0.1.13", "fd00:0:0:1::13")
ROUTERS = {"10.0.0.1", "fd00::1"}
MTU = 1450


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    file = tmp_path_factory.mktemp("mapping") / "subnets.yaml"
    file.write_text(MAPPING)
    with Lab(f"r{os.getpid()}") as lab:
        lab.up(file)
        for guest in lab.guests.values():
            # Else an advertisement, which may come at any moment, tells an MTU that a test has just made wrong.
            guest.run(["sysctl", "-q", f"net.ipv6.conf.{PORT}.accept_ra_mtu=0"])
            wait_until(partial(has_all, guest), 10, f"{guest.name} to have looked for doubles")
        yield lab


@pytest.mark.parametrize("address", [*FAR, *BESIDE])
def test_traceroute_sees_the_router_and_then_the_guest(lab: Lab, address: str) -> None:
    said = lab.guest("near").run(["traceroute", "-n", "-q", "1", "-w", "5", "-m", "4", address])
    hops = re.findall(r"^ *(\d+)  (\S+) ", said, re.MULTILINE)
    (first, router), last = hops[0], hops[-1]
    assert (first, router in ROUTERS, last) == ("1", True, ("2", address)), said


@pytest.mark.parametrize("address", [*SAME, *sorted(ROUTERS)])
def test_traceroute_sees_nobody_on_the_way_within_a_subnet_or_to_the_router(lab: Lab, address: str) -> None:
    said = lab.guest("near").run(["traceroute", "-n", "-q", "1", "-w", "5", "-m", "4", address])
    assert re.findall(r"^ *(\d+)  (\S+) ", said, re.MULTILINE) == [("1", address)], said


@pytest.mark.parametrize("address", FAR)
def test_tracepath_finds_the_way_and_the_mtu(lab: Lab, address: str) -> None:
    said = lab.guest("near").run(["tracepath", "-n", "-m", "5", address])
    assert f"pmtu {MTU}" in said
    assert "hops 2" in said, said


@pytest.mark.parametrize("router", ["10.0.0.1", "10.0.1.1", "fd00::1", "fd00:0:0:1::1"])
def test_the_router_answers_pings_on_each_subnet(lab: Lab, router: str) -> None:
    assert lab.guest("near").ping(router, count=30)


@pytest.mark.parametrize("address", [*FAR, *BESIDE])
def test_a_ping_takes_one_hop(lab: Lab, address: str) -> None:
    assert "ttl=63" in lab.guest("near").run(["ping", "-n", "-c", "1", "-W", "5", address])


@pytest.fixture
def wrong(lab: Lab, request: pytest.FixtureRequest) -> Iterator[int]:
    """Every guest has this MTU instead of the right one, and so has its cable."""
    _set_mtu(lab, request.param)
    yield request.param
    _set_mtu(lab, MTU)


def _set_mtu(lab: Lab, mtu: int) -> None:
    for guest in lab.guests.values():
        netns.ip(guest.host.namespace, f"link set dev {guest.spec.device} mtu {mtu}")
        netns.ip(guest.namespace, f"link set dev {PORT} mtu {mtu}\nroute flush cache")
        guest.run(["ip", "-6", "route", "flush", "cache"])


SERVER = """
import hashlib, socket
with socket.create_server(("::", 7), family=socket.AF_INET6, dualstack_ipv6=True) as all, all.accept()[0] as there:
    print(hashlib.file_digest(there.makefile("rb"), "sha256").hexdigest())
"""


@pytest.mark.parametrize("wrong", [MTU, 1500, 9000], indirect=True)
@pytest.mark.parametrize("address", [*FAR, SAME[0], BESIDE[1]])
def test_a_large_transfer_completes_whatever_mtu_the_guests_believe_in(lab: Lab, wrong: int, address: str) -> None:
    guest, target = lab.guest("near"), guest_at(lab, address)
    before = told(guest, address)
    with target.popen([sys.executable, "-c", SERVER]) as server:
        try:
            wait_until(lambda: ":7" in target.run(["ss", "-ltnH"]), 10, "the server")
            sent = guest.run([sys.executable, "-c", CLIENT, address])
            assert server.communicate(timeout=30)[0] == sent
        finally:
            server.kill()
    assert (told(guest, address) > before) == (wrong != MTU)


def told(guest: Guest, address: str) -> int:
    """How often the guest was told that what it sends is too large; what it has learnt its kernel may forget."""
    counter = "Icmp6InPktTooBigs" if ":" in address else "IcmpInDestUnreachs"
    return int(guest.run(["nstat", "-asz", counter]).split()[-2])


def guest_at(lab: Lab, address: str) -> Guest:
    return next(guest for guest in lab.guests.values() if address in {guest.ip, guest.ipv6})


IPERF3 = {
    "TCP": (["-n", "10M"], "sum_sent", 10 << 20),
    "UDP": (["-u", "-b", "20M", "-l", "1200", "-n", "1M"], "sum", 1 << 20),
}


@pytest.mark.parametrize("protocol", IPERF3)
@pytest.mark.parametrize("address", [*FAR, *BESIDE])
def test_iperf3_runs_between_subnets(lab: Lab, address: str, protocol: str) -> None:
    options, total, least = IPERF3[protocol]
    target = guest_at(lab, address)
    with target.popen(["iperf3", "-s", "-1"]) as server:
        try:
            wait_until(lambda: ":5201" in target.run(["ss", "-ltnH"]), 10, "the server")
            said = json.loads(lab.guest("near").run(["iperf3", "-J", *options, "-c", address]))
        finally:
            server.kill()
    assert said["end"][total]["bytes"] >= least
    if protocol == "UDP":
        assert said["end"]["sum"]["lost_percent"] < 50


@pytest.mark.parametrize("wrong", [9000], indirect=True)
@pytest.mark.parametrize("address", [FAR[0], SAME[1]])
def test_what_is_larger_than_the_right_mtu_arrives_in_fragments_once_the_sender_is_told(
    lab: Lab, wrong: int, address: str
) -> None:
    ping = ["ping", "-n", "-c", "4", "-i", "0.2", "-W", "5", "-M", "dont", "-s", str(wrong - 100), address]
    # The sender is told of its first, and the receiver of its first answer.
    assert " 2 received" in lab.guest("near").run(ping)
