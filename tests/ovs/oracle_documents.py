"""Random mapping documents, and random frames for them, by Hypothesis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from ipaddress import ip_address, ip_network
from typing import Any, Final, NamedTuple, Protocol, TypeVar

from hypothesis import strategies as st

from mapping.model import ROUTER_MAC, Encap, Host, Mapping, Port, SecurityGroup, Snapshot, Vpc
from mapping.security_rules import parse_rule
from tests import build
from tests.ovs.oracle import NOBODY, ROUTER_LINK_LOCAL, Document
from tests.ovs.oracle_frames import TUNNEL_PORTS, WITH_PORTS, Frame, Outer
from tests.ovs.oracle_switches import DEVICES, HOSTS, VTEPS

T = TypeVar("T")

_ENCAPS: Final = ("vxlan", "geneve", "gre")
_SUBNETS: Final = ("10.0.0.0/24", "10.0.1.0/24", "fd00::/64", "fd00:0:0:1::/64")
_ROUTED: Final = "10.9.0.0/16"
_NOBODY: Final = str(NOBODY[4])
_PORTS: Final = (80, 22, 53, 67, 443, 547, 1, 68, 546, 8000, 65535, 0, 19, 21, 100, 101, 127, 1000, 1001, 7999)
_RULE_PORTS: Final = (
    "",
    " 22",
    " 53",
    " 80",
    " 443",
    " 1-1000",
    " 20-100",
    " 20-100",
    " 8000-65535",
    " 67-68",
    " 546-547",
)
_STATES: Final = (("new", "new"),) * 5 + (("est", "est"),) * 2 + (("est,rpl", "est,rpl"),) * 3
_ODD_STATES: Final = (("rel", "rel"), ("rel,rpl", "rel,rpl"), ("inv", "inv"), ("new", "est,rpl"), ("est,rpl", "new"))
_GROUPS: Final = {"g1": "blue", "g2": "blue", "g3": "red", "g4": "blue", "g5": "red"}


class Sent(NamedTuple):
    """A frame that comes in somewhere: from a device of a host, from its uplink, or from its kernel."""

    host: str
    place: str
    what: Frame | Outer
    states: tuple[str, str]


@st.composite
def documents(draw: st.DrawFn) -> Document:
    """VPCs with the same addresses, three hosts, ports on them, groups."""
    pick = _picker(draw)
    versions = pick([(0, 0, 0), (0, 0, 1), (1, 1, 1), (0, 0, 0), (0, 0, 0), (0, 0, 1)])
    hosts = {
        host: {"vtep": VTEPS[host][version], "encap": pick(_ENCAPS), "substrate_mtu": pick([1500, 1500, 1450, 9000])}
        for host, version in zip(HOSTS, versions, strict=True)
    }
    vpcs: dict[str, Any] = {}
    for name, vni in (("blue", 5001), ("red", pick([1, 5002, 0xFFFFFF]))):
        subnets = sorted(pick([_SUBNETS, _SUBNETS, _SUBNETS[:2], _SUBNETS[1:3]]))
        vpcs[name] = {"vni": vni, "subnets": subnets}
        if pick([True, False]):
            vpcs[name]["mtu"] = pick([1280, 1350])
        if pick([True, False]):
            vpcs[name]["router_mac"] = "0a:00:5e:00:00:77"
        if "10.0.1.0/24" in subnets:
            vpcs[name]["routes"] = {_ROUTED: "10.0.1.12"}
    groups = {name: _group(pick, vpc) for name, vpc in _GROUPS.items()}
    seats = [(host, device) for host in HOSTS for device in DEVICES[:-1]]
    ports: dict[str, Any] = {}
    taken: set[tuple[str, str]] = set()
    for number in range(draw(st.integers(6, 9))):
        vpc = pick(["blue", "blue", "red"])
        port: dict[str, Any] = {"vpc": vpc, "mac": f"02:00:00:00:00:{number + 1:02x}"}
        if pick([True] * 9 + [False]):
            port["host"], port["device"] = seats.pop(draw(st.integers(0, len(seats) - 1)))
        port["addresses"] = [
            address
            for subnet in vpcs[vpc]["subnets"]
            if pick([True, True, True, False])
            and (vpc, address := str(ip_network(subnet)[pick(range(10, 16))])) not in taken
        ]
        taken |= {(vpc, address) for address in port["addresses"]}
        port["allowed"] = _allowed(pick, vpcs[vpc])
        port["groups"] = sorted({pick([*groups]) for _ in range(pick([1, 0, 1, 2]))})
        port["groups"] = [name for name in port["groups"] if groups[name]["vpc"] == vpc]
        ports[f"p{number}"] = port
    return {"hosts": hosts, "vpcs": vpcs, "groups": groups, "ports": ports}


class Pick(Protocol):
    """Picks one of some values; the first of them more often than others."""

    def __call__(self, values: Sequence[T], /) -> T: ...


def _picker(draw: st.DrawFn) -> Pick:
    return lambda values: values[draw(_below(len(values)))]


@cache
def _below(end: int) -> st.SearchStrategy[int]:
    """As `st.sampled_from`, made once for each size: to make it anew for each choice takes most of a run."""
    return st.integers(0, end - 1)


def _group(pick: Pick, vpc: str) -> dict[str, Any]:
    rules = {_rule(pick, vpc) for _ in range(pick([0, 1, 2, 3, 4]))}
    return {"vpc": vpc, "rules": sorted(rules), "stateless": pick([False, False, True])}


def _rule(pick: Pick, vpc: str) -> str:
    proto = pick(["any", "tcp", "udp", "tcp", "udp", "sctp", "icmp", "47", "89"])
    ports = pick(_RULE_PORTS) if proto in WITH_PORTS else ""
    peer = pick(["any", "any", "10.0.0.8/29", "10.0.0.12", "10.0.0.0/16", "fd00::8/125", "fd00::/48"])
    peer = pick([peer, peer, *(f"group {name}" for name, its in _GROUPS.items() if its == vpc)])
    return (
        f"to_guest {proto}{ports} from {peer}" if pick([True, True, False]) else f"from_guest {proto}{ports} to {peer}"
    )


def _allowed(pick: Pick, vpc: dict[str, Any]) -> list[str]:
    choices: list[list[str]] = [[], [], []]
    if "10.0.0.0/24" in vpc["subnets"]:
        choices += [["10.0.0.200"], ["10.0.0.12"], ["10.0.0.128/26"]]
    if "fd00::/64" in vpc["subnets"]:
        choices += [["fd00::200"], ["fd00::c0/122"]]
    if "routes" in vpc:
        choices += [["10.9.1.0/24"]]
    return list(pick(choices))


def rows(document: Document) -> Snapshot:
    """The mapping that a document describes."""
    hosts = {
        name: replace(build.host(name, row["vtep"], Encap(row["encap"])), substrate_mtu=row["substrate_mtu"])
        for name, row in document["hosts"].items()
    }
    vpcs: dict[str, Vpc] = {}
    for name, row in document["vpcs"].items():
        made = build.vpc(name, row["vni"], *row["subnets"])
        routes = tuple((ip_network(net), ip_address(hop)) for net, hop in row.get("routes", {}).items())
        mac = row.get("router_mac", ROUTER_MAC)
        vpcs[name] = replace(made, mtu=row.get("mtu"), router_mac=mac, routes=routes)
    groups = {
        name: SecurityGroup(
            build.uuid("group", name),
            name,
            vpcs[row["vpc"]].uuid,
            row["stateless"],
            tuple(map(parse_rule, row["rules"])),
        )
        for name, row in document["groups"].items()
    }
    listed: list[Host | Vpc | SecurityGroup | Port | Mapping] = [*hosts.values(), *vpcs.values(), *groups.values()]
    for name, row in document["ports"].items():
        at = hosts[row["host"]] if "host" in row else None
        port = replace(
            build.port(name, vpcs[row["vpc"]], row["mac"], at),
            device=row.get("device", name),
            allowed=tuple(map(ip_network, row["allowed"])),
            groups=tuple(sorted(groups[each].uuid for each in row["groups"])),
        )
        listed += [port, *(build.mapping(address, port) for address in row["addresses"])]
    return build.snapshot(*listed)


def frames(document: Document) -> st.SearchStrategy[Sent]:
    """Frames from guests, from the substrate and from the hosts themselves; most with one thing wrong at most."""
    return _frames(document)


@st.composite
def _frames(draw: st.DrawFn, document: Document) -> Sent:
    pick = _picker(draw)
    states = pick(_STATES) if pick([True] * 5 + [False]) else pick(_ODD_STATES)
    kind = pick(
        ["ip"] * 12
        + ["arp", "arp", "nd", "nd", "link", "posed", "posed", "wire", "wire", "wire", "wire", "other", "kernel"]
    )
    bound = [port for port in document["ports"].values() if "host" in port]
    port: dict[str, Any] = pick(bound) if pick([True] * 29 + [False]) and bound else {**_STRAY, "host": pick(HOSTS)}
    if kind == "wire":
        return Sent(host := pick(HOSTS), "wire", _outer(pick, document, host), states)
    if kind == "kernel":
        return Sent(host := pick(HOSTS), "kernel", _from_kernel(pick, document, host), states)
    frame = {"ip": _ip, "arp": _arp, "nd": _nd, "link": _link, "posed": _posed, "other": _other}[kind](
        pick, document, port
    )
    odd = pick([""] * 20 + ["mac", "tag"])
    if odd == "mac":
        frame = replace(frame, eth_src=pick(["02:00:00:00:00:63", "ff:ff:ff:ff:ff:ff", ROUTER_MAC, *_macs(document)]))
    elif odd == "tag":
        frame = replace(frame, tag=pick([0x8100, 0x88A8]))
    return Sent(port["host"], port["device"], frame, states)


_STRAY: Final[dict[str, Any]] = {
    "vpc": "blue",
    "mac": "02:00:00:00:00:99",
    "device": DEVICES[-1],
    "addresses": [],
    "allowed": [],
}


def _macs(document: Document) -> list[str]:
    return [port["mac"] for port in document["ports"].values()]


def _versions(document: Document, vpc: str) -> list[int]:
    return sorted({ip_network(net).version for net in document["vpcs"][vpc]["subnets"]})


def _of(version: int, addresses: list[str]) -> list[str]:
    return [address for address in addresses if ip_address(address).version == version]


def _known(document: Document, vpc: str, version: int) -> list[str]:
    ports = [port for port in document["ports"].values() if port["vpc"] == vpc]
    return _of(version, [address for port in ports for address in port["addresses"]])


def _within(nets: list[str], version: int) -> list[str]:
    """An address of each network: one that it begins with would do, were it not its network's own."""
    return [str(net[min(5, net.num_addresses - 1)]) for net in map(ip_network, nets) if net.version == version]


