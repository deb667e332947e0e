"""What becomes of a frame, as the documents say: docs/pipeline.md, groups.md, ports.md, guest.md, security.md.

Written from them, and not from the flows, of which it knows the names of reasons to drop alone. It reads the mapping as
a person writes it, in a file (docs/database.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any, Final

from flows.pipeline import Reason
from tests.ovs.oracle_frames import NA, NS, PROTOCOLS, Frame, Outer

Document = dict[str, dict[str, Any]]
Address = IPv4Address | IPv6Address
ROUTER_MAC: Final = "0a:00:5e:00:00:01"
LINK_LOCAL: Final = ip_network("fe80::/10")
ROUTER_LINK_LOCAL: Final = ip_address("fe80::1")
NOBODY: Final = {4: IPv4Address(0), 6: IPv6Address(0)}
ALL_NODES: Final = ("33:33:00:00:00:01", "ff02::1")
_RS, _RA, _REDIRECT = 133, 134, 137
_MLD: Final = (130, 131, 132, 143)
_STAYS_ON_A_LINK: Final = (NS, NA, _RS, _RA, _REDIRECT, *_MLD)


@dataclass(frozen=True)
class Verdict:
    """What becomes of a frame; of `what` each uses the fields that it needs.

    "delivered" to a device of a host; "answered" to the port that it came from; "asked", "too big": the controller gets
    it; "dropped" for a reason, of which the controller may be told; "to the kernel": to the VTEP; "out": the uplink.
    """

    what: str
    host: str = ""
    device: str = ""
    eth_src: str = ""
    eth_dst: str = ""
    ttl: int = 0
    reason: str = ""
    told: bool = False
    answer: tuple[str, ...] = ()
    """Source and destination address of the answer; of ARP sender and target, and whose MAC it names."""


class Oracle:
    """What the documents say of one mapping."""

    def __init__(self, document: Document) -> None:
        self.hosts, self.vpcs = document["hosts"], document["vpcs"]
        self.groups, self.ports = document.get("groups", {}), document["ports"]
        self.mapped = {
            (port["vpc"], ip_address(address)): name
            for name, port in self.ports.items()
            if "host" in port
            for address in port.get("addresses", [])
        }
        """(VPC, address) -> port. A port without a host maps nowhere."""
        self.tracked: list[tuple[str, str]] = []
        """Of the last frame: the ports, by host and device, in whose zones the tracker was asked."""

    def from_guest(self, host: str, device: str, frame: Frame, states: tuple[str, str]) -> Verdict:
        """A frame that a guest sends."""
        self.tracked.clear()
        if frame.tag:
            return _dropped(host, Reason.VLAN_TAGGED)
        port = next((each for each in self.ports.values() if _seat(each) == (host, device)), None)
        if port is None:
            return _dropped(host, Reason.UNKNOWN_PORT)
        if frame.eth_src != port["mac"]:
            return _dropped(host, Reason.SPOOFED_MAC)
        if frame.kind == "arp":
            return self._arp(host, port, frame)
        if frame.kind not in ("ipv4", "ipv6"):
            return _dropped(host, Reason.UNKNOWN_ETHERTYPE)
        return self._ip(host, port, frame, states)

    def _own(self, port: dict[str, Any]) -> list[Address]:
        return [ip_address(each) for each in port.get("addresses", [])]

    def _may_send_from(self, port: dict[str, Any], address: Address) -> bool:
        return address in self._own(port) or _allowed(port, address)

    def _subnets(self, vpc: str) -> list[Any]:
        return [ip_network(each) for each in self.vpcs[vpc]["subnets"]]

    def _routers(self, vpc: str) -> list[Address]:
        return [net[1] for net in self._subnets(vpc)]

    def _router_mac(self, vpc: str) -> str:
        return str(self.vpcs[vpc].get("router_mac", ROUTER_MAC))

    def _who_has(self, vpc: str, address: Address) -> str | None:
        """Whose MAC is told to whoever asks."""
        if port := self.mapped.get((vpc, address)):
            return str(self.ports[port]["mac"])
        routers = self._routers(vpc)
        if any(router.version == 6 for router in routers):
            routers.append(ROUTER_LINK_LOCAL)
        return self._router_mac(vpc) if address in routers else None

    def _arp(self, host: str, port: dict[str, Any], frame: Frame) -> Verdict:
        sender, target = ip_address(frame.src), ip_address(frame.dst)
        nobody = sender == NOBODY[4]
        if frame.sha != port["mac"] or not (nobody or self._may_send_from(port, sender)):
            return _dropped(host, Reason.SPOOFED_ARP)
        single = [ip_network(each) for each in port.get("allowed", []) if "/" not in each]
        announces = sender == target and (target in self._own(port) or any(target in net for net in single))
        if announces or (nobody and self._may_send_from(port, target)):
            return _dropped(host, Reason.ARP_OWN_ADDRESS)
        if frame.op != 1:
            return _dropped(host, Reason.ARP_NOT_REQUEST)
        mac = self._who_has(port["vpc"], target)
        if mac is None:
            return _dropped(host, Reason.ARP_UNMAPPED)
        return Verdict("answered", host, port["device"], mac, frame.sha, answer=(frame.dst, frame.src, mac))

    def _ip(self, host: str, port: dict[str, Any], frame: Frame, states: tuple[str, str]) -> Verdict:
        source, vpc = ip_address(frame.src), port["vpc"]
        on_link = frame.kind == "ipv6" and (source in LINK_LOCAL or source == NOBODY[6])
        may_ask = source in (NOBODY[4], NOBODY[6]) or source in LINK_LOCAL or source in self._own(port)
        asks = Verdict("asked", host, port["device"]) if may_ask else _dropped(host, Reason.SPOOFED_IP)
        if self._is_dhcp(vpc, frame):
            return asks
        if not on_link and not self._may_send_from(port, source):
            return _dropped(host, Reason.SPOOFED_IP)
        message = _link_message(frame)
        if message is not None and not _to_all(frame.eth_dst):
            if message == NS:
                return self._solicitation(host, port, frame)
            return asks if message == _RS else _dropped(host, _ENDS_HERE[message])
        if reason := self._goes_nowhere(port, frame, states[0], on_link=on_link):
            return _dropped(host, reason)
        return self._route(host, port, frame, states)

    def _goes_nowhere(self, port: dict[str, Any], frame: Frame, state: str, *, on_link: bool) -> Reason | None:
        if on_link:
            if ip_address(frame.src) in LINK_LOCAL and ip_address(frame.dst) == ROUTER_LINK_LOCAL:
                return None
            return Reason.LINK_LOCAL if ip_address(frame.src) in LINK_LOCAL else Reason.SPOOFED_IP
        if ip_address(frame.dst) in self._own(port):
            return Reason.TO_ITSELF
        return None if self._allows(port, frame, state, to_guest=False) else Reason.GROUP_FROM_GUEST

    def _is_dhcp(self, vpc: str, frame: Frame) -> bool:
        if frame.proto != "udp" or frame.fragment:
            return False
        ports, target = (frame.sport, frame.dport), ip_address(frame.dst)
        if frame.kind == "ipv6":
            return ports == (546, 547) and target == ip_address("ff02::1:2")
        return ports == (68, 67) and (target == ip_address("255.255.255.255") or target in self._routers(vpc))

    def _solicitation(self, host: str, port: dict[str, Any], frame: Frame) -> Verdict:
        source, target = ip_address(frame.src), ip_address(frame.target)
        nobody = source == NOBODY[6]
        named = frame.option is None if nobody else frame.option == port["mac"]
        if frame.icmp[1] or not named:
            return _dropped(host, Reason.SPOOFED_ND)
        if target in self._own(port) or (nobody and _allowed(port, target)):
            return _dropped(host, Reason.ND_OWN_ADDRESS)
        mac = self._who_has(port["vpc"], target)
        if mac is None:
            return _dropped(host, Reason.LINK_LOCAL if target in LINK_LOCAL else Reason.ND_UNMAPPED)
        to_mac, to = ALL_NODES if nobody else (frame.eth_src, frame.src)
        return Verdict("answered", host, port["device"], mac, to_mac, frame.ttl, answer=(frame.target, to))

    def _route(self, host: str, port: dict[str, Any], frame: Frame, states: tuple[str, str]) -> Verdict:
        vpc, source, target = port["vpc"], ip_address(frame.src), ip_address(frame.dst)
        is_link = target == ROUTER_LINK_LOCAL and (source in LINK_LOCAL or self._who_has(vpc, target) is not None)
        if target in self._routers(vpc) or is_link:
            return self._to_router(host, port, frame)
        there = next((net for net in self._subnets(vpc) if target in net), None)
        if there is not None and source not in there:
            if frame.ttl <= 1:
                return replace(_dropped(host, Reason.TTL_EXPIRED), told=True)
            frame = replace(frame, eth_src=self._router_mac(vpc), ttl=frame.ttl - 1)
        if frame.size > self._mtu(vpc):
            return Verdict("too big", host, port["device"])
        return self._push(host, vpc, frame, states[1])

    def _to_router(self, host: str, port: dict[str, Any], frame: Frame) -> Verdict:
        ping = {"ipv4": ("icmp", (8, 0)), "ipv6": ("icmpv6", (128, 0))}[str(frame.kind)]
        known = self._who_has(port["vpc"], ip_address(frame.dst)) is not None
        if known and (frame.proto, frame.icmp) == ping and not frame.fragment:
            mac = self._router_mac(port["vpc"])
            return Verdict(
                "answered", host, port["device"], mac, frame.eth_src, frame.ttl, answer=(frame.dst, frame.src)
            )
        return replace(_dropped(host, Reason.TO_ROUTER), told=_proto(frame) == "udp")

    def _mtu(self, vpc: str) -> int:
        """Of its guests: what it says, or what the smallest substrate leaves beside the largest header."""
        headers = [
            14 + (8 if each.get("encap") == "gre" else 16) + (20 if ip_address(each["vtep"]).version == 4 else 40)
            for each in self.hosts.values()
        ]
        substrate = min(each.get("substrate_mtu", 1500) for each in self.hosts.values())
        return int(self.vpcs[vpc].get("mtu", substrate - max(headers)))

    def _push(self, host: str, vpc: str, frame: Frame, state: str) -> Verdict:
        name = self.mapped.get((vpc, ip_address(frame.dst)))
        if name is None:
            return _dropped(host, Reason.NO_MAPPING)
        there = self.ports[name]["host"]
        if there == host:
            return self._to_guest(host, name, frame, state)
        if self._version(there) != self._version(host):
            return _dropped(host, Reason.VTEP_MISMATCH)
        outer = Outer(self._encap(there), self.hosts[host]["vtep"], self.hosts[there]["vtep"], frame, self._vni(vpc))
        return self._from_wire(there, outer, state)

    def _version(self, host: str) -> int:
        return ip_address(self.hosts[host]["vtep"]).version

    def _encap(self, host: str) -> Any:  # noqa: ANN401 - a word of those that `Outer.kind` knows
        return self.hosts[host].get("encap", "vxlan")

    def _vni(self, vpc: str) -> int:
        return int(self.vpcs[vpc]["vni"])

    def _vpcs_of(self, host: str) -> set[str]:
        return {port["vpc"] for port in self.ports.values() if port.get("host") == host}

    def _peers(self, host: str) -> Iterator[str]:
        """The VTEPs of hosts that have an address, or are allowed one, in a VPC that has a port here."""
        for port in self.ports.values():
            there = port.get("host")
            if there in (None, host) or port["vpc"] not in self._vpcs_of(host):
                continue
            if (port.get("addresses") or port.get("allowed")) and self._version(there) == self._version(host):
                yield self.hosts[there]["vtep"]

    def from_wire(self, host: str, outer: Outer, state: str) -> Verdict:
        """A frame that the substrate brings to a host."""
        self.tracked.clear()
        return self._from_wire(host, outer, state)

    def _from_wire(self, host: str, outer: Outer, state: str) -> Verdict:
        vtep = self.hosts[host]["vtep"]
        if outer.tag:
            return _dropped(host, Reason.VLAN_TAGGED)
        if self._is_neighbour(host, outer):
            return Verdict("to the kernel", host)
        if outer.kind != self._encap(host) or outer.dst != vtep or outer.fragment:
            return _dropped(host, Reason.NOT_TUNNEL)
        if outer.src not in self._peers(host):
            return _dropped(host, Reason.UNKNOWN_VTEP)
        return self._popped(host, outer, state)

    def _is_neighbour(self, host: str, outer: Outer) -> bool:
        """Whether it asks for the VTEP's MAC, or answers it."""
        vtep = self.hosts[host]["vtep"]
        if outer.kind == "arp":
            return bool(outer.target == vtep)
        if self._version(host) == 4 or outer.hops != 255 or outer.fragment:
            return False
        return (outer.kind, outer.target) == ("ns", vtep) or (outer.kind, outer.dst) == ("na", vtep)

    def _popped(self, host: str, outer: Outer, state: str) -> Verdict:
        frame = outer.inner
        assert frame
        if frame.tag:
            return _dropped(host, Reason.VLAN_TAGGED)
        if outer.oam and outer.kind == "geneve":
            return _dropped(host, Reason.TUNNEL_CONTROL)
        if outer.vni == 0:
            return _dropped(host, Reason.NEIGHBOUR_PROBE)
        vpc = next((name for name in self._vpcs_of(host) if self._vni(name) == outer.vni), None)
        if vpc is None or frame.kind not in ("ipv4", "ipv6") or not self._sends_from(host, vpc, outer):
            return _dropped(host, Reason.SOURCE_NOT_MAPPED)
        name = self.mapped.get((vpc, ip_address(frame.dst)))
        if name is None or self.ports[name]["host"] != host:
            return _dropped(host, Reason.NOT_HERE)
        return self._to_guest(host, name, frame, state)

    def _sends_from(self, host: str, vpc: str, outer: Outer) -> bool:
        """Whether a port of the VPC, on another host with the VTEP that the packet came from, may send it."""
        assert outer.inner
        source = ip_address(outer.inner.src)
        return any(
            port["vpc"] == vpc
            and port.get("host") not in (None, host)
            and self.hosts[port["host"]]["vtep"] == outer.src
            and self._may_send_from(port, source)
            for port in self.ports.values()
        )

    def _to_guest(self, host: str, name: str, frame: Frame, state: str) -> Verdict:
        port = self.ports[name]
        server = {"ipv4": 67, "ipv6": 547}[str(frame.kind)]
        if frame.proto == "udp" and not frame.fragment and frame.sport == server:
            return _dropped(host, Reason.DHCP_POSED)
        if _link_message(frame) is not None:
            return _dropped(host, Reason.LINK_ONLY)
        if not self._allows(port, frame, state, to_guest=True):
            return _dropped(host, Reason.GROUP_TO_GUEST)
        return Verdict("delivered", host, port["device"], frame.eth_src, port["mac"], frame.ttl)

    def from_kernel(self, host: str, outer: Outer) -> Verdict:
        """A frame that the host's kernel sends from its VTEP."""
        self.tracked.clear()
        vtep = self.hosts[host]["vtep"]
        if outer.tag:
            return _dropped(host, Reason.VLAN_TAGGED)
        is_ours = {"arp": outer.src == vtep, "ns": outer.src == vtep, "na": outer.target == vtep}.get(outer.kind, False)
        if is_ours and (outer.kind == "arp" or (self._version(host) == 6 and outer.hops == 255 and not outer.fragment)):
            return Verdict("out", host)
        for name, there in self.hosts.items():
            if (outer.src, outer.dst, outer.kind) == (vtep, there["vtep"], self._encap(name)) and name != host:
                whole = not (outer.fragment and outer.kind != "gre")
                if there["vtep"] in self._peers(host) and whole:
                    return Verdict("out", host)
        return _dropped(host, Reason.LOCAL_NOT_TUNNEL)

    def _allows(self, port: dict[str, Any], frame: Frame, state: str, *, to_guest: bool) -> bool:
        """Whether the groups of a port let a packet through, in the one direction or the other."""
        groups = [self.groups[name] for name in port.get("groups", [])]
        if not groups:
            return True
        stateful = any(not group.get("stateless") for group in groups)
        if stateful:
            self.tracked.append((port["host"], port["device"]))
        if stateful and state == "inv":
            return False
        if stateful and "rel" in state:
            return True
        if stateful and "est" in state and frame.fragment:
            return True
        reply = stateful and "rpl" in state
        rules = [rule for group in groups for rule in group.get("rules", [])]
        opened_by_guest = to_guest == reply
        word = "from_guest" if opened_by_guest else "to_guest"
        mine = [rule for rule in rules if rule.startswith(word)]
        if not mine and opened_by_guest:
            return True
        return any(self._meant(rule, port["vpc"], frame, to_guest=to_guest, reply=reply) for rule in mine)

    def _meant(self, rule: str, vpc: str, frame: Frame, *, to_guest: bool, reply: bool) -> bool:
        words = rule.split()[1:]
        proto = words.pop(0)
        names = {"icmp": {"icmp" if frame.kind == "ipv4" else "icmpv6"}}
        numbers = {str(number): {name} for name, number in PROTOCOLS.items()}
        if proto != "any" and _proto(frame) not in {**names, **numbers}.get(proto, {proto}):
            return False
        if words[0] not in ("from", "to"):
            low, _, high = words.pop(0).partition("-")
            port = frame.sport if reply else frame.dport
            if frame.fragment or not int(low) <= port <= int(high or low):
                return False
        peer = ip_address(frame.src if to_guest else frame.dst)
        if words[1] == "group":
            name = self.mapped.get((vpc, peer))
            return name is not None and words[2] in self.ports[name].get("groups", [])
        return words[1] == "any" or peer in ip_network(words[1])


