"""What the malicious guest tries with addresses: as source, as destination, in ARP and DHCP; not IPv6."""

from __future__ import annotations

from typing import Any, Final

from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.inet import TCP, UDP, IPOption_RR
from scapy.layers.l2 import ARP
from scapy.packet import Packet, Raw

from flows.pipeline import Reason
from tests.attack.case import answered, at_guest, at_nic, delivered, filtered, guest, ignored, told
from tests.attack.setting import (
    BROADCAST,
    CONTROL,
    CONTROL_OF,
    DB,
    ECHO_REPLY,
    HOSTS,
    LOG,
    NEAR,
    NEIGHBOUR,
    OTHER_SUBNET,
    RED_LOG,
    ROUTER,
    ROUTER_MAC,
    UNMAPPED,
    WEB,
    A,
    B,
    eth,
    ip,
)

_VTEPS: Final = [host.vtep for host in HOSTS.values()]
_CONTROLS: Final = [CONTROL, *CONTROL_OF.values()]

_SPOOFED_MAC = at_guest(Reason.SPOOFED_MAC)
_SPOOFED_IP = at_guest(Reason.SPOOFED_IP)
_SPOOFED_ARP = at_guest(Reason.SPOOFED_ARP)
_NO_MAPPING = at_nic(Reason.NO_MAPPING)


def _ping(src: str = WEB.ip, dst: str = DB.ip) -> Packet:
    return eth() / ip(src, dst) / ECHO_REPLY


def _arp(op: int = 1, sha: str = WEB.mac, spa: str = WEB.ip, tpa: str = DB.ip, **fields: Any) -> Packet:
    return eth(BROADCAST) / ARP(op=op, hwsrc=sha, psrc=spa, pdst=tpa, **fields)


SOURCES: Final = [
    guest(
        "spoofed MAC",
        _SPOOFED_MAC,
        *(eth(src=mac) / ip() / ECHO_REPLY for mac in (NEAR.mac, DB.mac, ROUTER_MAC, A.mac, "02:00:00:00:00:10")),
    ),
    guest(
        "multicast, broadcast or no MAC as source",
        _SPOOFED_MAC,
        *(eth(src=mac) / ip() / ECHO_REPLY for mac in ("03:00:00:00:00:11", BROADCAST, "00:00:00:00:00:00")),
    ),
    guest("spoofed MAC in ARP's Ethernet header", _SPOOFED_MAC, eth(BROADCAST, NEAR.mac) / _arp()[ARP]),
    guest("spoofed IP", _SPOOFED_IP, *(_ping(src) for src in (NEAR.ip, LOG.ip, RED_LOG.ip, UNMAPPED, "203.0.113.9"))),
    guest("router as source", _SPOOFED_IP, _ping(ROUTER)),
    guest("VTEP as source", _SPOOFED_IP, *(_ping(vtep) for vtep in _VTEPS)),
    guest("control address as source", _SPOOFED_IP, *(_ping(control) for control in _CONTROLS)),
    guest("source equal to destination", _SPOOFED_IP, _ping(DB.ip, DB.ip), eth(DB.mac) / ip(DB.ip) / TCP(dport=80)),
    guest("to its own address", at_guest(Reason.TO_ITSELF), _ping(WEB.ip, WEB.ip)),
    guest("loopback as source", _SPOOFED_IP, _ping("127.0.0.1"), _ping("127.255.255.254")),
    guest("multicast as source", _SPOOFED_IP, _ping("224.0.0.1"), _ping("239.255.255.255")),
    guest("broadcast or nothing as source", _SPOOFED_IP, *map(_ping, ("255.255.255.255", "10.0.0.255", "0.0.0.0"))),
]

DESTINATIONS: Final = [
    guest("no mapping", _NO_MAPPING, _ping(dst=UNMAPPED), _ping(dst=OTHER_SUBNET), _ping(dst="203.0.113.9")),
    guest("another VPC's only address", _NO_MAPPING, _ping(dst=RED_LOG.ip)),
    guest(
        "another VPC's MAC with a shared address",
        delivered("db"),
        eth("02:00:00:00:00:22") / ip() / ECHO_REPLY,
    ),
    guest(
        "broadcast and multicast destinations",
        _NO_MAPPING,
        *(eth(BROADCAST) / ip(dst=dst) / ECHO_REPLY for dst in ("255.255.255.255", "10.0.0.255")),
        *(eth("01:00:5e:00:00:fb") / ip(dst=dst) / ECHO_REPLY for dst in ("224.0.0.251", "224.0.0.1")),
    ),
    guest("unicast in a broadcast frame", delivered("db"), eth(BROADCAST) / ip() / ECHO_REPLY),
    guest(
        "loopback and link-local destinations",
        _NO_MAPPING,
        *(_ping(dst=dst) for dst in ("127.0.0.1", "169.254.169.254", "0.0.0.0")),
    ),
    guest("to a VTEP", _NO_MAPPING, *(eth(host.mac) / ip(dst=host.vtep) / ECHO_REPLY for host in HOSTS.values())),
    guest("to a neighbour on the substrate", _NO_MAPPING, eth(BROADCAST) / ip(dst=NEIGHBOUR) / ECHO_REPLY),
    guest("to the control network", _NO_MAPPING, *(eth(BROADCAST) / ip(dst=dst) / ECHO_REPLY for dst in _CONTROLS)),
    guest(
        "to OVSDB's and OpenFlow's ports",
        _NO_MAPPING,
        *(
            eth(BROADCAST) / ip(dst=dst) / TCP(sport=40000, dport=port, flags="S")
            for dst in (CONTROL, CONTROL_OF["host-a"], A.vtep, B.vtep)
            for port in (6640, 6653)
        ),
    ),
    guest(
        "to OVSDB as its host",
        _SPOOFED_IP,
        eth(BROADCAST) / ip(CONTROL_OF["host-a"], CONTROL) / TCP(sport=40000, dport=6640, flags="S"),
    ),
]

