"""What becomes of a packet, as the documents say and as a real switch says, for random groups and packets.

The oracle below is written from docs/groups.md and docs/pipeline.md, not from the flows, and shares no code with them.
Its stages are asked in order; the first that has a reason to drop decides. Web (10.0.0.11) is on host-a, db (10.0.0.12)
on host-b; nobody has 10.0.0.99. Each packet begins a connection.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network

from flows.pipeline import Reason
from mapping.model import Snapshot
from tests.build import BLUE, DB, TWO_HOSTS, WEB, group, having
from tests.ovs.conftest import World

WORLDS = 12
PACKETS = 80
LABELS = {reason.number: reason.label for reason in Reason}
HOME = {"10.0.0.11": "web", "fd00::11": "web", "10.0.0.12": "db", "fd00::12": "db"}
NUMBERS = {"tcp": 6, "udp": 17, "icmp": 1, "icmpv6": 58, "gre": 47}
NAMES = ("one", "two")


@dataclass(frozen=True)
class Sent:
    """A packet that web sends."""

    src: str
    dst: str
    proto: str
    port: int

    def match(self) -> str:
        """As ofproto/trace reads it."""
        six = ":" in self.src
        fields = ["ipv6" if six else "ip", f"nw_proto={NUMBERS[self.proto]}", "nw_ttl=64"]
        fields += [f"ipv6_src={self.src},ipv6_dst={self.dst}" if six else f"nw_src={self.src},nw_dst={self.dst}"]
        if self.proto in ("tcp", "udp"):
            fields += [f"{self.proto}_src=40000,{self.proto}_dst={self.port}"]
        if self.proto == "icmpv6":
            fields += ["icmpv6_type=128,icmpv6_code=0"]
        return ",".join(fields)


@dataclass(frozen=True)
class Wanted:
    """Groups by name, with their rules as written; and those of each port."""

    rules: dict[str, list[str]]
    of: dict[str, list[str]]


def allows(rule: str, packet: Sent, peer: str, wanted: Wanted) -> bool:
    """Whether a rule, as written, allows this packet, whose other end is `peer`."""
    words = rule.split()[1:]
    proto = words.pop(0)
    meant = {"any": {*NUMBERS}, "icmp": {"icmp", "icmpv6"}, "47": {"gre"}}.get(proto, {proto})
    if packet.proto not in meant:
        return False
    ports = words.pop(0) if words[0] not in ("from", "to") else ""
    if ports:
        low, _, high = ports.partition("-")
        if not int(low) <= packet.port <= int(high or low):
            return False
    whom = words[1:]
    if whom[0] == "group":
        return whom[1] in wanted.of.get(HOME.get(peer, ""), ())
    return whom[0] == "any" or ip_address(peer) in ip_network(whom[0])


def judged(port: str, direction: str, packet: Sent, peer: str, wanted: Wanted) -> str | None:
    if not wanted.of[port]:
        return None
    rules = [rule for name in wanted.of[port] for rule in wanted.rules[name]]
    mine = [rule for rule in rules if rule.startswith(direction)]
    if not mine and direction == "from_guest":
        return None
    return None if any(allows(rule, packet, peer, wanted) for rule in mine) else f"group_{direction}"


STAGES: list[Callable[[Sent, Wanted], str | None]] = [
    lambda packet, _: None if HOME.get(packet.src) == "web" else "spoofed_ip",
    lambda packet, _: "to_itself" if HOME.get(packet.dst) == "web" else None,
    lambda packet, wanted: judged("web", "from_guest", packet, packet.dst, wanted),
    lambda packet, _: None if packet.dst in HOME else "no_mapping",
    lambda packet, wanted: judged("db", "to_guest", packet, packet.src, wanted),
]


def oracle(packet: Sent, wanted: Wanted) -> str:
    """The reason to drop it, or "delivered"."""
    return next((reason for stage in STAGES if (reason := stage(packet, wanted))), "delivered")


def any_rule(rng: random.Random) -> str:
    to_guest = rng.random() < 0.6
    proto = rng.choice(["any", "tcp", "udp", "tcp", "udp", "icmp", "47"])
    low = rng.randrange(1, 12)
    ports = rng.choice(["", f" {low}", f" {low}-{low + rng.randrange(1, 9)}"]) if proto in ("tcp", "udp") else ""
    peers = ["any", "10.0.0.8/29", "10.0.0.12", "fd00::10/124", *(f"group {name}" for name in NAMES)]
    direction, word = ("to_guest", "from") if to_guest else ("from_guest", "to")
    return f"{direction} {proto}{ports} {word} {rng.choice(peers)}"


def any_world(rng: random.Random) -> tuple[Wanted, Snapshot]:
    rules = {name: sorted({any_rule(rng) for _ in range(rng.randrange(5))}) for name in NAMES}
    of = {port: rng.sample(NAMES, rng.randrange(3)) for port in ("web", "db")}
    stateless = rng.random() < 0.3
    groups = {name: group(name, BLUE, *texts, stateless=stateless) for name, texts in rules.items()}
    ports = {port.uuid: having(port, *(groups[name] for name in of[port.name])) for port in (WEB, DB)}
    kept = {**TWO_HOSTS.ports, **ports}
    world = replace(TWO_HOSTS, ports=kept, groups={each.uuid: each for each in groups.values()})
    return Wanted(rules, of), world


def any_packet(rng: random.Random) -> Sent:
    six = rng.random() < 0.4
    own, other, nobody = ("fd00::11", "fd00::12", "fd00::99") if six else ("10.0.0.11", "10.0.0.12", "10.0.0.99")
    src = rng.choice([own] * 9 + [nobody])
    proto = rng.choice(["tcp", "udp", "icmpv6" if six else "icmp", "gre"])
    return Sent(src, rng.choice([other] * 8 + [nobody, own]), proto, rng.randrange(0, 22))


def traced(world: World, packet: Sent) -> str:
    """What the two switches say: the sender's, and then, if it lets the packet on, the receiver's."""
    match = packet.match()
    head = f"in_port={world.a.ofport('web')},dl_src={WEB.mac},dl_dst=0a:00:5e:00:00:01"
    new = ("--ct-next", "trk,new")
    sent = world.a.ovs.appctl("ofproto/trace", "br-guest", f"{head},{match}", *new)
    if reason := dropped(sent):
        return reason
    assert "tunnel" in sent, sent
    came = f"in_port=t-geneve,tun_id={BLUE.vni},tun_src=192.0.2.1,tun_dst=192.0.2.2,dl_dst={DB.mac},{match}"
    got = world.b.ovs.appctl("ofproto/trace", "br-nic", came, *new)
    assert dropped(got) or f"output:{world.b.ofport('db')}" in got, got
    return dropped(got) or "delivered"


def dropped(trace: str) -> str | None:
    found = re.findall(r"(?:load|set_field):(0x[0-9a-f]+)->(?:NXM_NX_REG1\[\]|reg1)", trace)
    return LABELS[int(found[-1], 16)] if found else None


def test_the_switches_agree_with_what_the_documents_say(world: World) -> None:
    rng = random.Random(16)
    met: set[str] = set()
    try:
        for _ in range(WORLDS):
            wanted, rows = any_world(rng)
            world.write(rows)
            for packet in (any_packet(rng) for _ in range(PACKETS)):
                expected = oracle(packet, wanted)
                met.add(expected)
                assert traced(world, packet) == expected, (packet, wanted)
    finally:
        world.write(TWO_HOSTS)
    assert met >= {"delivered", "spoofed_ip", "to_itself", "no_mapping", "group_from_guest", "group_to_guest"}
