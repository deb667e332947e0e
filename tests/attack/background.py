"""What passes the lab's places without anybody's attacking: recognised frame by frame, or it is none of it.

Hosts ask for each other's VTEP by ARP and send probes, switches and controller talk OpenFlow, guests ask for the MACs
of those that they ping, and the suite itself pings, to see that legitimate traffic goes on. Guests' kernels also say
unasked which multicast they listen to, which br-guest drops, and counts. They look for routers, and are answered; the
router also tells them unasked that it is there.
"""

from __future__ import annotations

from typing import Final

from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.inet6 import (
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6MLDMultAddrRec,
    ICMPv6MLReport2,
    ICMPv6ND_NA,
    ICMPv6ND_RA,
    ICMPv6NDOptDstLLAddr,
    IPv6,
    IPv6ExtHdrHopByHop,
    RouterAlert,
)
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw

from flows.pipeline import Reason
from tests.attack.setting import (
    CONTROL,
    CONTROL_OF,
    GUESTS,
    HOSTS,
    ROUTER,
    ROUTER_IPV6,
    ROUTER_LINK_LOCAL,
    ROUTER_MAC,
    GuestAt,
    solicited_node,
)
from topo.demo_frames import Tunnelled

LEGITIMATE: Final = b"go on"
"""What the suite's own pings are filled with."""
PINGS: Final = (("web", "db"), ("web", "near"), ("near", "log"), ("red-web", "red-db"), ("log", "db"), ("log", "vault"))
"""Who pings whom, over IPv4 and IPv6, so that every host sends and receives, in every encapsulation."""

_PROBE: Final = b"lockgate neighbour probe"
_OPENFLOW_PORT: Final = 6653
_ASK, _ANSWER = 1, 2
_IPV6: Final = b"\x86\xdd"
_TYPES: Final = (b"\x08\x00", b"\x08\x06", _IPV6)


def at_guest(name: str, frame: bytes) -> bool:
    """Whether the guest would have got the frame anyhow."""
    packet = _read(frame)
    if packet is None:
        return False
    if IPv6 in packet and _is_of_router(packet, GUESTS[name]):
        return True
    if packet.dst != GUESTS[name].mac:
        return False
    if ARP in packet:
        known = {(guest.ip, guest.mac) for guest in _vpc(GUESTS[name])} | {(ROUTER, ROUTER_MAC)}
        arp = packet[ARP]
        asked = (arp.op, arp.hwdst, arp.pdst) == (_ANSWER, GUESTS[name].mac, GUESTS[name].ip)
        return asked and (arp.psrc, arp.hwsrc) in known and packet.src == arp.hwsrc and _ends(arp)
    return frame in _advertisements(GUESTS[name]) or any(
        _is_ping(packet, GUESTS[a], GUESTS[b]) for a, b in PINGS if name in (a, b)
    )


def on_substrate(frame: bytes) -> bool:
    """Whether hosts exchange such a frame anyhow."""
    if is_arp(frame):
        return _is_arp(Ether(frame), {host.vtep: host.mac for host in HOSTS.values()})
    tunnel = Tunnelled.read(frame)
    vteps = {host.vtep: host for host in HOSTS.values()}
    if tunnel is None or not {str(tunnel.outer.src), str(tunnel.outer.dst)} <= vteps.keys():
        return False
    source, target = vteps[str(tunnel.outer.src)], vteps[str(tunnel.outer.dst)]
    true = (source.mac, target.mac, target.encap)
    if (tunnel.outer.eth_src, tunnel.outer.eth_dst, tunnel.encap) != true:
        return False
    if tunnel.vni == 0:
        return tunnel.inner == bytes(12) + b"\x88\xb5" + _PROBE.ljust(46, b"\0")
    inner = _read(tunnel.inner)
    return inner is not None and any(
        {HOSTS[GUESTS[a].host].vtep, HOSTS[GUESTS[b].host].vtep} == {source.vtep, target.vtep}
        and GUESTS[a].vni == tunnel.vni
        and HOSTS[_host_of(inner.src)] is source
        and _is_ping(inner, GUESTS[a], GUESTS[b])
        for a, b in PINGS
    )


def on_control_network(macs: dict[str, str], frame: bytes) -> bool:
    """Whether a frame is OpenFlow between controller and switches, or ARP for that. `macs` are by address."""
    packet = _read(frame)
    if packet is None:
        return False
    if ARP in packet:
        return _is_arp(packet, macs)
    if TCP not in packet or macs.get(packet[IP].src) != packet.src or macs.get(packet[IP].dst) != packet.dst:
        return False
    ends = {packet[IP].src: packet[TCP].sport, packet[IP].dst: packet[TCP].dport}
    return ends.pop(CONTROL, None) == _OPENFLOW_PORT and ends.keys() <= set(CONTROL_OF.values())


