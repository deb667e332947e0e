"""IPv6 between guests, and neighbour discovery on the spot: byte for byte, as `test_forwarding` does for IPv4.

web (fd00::11, VPC blue) is on host-a; db (fd00::12, VPC blue) and spy (fd00::12, VPC red) are on host-b.
"""

from __future__ import annotations

import socket

import pytest
from scapy.contrib.geneve import GENEVE
from scapy.layers.inet import UDP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6MLReport2,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_Redirect,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptPrefixInfo,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    RouterAlert,
)
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw
from scapy.pton_ntop import inet_ntop, inet_pton
from scapy.utils6 import in6_getnsma

from tests.build import DB, RED, WEB
from tests.ovs.conftest import World
from tests.ovs.test_forwarding import ROUTER, Wires, assert_refused, outer

WEB_IP, DB_IP, ROUTER_IP = "fd00::11", "fd00::12", "fd00::1"
LINK_LOCAL = "fe80::ff:fe00:1"
STABLE_PRIVATE = "fe80::4a1f:c0de:77:1234"
NOBODY = "::"


@pytest.fixture
def wires(world: World) -> Wires:
    return Wires(world)


def ping6(src: str, dst: str, mac: str = WEB.mac) -> Packet:
    ip = IPv6(src=src, dst=dst, hlim=9, tc=8, fl=0x12345)
    return Ether(src=mac, dst=ROUTER) / ip / ICMPv6EchoRequest(id=5, seq=6, data=b"payload" * 9)


def solicited_node(target: str) -> str:
    return str(inet_ntop(socket.AF_INET6, in6_getnsma(inet_pton(socket.AF_INET6, target))))


def ns(target: str, src: str = WEB_IP, dst: str | None = None, mac: str = WEB.mac, sll: str | None = WEB.mac) -> Packet:
    """A neighbour solicitation as web sends it: to the solicited nodes' multicast address unless told otherwise."""
    to = IPv6(src=src, dst=dst or solicited_node(target), hlim=255)
    packet = Ether(src=mac, dst=DB.mac if dst else "33:33:ff:00:00:12") / to / ICMPv6ND_NS(tgt=target)
    return packet / ICMPv6NDOptSrcLLAddr(lladdr=sll) if sll else packet


def na(target: str, mac: str, dst: str = WEB_IP, *, router: bool = False) -> Packet:
    """The answer to web."""
    head = Ether(src=mac, dst=WEB.mac) / IPv6(src=target, dst=dst, hlim=255)
    return head / ICMPv6ND_NA(tgt=target, R=int(router), S=1, O=1) / ICMPv6NDOptDstLLAddr(lladdr=mac)


def test_the_frame_arrives_byte_for_byte_and_nowhere_else(wires: Wires) -> None:
    frame = ping6(WEB_IP, DB_IP)
    left = wires.after(frame, "web")
    assert set(left) == {"uplink-a", "db"}
    expected = frame.copy()
    expected.dst = DB.mac
    assert left["db"] == [bytes(expected)]
    inner = bytes(Ether(left["uplink-a"][0])[GENEVE].payload)
    assert inner[6:] == bytes(frame)[6:]


@pytest.mark.parametrize("case", ["destination options", "fragment", "later fragment", "hop by hop"])
def test_what_the_source_guard_passes_arrives_whatever_headers_it_has(wires: Wires, case: str) -> None:
    headers = {
        "destination options": IPv6ExtHdrDestOpt() / UDP(sport=1, dport=2),
        "fragment": IPv6ExtHdrFragment(m=1, id=7, nh=17) / Raw(bytes(UDP(sport=1, dport=2, len=100, chksum=1))),
        "later fragment": IPv6ExtHdrFragment(offset=3, id=7, nh=17) / Raw(b"the rest"),
        "hop by hop": IPv6ExtHdrHopByHop() / UDP(sport=1, dport=2),
    }
    frame = Ether(src=WEB.mac, dst=DB.mac) / IPv6(src=WEB_IP, dst=DB_IP) / headers[case]
    assert wires.after(frame, "web")["db"] == [bytes(frame)]


