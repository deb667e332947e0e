"""What the malicious guest tries with the shape of frames: tags, ethertypes, fragments, lengths, headers in headers."""

from __future__ import annotations

from typing import Final

from scapy.contrib.lacp import LACP
from scapy.contrib.mpls import MPLS
from scapy.contrib.slowprot import SlowProtocol
from scapy.layers.eap import EAP, EAPOL
from scapy.layers.inet import (
    IP,
    IPOption_LSRR,
    IPOption_Router_Alert,
    IPOption_RR,
    IPOption_SSRR,
    IPOption_Timestamp,
)
from scapy.layers.l2 import ARP, GRE, LLC, SNAP, STP, Dot1AD, Dot1Q, Dot3, Ether
from scapy.packet import Packet, Raw

from flows.pipeline import Reason
from mapping.model import Encap
from tests.attack.case import at_guest, at_nic, delivered, filtered, guest, too_long
from tests.attack.setting import BROADCAST, DB, ECHO_REPLY, NEAR, WEB, A, B, eth, header, inner, ip, lldp

_TYPES = filtered("types")
_SPOOFED_IP = at_guest(Reason.SPOOFED_IP)
_SPOOFED_ARP = at_guest(Reason.SPOOFED_ARP)
_NO_MAPPING = at_nic(Reason.NO_MAPPING)

_PING: Final = ip() / ECHO_REPLY


def _typed(eth_type: int, dst: str = BROADCAST) -> Packet:
    return eth(dst, type=eth_type) / Raw(bytes(46))


def _llc(dst: str, payload: Packet) -> Packet:
    return Dot3(dst=dst, src=WEB.mac) / payload


TYPES: Final = [
    guest("VLAN", _TYPES, eth() / Dot1Q(vlan=7) / _PING, eth() / Dot1Q(vlan=4095) / _PING),
    guest("priority tag", _TYPES, eth() / Dot1Q(vlan=0, prio=7) / _PING),
    guest("VLAN around ARP", _TYPES, eth(BROADCAST) / Dot1Q(vlan=7) / ARP(hwsrc=WEB.mac, psrc=WEB.ip, pdst=DB.ip)),
    guest("VLAN with a spoofed MAC", _TYPES, eth(src=NEAR.mac) / Dot1Q(vlan=7) / _PING),
    guest(
        "VLAN by the kernel",
        at_guest(Reason.VLAN_TAGGED),
        *(eth() / Dot1Q(vlan=vlan) / _PING for vlan in (0, 7, 4095)),
        eth() / Dot1AD(vlan=7) / _PING,
        eth(src=NEAR.mac) / Dot1Q(vlan=7) / _PING,
        eth(BROADCAST) / Dot1Q(vlan=7) / ARP(hwsrc=WEB.mac, psrc=WEB.ip, pdst=DB.ip),
        tag_beside=True,
    ),
    guest(
        "QinQ",
        _TYPES,
        eth() / Dot1AD(vlan=7) / Dot1Q(vlan=8) / _PING,
        eth() / Dot1Q(vlan=7) / Dot1Q(vlan=8) / _PING,
        eth() / Dot1AD(vlan=7) / _PING,
        eth() / Dot1AD(vlan=7) / Dot1Q(vlan=8) / Dot1Q(vlan=9) / _PING,
    ),
    guest("QinQ by an old ethertype", _TYPES, *(_typed(eth_type) for eth_type in (0x9100, 0x9200, 0x9300))),
    guest("MPLS", _TYPES, *(eth(type=eth_type) / MPLS(label=16, ttl=9) / _PING for eth_type in (0x8847, 0x8848))),
    guest("LLDP", _TYPES, *(eth(f"01:80:c2:00:00:{last}", type=0x88CC) / lldp(WEB.mac) for last in ("0e", "03", "00"))),
    guest("STP", _TYPES, _llc("01:80:c2:00:00:00", LLC() / STP()), _llc("01:00:0c:cc:cc:cd", LLC() / SNAP() / STP())),
    guest("LACP", _TYPES, eth("01:80:c2:00:00:02", type=0x8809) / SlowProtocol(subtype=1) / LACP()),
    guest("802.1X", _TYPES, eth("01:80:c2:00:00:03", type=0x888E) / EAPOL() / EAP(code=2)),
    guest("CDP", _TYPES, _llc("01:00:0c:cc:cc:cc", LLC(dsap=0xAA, ssap=0xAA, ctrl=3) / SNAP(OUI=0xC, code=0x2000))),
    guest("pause frame", _TYPES, _typed(0x8808, "01:80:c2:00:00:01")),
    guest("PPPoE", _TYPES, _typed(0x8863), _typed(0x8864)),
    guest(
        "unknown ethertypes",
        _TYPES,
        # RARP, 802.1X pre-authentication, MACsec, PTP, EtherCAT, FCoE, NSH, TEB, loopback, IPX, experiments
        *map(_typed, (0x8035, 0x88C7, 0x88E5, 0x88F7, 0x88A4, 0x8906, 0x894F, 0x6558, 0x9000)),
        *map(_typed, (0x8137, 0x88B5, 0x1234, 0x0600, 0xFFFF)),
    ),
    guest("length instead of an ethertype", _TYPES, _typed(0), _typed(46), _typed(0x05DC)),
    guest("IPv4 in LLC/SNAP", _TYPES, _llc(DB.mac, LLC(dsap=0xAA, ssap=0xAA, ctrl=3) / SNAP() / _PING)),
    guest(
        "spoofed IP in LLC/SNAP",
        _TYPES,
        _llc(DB.mac, LLC(dsap=0xAA, ssap=0xAA, ctrl=3) / SNAP() / ip(NEAR.ip) / ECHO_REPLY),
    ),
]