def dropped_from(name: str, frame: bytes) -> Reason | None:
    """Why br-guest drops a frame that the guest's kernel sends unasked, if it is one of those."""
    guest = GUESTS[name]
    packet = _read(frame)
    if packet is None:
        return None
    listens = ICMPv6MLReport2 in packet and frame == _listens(guest, packet[ICMPv6MLReport2])
    return Reason.MLD if listens else None


def dropped_by(host: str, frame: bytes) -> Reason | None:
    """Why a host drops a frame of the substrate's background that reaches its uplink, if it does."""
    if is_arp(frame):
        return None if Ether(frame)[ARP].pdst == HOSTS[host].vtep else Reason.NOT_TUNNEL
    if frame[:6].hex(":") != HOSTS[host].mac:
        return Reason.NOT_TUNNEL
    return Reason.NEIGHBOUR_PROBE if _PROBE in frame else None


def _read(frame: bytes) -> Packet | None:
    """Scapy refuses some frames of other types that are malformed."""
    return Ether(frame) if frame[12:14] in _TYPES else None


def is_arp(frame: bytes) -> bool:
    """Whether it is untagged ARP."""
    return frame[12:14] == b"\x08\x06"


def _host_of(mac: str) -> str:
    return next((guest.host for guest in GUESTS.values() if guest.mac == mac), "host-a")


def _vpc(guest: GuestAt) -> list[GuestAt]:
    return [other for other in GUESTS.values() if other.vni == guest.vni]


def _is_ping(packet: Packet, a: GuestAt, b: GuestAt) -> bool:
    """Whether it is the suite's own ping between the two, or its answer."""
    if IPv6 in packet:
        return _is_ping6(packet, a, b)
    if ICMP not in packet or Raw not in packet:
        return False
    there = (a.mac, b.mac, a.ip, b.ip)
    ends = (packet.src, packet.dst, packet[IP].src, packet[IP].dst)
    back = (b.mac, a.mac, b.ip, a.ip)
    # Ping begins what it fills a packet with by the time of day.
    return (ends, packet[ICMP].type) in ((there, 8), (back, 0)) and LEGITIMATE * 4 in packet[Raw].load


def _is_ping6(packet: Packet, a: GuestAt, b: GuestAt) -> bool:
    message = packet[IPv6].payload
    ends = (packet.src, packet.dst, packet[IPv6].src, packet[IPv6].dst)
    there, back = (a.mac, b.mac, a.ipv6, b.ipv6), (b.mac, a.mac, b.ipv6, a.ipv6)
    known = (ends, type(message)) in ((there, ICMPv6EchoRequest), (back, ICMPv6EchoReply))
    return known and LEGITIMATE * 4 in message.data


def _advertisements(guest: GuestAt) -> list[bytes]:
    """What a guest is answered that solicits a neighbour or a router, from its address or its link-local one."""
    routers = [(address, ROUTER_MAC, 1) for address in (ROUTER_IPV6, ROUTER_LINK_LOCAL)]
    known = [(other.ipv6, other.mac, 0) for other in _vpc(guest)] + routers
    return [
        bytes(
            Ether(src=mac, dst=guest.mac)
            / IPv6(src=target, dst=asker, hlim=255)
            / ICMPv6ND_NA(tgt=target, R=router, S=1, O=1)
            / ICMPv6NDOptDstLLAddr(lladdr=mac)
        )
        for target, mac, router in known
        for asker in (guest.ipv6, guest.link_local)
        if target != guest.ipv6
    ]


def _listens(guest: GuestAt, report: Packet) -> bytes | None:
    """A report of multicast that it has to listen to, RFC 4291, 2.8, as its kernel sends it."""
    groups = {solicited_node(guest.ipv6), solicited_node(guest.link_local)}
    records = [ICMPv6MLDMultAddrRec(rtype=record.rtype, dst=record.dst) for record in report.records]
    if not {record.dst for record in records} <= groups:
        return None
    return bytes(
        Ether(src=guest.mac, dst="33:33:00:00:00:16")
        / IPv6(src=guest.link_local, dst="ff02::16", hlim=1)
        / IPv6ExtHdrHopByHop(options=[RouterAlert()])
        / ICMPv6MLReport2(records=records)
    )


def _is_of_router(packet: Packet, guest: GuestAt) -> bool:
    """Whether the router advertises itself, unasked or because the guest's kernel looks for one."""
    ends = (packet.src, packet.dst, packet[IPv6].src, packet[IPv6].dst)
    to = {(guest.mac, guest.link_local), ("33:33:00:00:00:01", "ff02::1")}
    return ICMPv6ND_RA in packet and ends[::2] == (ROUTER_MAC, ROUTER_LINK_LOCAL) and ends[1::2] in to


def _is_arp(packet: Packet, macs: dict[str, str]) -> bool:
    arp = packet[ARP]
    true = arp.psrc in macs and arp.hwsrc == packet.src == macs[arp.psrc] and arp.pdst in macs
    return true and arp.op in (_ASK, _ANSWER) and _ends(arp)


def _ends(arp: Packet) -> bool:
    """Whether nothing but padding comes after it."""
    return not bytes(arp.payload).strip(b"\0")