def _source(pick: Pick, document: Document, port: dict[str, Any], version: int) -> str:
    own = _of(version, port["addresses"]) + _within(port["allowed"], version)
    strangers = {4: [_NOBODY, "10.0.0.99", "203.0.113.9"], 6: ["::", "fe80::5", "fe80::1", "fd00::99", "2001:db8::1"]}
    if pick([True] * 9 + [False]) and own:
        return str(pick(own))
    return str(pick([*strangers[version], *_known(document, port["vpc"], version)]))


def _target(pick: Pick, document: Document, port: dict[str, Any], version: int) -> str:
    routers = [str(ip_network(net)[1]) for net in document["vpcs"][port["vpc"]]["subnets"]]
    known = [each for each in _known(document, port["vpc"], version) if each not in port["addresses"]]
    strangers = {
        4: ["10.0.0.99", "10.0.1.99", "10.9.1.5", "203.0.113.9", "255.255.255.255", "224.0.0.251", "192.0.2.1"],
        6: ["fd00::99", "fd00:0:0:1::99", "fe80::1", "ff02::1", "ff02::1:2", "2001:db8::1", "ff02::fb"],
    }
    if version == 6:
        routers.append(str(ROUTER_LINK_LOCAL))
    where = pick(["known"] * 8 + ["router", "own", "stranger"])
    other_vpc = _known(document, "red" if port["vpc"] == "blue" else "blue", version)
    pool = {"known": known, "router": _of(version, routers), "own": _of(version, port["addresses"])}.get(where, [])
    return str(pick(pool or [*strangers[version], *other_vpc]))


