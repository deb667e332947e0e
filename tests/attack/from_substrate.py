"""What the malicious neighbour on the substrate tries. Its wrapped frames come as from host-a, unless a case says more.

Whoever can write a peer's address as the outer source is taken for that peer: see docs/security.md. So a frame that is
wrong in one point only is wrong in nothing that the substrate alone could have refused.
"""

from __future__ import annotations

from typing import Any, Final

from scapy.contrib.geneve import GENEVE, GeneveOptions
from scapy.contrib.lacp import LACP
from scapy.contrib.mpls import MPLS
from scapy.contrib.slowprot import SlowProtocol
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.eap import EAPOL
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6ND_RA, ICMPv6NDOptDstLLAddr, ICMPv6NDOptSrcLLAddr, IPv6
from scapy.layers.l2 import ARP, GRE, LLC, STP, Dot1AD, Dot1Q, Dot3, Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet, Raw

from flows.pipeline import Reason
from mapping.model import Encap
from tests.attack.case import before_guest, cable, filtered_at, from_wire, neighbour, popped
from tests.attack.setting import (
    BLUE,
    BROADCAST,
    CONTROL,
    CONTROL_OF,
    DB,
    ECHO_REPLY,
    ECHO_REPLY6,
    HOSTS,
    LOG,
    NEIGHBOUR,
    NEIGHBOUR_MAC,
    RED,
    RED_LOG,
    ROUTER_IPV6,
    UNMAPPED,
    UNMAPPED_IPV6,
    WEB,
    A,
    B,
    C,
    bare,
    header,
    inner,
    inner6,
    ip6,
    lldp,
    solicited_node,
    wrapped,
)

_NOT_TUNNEL = from_wire(Reason.NOT_TUNNEL)
_UNKNOWN_VTEP = from_wire(Reason.UNKNOWN_VTEP)
_SOURCE_NOT_MAPPED = from_wire(Reason.SOURCE_NOT_MAPPED)
_NOT_HERE = from_wire(Reason.NOT_HERE)
_TAGGED = from_wire(Reason.VLAN_TAGGED)
_PROBE = from_wire(Reason.NEIGHBOUR_PROBE)
_UPLINK_TYPES = filtered_at("uplink_types")
_EVERYWHERE = from_wire(Reason.NOT_TUNNEL, *HOSTS)

_PING: Final = inner()
_L2: Final = Ether(src=WEB.mac, dst=DB.mac)


def _from_stranger(payload: Packet, dst: str = B.vtep) -> Packet:
    return Ether(src=NEIGHBOUR_MAC, dst=B.mac) / IP(src=NEIGHBOUR, dst=dst) / payload


def _to_all(dst: str = BROADCAST, **fields: Any) -> Packet:
    return Ether(src=NEIGHBOUR_MAC, dst=dst, **fields)


def _arp(**fields: Any) -> Packet:
    return _to_all() / ARP(op=1, hwsrc=NEIGHBOUR_MAC, psrc=NEIGHBOUR, **fields)


