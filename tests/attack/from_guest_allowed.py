"""What the malicious guest tries with what its port is allowed besides its own addresses: 10.0.0.128/28, fd00::c0/124.

It may send from there, and neither from next to it, nor receive what is sent there.
"""

from __future__ import annotations

from typing import Final

from scapy.layers.inet import TCP
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6NDOptDstLLAddr, ICMPv6NDOptSrcLLAddr
from scapy.layers.l2 import ARP
from scapy.packet import Packet

from flows.pipeline import Reason
from tests.attack.case import at_guest, at_nic, at_receiver, delivered, guest
from tests.attack.setting import (
    BROADCAST,
    DB,
    ECHO_REPLY,
    ECHO_REPLY6,
    NEAR,
    VAULT,
    WEB,
    eth,
    ip,
    ip6,
    solicited_node,
)

_INSIDE, _INSIDE6 = ("10.0.0.128", "10.0.0.143"), ("fd00::c0", "fd00::cf")
_BESIDE, _BESIDE6 = ("10.0.0.127", "10.0.0.144"), ("fd00::bf", "fd00::d0")


def _arp(sender: str, target: str) -> Packet:
    return eth(BROADCAST) / ARP(op=1, hwsrc=WEB.mac, psrc=sender, pdst=target)


def _solicitation(src: str) -> Packet:
    head = eth("33:33:ff:00:00:12") / ip6(src, solicited_node(DB.ipv6), hlim=255)
    return head / ICMPv6ND_NS(tgt=DB.ipv6) / ICMPv6NDOptSrcLLAddr(lladdr=WEB.mac)


def _advertisement(src: str) -> Packet:
    message = ICMPv6ND_NA(tgt=src, R=0, S=0, O=1) / ICMPv6NDOptDstLLAddr(lladdr=WEB.mac)
    return eth("33:33:00:00:00:01") / ip6(src, "ff02::1", hlim=255) / message


ALLOWED: Final = [
    guest(
        "from what it is allowed",
        delivered("db"),
        *(eth() / ip(src) / ECHO_REPLY for src in _INSIDE),
        *(eth() / ip6(src) / ECHO_REPLY6 for src in _INSIDE6),
    ),
    guest(
        "from next to what it is allowed",
        at_guest(Reason.SPOOFED_IP),
        *(eth() / ip(src) / ECHO_REPLY for src in _BESIDE),
        *(eth() / ip6(src) / ECHO_REPLY6 for src in _BESIDE6),
        *(_solicitation(src) for src in _BESIDE6),
    ),
    guest(
        "ARP from next to what it is allowed", at_guest(Reason.SPOOFED_ARP), *(_arp(src, NEAR.ip) for src in _BESIDE)
    ),
    guest("announces what it is allowed", at_guest(Reason.ARP_UNMAPPED), *(_arp(inside, inside) for inside in _INSIDE)),
    guest(
        "advertises what it is allowed",
        at_guest(Reason.ND_ADVERTISED),
        *(_advertisement(inside) for inside in _INSIDE6),
    ),
    guest(
        "to what it is allowed",
        at_nic(Reason.NO_MAPPING),
        *(eth() / ip(dst=dst) / ECHO_REPLY for dst in _INSIDE),
        *(eth() / ip6(dst=dst) / ECHO_REPLY6 for dst in _INSIDE6),
    ),
    guest(
        "from what it is allowed, to a port that is closed",
        at_receiver(Reason.GROUP_TO_GUEST, "vault"),
        eth() / ip(_INSIDE[0], VAULT.ip) / TCP(dport=443, flags="S"),
        eth() / ip6(_INSIDE6[0], VAULT.ipv6) / TCP(dport=443, flags="S"),
    ),
]