@pytest.mark.parametrize(("target", "mac"), [(DB_IP, DB.mac), (ROUTER_IP, ROUTER)])
@pytest.mark.parametrize("src", [WEB_IP, LINK_LOCAL, STABLE_PRIVATE])
@pytest.mark.parametrize("unicast", [False, True], ids=["resolution", "NUD"])
def test_solicitations_are_answered_on_the_spot_for_guests_and_router(
    wires: Wires, target: str, mac: str, src: str, *, unicast: bool
) -> None:
    left = wires.after(ns(target, src, target if unicast else None), "web")
    assert left == {"web": [bytes(na(target, mac, src, router=mac == ROUTER))]}


@pytest.mark.parametrize(("target", "mac"), [(DB_IP, DB.mac), (ROUTER_IP, ROUTER)])
def test_who_looks_for_a_double_of_anothers_address_is_told_as_all_nodes_are(
    wires: Wires, target: str, mac: str
) -> None:
    left = wires.after(ns(target, NOBODY, sll=None), "web")
    answer = Ether(src=mac, dst="33:33:00:00:00:01") / IPv6(src=target, dst="ff02::1", hlim=255)
    assert left == {"web": [bytes(answer / ICMPv6ND_NA(tgt=target, R=0, S=0, O=0))]}


def test_a_nonce_in_a_solicitation_is_no_hindrance(wires: Wires) -> None:
    """RFC 7527: a stock Linux looks for doubles with option 14, six random bytes."""
    nonce = Raw(b"\x0e\x01nonce!")
    (answer,) = wires.after(ns(DB_IP, NOBODY, sll=None) / nonce, "web")["web"]
    packet = Ether(answer)
    assert (packet[IPv6].dst, packet[ICMPv6ND_NA].tgt) == ("ff02::1", DB_IP)
    checked = Ether(bytes(packet))
    del checked[ICMPv6ND_NA].cksum
    assert Ether(bytes(checked))[ICMPv6ND_NA].cksum == packet[ICMPv6ND_NA].cksum


def test_another_option_before_the_senders_mac_is_no_hindrance(wires: Wires) -> None:
    """Open vSwitch makes the first option the one that names a MAC, whatever it was."""
    solicitation = ns(DB_IP, sll=None) / Raw(b"\x0e\x01nonce!") / ICMPv6NDOptSrcLLAddr(lladdr=WEB.mac)
    (answer,) = wires.after(solicitation, "web")["web"]
    packet = Ether(answer)
    assert packet[ICMPv6NDOptDstLLAddr].lladdr == DB.mac
    checked = Ether(answer)
    del checked[ICMPv6ND_NA].cksum
    assert Ether(bytes(checked))[ICMPv6ND_NA].cksum == packet[ICMPv6ND_NA].cksum


def from_web(src: str, dst: str, message: Packet, hlim: int = 255) -> Packet:
    return Ether(src=WEB.mac, dst=DB.mac) / IPv6(src=src, dst=dst, hlim=hlim) / message


RA = ICMPv6ND_RA() / ICMPv6NDOptPrefixInfo(prefix="2001:db8::", prefixlen=64) / ICMPv6NDOptSrcLLAddr(lladdr=WEB.mac)
MLD = IPv6ExtHdrHopByHop(options=[RouterAlert()]) / ICMPv6MLReport2()

