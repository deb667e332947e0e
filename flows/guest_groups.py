"""Rules of br-guest for ports with security groups: what goes out, what comes in, and what is a reply.

A connection is judged by the rules of the side that opened it, each time one of its packets comes by: the connection
tracker only tells which side that was. So a rule that goes cuts at once what it alone allowed, and so does a peer that
leaves the group that a rule names.

    opened by the guest   FROM_RULES -rpl: from_guest rules, ports as written   TO_RULES   +rpl: the same, turned round
    opened by the peer    TO_RULES   -rpl: to_guest rules, ports as written     FROM_RULES +rpl: the same, turned round

Each port has a zone of the connection tracker, whose number is that of its OpenFlow port: two VPCs may have the same
addresses. Who is in a group that a rule names is said once for each address of the VPC (`of_peer`), and by each port
what the group may do, as the two clauses of one conjunction: so an address costs the same however many rules name it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from flows.fields import (
    CONJUNCTION,
    CT_STATE,
    ETH_TYPE,
    FAMILIES,
    FRAGMENT,
    IN_PORT,
    IP_FRAG,
    IP_PROTO,
    SCTP_DST,
    SCTP_SRC,
    TCP_DST,
    TCP_SRC,
    UDP_DST,
    UDP_SRC,
    VNI,
    CtState,
    Field,
    IpProto,
)
from flows.flow import Action, Commit, Conjunction, FieldMatch, Flow, Goto, SetField, Track, flow
from flows.pipeline import BR_GUEST, PAST_GROUPS, TABLES, Table
from flows.priority import OWN, PASS
from flows.view import Location
from mapping.model import Rule, SecurityGroup

Groups = tuple[SecurityGroup | None, ...]
"""A port's; None stands for one that cannot be used."""

_T = TABLES[BR_GUEST]
ANY_FROM_GUEST: Final = Rule(to_guest=False, protocol="any", ports=None, peer=None)
_PORTS: Final[dict[str, tuple[int, Field, Field]]] = {
    "tcp": (IpProto.TCP, TCP_SRC, TCP_DST),
    "udp": (IpProto.UDP, UDP_SRC, UDP_DST),
    "sctp": (IpProto.SCTP, SCTP_SRC, SCTP_DST),
}
"""Protocol -> number, source port, destination port."""
_ICMP: Final = {4: IpProto.ICMP, 6: IpProto.ICMPV6}


@dataclass(frozen=True, slots=True)
class _Way:
    """One of the two ways that packets go."""

    to_guest: bool
    track: Table
    rules: Table
    admit: Table
    exit: Table


_WAYS: Final = (
    _Way(False, _T["FROM_TRACK"], _T["FROM_RULES"], _T["FROM_ADMIT"], _T[PAST_GROUPS]),
    _Way(True, _T["TO_TRACK"], _T["TO_RULES"], _T["TO_ADMIT"], _T["TO_GUEST"]),
)


def number(group: str) -> int:
    """What stands for the peers of this name in conjunctions: two groups of a VPC have the same once in 2^32."""
    return int.from_bytes(blake2b(group.encode(), digest_size=4).digest()) or 1


def of_peer(location: Location) -> Iterator[Flow]:
    """An address whose port is in groups that rules of its VPC name: the second clause, both ways."""
    if location.peer_groups:
        family = FAMILIES[location.ip.version]
        clauses = [Conjunction(number(group), 2) for group in location.peer_groups]
        for way in _WAYS:
            peer = family.src if way.to_guest else family.dst
            match: FieldMatch = {VNI: location.vpc.vni, ETH_TYPE: family.eth_type, peer: int(location.ip)}
            yield flow(way.rules, PASS, match, clauses)


def of_port(vni: int, groups: Groups, device: int, patch: int) -> Iterator[Flow]:
    """A port with these groups. Without any it is open, and nothing is tracked."""
    stateful = any(group is not None and not group.stateless for group in groups)
    rules = effective(groups)
    for way in _WAYS:
        here = patch if way.to_guest else device
        if not groups:
            yield flow(way.track, PASS, {IN_PORT: here}, [Goto(way.exit.name)])
            continue
        yield flow(way.admit, PASS, {IN_PORT: here}, [Goto(way.exit.name)])
        if stateful:
            yield from _tracked(way, here, vni, device)
        else:
            yield flow(way.track, PASS, {IN_PORT: here}, [SetField(VNI, vni), Goto(way.rules.name)])
        yield from _of_rules(way, here, rules, stateful=stateful)


