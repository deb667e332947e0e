"""What the malicious guest tries over IPv6, and with neighbour discovery."""

from __future__ import annotations

from typing import Final

from scapy.layers.dhcp6 import (
    DUID_LL,
    DHCP6_Advertise,
    DHCP6_Solicit,
    DHCP6OptClientId,
    DHCP6OptIA_NA,
    DHCP6OptIAAddress,
)
from scapy.layers.inet import TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6MLDone,
    ICMPv6MLQuery,
    ICMPv6MLReport,
    ICMPv6MLReport2,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_Redirect,
    ICMPv6ND_RS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptPrefixInfo,
    ICMPv6NDOptSrcLLAddr,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    IPv6ExtHdrSegmentRouting,
    RouterAlert,
)
from scapy.layers.l2 import Dot1Q
from scapy.packet import Packet, Raw

from flows.pipeline import Reason
from tests.attack.case import advertised, at_guest, at_nic, delivered, filtered, guest, ignored, told
from tests.attack.setting import (
    CONTROL,
    DB,
    ECHO_REPLY6,
    HOSTS,
    NEAR,
    OTHER_SUBNET_IPV6,
    RED_DB,
    RED_LOG,
    ROUTER_IPV6,
    ROUTER_MAC,
    UNMAPPED_IPV6,
    WEB,
    A,
    B,
    eth,
    inner6,
    ip6,
    solicited_node,
)

_NOBODY: Final = "::"
_ALL_NODES: Final = "ff02::1"

_SPOOFED_MAC = at_guest(Reason.SPOOFED_MAC)
_SPOOFED_IP = at_guest(Reason.SPOOFED_IP)
_SPOOFED_ND = at_guest(Reason.SPOOFED_ND)
_ADVERTISED = at_guest(Reason.ND_ADVERTISED)
_ROUTER_POSED = at_guest(Reason.ROUTER_POSED)
_HIDDEN = filtered("hidden")
_LINK_LOCAL = at_guest(Reason.LINK_LOCAL)
_MLD = at_guest(Reason.MLD)
_NO_MAPPING = at_nic(Reason.NO_MAPPING)


def _ping(src: str = WEB.ipv6, dst: str = DB.ipv6, mac: str = WEB.mac) -> Packet:
    return eth(src=mac) / ip6(src, dst) / ECHO_REPLY6


def _link(message: Packet, src: str = WEB.link_local, dst: str = _ALL_NODES, hlim: int = 255) -> Packet:
    """A message that stays on a link."""
    return eth(_mac(dst)) / ip6(src, dst, hlim=hlim) / message


def _mac(dst: str) -> str:
    """RFC 2464, 7; who listens to unicast addresses is all one."""
    return {_ALL_NODES: "33:33:00:00:00:01", "ff02::2": "33:33:00:00:00:02"}.get(dst, DB.mac)


def _ns(target: str = DB.ipv6, src: str = WEB.ipv6, sll: str | None = WEB.mac, mac: str = WEB.mac) -> Packet:
    message = eth("33:33:ff:00:00:12", mac) / ip6(src, solicited_node(target), hlim=255) / ICMPv6ND_NS(tgt=target)
    return message / ICMPv6NDOptSrcLLAddr(lladdr=sll) if sll else message


def _na(target: str, mac: str = WEB.mac) -> Packet:
    return ICMPv6ND_NA(tgt=target, R=0, S=0, O=1) / ICMPv6NDOptDstLLAddr(lladdr=mac)


SOURCES: Final = [
    guest(
        "IPv6: spoofed MAC",
        _SPOOFED_MAC,
        *(_ping(mac=mac) for mac in (NEAR.mac, DB.mac, ROUTER_MAC, A.mac, "33:33:00:00:00:01")),
    ),
    guest(
        "IPv6: spoofed IP",
        _SPOOFED_IP,
        *(_ping(src) for src in (NEAR.ipv6, DB.ipv6, RED_LOG.ipv6, ROUTER_IPV6, UNMAPPED_IPV6, "2001:db8::1")),
        *(_ping(src) for src in ("::1", "ff02::1", f"::ffff:{WEB.ip}", f"::{WEB.ip}", "2002:a00:b::1", "fec0::11")),
    ),
    guest("IPv6: no source", _SPOOFED_IP, _ping(_NOBODY)),
    guest("IPv6: to its own address", at_guest(Reason.TO_ITSELF), _ping(WEB.ipv6, WEB.ipv6)),
    guest(
        "IPv6: from link-local",
        _LINK_LOCAL,
        *(_ping(src) for src in (WEB.link_local, DB.link_local, "fe80::1", "febf::1")),
        _ping(WEB.link_local, DB.link_local),
    ),
    guest(
        "IPv6: mDNS from link-local",
        _LINK_LOCAL,
        eth("33:33:00:00:00:fb") / ip6(WEB.link_local, "ff02::fb", hlim=255) / UDP(sport=5353, dport=5353),
    ),
]