FROM_GUEST = {
    "IPv6: no mapping": (ping6(WEB_IP, "fd00::99"), "no_mapping"),
    "IPv6: spoofed MAC": (ping6(WEB_IP, DB_IP, "02:00:00:00:00:05"), "spoofed_mac"),
    "IPv6: spoofed IP": (ping6(DB_IP, DB_IP), "spoofed_ip"),
    "IPv6: no source": (ping6(NOBODY, DB_IP), "spoofed_ip"),
    "IPv6: to its own address": (ping6(WEB_IP, WEB_IP), "to_itself"),
    "IPv6: multicast": (ping6(WEB_IP, "ff02::1"), "no_mapping"),
    "IPv6: from link-local": (ping6(LINK_LOCAL, DB_IP), "link_local"),
    "IPv6: mDNS from link-local": (from_web(LINK_LOCAL, "ff02::fb", UDP(sport=5353, dport=5353)), "link_local"),
    "IPv6: to link-local": (ping6(WEB_IP, "fe80::ff:fe00:2"), "no_mapping"),
    "MLD report": (from_web(LINK_LOCAL, "ff02::16", MLD, 1), "mld"),
    "MLD report without an address": (from_web(NOBODY, "ff02::16", MLD, 1), "mld"),
    "router advertisement": (from_web(LINK_LOCAL, "ff02::1", RA), "router_posed"),
    "router advertisement behind a header": (from_web(LINK_LOCAL, DB_IP, IPv6ExtHdrDestOpt() / RA), "router_posed"),
    "redirect": (from_web(WEB_IP, DB_IP, ICMPv6ND_Redirect(tgt=LINK_LOCAL, dst="fd00::13")), "router_posed"),
    "advertisement of another's address": (
        from_web(WEB_IP, DB_IP, ICMPv6ND_NA(tgt="fd00::13") / ICMPv6NDOptDstLLAddr(lladdr=WEB.mac)),
        "nd_advertised",
    ),
    "advertisement of its own address": (
        from_web(WEB_IP, "ff02::1", ICMPv6ND_NA(tgt=WEB_IP) / ICMPv6NDOptDstLLAddr(lladdr=WEB.mac)),
        "nd_advertised",
    ),
    "solicitation from another's address": (ns(DB_IP, "fd00::13"), "spoofed_ip"),
    "solicitation that names another's MAC": (ns(DB_IP, sll=DB.mac), "spoofed_nd"),
    "solicitation that names no MAC": (ns(DB_IP, sll=None), "spoofed_nd"),
    "solicitation that names a MAC, but no address": (ns(DB_IP, NOBODY), "spoofed_nd"),
    "solicitation that names two MACs": (ns(DB_IP) / ICMPv6NDOptSrcLLAddr(lladdr=DB.mac), "spoofed_nd"),
    "solicitation from another MAC": (ns(DB_IP, mac=DB.mac), "spoofed_mac"),
    "solicitation of nobody": (ns("fd00::99"), "nd_unmapped"),
    "double of nobody's address": (ns("fd00::99", NOBODY, sll=None), "nd_unmapped"),
    "double of its own address": (ns(WEB_IP, NOBODY, sll=None), "nd_own_address"),
    "solicitation of its own address": (ns(WEB_IP), "nd_own_address"),
    "solicitation of a link-local address": (ns("fe80::ff:fe00:2", LINK_LOCAL), "link_local"),
    "double of its own link-local address": (ns(LINK_LOCAL, NOBODY, sll=None), "link_local"),
}


@pytest.mark.parametrize("case", FROM_GUEST)
def test_what_a_guest_may_not_send_goes_nowhere_and_is_counted(wires: Wires, case: str) -> None:
    frame, reason = FROM_GUEST[case]
    assert_refused(wires, frame, "web", reason)


def inner(src: str, dst: str) -> Packet:
    return Ether(src=WEB.mac, dst=DB.mac) / IPv6(src=src, dst=dst) / UDP(sport=9, dport=9) / Raw(b"from the wire")


FROM_SUBSTRATE = {
    "IPv6: VNI of another VPC": (outer(inner(WEB_IP, DB_IP), vni=RED.vni), "source_not_mapped"),
    "IPv6: inner source that lives here": (outer(inner(DB_IP, DB_IP)), "source_not_mapped"),
    "IPv6: inner source that is mapped nowhere": (outer(inner("fd00::50", DB_IP)), "source_not_mapped"),
    "IPv6: inner source that is link-local": (outer(inner(LINK_LOCAL, DB_IP)), "source_not_mapped"),
    "IPv6: inner destination that is elsewhere": (outer(inner(WEB_IP, WEB_IP)), "not_here"),
    "IPv6: inner solicitation": (outer(ns(DB_IP, LINK_LOCAL)), "source_not_mapped"),
    "IPv6: outer": (
        Ether(src=WEB.mac, dst=DB.mac)
        / IPv6(src="fd00::1", dst="fd00::2")
        / UDP(sport=1, dport=6081)
        / GENEVE()
        / inner(WEB_IP, DB_IP),
        "not_tunnel",
    ),
}


@pytest.mark.parametrize("case", FROM_SUBSTRATE)
def test_what_the_substrate_may_not_bring_goes_nowhere_and_is_counted(wires: Wires, case: str) -> None:
    frame, reason = FROM_SUBSTRATE[case]
    assert_refused(wires, frame, "uplink-b", reason)


def test_a_well_formed_packet_from_the_mapped_host_is_delivered(wires: Wires) -> None:
    frame = inner(WEB_IP, DB_IP)
    assert wires.after(outer(frame), "uplink-b") == {"db": [bytes(frame)]}
