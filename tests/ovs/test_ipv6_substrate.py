"""An IPv6 substrate: what leaves the uplink and what is let in, byte for byte, for inner packets of both families.

As in `test_forwarding`, but host-a is 2001:db8::1 and host-b is 2001:db8::2.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from scapy.contrib.geneve import GENEVE
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6NDOptDstLLAddr, ICMPv6NDOptSrcLLAddr, IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet, Raw

from tests.build import BLUE, DB, HOST_A6, HOST_B6, TWO_HOSTS6, WEB
from tests.ovs.conftest import World, running
from tests.ovs.dummy import vtep_mac
from tests.ovs.test_forwarding import Wires, assert_refused, ping
from tests.ovs.test_ipv6 import ping6

A, B = "2001:db8::1", "2001:db8::2"
A_MAC, B_MAC = vtep_mac(HOST_A6), vtep_mac(HOST_B6)


@pytest.fixture(scope="module")
def world6(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running(tmp_path_factory.mktemp("lg"), TWO_HOSTS6) as world:
        yield world


@pytest.fixture
def wires(world6: World) -> Wires:
    return Wires(world6)


def outer(inner: Packet, src: str = A, hlim: int = 64) -> Packet:
    """A Geneve packet to host-b, as host-a would send it."""
    head = Ether(src=A_MAC, dst=B_MAC) / IPv6(src=src, dst=B, hlim=hlim) / UDP(sport=50000, dport=6081)
    return head / GENEVE(vni=BLUE.vni) / inner


@pytest.mark.parametrize("frame", [ping("10.0.0.11", "10.0.0.12"), ping6("fd00::11", "fd00::12")], ids=["IPv4", "IPv6"])
def test_inner_packets_of_both_families_arrive_and_the_outer_header_is_what_the_mapping_names(
    wires: Wires, frame: Packet
) -> None:
    left = wires.after(frame, "web")
    assert set(left) == {"uplink-a", "db"}
    expected = frame.copy()
    expected.dst = DB.mac
    assert left["db"] == [bytes(expected)]
    (sent,) = left["uplink-a"]
    packet = Ether(sent)
    assert (packet.src, packet.dst, packet[IPv6].src, packet[IPv6].dst) == (A_MAC, B_MAC, A, B)
    assert (packet[UDP].dport, packet[GENEVE].vni) == (6081, BLUE.vni)
    assert bytes(packet[GENEVE].payload)[6:] == bytes(frame)[6:]
    # RFC 8200 wants a checksum over UDP in IPv6.
    checked = Ether(sent)
    del checked[UDP].chksum
    assert Ether(bytes(checked))[UDP].chksum == packet[UDP].chksum != 0


def test_each_host_is_sent_to_in_its_own_encapsulation(wires: Wires) -> None:
    (sent,) = wires.after(ping6("fd00::12", "fd00::11", DB.mac), "db")["uplink-b"]
    packet = Ether(sent)
    assert (packet[UDP].dport, packet[VXLAN].vni) == (4789, BLUE.vni)


def test_a_well_formed_packet_from_the_mapped_host_is_delivered(wires: Wires) -> None:
    inner = Ether(src=WEB.mac, dst=DB.mac) / IPv6(src="fd00::11", dst="fd00::12") / UDP() / Raw(b"from the wire")
    assert wires.after(outer(inner), "uplink-b") == {"db": [bytes(inner)]}


INNER = Ether(src=WEB.mac, dst=DB.mac) / IPv6(src="fd00::11", dst="fd00::12") / UDP() / Raw(b"from the wire")


def to_b(message: Packet, dst: str = B, hlim: int = 255) -> Packet:
    return Ether(src=A_MAC, dst=B_MAC) / IPv6(src=A, dst=dst, hlim=hlim) / message


SOLICITATION = ICMPv6ND_NS(tgt=B) / ICMPv6NDOptSrcLLAddr(lladdr=A_MAC)
ADVERTISEMENT = ICMPv6ND_NA(tgt=A, R=0, S=1, O=1) / ICMPv6NDOptDstLLAddr(lladdr="0a:00:00:00:00:66")

FROM_SUBSTRATE = {
    "IPv6 VTEP: unknown VTEP": (outer(INNER, src="2001:db8::66"), "unknown_vtep"),
    "IPv6 VTEP: inner source that is mapped nowhere": (
        outer(Ether(src=WEB.mac, dst=DB.mac) / IPv6(src="fd00::50", dst="fd00::12") / UDP()),
        "source_not_mapped",
    ),
    "IPv6 VTEP: for another MAC": (Ether(src=A_MAC, dst="0a:00:00:00:00:99") / outer(INNER)[IPv6], "not_tunnel"),
    "IPv6 VTEP: an encapsulation that is not ours": (
        to_b(UDP(sport=1, dport=4789) / VXLAN(vni=BLUE.vni, flags=8) / INNER),
        "not_tunnel",
    ),
    "IPv6 VTEP: the same over IPv4": (
        Ether(src=A_MAC, dst=B_MAC) / IP(src="192.0.2.1", dst="192.0.2.2") / UDP(dport=6081) / GENEVE() / INNER,
        "not_tunnel",
    ),
    "IPv6 VTEP: ARP": (Ether(src=A_MAC) / ARP(op=1, psrc="192.0.2.1", pdst="192.0.2.2"), "not_tunnel"),
    "IPv6 VTEP: neighbour discovery from beyond the link": (to_b(ADVERTISEMENT, hlim=254), "not_tunnel"),
    "IPv6 VTEP: advertisement to all nodes": (to_b(ADVERTISEMENT, dst="ff02::1"), "not_tunnel"),
    "IPv6 VTEP: solicitation of another address": (to_b(ICMPv6ND_NS(tgt="2001:db8::9")), "not_tunnel"),
}


@pytest.mark.parametrize("case", FROM_SUBSTRATE)
def test_what_the_substrate_may_not_bring_goes_nowhere_and_is_counted(wires: Wires, case: str) -> None:
    frame, reason = FROM_SUBSTRATE[case]
    assert_refused(wires, frame, "uplink-b", reason)


@pytest.mark.parametrize("message", [SOLICITATION, ADVERTISEMENT], ids=["solicitation", "advertisement"])
def test_neighbour_discovery_for_the_vtep_comes_to_it(wires: Wires, message: Packet) -> None:
    before = wires.world.drops()
    traced = wires.world.b.ovs.appctl("ofproto/trace", "br-nic", "in_port=uplink", bytes(to_b(message)).hex())
    assert "LOCAL" in traced
    assert "reg1" not in traced
    assert wires.after(to_b(SOLICITATION), "uplink-b") == {}, "a dummy's kernel answers nobody"
    assert not {reason for reason in wires.world.drops() - before if reason != "neighbour_probe"}