DESTINATIONS: Final = [
    guest("IPv6", delivered("db"), eth() / ip6(nh=59), _ping(), eth() / ip6(tc=8, fl=0x12345, hlim=1) / ECHO_REPLY6),
    guest(
        "IPv6: no mapping", _NO_MAPPING, *(_ping(dst=dst) for dst in (UNMAPPED_IPV6, OTHER_SUBNET_IPV6, "2001:db8::1"))
    ),
    guest("IPv6: another VPC's only address", _NO_MAPPING, _ping(dst=RED_LOG.ipv6)),
    guest("IPv6: another VPC's MAC with a shared address", delivered("db"), eth(RED_DB.mac) / ip6() / ECHO_REPLY6),
    guest(
        "IPv6: multicast",
        _NO_MAPPING,
        *(_ping(dst=dst) for dst in (_ALL_NODES, "ff02::2", "ff02::fb", "ff05::1:3", "ff0e::1", "ff01::1")),
        eth("33:33:ff:00:00:12") / ip6(dst=solicited_node(DB.ipv6)) / ECHO_REPLY6,
    ),
    guest("IPv6: to link-local", _NO_MAPPING, *(_ping(dst=dst) for dst in (DB.link_local, NEAR.link_local))),
    guest("IPv6: to loopback, or to nobody", _NO_MAPPING, _ping(dst="::1"), _ping(dst=_NOBODY)),
    guest(
        "IPv6: to IPv4 addresses of hosts and of the control network",
        _NO_MAPPING,
        # Mapped, translated (RFC 6052)
        *(
            eth() / ip6(dst=f"{prefix}{dst}") / TCP(sport=40000, dport=6640, flags="S")
            for prefix in ("::ffff:", "64:ff9b::", "::")
            for dst in (*(host.vtep for host in HOSTS.values()), CONTROL)
        ),
    ),
]

_WHOLE: Final = bytes(ip6(hlim=255) / _na(UNMAPPED_IPV6))[40:]

_OPTIONS: Final = b"\x3a\1" + bytes(14)
"""A header of destination options, of 16 bytes, before ICMPv6."""


def _fragment(part: bytes, more: int = 0, offset: int = 0, nh: int = 58) -> Packet:
    return eth(DB.mac) / ip6(hlim=255) / IPv6ExtHdrFragment(m=more, offset=offset, id=7, nh=nh) / Raw(part)


