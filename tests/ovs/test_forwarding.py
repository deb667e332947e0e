"""Which packet leaves where, and nowhere else: byte for byte, through two real Open vSwitches and ryu-manager.

web (10.0.0.11, VPC blue) is on host-a; db (10.0.0.12, VPC blue) and spy (10.0.0.12, VPC red) are on host-b.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest
from scapy.contrib.geneve import GENEVE
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.l2 import ARP, GRE, Dot1Q, Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet, Raw

from tests.build import BLUE, DB, HOST_A, HOST_B, RED, WEB
from tests.ovs.conftest import World
from tests.ovs.dummy import DummyHost, vtep_mac
from topo.waiting import wait_until

ROUTER = "0a:00:5e:00:00:01"
PROBE = "neighbour_probe"
GUESTS = ("web", "db", "spy")


@dataclass
class Wires:
    """Every place where a frame may leave."""

    world: World

    def place(self, name: str) -> tuple[DummyHost, str]:
        hosts = {"web": self.world.a, "db": self.world.b, "spy": self.world.b}
        if name in hosts:
            return hosts[name], name
        return {"uplink-a": self.world.a, "uplink-b": self.world.b}[name], "uplink"

    def sent(self) -> dict[str, list[bytes]]:
        return {name: self.place(name)[0].sent(self.place(name)[1]) for name in (*GUESTS, "uplink-a", "uplink-b")}

    def after(self, frame: Packet, into: str) -> dict[str, list[bytes]]:
        """Put the frame in, and return what left each place because of it.

        Frames are processed in order: when a second one, that is known to go all the way, has arrived, whatever the
        first one caused has happened.
        """
        before = {name: len(frames) for name, frames in self.sent().items()}
        host, interface = self.place(into)
        host.receive(interface, bytes(frame))
        marks = [b"lockgate neighbour probe", self._mark("web", "db", WEB.mac, "10.0.0.11", "10.0.0.12")]
        marks.append(self._mark("db", "web", DB.mac, "10.0.0.12", "10.0.0.11"))
        left = {name: frames[before[name] :] for name, frames in self.sent().items()}
        return {
            name: rest
            for name, frames in left.items()
            if (rest := [frame for frame in frames if not any(mark in frame for mark in marks)])
        }

    def _mark(self, source: str, target: str, mac: str, src: str, dst: str) -> bytes:
        """Send a frame that is known to arrive, wait for it, and return what it is known by."""
        mark = f"mark {source} {len(self.place(target)[0].sent(target))}".encode()
        host, interface = self.place(source)
        frame = Ether(src=mac, dst=ROUTER) / IP(src=src, dst=dst) / UDP(sport=7, dport=7) / Raw(mark)
        host.receive(interface, bytes(frame))
        wait_until(
            lambda: any(mark in frame for frame in self.place(target)[0].sent(target)), 10, f"the mark from {source}"
        )
        return mark


@pytest.fixture
def wires(world: World) -> Wires:
    return Wires(world)


def ping(src: str, dst: str, mac: str = WEB.mac, to: str = ROUTER) -> Packet:
    return Ether(src=mac, dst=to) / IP(src=src, dst=dst, ttl=9, id=77, tos=8) / ICMP(id=5, seq=6) / Raw(b"payload" * 9)


def outer(inner: Packet, src: str = "192.0.2.1", vni: int = BLUE.vni, dst: str = "192.0.2.2") -> Packet:
    """A Geneve packet to host-b, as host-a would send it."""
    head = (
        Ether(src=vtep_mac(HOST_A), dst=vtep_mac(HOST_B)) / IP(src=src, dst=dst, ttl=64) / UDP(sport=50000, dport=6081)
    )
    return head / GENEVE(vni=vni) / inner


def test_the_frame_arrives_byte_for_byte_and_nowhere_else(wires: Wires) -> None:
    frame = ping("10.0.0.11", "10.0.0.12")
    left = wires.after(frame, "web")
    assert set(left) == {"uplink-a", "db"}
    expected = frame.copy()
    expected.dst = DB.mac  # the one field that the pipeline sets
    assert left["db"] == [bytes(expected)]


def test_the_outer_header_is_what_the_mapping_names(wires: Wires) -> None:
    frame = ping("10.0.0.11", "10.0.0.12")
    (sent,) = wires.after(frame, "web")["uplink-a"]
    packet = Ether(sent)
    assert (packet.src, packet.dst) == (vtep_mac(HOST_A), vtep_mac(HOST_B))
    assert (packet[IP].src, packet[IP].dst, packet[IP].flags.DF) == ("192.0.2.1", "192.0.2.2", True)
    assert packet[UDP].dport == 6081, "host-b wants Geneve"
    assert packet[GENEVE].vni == BLUE.vni
    assert packet[GENEVE].optionlen == 0
    inner = bytes(packet[GENEVE].payload)
    assert inner[6:] == bytes(frame)[6:]


def test_each_host_is_sent_to_in_its_own_encapsulation(wires: Wires) -> None:
    (sent,) = wires.after(ping("10.0.0.12", "10.0.0.11", DB.mac), "db")["uplink-b"]
    packet = Ether(sent)
    assert packet[UDP].dport == 4789, "host-a wants VXLAN"
    assert packet[VXLAN].vni == BLUE.vni


def test_arp_is_answered_on_the_spot_for_guests_and_router(wires: Wires) -> None:
    for address, mac in (("10.0.0.12", DB.mac), ("10.0.0.1", ROUTER)):
        request = Ether(src=WEB.mac, dst="ff:ff:ff:ff:ff:ff") / ARP(op=1, hwsrc=WEB.mac, psrc="10.0.0.11", pdst=address)
        left = wires.after(request, "web")
        answer = Ether(src=mac, dst=WEB.mac) / ARP(op=2, hwsrc=mac, psrc=address, hwdst=WEB.mac, pdst="10.0.0.11")
        assert left == {"web": [bytes(answer)]}


def assert_counted_once(wires: Wires, before: Counter[str], reason: str) -> None:
    caused = wires.world.drops() - before
    if reason != PROBE:
        caused.pop(PROBE, None)  # the hosts' own probes come when they come
    assert caused.keys() == {reason}
    assert caused[reason] == 1 or reason == PROBE


def assert_refused(wires: Wires, frame: Packet, at: str, reason: str) -> None:
    """Put in there, it goes nowhere, and is counted once."""
    before = wires.world.drops()
    assert wires.after(frame, at) == {}
    assert_counted_once(wires, before, reason)


GARP = Ether(src=WEB.mac, dst="ff:ff:ff:ff:ff:ff") / ARP(op=1, hwsrc=WEB.mac, psrc="10.0.0.11", pdst="10.0.0.11")
ARP_REQUEST = ARP(op=1, hwsrc=WEB.mac, psrc="10.0.0.11", pdst="10.0.0.12")

FROM_GUEST = {
    "no mapping": (ping("10.0.0.11", "10.0.0.99"), "no_mapping"),
    "another VPC's only address": (ping("10.0.0.11", "10.0.0.13"), "no_mapping"),
    "spoofed MAC": (ping("10.0.0.11", "10.0.0.12", "02:00:00:00:00:05"), "spoofed_mac"),
    "spoofed IP": (ping("10.0.0.12", "10.0.0.12"), "spoofed_ip"),
    "to its own address": (ping("10.0.0.11", "10.0.0.11"), "to_itself"),
    "VTEP as source": (ping("192.0.2.1", "10.0.0.12"), "spoofed_ip"),
    "to a VTEP": (ping("10.0.0.11", "192.0.2.2"), "no_mapping"),
    "spoofed ARP MAC": (
        Ether(src=WEB.mac) / ARP(op=1, hwsrc=DB.mac, psrc="10.0.0.11", pdst="10.0.0.12"),
        "spoofed_arp",
    ),
    "spoofed ARP address": (
        Ether(src=WEB.mac) / ARP(op=1, hwsrc=WEB.mac, psrc="10.0.0.12", pdst="10.0.0.11"),
        "spoofed_arp",
    ),
    "ARP for nobody": (
        Ether(src=WEB.mac) / ARP(op=1, hwsrc=WEB.mac, psrc="10.0.0.11", pdst="10.0.0.99"),
        "arp_unmapped",
    ),
    "ARP reply": (
        Ether(src=WEB.mac) / ARP(op=2, hwsrc=WEB.mac, psrc="10.0.0.11", pdst="10.0.0.12"),
        "arp_not_request",
    ),
    "gratuitous ARP": (GARP, "arp_own_address"),
    "VLAN": (Ether(src=WEB.mac) / Dot1Q(vlan=7) / IP(src="10.0.0.11", dst="10.0.0.12") / UDP(), "vlan_tagged"),
    "priority tag": (Ether(src=WEB.mac) / Dot1Q(vlan=0) / IP(src="10.0.0.11", dst="10.0.0.12") / UDP(), "vlan_tagged"),
    "PPPoE": (Ether(src=WEB.mac, dst=DB.mac, type=0x8863) / Raw(bytes(46)), "unknown_ethertype"),
    "LLDP": (Ether(src=WEB.mac, dst="01:80:c2:00:00:0e", type=0x88CC) / Raw(bytes(46)), "unknown_ethertype"),
}


@pytest.mark.parametrize("case", FROM_GUEST)
def test_what_a_guest_may_not_send_goes_nowhere_and_is_counted(wires: Wires, case: str) -> None:
    frame, reason = FROM_GUEST[case]
    assert_refused(wires, frame, "web", reason)


INNER = (
    Ether(src=WEB.mac, dst=DB.mac)
    / IP(src="10.0.0.11", dst="10.0.0.12")
    / UDP(sport=9, dport=9)
    / Raw(b"from the wire")
)
BARE = Ether(src=vtep_mac(HOST_A), dst=vtep_mac(HOST_B)) / IP(src="192.0.2.1", dst="192.0.2.2")

FROM_SUBSTRATE = {
    "unknown VTEP": (outer(INNER, src="192.0.2.66"), "unknown_vtep"),
    "wrong VNI": (outer(INNER, vni=4242), "source_not_mapped"),
    "VNI of another VPC": (outer(INNER, vni=RED.vni), "source_not_mapped"),
    "inner source that lives here": (
        outer(Ether(src=DB.mac, dst=DB.mac) / IP(src="10.0.0.12", dst="10.0.0.12") / UDP()),
        "source_not_mapped",
    ),
    "inner source that is mapped nowhere": (
        outer(Ether(src=DB.mac, dst=DB.mac) / IP(src="10.0.0.50", dst="10.0.0.12") / UDP()),
        "source_not_mapped",
    ),
    "inner destination that is elsewhere": (
        outer(Ether(src=WEB.mac, dst=DB.mac) / IP(src="10.0.0.11", dst="10.0.0.11") / UDP()),
        "not_here",
    ),
    "inner VLAN": (
        outer(Ether(src=WEB.mac, dst=DB.mac) / Dot1Q(vlan=3) / IP(src="10.0.0.11", dst="10.0.0.12") / UDP()),
        "vlan_tagged",
    ),
    "inner ARP": (outer(Ether(src=WEB.mac, dst=DB.mac) / ARP_REQUEST), "source_not_mapped"),
    "outer VLAN": (Ether(src=vtep_mac(HOST_A), dst=vtep_mac(HOST_B)) / Dot1Q(vlan=5) / outer(INNER)[IP], "vlan_tagged"),
    "an encapsulation that is not ours": (
        BARE / UDP(sport=1, dport=4789) / VXLAN(vni=BLUE.vni, flags=8) / INNER,
        "not_tunnel",
    ),
    "GRE": (BARE / GRE(key_present=1, key=BLUE.vni, proto=0x6558) / INNER, "not_tunnel"),
    "plain UDP to the VTEP": (BARE / UDP(sport=1, dport=53) / Raw(b"x" * 30), "not_tunnel"),
    "plain frame": (INNER, "not_tunnel"),
    "probe": (outer(INNER, vni=0), "neighbour_probe"),
}


@pytest.mark.parametrize("case", FROM_SUBSTRATE)
def test_what_the_substrate_may_not_bring_goes_nowhere_and_is_counted(wires: Wires, case: str) -> None:
    frame, reason = FROM_SUBSTRATE[case]
    assert_refused(wires, frame, "uplink-b", reason)


def test_a_well_formed_packet_from_the_mapped_host_is_delivered(wires: Wires) -> None:
    """The attacks above fail for what is forged in them, and not because nothing put in like this arrives."""
    assert wires.after(outer(INNER), "uplink-b") == {"db": [bytes(INNER)]}


def test_drops_are_reported_to_the_database_by_reason(wires: Wires) -> None:
    wires.after(ping("10.0.0.11", "10.0.0.98"), "web")

    def reported() -> bool:
        counted, in_database = wires.world.drops(), wires.world.reported_drops()
        return counted["no_mapping"] > 0 and all(in_database[reason] == counted[reason] for reason in counted)

    wait_until(reported, 10, "the drops in the database to be those of the switches")