def effective(groups: Groups) -> list[Rule]:
    """All that these groups allow. Who can send what is said by from_guest rules; without any, whatever it likes.

    A group that cannot be used might have had such rules.
    """
    rules = list(dict.fromkeys(rule for group in groups if group is not None for rule in group.rules))
    if None not in groups and all(rule.to_guest for rule in rules):
        rules.append(ANY_FROM_GUEST)
    return rules


def _states(value: CtState, care: CtState) -> FieldMatch:
    """A match on the tracker's words: a packet that it can make nothing of (INV) is never meant."""
    return {CT_STATE: (int(value | CtState.TRK), int(care | CtState.TRK | CtState.INV))}


def _tracked(way: _Way, here: int, vni: int, zone: int) -> Iterator[Flow]:
    """What makes a port's connections known; and what passes besides what its rules say.

    That is ICMP errors about a connection that is tracked, and fragments of one: the tracker has put them together, and
    knows their ports, but tables are shown none, not even of the first. The kernel's datapath goes on with the whole.
    """
    new, established = _states(CtState.NEW, CtState.NEW), _states(CtState.EST, CtState.EST)
    yield flow(way.rules, OWN, {IN_PORT: here, **_states(CtState.REL, CtState.REL)}, [Goto(way.admit.name)])
    for family in FAMILIES.values():
        # Open vSwitch takes ct() of IP only, and wants to be told that it is.
        ip: FieldMatch = {IN_PORT: here, ETH_TYPE: family.eth_type}
        yield flow(way.track, PASS, ip, [SetField(VNI, vni), Track(zone, way.rules.name)])
        yield flow(way.admit, OWN, {**ip, **new}, [Commit(zone), Goto(way.exit.name)])
        yield flow(way.rules, OWN, {**ip, **established, IP_FRAG: FRAGMENT}, [Goto(way.admit.name)])


def _of_rules(way: _Way, here: int, rules: Iterable[Rule], *, stateful: bool) -> Iterator[Flow]:
    """These rules, one way: those for who opens a connection this way and, for replies, those of the other way."""
    admit: list[Action] = [Goto(way.admit.name)]
    # Two groups may be allowed the same: one match, and a clause of each.
    clauses: defaultdict[tuple[tuple[Field, int | tuple[int, int]], ...], set[str]] = defaultdict(set)
    for rule in rules:
        reply = rule.to_guest != way.to_guest
        if reply and not stateful:
            continue
        state = _states(CtState.RPL if reply else CtState(0), CtState.RPL) if stateful else {}
        for match in _matches(rule, to_guest=way.to_guest, reply=reply):
            full: FieldMatch = {IN_PORT: here, **state, **match}
            if isinstance(rule.peer, str):
                clauses[tuple(full.items())].add(rule.peer)
            else:
                yield flow(way.rules, OWN, full, admit)
    for items, groups in clauses.items():
        yield flow(way.rules, PASS, dict(items), [Conjunction(number(group), 1) for group in sorted(groups)])
    for group in sorted(set().union(*clauses.values())):
        yield flow(way.rules, PASS, {IN_PORT: here, CONJUNCTION: number(group)}, admit)


def _matches(rule: Rule, *, to_guest: bool, reply: bool) -> Iterator[FieldMatch]:
    """What packets of this rule's connections are, on one of the two ways; but for the members of a group."""
    net = None if isinstance(rule.peer, str) else rule.peer
    if rule.protocol == "any" and net is None:
        yield {}
        return
    for version, family in FAMILIES.items():
        if net is not None and net.version != version:
            continue
        match: FieldMatch = {ETH_TYPE: family.eth_type}
        if net is not None:
            peer = family.src if to_guest else family.dst
            whole = net.prefixlen == net.max_prefixlen
            match[peer] = int(net[0]) if whole else (int(net[0]), int(net.netmask))
        if rule.protocol == "any":
            yield match
        elif rule.protocol not in _PORTS:
            yield {**match, IP_PROTO: _ICMP[version] if rule.protocol == "icmp" else int(rule.protocol)}
        else:
            proto, src, dst = _PORTS[rule.protocol]
            for value in port_blocks(*rule.ports) if rule.ports else [None]:
                ports: FieldMatch = {} if value is None else {src if reply else dst: value}
                yield {**match, IP_PROTO: proto, **ports}


def port_blocks(first: int, last: int) -> Iterator[int | tuple[int, int]]:
    """The ports from first to last as values and masks of leading bits: 80-83 is 0x50/0xfffc."""
    while first <= last:
        size = min(first & -first or 1 << 16, 1 << (last - first + 1).bit_length() - 1)
        yield first if size == 1 else (first, 0xFFFF & -size)
        first += size