def _ip(pick: Pick, document: Document, port: dict[str, Any]) -> Frame:
    version = pick(_versions(document, port["vpc"]))
    src, dst = _source(pick, document, port, version), _target(pick, document, port, version)
    echo = {4: "icmp", 6: "icmpv6"}[version]
    proto = pick(["tcp", "tcp", "udp", "udp", echo, "gre", "sctp", "ospf"])
    frame = Frame(
        port["mac"],
        pick([ROUTER_MAC, "ff:ff:ff:ff:ff:ff", "33:33:00:00:00:01", *_macs(document)]),
        f"ipv{version}",
        src,
        dst,
        ttl=pick([64, 64, 64, 255, 128, 63, 8, 7, 3, 2, 1, 0]),
        proto=proto,
        fragment=pick([""] * 8 + ["first", "later"]),
        options=pick([False] * 6 + [True]),
    )
    if proto in WITH_PORTS:
        frame = replace(frame, sport=pick((*_PORTS, 67, 547)), dport=pick(_PORTS))
    if pick([True, False]) and not frame.fragment:
        frame = _aimed(pick, document, port, frame)
    if frame.proto == echo:
        kinds = {4: [(8, 0), (8, 0), (0, 0), (3, 1), (8, 1)], 6: [(128, 0), (128, 0), (129, 0), (1, 0), (128, 1)]}
        frame = replace(frame, icmp=pick(kinds[version]))
    if pick([True] * 14 + [False]):
        return replace(frame, size=_size(pick, document, port["vpc"])) if pick([True] + [False] * 7) else frame
    asks = {4: ("255.255.255.255", 68, 67), 6: ("ff02::1:2", 546, 547)}[version]
    source = pick([src, src, {4: _NOBODY, 6: "fe80::5"}[version]])
    return replace(frame, src=source, dst=asks[0], proto="udp", fragment="", sport=asks[1], dport=asks[2])