OUTER: Final = [
    neighbour("unknown VTEP", _UNKNOWN_VTEP, _from_stranger(header(Encap.GENEVE) / _PING)),
    neighbour(
        "impossible VTEPs",
        _UNKNOWN_VTEP,
        *(
            wrapped(_PING, claims=claims)
            for claims in ("127.0.0.1", "224.0.0.1", "0.0.0.0", "255.255.255.255", CONTROL)
        ),
    ),
    neighbour("its own VTEP as source", _UNKNOWN_VTEP, wrapped(_PING, claims=B.vtep)),
    neighbour("outer VLAN", _TAGGED, Ether(src=A.mac, dst=B.mac) / Dot1Q(vlan=5) / wrapped(_PING)[IP]),
    neighbour(
        "outer QinQ", _UPLINK_TYPES, Ether(src=A.mac, dst=B.mac) / Dot1AD(vlan=5) / Dot1Q(vlan=6) / wrapped(_PING)[IP]
    ),
    neighbour(
        "an encapsulation that is not ours",
        _NOT_TUNNEL,
        bare() / header(Encap.VXLAN) / _PING,
    ),
    neighbour("GRE", _NOT_TUNNEL, bare() / header(Encap.GRE) / _PING),
    neighbour(
        "other tunnel protocols",
        _NOT_TUNNEL,
        bare() / _PING[IP],
        bare() / MPLS(label=16) / _PING,
        # VXLAN-GPE, GTP-U, STT's port in UDP, MPLS, L2TP, WireGuard, IPsec NAT traversal, old VXLAN
        *(bare() / UDP(sport=5, dport=port) / _PING for port in (4790, 2152, 7471, 6635, 1701, 51820, 4500, 8472)),
        bare() / TCP(sport=5, dport=7471) / _PING,
        *(bare(proto=proto) / Raw(bytes(8)) for proto in (41, 50, 51, 94, 97, 115, 137)),
    ),
    neighbour("fragments of outer packets", _NOT_TUNNEL, bare(proto=17, frag=4, id=7) / Raw(bytes(64))),
    neighbour("first fragments of outer packets", _NOT_TUNNEL, bare(flags="MF") / header(Encap.GENEVE) / _PING),
    neighbour(
        "later fragments of outer GRE packets",
        from_wire(Reason.NOT_TUNNEL, "host-c"),
        *(bare(A, C, proto=47, frag=frag, flags="MF") / header(Encap.GRE) / inner(WEB, LOG) for frag in (4, 32)),
    ),
    neighbour(
        "first fragments of outer GRE packets",
        from_wire(Reason.NOT_TUNNEL, "host-c"),
        bare(A, C, flags="MF") / header(Encap.GRE) / inner(WEB, LOG),
    ),
    neighbour(
        "for another MAC",
        _EVERYWHERE,
        *(Ether(src=A.mac, dst=dst) / wrapped(_PING)[IP] for dst in ("0a:00:00:00:00:99", B.mac[:-1] + "6")),
        *(Ether(src=A.mac, dst=dst) / wrapped(_PING)[IP] for dst in (BROADCAST, "01:00:5e:00:00:02")),
        Ether(src=A.mac, dst="0a:00:00:00:00:99") / ARP(op=1, hwsrc=A.mac, psrc=A.vtep, pdst=B.vtep),
    ),
]