ARP_CASES: Final = [
    guest("spoofed ARP MAC", _SPOOFED_ARP, _arp(sha=NEAR.mac), _arp(sha=DB.mac), _arp(sha=ROUTER_MAC)),
    guest("spoofed ARP address", _SPOOFED_ARP, *(_arp(spa=spa) for spa in (NEAR.ip, DB.ip, ROUTER, A.vtep, UNMAPPED))),
    guest(
        "spoofed ARP reply",
        _SPOOFED_ARP,
        _arp(2, spa=ROUTER, tpa=NEAR.ip, hwdst=NEAR.mac),
        _arp(2, spa=DB.ip, tpa=NEAR.ip, hwdst=NEAR.mac),
    ),
    guest("gratuitous ARP", at_guest(Reason.ARP_OWN_ADDRESS), _arp(tpa=WEB.ip), _arp(spa="0.0.0.0", tpa=WEB.ip)),
    guest("gratuitous ARP for another", _SPOOFED_ARP, _arp(spa=DB.ip, tpa=DB.ip)),
    guest("ARP reply", at_guest(Reason.ARP_NOT_REQUEST), _arp(2), _arp(2, tpa=NEAR.ip, hwdst=NEAR.mac)),
    guest("other ARP operations", at_guest(Reason.ARP_NOT_REQUEST), *(_arp(op) for op in (0, 3, 8, 9, 255))),
    guest(
        "ARP for nobody",
        at_guest(Reason.ARP_UNMAPPED),
        *(_arp(tpa=tpa) for tpa in (UNMAPPED, RED_LOG.ip, A.vtep, NEIGHBOUR, CONTROL, "0.0.0.0", "224.0.0.1")),
    ),
    guest("ARP of another hardware or protocol", _SPOOFED_ARP, _arp(hwtype=6), _arp(ptype=0x86DD), _arp(hwlen=8)),
    guest("ARP request in a unicast frame", answered(), eth(DB.mac) / _arp()[ARP]),
]

_DHCP: Final = filtered("dhcp")
_OFFER: Final = (
    UDP(sport=67, dport=68)
    / BOOTP(op=2, yiaddr="10.0.0.77", siaddr=WEB.ip)
    / DHCP(options=[("message-type", "offer"), ("server_id", WEB.ip), "end"])
)


def _discover(src: str = "0.0.0.0", chaddr: str = WEB.mac) -> Packet:
    bootp = BOOTP(chaddr=bytes.fromhex(chaddr.replace(":", ""))) / DHCP(options=[("message-type", "discover"), "end"])
    return eth(BROADCAST) / ip(src, "255.255.255.255") / UDP(sport=68, dport=67) / bootp


SERVERS: Final = [
    guest("DHCP server, to everybody", _DHCP, eth(BROADCAST) / ip(dst="255.255.255.255") / _OFFER),
    guest("DHCP server, as the router", _DHCP, eth(DB.mac) / ip(ROUTER) / _OFFER),
    guest("DHCP client without an address", told(lambda reply: reply[BOOTP].yiaddr == WEB.ip), _discover()),
    guest("DHCP client, as another guest", ignored(), _discover(chaddr=DB.mac), _discover(WEB.ip, DB.mac)),
    guest("DHCP client, from another's address", _SPOOFED_IP, _discover(NEAR.ip), _discover(ROUTER)),
    guest(
        "DHCP server, in fragments",
        _DHCP,
        eth(DB.mac) / ip(flags="MF", proto=17) / Raw(bytes(_OFFER)[:64]),
        eth(DB.mac) / ip(flags="MF", proto=17, options=IPOption_RR()) / Raw(bytes(_OFFER)[:64]),
    ),
    guest("DHCP server, to one guest", _DHCP, eth(DB.mac) / ip() / _OFFER),
    guest(
        "DHCP server, from another port",
        _DHCP,
        *(eth(DB.mac) / ip(flags=flags) / UDP(sport=1067, dport=68) / _OFFER.payload for flags in ("", "MF")),
    ),
]