def _aimed(pick: Pick, document: Document, port: dict[str, Any], frame: Frame) -> Frame:
    """At the edge of a rule of its sender's groups or its receiver's, if one has ports."""
    there = [
        each for each in document["ports"].values() if frame.dst in each["addresses"] and each["vpc"] == port["vpc"]
    ]
    names = {name for each in (port, *there) for name in each.get("groups", [])}
    rules = [rule.split()[1:3] for name in sorted(names) for rule in document["groups"][name]["rules"]]
    edges = [(proto, ports.partition("-")) for proto, ports in rules if ports[0].isdigit()]
    if not edges:
        return frame
    proto, (first, _, last) = pick(edges)
    low, high = int(first), int(last or first)
    at = pick([low, high, low - 1, min(high + 1, 0xFFFF), min(high | 31, 0xFFFF)])
    other = pick(_PORTS)
    sport, dport = pick([(other, at), (other, at), (at, other)])
    return replace(frame, proto=proto, sport=sport, dport=dport)


def _size(pick: Pick, document: Document, vpc: str) -> int:
    """At the edge of what there is: the MTU of the VPC, or those that substrates and headers leave."""
    said = document["vpcs"][vpc].get("mtu")
    substrate = min(host["substrate_mtu"] for host in document["hosts"].values())
    left = [substrate - overhead for overhead in (42, 50, 62, 70)]
    return int(pick([said or left[1], *left]) + pick([-1, 0, 1]))


def _arp(pick: Pick, document: Document, port: dict[str, Any]) -> Frame:
    target = pick([_target(pick, document, port, 4), *_within(port["allowed"], 4)])
    source = pick([_source(pick, document, port, 4)] * 6 + [_NOBODY, target])
    sha = pick([port["mac"]] * 9 + ["02:00:00:00:00:63"])
    return Frame(port["mac"], "ff:ff:ff:ff:ff:ff", "arp", source, target, op=pick([1] * 9 + [2, 3]), sha=sha)


def _nd(pick: Pick, document: Document, port: dict[str, Any]) -> Frame:
    own = _of(6, port["addresses"]) + _within(port["allowed"], 6)
    target = pick([_target(pick, document, port, 6)] * 3 + ["fe80::1", "fe80::9", *own])
    source = pick([_source(pick, document, port, 6)] * 6 + ["::", "fe80::5"])
    option = None if source == "::" else port["mac"]
    option = pick([option] * 8 + [None, port["mac"], "02:00:00:00:00:63"])
    return Frame(
        port["mac"],
        pick(["33:33:ff:00:00:12"] * 6 + ["ff:ff:ff:ff:ff:ff"]),
        "ipv6",
        source,
        pick(["ff02::1:ff00:12", target]),
        ttl=255,
        proto="icmpv6",
        icmp=(135, pick([0] * 9 + [1])),
        target=target,
        option=option,
    )


def _link(pick: Pick, document: Document, port: dict[str, Any]) -> Frame:
    """What stays on a link: MLD, router solicitations and advertisements, redirects, neighbour advertisements."""
    source = pick([_source(pick, document, port, 6)] * 3 + ["fe80::5", "::"])
    known = _known(document, port["vpc"], 6)
    target = pick([*known, _target(pick, document, port, 6), "ff02::16"])
    macs = ["ff:ff:ff:ff:ff:ff", "33:33:00:00:00:16", "33:33:00:00:00:16", *_macs(document)]
    message = pick([136, 131, 143, 130, 132, 134, 137, 133])
    return Frame(port["mac"], pick(macs), "ipv6", source, target, ttl=255, proto="icmpv6", icmp=(message, 0))