def _fragments(src: str) -> list[Packet]:
    whole = bytes(ECHO_REPLY / Raw(bytes(56)))
    first = IP(src=src, dst=DB.ip, proto=1, id=77, flags="MF") / Raw(whole[:32])
    return [eth() / first, eth() / IP(src=src, dst=DB.ip, proto=1, id=77, frag=4) / Raw(whole[32:64])]


SHAPES: Final = [
    guest("fragments", delivered("db"), *map(bytes, _fragments(WEB.ip))),
    guest("fragments with a spoofed IP", _SPOOFED_IP, *_fragments(NEAR.ip)),
    guest(
        "fragments that overlap, or begin nowhere",
        delivered("db"),
        *(eth() / ip(proto=17, id=78, frag=frag, flags=flags) / Raw(bytes(64)) for frag, flags in ((4, 1), (2, 0))),
        eth() / ip(proto=1, id=79, frag=8189) / Raw(bytes(8)),
    ),
    guest(
        "IP options",
        delivered("db"),
        *(
            eth() / ip(options=option) / ECHO_REPLY
            for option in (IPOption_RR(), IPOption_Timestamp(pointer=5, flg=0), IPOption_Router_Alert())
        ),
    ),
    guest(
        "source routes",
        delivered("db"),
        *(eth() / ip(options=option(routers=[B.vtep])) / ECHO_REPLY for option in (IPOption_LSRR, IPOption_SSRR)),
    ),
    guest("IP options with a spoofed IP", _SPOOFED_IP, eth() / ip(NEAR.ip, options=IPOption_RR()) / ECHO_REPLY),
    guest(
        "runts",
        _SPOOFED_IP,
        *(bytes(eth(type=0x0800)) + rest for rest in (b"", b"\x45", bytes(_PING)[:19], b"\x44" + bytes(_PING)[1:])),
    ),
    guest("runts of ARP", _SPOOFED_ARP, *(bytes(eth(type=0x0806)) + rest for rest in (b"", bytes(ARP())[:27]))),
    guest("runts of other types", _TYPES, *(bytes(eth(type=eth_type)) for eth_type in (0x8847, 0x0000))),
    guest(
        "lengths that lie",
        _SPOOFED_IP,
        *(eth() / lie / ECHO_REPLY for lie in (ip(len=19), ip(len=1400), ip(ihl=15), ip(ihl=4))),
    ),
    guest("jumbo frames", too_long(), *(eth() / _PING / Raw(bytes(size)) for size in (1500, 4000, 8900)), mtu=9000),
]

_WRAPPED: Final = [header(encap) / inner(WEB, DB) for encap in Encap]

TUNNELS: Final = [
    guest("a tunnel of its own, to a VTEP", _NO_MAPPING, *(eth(B.mac) / ip(dst=B.vtep) / each for each in _WRAPPED)),
    guest("a tunnel as from its VTEP", _SPOOFED_IP, *(eth(B.mac) / ip(A.vtep, B.vtep) / each for each in _WRAPPED)),
    guest("a tunnel of its own, to a guest", delivered("db"), *(eth() / ip() / each for each in _WRAPPED)),
    guest(
        "IP in IP",
        delivered("db"),
        eth() / ip() / IP(src=NEAR.ip, dst=DB.ip) / ECHO_REPLY,
    ),
    guest("IP in GRE", delivered("db"), eth() / ip() / GRE() / IP(src=NEAR.ip, dst=DB.ip) / ECHO_REPLY),
    guest("Ethernet in Ethernet", _TYPES, eth(type=0x6558) / Ether(src=DB.mac, dst=WEB.mac) / _PING),
]
