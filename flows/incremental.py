"""The flows of one bridge, kept as the pure function of `flows.desired` would make them, at the cost of what changed.

Each flow comes from one row: a mapping, a port, a VPC, another host, or the host's own. Of each row only the cookies of
its flows are kept; the flows are made anew when they are needed. What changed is recomputed row by row.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Final

from flows.change import Change
from flows.desired import RULES, Ofports, misses
from flows.flow import Flow
from flows.view import Location
from mapping.linked import Linked, Touched
from mapping.model import Host, RowId

SLICE: Final = 4000
"""Rows whose flows are sent in one bundle when there are many: while the switch commits it, the next is made."""


class BridgeFlows:
    """What `bridge` (its role) of the host with this row should hold.

    `linked` is followed: after each change of it, `update` must be told what was touched before anything else is asked.
    """

    def __init__(self, bridge: str, host: RowId, linked: Linked) -> None:
        self._bridge = bridge
        self._rules = RULES[bridge]
        self.host = host
        self._linked = linked
        self._clear(None, {})

    def _clear(self, host: Host | None, ofports: Ofports) -> None:
        self._host = host
        self._ofports = dict(ofports)
        self._cookies: dict[RowId, tuple[int, ...]] = {}
        """Row -> cookies of the flows that come from it. The host's own row stands for the misses, too."""
        self._ports: dict[RowId, RowId] = {}
        """Ports of this host -> their VPC."""
        self._members: defaultdict[RowId, set[RowId]] = defaultdict(set)
        """VPC -> ports of this host in it. Only these VPCs are known here."""
        self._peer_of: dict[RowId, RowId] = {}
        """Mapping -> the other host that it leads to."""
        self._peers: Counter[RowId] = Counter()
        """Other host -> mappings that lead there. Those without are no peers."""

    @property
    def cookies(self) -> Iterator[int]:
        """The cookie of every flow."""
        return (cookie for cookies in self._cookies.values() for cookie in cookies)

    @property
    def peers(self) -> tuple[Host, ...]:
        """The hosts that this one exchanges tunnel packets with."""
        return tuple(self._linked.hosts[uuid] for uuid in self._peers if uuid in self._linked.hosts)

    def update(self, touched: Touched, ofports: Ofports) -> Change:
        """Take in that these rows, or the bridge's ports, have changed; return what that changes of the flows."""
        host = self._linked.hosts.get(self.host)
        if host != self._host:
            return self._start_over(ofports)
        if host is None:
            return Change()
        stale: set[RowId] = set()
        if ofports != self._ofports:
            self._ofports = dict(ofports)
            stale |= self._ports.keys()
            for port in self._ports:
                stale.update(self._linked.mappings_of(port))
        known_vpcs = {vpc for vpc in touched.vpcs if vpc in self._members or vpc in self._cookies}
        for vpc in known_vpcs | self._move_ports(touched.ports):
            stale.add(vpc)
            stale.update(self._linked.mappings_of(vpc))
        stale.update(port for port in touched.ports if port in self._ports or port in self._cookies)
        stale |= touched.mappings
        stale |= self._count_peers(stale)
        stale |= touched.hosts & self._peers.keys()
        return self._recompute(stale)

    def load(self, ofports: Ofports) -> Iterator[Change]:
        """Begin with the rows as they are; yield all flows, slice by slice.

        What changes between two slices must be told to `update` after the last one, as always; until then the flows
        are not whole, and nothing else may be asked.
        """
        host = self._linked.hosts.get(self.host)
        self._clear(host, ofports)
        if host is None:
            return
        self._move_ports(self._linked.ports)
        mappings = [uuid for vpc in self._members for uuid in self._linked.mappings_of(vpc)]
        peers = self._count_peers(mappings)
        yield self._recompute([self.host, *self._ports, *self._members, *peers])
        for rows in _slices(mappings):
            yield self._recompute(rows)

    def mend(self, installed: Collection[int]) -> Iterator[Change]:
        """What makes a switch that holds these cookies hold what it should, slice by slice: what is stale first."""
        have = set(installed)
        if stale := have.difference(self.cookies):
            yield Change((), tuple(stale))
        incomplete = [uuid for uuid, cookies in self._cookies.items() if not have.issuperset(cookies)]
        for rows in _slices(incomplete):
            yield Change(tuple(flow for uuid in rows for flow in self._flows(uuid) if flow.cookie not in have))

    def _start_over(self, ofports: Ofports) -> Change:
        """The host's own row is another: every flow may be, too."""
        before = set(self.cookies)
        add = [flow for change in self.load(ofports) for flow in change.add if flow.cookie not in before]
        return Change(tuple(add), tuple(before.difference(self.cookies)))

    def _move_ports(self, ports: Iterable[RowId]) -> set[RowId]:
        """Note which of these ports are on this host now; return the VPCs that thereby come or go here."""
        known = set(self._members)
        for uuid in ports:
            vpc = self._ports.pop(uuid, None)
            if vpc is not None:
                self._members[vpc].discard(uuid)
                if not self._members[vpc]:
                    del self._members[vpc]
            port = self._linked.ports.get(uuid)
            if port is not None and port.host == self.host:
                self._ports[uuid] = port.vpc
                self._members[port.vpc].add(uuid)
        return known ^ self._members.keys()

    def _count_peers(self, rows: Iterable[RowId]) -> set[RowId]:
        """Note where the mappings among these rows lead now; return the hosts that thereby become peers, or cease."""
        changed: set[RowId] = set()
        for uuid in rows:
            if (old := self._peer_of.pop(uuid, None)) is not None:
                self._peers[old] -= 1
                if not self._peers[old]:
                    del self._peers[old]
                    changed.add(old)
            location = self._location(uuid)
            if location is not None and location.host.uuid != self.host:
                new = location.host.uuid
                self._peer_of[uuid] = new
                self._peers[new] += 1
                if self._peers[new] == 1:
                    changed.add(new)
        return changed

    def _location(self, uuid: RowId) -> Location | None:
        """Where a mapping leads, if it is one of a VPC that is known here, and leads anywhere."""
        mapping = self._linked.mappings.get(uuid)
        if mapping is None or mapping.vpc not in self._members:
            return None
        port = self._linked.ports[mapping.port]
        if port.host is None:
            return None
        return Location(self._linked.vpcs[mapping.vpc], mapping.ip, port, self._linked.hosts[port.host])

    def _flows(self, uuid: RowId) -> Iterable[Flow]:
        """The flows that come from a row, as the pure function makes them. A row that is gone has none."""
        host, linked, rules = self._host, self._linked, self._rules
        if host is None:
            return ()
        if (location := self._location(uuid)) is not None:
            return rules.of_address(host, location, self._ofports)
        if uuid in self._ports and uuid in linked.ports:
            return rules.of_port(linked.ports[uuid], linked.vpcs[linked.ports[uuid].vpc], self._ofports)
        if uuid in self._peers and uuid in linked.hosts:
            return rules.of_peer(host, linked.hosts[uuid])
        if uuid in self._members and uuid in linked.vpcs:
            return rules.of_vpc(linked.vpcs[uuid])
        return (*misses(self._bridge), *rules.of_host(host)) if uuid == self.host else ()

    def _recompute(self, rows: Iterable[RowId]) -> Change:
        add: dict[int, Flow] = {}
        delete: set[int] = set()
        for uuid in rows:
            old = self._cookies.pop(uuid, ())
            flows = list(self._flows(uuid))
            if flows:
                self._cookies[uuid] = tuple(flow.cookie for flow in flows)
            delete.update(old)
            for flow in flows:
                add[flow.cookie] = flow
        # What one row no longer gives another may: a flow that stays, or only changes hands, is not touched.
        both = delete & add.keys()
        return Change(tuple(flow for cookie, flow in add.items() if cookie not in both), tuple(delete - both))


def _slices(rows: Sequence[RowId]) -> Iterator[Sequence[RowId]]:
    return (rows[start : start + SLICE] for start in range(0, len(rows), SLICE))