def _posed(pick: Pick, document: Document, port: dict[str, Any]) -> Frame:
    """What only a link's neighbours or a DHCP server may say, to another guest: that one's host has to refuse it."""
    there = [each for version in (6, 4) for each in _known(document, port["vpc"], version)]
    others = [each for each in there if each not in port["addresses"]]
    ends = [(src, dst) for src in port["addresses"] for dst in others if (":" in src) == (":" in dst)]
    if not ends:
        return _other(pick, document, port)
    src, dst = pick(ends)
    kind = "ipv6" if ":" in src else "ipv4"
    frame = Frame(port["mac"], "ff:ff:ff:ff:ff:ff", kind, src, dst)
    if kind == "ipv6" and pick([True, False]):
        return replace(frame, proto="icmpv6", icmp=(pick([136, 134, 137, 135, 143]), 0))
    return replace(frame, sport=547 if kind == "ipv6" else 67, dport=68)


def _other(pick: Pick, _document: Document, port: dict[str, Any]) -> Frame:
    return Frame(port["mac"], "01:80:c2:00:00:0e", pick([0x88CC, 0x8847, 0x888E, 0x0026, 0x88B5]))


def _outer(pick: Pick, document: Document, host: str) -> Outer:
    """A tunnel packet from one host to another, mostly as it should be; or what is no tunnel packet."""
    here = document["hosts"][host]
    kind = pick(["tunnel"] * 12 + ["arp", "ns", "na", "other"])
    others = [each["vtep"] for name, each in document["hosts"].items() if name != host]
    six = ":" in here["vtep"]
    stranger = "2001:db8::66" if six else "192.0.2.66"
    if kind != "tunnel":
        kind = pick(["ns", "na"]) if six and kind == "arp" else kind
        src = "192.0.2.66" if kind == "arp" else "2001:db8::66" if kind in ("ns", "na") else stranger
        same = "2001:db8::1" if kind in ("ns", "na") and not six else here["vtep"]
        dst = pick([same, same, "ff02::1"]) if kind == "na" else same
        target = pick([here["vtep"]] * 3 + ["192.0.2.77"]) if kind == "arp" else pick([same, same, "2001:db8::77"])
        return Outer(kind, src, dst, tag=pick([0] * 9 + [0x8100]), hops=pick([255] * 4 + [254]), target=target)
    vpcs = {port["vpc"] for port in document["ports"].values() if port.get("host") == host}
    sender = [port for port in document["ports"].values() if port.get("host") not in (None, host)]
    sender = [port for port in sender if port["vpc"] in vpcs] or sender
    port: dict[str, Any] = pick(sender) if sender else _STRAY
    known = document["hosts"][port["host"]]["vtep"] if sender else stranger
    known = known if (":" in known) == six else stranger
    src = pick([known] * 12 + [stranger, here["vtep"], *[each for each in others if (":" in each) == six]])
    other = "10.0.0.1" if not six else "2001:db8::99"
    return Outer(
        pick([here["encap"]] * 12 + list(_ENCAPS)),
        src,
        pick([here["vtep"]] * 12 + [other]),
        pick([_ip] * 8 + [_link] * 4 + [_arp, _other, _nd])(pick, document, port),
        pick([document["vpcs"][port["vpc"]]["vni"]] * 9 + [0, 0, 7, 5001, 5002]),
        pick([0] * 20 + [0x8100]),
        pick([""] * 14 + ["first", "later"]),
        oam=pick([False] * 4 + [True]),
        hops=64,
    )


def _from_kernel(pick: Pick, document: Document, host: str) -> Outer:
    here = document["hosts"][host]["vtep"]
    six = ":" in here
    there = pick([each["vtep"] for name, each in document["hosts"].items() if (":" in each["vtep"]) == six])
    tag = pick([0] * 9 + [0x8100])
    kind = pick([*TUNNEL_PORTS, "gre", "other", "ns", "na"] if six else [*TUNNEL_PORTS, "gre", "other", "arp"])
    src = pick([here] * 5 + ["2001:db8::66" if six else "192.0.2.66"])
    inner = Frame("02:00:00:00:00:01", "02:00:00:00:00:02", "ipv4", "10.0.0.11", "10.0.0.12")
    target = pick([there, here, src]) if kind in ("arp", "ns", "na") else ""
    return Outer(kind, src, there, inner, 5001, tag, hops=pick([255] * 4 + [254]), target=target)