NEIGHBOURS: Final = [
    guest("solicitation from another MAC", _SPOOFED_MAC, _ns(mac=DB.mac), _ns(mac=NEAR.mac, sll=NEAR.mac)),
    guest(
        "solicitation from another's address",
        _SPOOFED_IP,
        *(_ns(src=src) for src in (NEAR.ipv6, DB.ipv6, ROUTER_IPV6, RED_LOG.ipv6, UNMAPPED_IPV6)),
    ),
    guest(
        "solicitation that names another's MAC",
        _SPOOFED_ND,
        *(_ns(src=src, sll=mac) for src in (WEB.ipv6, WEB.link_local) for mac in (DB.mac, NEAR.mac, ROUTER_MAC)),
    ),
    guest("solicitation that names no MAC", _SPOOFED_ND, _ns(sll=None), _ns(src=WEB.link_local, sll=None)),
    guest("solicitation that names a MAC, but no address", _SPOOFED_ND, _ns(src=_NOBODY)),
    guest("solicitation that names two MACs", _SPOOFED_ND, _ns() / ICMPv6NDOptSrcLLAddr(lladdr=DB.mac)),
    guest(
        "advertisement of another's address",
        _ADVERTISED,
        *(_link(_na(target), WEB.ipv6) for target in (DB.ipv6, NEAR.ipv6, ROUTER_IPV6)),
    ),
    guest(
        "advertisement from another's address",
        _SPOOFED_IP,
        _link(_na(DB.ipv6), DB.ipv6),
        _link(_na(ROUTER_IPV6), ROUTER_IPV6, NEAR.ipv6),
    ),
    guest(
        "advertisement of its own address",
        _ADVERTISED,
        _link(_na(WEB.ipv6), WEB.ipv6),
        _link(_na(WEB.ipv6), WEB.ipv6, DB.ipv6),
        _link(_na(WEB.link_local)),
    ),
    guest(
        "solicitation of nobody",
        at_guest(Reason.ND_UNMAPPED),
        *(_ns(target) for target in (UNMAPPED_IPV6, RED_LOG.ipv6, "2001:db8::1", f"::ffff:{B.vtep}", _NOBODY)),
    ),
    guest("double of nobody's address", at_guest(Reason.ND_UNMAPPED), _ns(UNMAPPED_IPV6, _NOBODY, sll=None)),
    guest("double of its own address", at_guest(Reason.ND_OWN_ADDRESS), _ns(WEB.ipv6, _NOBODY, sll=None)),
    guest("solicitation of its own address", at_guest(Reason.ND_OWN_ADDRESS), _ns(WEB.ipv6)),
    guest(
        "solicitation of a link-local address", _LINK_LOCAL, *(_ns(DB.link_local, src) for src in (WEB.ipv6, "fe80::1"))
    ),
    guest("double of its own link-local address", _LINK_LOCAL, _ns(WEB.link_local, _NOBODY, sll=None)),
    guest("solicitation of a neighbour", advertised("db"), _ns(), _ns(src=WEB.link_local), _ns(src="fe80::1:2:3")),
    guest(
        "solicitation in a unicast frame",
        advertised("db"),
        eth(DB.mac) / ip6(hlim=255) / ICMPv6ND_NS(tgt=DB.ipv6) / ICMPv6NDOptSrcLLAddr(lladdr=WEB.mac),
    ),
    guest(
        "neighbour discovery in fragments",
        _HIDDEN,
        _fragment(_WHOLE[:16], more=1),
        # Whole, but with a fragment header, RFC 6946
        _fragment(_WHOLE),
        # Its type in the second one, RFC 7112
        _fragment(_OPTIONS[:8], more=1, nh=60),
        _fragment(_OPTIONS[8:] + _WHOLE, offset=1, nh=60),
        eth(DB.mac) / ip6(hlim=255, nh=60) / Raw(b"\x2c\0" + bytes(6)) / _fragment(_WHOLE)[IPv6ExtHdrFragment],
    ),
    guest("the end of neighbour discovery in fragments", delivered("db"), _fragment(_WHOLE[16:], offset=2)),
    guest("neighbour discovery in a VLAN", filtered("types"), eth() / Dot1Q(vlan=7) / _ns().payload),
]

_RA: Final = ICMPv6ND_RA() / ICMPv6NDOptPrefixInfo(prefix="2001:db8::") / ICMPv6NDOptSrcLLAddr(lladdr=WEB.mac)
_ALERT: Final = IPv6ExtHdrHopByHop(options=[RouterAlert()])

ROUTERS: Final = [
    guest(
        "router advertisement",
        _ROUTER_POSED,
        *(_link(_RA, src) for src in (WEB.link_local, "fe80::1", WEB.ipv6)),
        _link(_RA, dst=DB.ipv6),
    ),
    guest(
        "router advertisement behind a header",
        _ROUTER_POSED,
        *(_link(each / _RA, src) for each in (IPv6ExtHdrDestOpt(), _ALERT) for src in (WEB.link_local, WEB.ipv6)),
        _link(IPv6ExtHdrDestOpt() / IPv6ExtHdrDestOpt() / _RA, WEB.ipv6, DB.ipv6),
    ),
    guest(
        "redirect",
        _ROUTER_POSED,
        *(
            _link(ICMPv6ND_Redirect(tgt=WEB.link_local, dst=NEAR.ipv6), src, DB.ipv6)
            for src in (WEB.ipv6, WEB.link_local, "fe80::1")
        ),
    ),
    guest(
        "router advertisement and redirect from the router's address",
        _SPOOFED_IP,
        _link(_RA, ROUTER_IPV6),
        _link(ICMPv6ND_Redirect(tgt=WEB.link_local, dst=NEAR.ipv6), ROUTER_IPV6, DB.ipv6),
    ),
    guest(
        "router solicitation",
        told(lambda reply: ICMPv6ND_RA in reply),
        *(_link(ICMPv6ND_RS(), src, dst) for src in (WEB.link_local, _NOBODY) for dst in ("ff02::2", DB.ipv6)),
    ),
    guest(
        "MLD report",
        _MLD,
        *(
            _link(_ALERT / message, dst="ff02::16", hlim=1)
            for message in (ICMPv6MLReport2(), ICMPv6MLReport(mladdr="ff02::fb"), ICMPv6MLDone(mladdr="ff02::fb"))
        ),
        _link(ICMPv6MLReport2(), WEB.ipv6, DB.ipv6),
    ),
    guest("MLD report without an address", _MLD, _link(_ALERT / ICMPv6MLReport2(), _NOBODY, "ff02::16", 1)),
    guest("MLD query", _MLD, *(_link(_ALERT / ICMPv6MLQuery(), src, hlim=1) for src in ("fe80::1", WEB.link_local))),
]