_ENDS_HERE: Final = {
    NA: Reason.ND_ADVERTISED,
    _RA: Reason.ROUTER_POSED,
    _REDIRECT: Reason.ROUTER_POSED,
    **dict.fromkeys(_MLD, Reason.MLD),
}


def _dropped(host: str, reason: Reason) -> Verdict:
    return Verdict("dropped", host, reason=reason.label)


def _seat(port: dict[str, Any]) -> tuple[str | None, str | None]:
    return port.get("host"), port.get("device")


def _allowed(port: dict[str, Any], address: Address) -> bool:
    return any(address in ip_network(each) for each in port.get("allowed", []))


def _proto(frame: Frame) -> str | None:
    """The protocol, where Open vSwitch reads it: not of later fragments of IPv6."""
    return None if frame.kind == "ipv6" and frame.fragment == "later" else frame.proto


def _link_message(frame: Frame) -> int | None:
    """The type, if it is a message that never leaves a link. Of fragments Open vSwitch shows none."""
    if frame.kind != "ipv6" or frame.proto != "icmpv6" or frame.fragment:
        return None
    return frame.icmp[0] if frame.icmp[0] in _STAYS_ON_A_LINK else None


def _to_all(mac: str) -> bool:
    """Whether a frame is one to all, which the filter ahead of the port makes of what is no neighbour discovery."""
    return mac == "ff:ff:ff:ff:ff:ff"