INNER: Final = [
    neighbour("wrong VNI", _SOURCE_NOT_MAPPED, wrapped(_PING, vni=4242), wrapped(_PING, vni=2**24 - 1)),
    neighbour("VNI of another VPC", _SOURCE_NOT_MAPPED, wrapped(inner(LOG), src=C, vni=RED)),
    neighbour("well-formed, as from a peer", popped("db"), wrapped(_PING), limit=True),
    neighbour("probe", _PROBE, wrapped(_PING, vni=0)),
    neighbour("inner source that lives here", _SOURCE_NOT_MAPPED, wrapped(inner(DB, DB))),
    neighbour("inner source that lives elsewhere", _SOURCE_NOT_MAPPED, wrapped(inner(LOG)), wrapped(_PING, src=C)),
    neighbour(
        "inner source that is mapped nowhere",
        _SOURCE_NOT_MAPPED,
        *(wrapped(_L2 / IP(src=src, dst=DB.ip) / ECHO_REPLY) for src in (UNMAPPED, "10.0.0.1", "0.0.0.0", "127.0.0.1")),
        *(wrapped(_L2 / IP(src=src, dst=DB.ip) / ECHO_REPLY) for src in ("224.0.0.1", A.vtep, B.vtep, CONTROL)),
    ),
    neighbour(
        "inner source that a guest elsewhere is allowed",
        _SOURCE_NOT_MAPPED,
        wrapped(_L2 / IP(src="10.0.0.128", dst=DB.ip) / ECHO_REPLY, src=C),
        wrapped(_L2 / ip6("fd00::c0") / ECHO_REPLY6, src=C),
    ),
    neighbour("inner source of another VPC", _SOURCE_NOT_MAPPED, wrapped(inner(RED_LOG), src=C)),
    neighbour(
        "inner destination that is elsewhere",
        _NOT_HERE,
        wrapped(inner(dst=LOG)),
        wrapped(inner(dst=WEB)),
        *(wrapped(_L2 / IP(src=WEB.ip, dst=dst) / ECHO_REPLY) for dst in (UNMAPPED, B.vtep, CONTROL, "127.0.0.1")),
        *(wrapped(_L2 / IP(src=WEB.ip, dst=dst) / ECHO_REPLY) for dst in ("255.255.255.255", "224.0.0.251")),
    ),
    neighbour("inner VLAN", _TAGGED, wrapped(_L2 / Dot1Q(vlan=3) / _PING[IP]), wrapped(_L2 / Dot1AD() / _PING[IP])),
    neighbour(
        "inner ARP",
        _SOURCE_NOT_MAPPED,
        *(wrapped(_L2 / ARP(op=op, hwsrc=WEB.mac, psrc=WEB.ip, pdst=DB.ip, hwdst=DB.mac)) for op in (1, 2)),
    ),
    neighbour("IPv6: VNI of another VPC", _SOURCE_NOT_MAPPED, wrapped(inner6(LOG), src=C, vni=RED)),
    neighbour("IPv6: as from a peer", popped("db"), wrapped(inner6()), limit=True),
    neighbour("IPv6: inner source that lives here", _SOURCE_NOT_MAPPED, wrapped(inner6(DB, DB))),
    neighbour(
        "IPv6: inner source that lives elsewhere",
        _SOURCE_NOT_MAPPED,
        wrapped(inner6(LOG)),
        wrapped(inner6(), src=C),
    ),
    neighbour(
        "IPv6: inner source that is mapped nowhere",
        _SOURCE_NOT_MAPPED,
        *(
            wrapped(_L2 / ip6(src) / ECHO_REPLY6)
            for src in (UNMAPPED_IPV6, ROUTER_IPV6, "::", "::1", "ff02::1", f"::ffff:{WEB.ip}", RED_LOG.ipv6)
        ),
    ),
    neighbour(
        "IPv6: inner source that is link-local", _SOURCE_NOT_MAPPED, wrapped(_L2 / ip6(WEB.link_local) / ECHO_REPLY6)
    ),
    neighbour(
        "IPv6: inner destination that is elsewhere",
        _NOT_HERE,
        *(
            wrapped(_L2 / ip6(dst=dst) / ECHO_REPLY6)
            for dst in (LOG.ipv6, WEB.ipv6, UNMAPPED_IPV6, "ff02::1", "::1", DB.link_local, f"::ffff:{B.vtep}")
        ),
    ),
    neighbour(
        "IPv6: inner solicitation",
        _SOURCE_NOT_MAPPED,
        *(
            wrapped(
                _L2
                / ip6(src, solicited_node(DB.ipv6), hlim=255)
                / ICMPv6ND_NS(tgt=DB.ipv6)
                / ICMPv6NDOptSrcLLAddr(lladdr=WEB.mac)
            )
            for src in (WEB.link_local, UNMAPPED_IPV6, ROUTER_IPV6)
        ),
    ),
    neighbour(
        "inner neighbour discovery, as a peer's guest",
        before_guest(Reason.LINK_ONLY),
        wrapped(
            _L2 / ip6(hlim=255) / ICMPv6ND_NA(tgt=UNMAPPED_IPV6, R=1, S=0, O=1) / ICMPv6NDOptDstLLAddr(lladdr=WEB.mac)
        ),
        wrapped(_L2 / ip6(hlim=255) / ICMPv6ND_NS(tgt=DB.ipv6) / ICMPv6NDOptSrcLLAddr(lladdr=WEB.mac)),
        wrapped(_L2 / ip6(hlim=255) / ICMPv6ND_RA()),
    ),
    neighbour(
        "inner RA",
        _SOURCE_NOT_MAPPED,
        wrapped(_L2 / IPv6(src="fe80::1", dst="ff02::1", hlim=255) / ICMPv6ND_RA()),
    ),
    neighbour(
        "inner DHCP, from nowhere or to everybody",
        _SOURCE_NOT_MAPPED,
        wrapped(_L2 / IP(src="10.0.0.1", dst=DB.ip) / UDP(sport=67, dport=68) / BOOTP(op=2) / DHCP()),
        wrapped(_L2 / IP(src="0.0.0.0", dst="255.255.255.255") / UDP(sport=68, dport=67) / BOOTP() / DHCP()),
    ),
    neighbour(
        "inner DHCP, as a peer's guest",
        before_guest(Reason.DHCP_POSED),
        wrapped(_L2 / IP(src=WEB.ip, dst=DB.ip) / UDP(sport=67, dport=68) / BOOTP(op=2) / DHCP()),
    ),
    neighbour(
        "other inner ethertypes",
        _SOURCE_NOT_MAPPED,
        *(wrapped(Ether(src=WEB.mac, dst=DB.mac, type=each) / Raw(bytes(46))) for each in (0x8847, 0x88CC, 0x88B5)),
    ),
    neighbour(
        "inner runts",
        _SOURCE_NOT_MAPPED,
        *(bytes(wrapped(bytes(_PING)[:length])) for length in (14, 15, 33)),
    ),
    neighbour("a tunnel in a tunnel", _NOT_HERE, wrapped(_L2 / IP(src=WEB.ip, dst=B.vtep) / header(B.encap) / _PING)),
]