def _solicit(src: str) -> bytes:
    # Without a marker: what comes after the options is read as one.
    options = DHCP6OptClientId(duid=DUID_LL(lladdr=WEB.mac)) / DHCP6OptIA_NA(iaid=1)
    udp = UDP(sport=546, dport=547) / DHCP6_Solicit() / options
    return bytes(eth("33:33:00:01:00:02") / ip6(src, "ff02::1:2") / udp)


_DHCP: Final = filtered("dhcp")
_ADVERTISE: Final = UDP(sport=547, dport=546) / DHCP6_Advertise()

SERVERS: Final = [
    guest(
        "DHCPv6 server",
        _DHCP,
        eth(DB.mac) / ip6(WEB.link_local, DB.link_local) / _ADVERTISE,
        eth(DB.mac) / ip6("fe80::1") / _ADVERTISE,
    ),
    guest("DHCPv6 server, as the router", _DHCP, eth(DB.mac) / ip6(ROUTER_IPV6) / _ADVERTISE),
    guest("DHCPv6 server, in fragments", _DHCP, _fragment(bytes(ip6() / _ADVERTISE)[40:], more=1, nh=17)),
    guest("DHCPv6 server, to one guest", _DHCP, eth(DB.mac) / ip6() / _ADVERTISE),
    guest(
        "DHCPv6 server, from another port",
        _DHCP,
        eth(DB.mac) / ip6() / UDP(sport=1547, dport=546) / DHCP6_Advertise(),
        eth(DB.mac) / ip6() / IPv6ExtHdrDestOpt() / UDP(sport=1547, dport=546) / DHCP6_Advertise(),
    ),
    guest(
        "DHCPv6 client",
        told(lambda reply: DHCP6OptIAAddress in reply and reply[DHCP6OptIAAddress].addr == WEB.ipv6),
        _solicit(WEB.link_local),
    ),
    guest("DHCPv6 client, from another's address", _SPOOFED_IP, _solicit(NEAR.ipv6), _solicit(ROUTER_IPV6)),
    guest("DHCPv6 client, from a routable address", ignored(), _solicit(WEB.ipv6)),
]


def _extensions() -> list[Packet]:
    """None of them makes a kernel answer that it does not know it."""
    return [
        IPv6ExtHdrHopByHop(),
        _ALERT,
        IPv6ExtHdrDestOpt(),
        IPv6ExtHdrRouting(type=0, addresses=[NEAR.ipv6], segleft=0),
        IPv6ExtHdrSegmentRouting(addresses=[DB.ipv6, NEAR.ipv6], segleft=1),
        IPv6ExtHdrFragment(m=1),
        IPv6ExtHdrFragment(),
        IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / IPv6ExtHdrFragment(m=1),
    ]


_HEAD: Final = bytes(ip6())


def _chain(headers: int) -> bytes:
    """Destination options, one after the other, and then a router advertisement."""
    options = [bytes([following, 0]) + bytes(6) for following in (*[60] * (headers - 1), 58)]
    return b"".join(options) + bytes(ip6() / _RA)[40:]


SHAPES: Final = [
    guest("extension headers", delivered("db"), *(eth() / ip6() / each / ECHO_REPLY6 for each in _extensions())),
    guest(
        "extension headers with a spoofed IPv6",
        _SPOOFED_IP,
        *(eth() / ip6(NEAR.ipv6) / each / ICMPv6EchoRequest() for each in _extensions()),
    ),
    guest(
        "runts of IPv6",
        _SPOOFED_IP,
        *(bytes(eth(type=0x86DD)) + rest for rest in (b"", b"\x60", _HEAD[:24], _HEAD[:39])),
    ),
    guest(
        "IPv6 lengths that lie",
        _SPOOFED_IP,
        eth() / ip6(plen=1400) / ECHO_REPLY6,
        eth() / ip6(plen=65535) / ECHO_REPLY6,
    ),
    guest("headers without end", _HIDDEN, *(eth() / ip6(nh=60) / Raw(_chain(n)) for n in (6, 7))),
    guest("IPv6 in IPv6", delivered("db"), eth() / ip6() / ip6(NEAR.ipv6) / ECHO_REPLY6),
    guest("Ethernet in IPv6", delivered("db"), eth() / ip6(nh=143) / inner6(NEAR, DB)),
]
