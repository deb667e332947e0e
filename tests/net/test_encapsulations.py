"""Each encapsulation with real packets: every host is sent to in the one that it wants.

Three hosts: vxlan, geneve and gre are guests on hosts of these encapsulations, all in one VPC. A fourth guest, alone,
shares a host with vxlan and its address with gre, in another VPC.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations

import pytest
from scapy.contrib.geneve import GENEVE
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import GRE, Ether
from scapy.layers.vxlan import VXLAN

from topo.capture import Capture
from topo.lab import Lab
from topo.spec import UPLINK

MAPPING = """\
vpcs:
  blue: {vni: 5001, subnets: [10.0.0.0/24]}
  red: {vni: 5002, subnets: [10.0.0.0/24]}
hosts:
  v: {vtep: 192.0.2.1, encap: vxlan}
  g: {vtep: 192.0.2.2, encap: geneve}
  r: {vtep: 192.0.2.3, encap: gre}
ports:
  vxlan: {vpc: blue, host: v, mac: "02:00:00:00:00:01", addresses: [10.0.0.11]}
  geneve: {vpc: blue, host: g, mac: "02:00:00:00:00:02", addresses: [10.0.0.12]}
  gre: {vpc: blue, host: r, mac: "02:00:00:00:00:03", addresses: [10.0.0.13]}
  alone: {vpc: red, host: v, mac: "02:00:00:00:00:04", addresses: [10.0.0.13]}
"""
GUESTS = ("vxlan", "geneve", "gre")
VTEP = {"vxlan": "192.0.2.1", "geneve": "192.0.2.2", "gre": "192.0.2.3"}


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    file = tmp_path_factory.mktemp("mapping") / "three.yaml"
    file.write_text(MAPPING)
    with Lab("encaps") as lab:
        lab.up(file)
        yield lab


def vni_of(frame: bytes, encap: str) -> int:
    packet = Ether(frame)
    if encap == "vxlan":
        assert packet[UDP].dport == 4789
        return int(packet[VXLAN].vni)
    if encap == "geneve":
        assert packet[UDP].dport == 6081
        return int(packet[GENEVE].vni)
    assert packet[GRE].proto == 0x6558
    return int(packet[GRE].key)


@pytest.mark.parametrize(("source", "target"), list(permutations(GUESTS, 2)))
def test_every_pair_talks_in_the_encapsulation_of_the_receiver(three: Lab, source: str, target: str) -> None:
    host, guest = three.guest(source).host.namespace, three.guest(target)
    with Capture(host, UPLINK, "out") as uplink:
        assert three.guest(source).ping(guest.ip, count=5)
    pings = [
        frame for frame in uplink.frames if b"lockgate neighbour probe" not in frame and Ether(frame).type == 0x0800
    ]
    assert len(pings) == 5
    for frame in pings:
        assert (Ether(frame)[IP].src, Ether(frame)[IP].dst) == (VTEP[source], VTEP[target])
        assert vni_of(frame, target) == 5001


@pytest.mark.parametrize("target", GUESTS)
def test_large_packets_pass_whole(three: Lab, target: str) -> None:
    source = three.guest("geneve" if target == "vxlan" else "vxlan")
    assert source.ping(three.guest(target).ip, count=3, options=["-M", "do", "-s", "1372"])


def test_another_vpc_reaches_none_of_them(three: Lab) -> None:
    with three.guest("geneve").capture("in") as seen:
        assert not three.guest("alone").ping("10.0.0.12", seconds=0.5)
    assert seen.frames == []