_TO_A: Final = inner(DB, WEB)
_TO_C: Final = inner(WEB, LOG)


def _geneve(**fields: Any) -> Packet:
    return bare() / UDP(sport=50000, dport=6081, chksum=0) / GENEVE(vni=BLUE, **fields) / _PING


def _vxlan(flags: int, **fields: Any) -> Packet:
    return bare(B, A) / UDP(sport=50000, dport=4789, chksum=0) / VXLAN(flags=flags, vni=BLUE, **fields) / _TO_A


def _gre(**fields: Any) -> Packet:
    return bare(A, C) / GRE(proto=0x6558, **fields) / _TO_C


_AT_B, _AT_A, _AT_C = (filtered_at("tunnels", host) for host in ("host-b", "host-a", "host-c"))
_OPTION: Final = GeneveOptions(classid=0x102, type=0x01, data=bytes(4))
_CRITICAL: Final = GeneveOptions(classid=0x102, type=0x80, data=bytes(4))

HEADERS: Final = [
    neighbour("Geneve options", _AT_B, _geneve(options=[_OPTION]), _geneve(options=[_CRITICAL], critical=1)),
    neighbour("Geneve OAM", _AT_B, _geneve(oam=1)),
    neighbour("Geneve of another version", _AT_B, _geneve(version=1)),
    neighbour("Geneve without Ethernet in it", _AT_B, _geneve(proto=0x0800)),
    neighbour("Geneve whose options end nowhere", _AT_B, _geneve(optionlen=63)),
    neighbour("Geneve reserved bits", _AT_B, _geneve(reserved=1), _geneve(reserved2=1)),
    neighbour("VXLAN flags", _AT_A, *map(_vxlan, (0x00, 0x88, 0xFF))),
    neighbour("VXLAN reserved bits", _AT_A, _vxlan(0x08, reserved2=1)),
    neighbour("VXLAN-GPE around Ethernet", _AT_A, _vxlan(0x0C, NextProtocol=3)),
    neighbour("VXLAN-GPE around IPv4", _AT_A, _vxlan(0x0C, NextProtocol=1)),
    neighbour("VXLAN with a group policy", _AT_A, _vxlan(0x88, gpid=7)),
    neighbour("GRE checksum", _AT_C, _gre(chksum_present=1, key_present=1, key=BLUE)),
    neighbour("GRE sequence number", _AT_C, _gre(seqnum_present=1, key_present=1, key=BLUE)),
    neighbour("GRE without a key", _AT_C, _gre()),
    neighbour(
        "GRE of other kinds",
        _AT_C,
        _gre(routing_present=1, key_present=1, key=BLUE),
        _gre(version=1, key_present=1, key=BLUE),
    ),
    neighbour("GRE with IPv4 in it", _AT_C, bare(A, C) / GRE(key_present=1, key=BLUE, proto=0x0800) / _TO_C[IP]),
    neighbour(
        "GRE of other kinds, to a host that takes none",
        _AT_B,
        bare() / GRE() / _PING[IP],
        bare() / GRE(proto=0x88BE, seqnum_present=1) / Raw(bytes(8)) / _PING,
    ),
    cable("tunnel headers that end too soon", _AT_B, *(bytes(_geneve())[:length] for length in (42, 45, 49))),
]

_NOT_IPV4: Final = (0x8847, 0x8863, 0x88B5, 0x1234)

PLAIN: Final = [
    neighbour(
        "plain UDP to the VTEP",
        _NOT_TUNNEL,
        *(_from_stranger(UDP(sport=5, dport=port)) for port in (53, 67, 68, 123, 161, 546, 3784)),
        bare() / UDP(sport=5, dport=53),
    ),
    neighbour(
        "TCP and ICMP to the VTEP",
        _NOT_TUNNEL,
        *(_from_stranger(TCP(sport=5, dport=port, flags="S")) for port in (22, 179, 6640, 6653)),
        _from_stranger(ICMP()),
        bare() / ICMP(type=3, code=4) / IP(src=B.vtep, dst=A.vtep) / UDP(),
    ),
    neighbour("plain frame", _NOT_TUNNEL, Ether(src=NEIGHBOUR_MAC, dst=B.mac) / _PING[IP]),
    neighbour("plain frame to a guest's MAC", _EVERYWHERE, _PING),
    neighbour(
        "to the control network through a host",
        _NOT_TUNNEL,
        *(_from_stranger(TCP(dport=6640, flags="S"), dst) for dst in (CONTROL, *CONTROL_OF.values())),
        *(_from_stranger(header(Encap.GENEVE) / _PING, dst) for dst in (CONTROL, DB.ip, "127.0.0.1")),
    ),
    neighbour(
        "other outer ethertypes",
        _UPLINK_TYPES,
        *(Ether(src=NEIGHBOUR_MAC, dst=B.mac, type=each) / Raw(bytes(46)) for each in _NOT_IPV4),
    ),
    neighbour(
        "IPv6: outer",
        _NOT_TUNNEL,
        *(
            Ether(src=A.mac, dst=B.mac) / IPv6(src="2001:db8::1", dst=dst) / header(encap) / _PING
            for dst in ("2001:db8::2", f"::ffff:{B.vtep}")
            for encap in Encap
        ),
    ),
    neighbour("outer IPv6, RA", _EVERYWHERE, _to_all("33:33:00:00:00:01") / IPv6(dst="ff02::1") / ICMPv6ND_RA()),
    neighbour("outer DHCP server", _EVERYWHERE, _to_all() / IP(dst="255.255.255.255") / UDP(sport=67, dport=68)),
    neighbour("outer LLDP", _EVERYWHERE, _to_all("01:80:c2:00:00:0e", type=0x88CC) / lldp(NEIGHBOUR_MAC)),
    neighbour("outer STP", _EVERYWHERE, Dot3(src=NEIGHBOUR_MAC, dst="01:80:c2:00:00:00") / LLC() / STP()),
    neighbour("outer LACP", _EVERYWHERE, _to_all("01:80:c2:00:00:02", type=0x8809) / SlowProtocol(subtype=1) / LACP()),
    neighbour("outer 802.1X", _EVERYWHERE, _to_all("01:80:c2:00:00:03", type=0x888E) / EAPOL()),
    neighbour("ARP for an address that is not the VTEP", _EVERYWHERE, _arp(pdst=DB.ip), _arp(pdst=CONTROL)),
    cable("outer runts", _NOT_TUNNEL, *(bytes(bare())[:length] for length in (14, 20, 33))),
]
