"""The flows of one bridge, kept as the pure function of `flows.desired` would make them, at the cost of what changed.

Each flow comes from one thing: an address, a port, a VPC, another host, or the host's own. Of an address only its place
is kept, which it shares with the other addresses of its port, and of the rest the cookies; flows are made when they are
needed. What concerns this host's own ports is done at once, whole; other addresses have their turn (`flows.backlog`).
"""

from __future__ import annotations

import operator
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import partial, reduce
from itertools import islice
from typing import Final

from flows.backlog import Addresses, Backlog
from flows.change import Change, Tally
from flows.desired import RULES, Ofports, misses
from flows.fields import address
from flows.flow import Flow
from flows.meter import Meters
from flows.pattern import Bridge, Part, Place
from flows.view import FarPort, far_port
from mapping.linked import Linked, Touched
from mapping.model import Host, Port, RowId, groups_of

SLICE: Final = 200
"""Addresses whose flows are sent in one bundle when there are many, unless the switch's pace asks for another number:
what comes meanwhile waits for no more than that.
"""


class BridgeFlows:
    """What `bridge` (its role) of the host with this row should hold.

    `linked` is followed: after each change of it, `update` must be told what was touched before anything else is asked.
    """

    def __init__(self, bridge: str, host: RowId, linked: Linked) -> None:
        self._role = bridge
        self._rules = RULES[bridge]
        self.host = host
        self._linked = linked
        self.slice = SLICE
        """Addresses that wait their turn of which one `update` speaks at most."""
        self.meters_changed = False
        """Whether `meters` are others than when this was last made false."""
        self.incomplete = False
        """Whether `mend` has left something out that the next `update` says."""
        self._clear(None, {})

    def _clear(self, host: Host | None, ofports: Ofports) -> None:
        self._host = host
        self._bridge = Bridge(self._role, host, ofports) if host else None
        self._ofports: Ofports = ofports
        self._cookies: dict[RowId, tuple[int, ...]] = {}
        """Row -> cookies of the flows that come from it alone. The host's own row stands for the misses, too."""
        self._ports: dict[RowId, RowId] = {}
        """Ports of this host -> their VPC."""
        self._members: defaultdict[RowId, set[RowId]] = defaultdict(set)
        """VPC -> ports of this host in it. Only these VPCs are known here."""
        self._vnis: dict[RowId, int] = {}
        """VPC -> the VNI that its flows have."""
        self._places: tuple[dict[RowId, Place], dict[RowId, Place]] = {}, {}
        """Port -> its place, as the rows are now: of its IPv4 addresses, and of its IPv6 ones."""
        self._installed: defaultdict[RowId, dict[str, Place]] = defaultdict(dict)
        """VPC -> address -> the place that its flows were made of."""
        self._peers: Counter[RowId] = Counter()
        """Other host -> addresses that are there. Those without are no peers, nor those that cannot be reached."""
        self._reached: dict[RowId, Host] = {}
        """Those of them that can be reached, as they were when flows were made last."""
        self._peers_now: tuple[Host, ...] | None = None
        """The same, as `peers` says it; None: not made since they changed."""
        self._fleet_mtu = 0
        """What the VPCs' flows were made for."""
        self._metered: dict[RowId, Meters] = {}
        """Port of this host -> its meters."""
        self._devices: dict[int, RowId] = {}
        """OpenFlow port -> the port of this host whose device was there last."""
        self._left: dict[RowId, RowId] = {}
        """Ports that have just moved away from this host -> their VPC."""
        self._far: dict[RowId, tuple[RowId, FarPort]] = {}
        """Port that moves, or is elsewhere and allowed more than its own addresses -> its VPC, and what it is then."""
        self._grants: dict[RowId, tuple[int, ...]] = {}
        """Such a port -> cookies of the flows that it asks for. Two ports of a host may ask for one flow."""
        self._granted: Counter[int] = Counter()
        """Cookie of such a flow -> how many ask for it."""
        self._backlog = Backlog()
        self._config_seq = -1
        """The last change that `update` was told of."""
        self._count = self._digest = 0
        """How many flows there are, and the sum, without carry, of their cookies."""

    @property
    def busy(self) -> bool:
        """Whether `update` has more to say."""
        return bool(self._backlog)

    @property
    def waiting(self) -> int:
        """Addresses of which it has."""
        return len(self._backlog)

    @property
    def count(self) -> int:
        """How many flows there are."""
        return self._count

    @property
    def cookies(self) -> Iterator[int]:
        """The cookie of every flow."""
        for cookies in self._cookies.values():
            yield from cookies
        yield from self._granted
        for addresses in self._installed.values():
            for ip, there in addresses.items():
                yield from there.cookies(address(ip))

    @property
    def peers(self) -> tuple[Host, ...]:
        """The hosts that this one exchanges tunnel packets with."""
        if self._peers_now is None:
            self._peers_now = tuple(self._reached.values())
        return self._peers_now

    def applied(self, config_seq: int) -> int:
        """The last change of which `update` has said everything, when this is the last that it was told of."""
        return self._backlog.done(config_seq)

    @property
    def meters(self) -> Meters:
        """The meters that the bridge should have."""
        return {meter_id: meter for meters in self._metered.values() for meter_id, meter in meters.items()}

    def port_at(self, ofport: int) -> Port | None:
        """The port of this host whose device this is; None if there is none."""
        uuid = self._devices.get(ofport)
        port = self._linked.ports.get(uuid) if uuid in self._ports else None
        return port if port and self._ofports.get(port.device) == ofport else None

    def matches(self, cookies: Sequence[int]) -> bool:
        """Whether a switch that holds these cookies holds all the flows and no other, as far as a sum can tell."""
        return len(cookies) == self._count and reduce(operator.xor, cookies, 0) == self._digest

    def update(self, touched: Touched, ofports: Ofports, config_seq: int) -> Change:
        """Take in that this was touched, or the bridge's ports, by this change; return what to change of the flows.

        Ports that have changed are another object.

        While `busy`, that is not all: call again, with nothing touched if nothing was.
        """
        self.incomplete = False
        host = self._linked.hosts.get(self.host)
        if host is None:
            delete = tuple(self.cookies)
            self._clear(None, ofports)
            self.meters_changed = True
            return Change((), delete)
        # What comes after a change that was taken in already is not part of it.
        since = config_seq + (config_seq == self._config_seq)
        self._config_seq = config_seq
        step = _Step()
        self._take_in(host, touched, ofports, since, step)
        for vpc, addresses in self._backlog.take(self.slice):
            self._remake(vpc, addresses, step)
        hosts = self._count_peers(step)
        for uuid in hosts | step.rows:
            self._note_peer(uuid)
        step.rows.update(uuid for uuid in hosts if (uuid in self._peers) != (uuid in self._cookies))
        for uuid in step.rows:
            flows = list(self._flows(uuid))
            step.unwanted += self._cookies.pop(uuid, ())
            if flows:
                self._cookies[uuid] = tuple(flow.cookie for flow in flows)
            step.wanted += flows
            self._note_port(uuid)
        for uuid in step.far:
            self._grant(uuid, step)
        self._count += step.more
        self._digest ^= step.digest
        return step.change()

    def mend(self, installed: Collection[int]) -> Iterator[Change]:
        """What makes a switch that holds these cookies hold what it should, slice by slice: what is stale first.

        Rows may change between two slices, of which `update` is told afterwards. What a row says by then is not sent
        here, as nothing would take it away again; what it said before is left out where it can be made no more.
        """
        have = set(installed)
        if have and (stale := have.difference(self.cookies)):
            yield Change((), tuple(stale))
        missing = (flow for flow in self._all(have) if flow.cookie not in have)
        while flows := tuple(islice(missing, 2 * SLICE)):
            yield Change(flows)

    def _take_in(self, host: Host, touched: Touched, ofports: Ofports, since: int, step: _Step) -> None:
        """Note what was touched. What concerns this host's own ports is part of this step, whole."""
        ports = set(touched.ports)
        afresh = host != self._host
        if afresh:
            step.rows |= {self.host, *self._members, *self._peers}
            ports.update(self._linked.ports_of(self.host), self._ports, self._left, self._far, *self._places)
        if ofports is not self._ofports:  # most often it is, and need not be compared
            ports |= self._ports.keys() if ofports != self._ofports else set()
        self._host, self._ofports = host, ofports
        self._bridge = Bridge(self._role, host, self._ofports)
        self._forget(ports)
        own, left, joined = self._move_ports(ports)
        step.rows |= own
        step.rows |= self._remade(touched)
        renumbered = {
            vpc for vpc in touched.vpcs & self._members.keys() if self._vnis.get(vpc) != self._linked.vpcs[vpc].vni
        }
        joined_or_left = left | joined
        if joined_or_left:
            ports.update(uuid for uuid, (vpc, _) in self._far.items() if vpc in joined_or_left)
        for vpc in joined:
            ports.update(self._linked.ports_of(vpc))
        for vpc in (left | renumbered) & self._vnis.keys():
            self._take_out(vpc, step)
        for vpc in joined | renumbered | (set(self._members) if afresh else set()):
            self._put_in(vpc, since, step)
        for vpc in self._members.keys() & touched.addresses.keys() if self._far else ():
            before = self._installed[vpc]
            ports.update(port for port in touched.addresses[vpc].values() if port in self._far)
            ports.update(
                before[ip].port for ip in touched.addresses[vpc] if ip in before and before[ip].port in self._far
            )
        self._note_far(ports, step)
        for vpc in self._members.keys() & touched.addresses.keys():
            self._sort(vpc, touched.addresses[vpc], since, step)
        for port in own & self._ports.keys():
            self._sort(self._ports[port], dict.fromkeys(self._linked.addresses_of(port), port), since, step)

    def _remade(self, touched: Touched) -> set[RowId]:
        """The rows whose own flows are to be made again because they, or what they depend on, have changed."""
        rows = (touched.hosts & self._peers.keys()) | (touched.vpcs & self._cookies.keys())
        if touched.groups:
            known = self._linked.ports
            rows |= {uuid for uuid in self._ports if uuid in known and touched.groups & {*known[uuid].groups}}
        if self._linked.fleet_mtu != self._fleet_mtu:
            self._fleet_mtu = self._linked.fleet_mtu
            rows |= self._members.keys()
        return rows

    def _sort(self, vpc: RowId, addresses: Addresses, since: int, step: _Step) -> None:
        """What leads to this host's own ports, or led there, is done now; the rest has its turn."""
        installed = self._installed[vpc]
        now: Addresses = {}
        later: Addresses = {}
        for ip, port in addresses.items():
            if port in self._ports or ((there := installed.get(ip)) and there.host == self.host):
                self._backlog.forget(vpc, ip)
                now[ip] = port
            else:
                later[ip] = port
        self._remake(vpc, now, step)
        self._backlog.add(vpc, later, since)

    def _move_ports(self, ports: Iterable[RowId]) -> tuple[set[RowId], set[RowId], set[RowId]]:
        """Note which of these ports are on this host now.

        Returns those that are, or were; and the VPCs that have none here any more, and that have their first.
        """
        own: set[RowId] = set()
        vpcs: set[RowId] = set()
        for uuid in ports:
            if uuid in self._ports:
                own.add(uuid)
            vpc = self._ports.pop(uuid, None) or self._left.pop(uuid, None)
            if vpc is not None:
                vpcs.add(vpc)
                self._members[vpc].discard(uuid)
            port = self._linked.ports.get(uuid)
            if port is not None and self.host in port.hosts:
                if port.seat(self.host) == self.host:
                    own.add(uuid)
                    self._ports[uuid] = port.vpc
                else:
                    self._left[uuid] = port.vpc
                vpcs.add(port.vpc)
                self._members[port.vpc].add(uuid)
        left = {vpc for vpc in vpcs if not self._members[vpc]}
        for vpc in left:
            del self._members[vpc]
        return own, left, {vpc for vpc in vpcs - left if vpc not in self._vnis}

    def _take_out(self, vpc: RowId, step: _Step) -> None:
        """A VPC's flows go all at once: nothing of it must be left when another has its VNI."""
        self._backlog.drop(vpc)
        step.rows.add(vpc)
        self._remake(vpc, dict.fromkeys(self._installed[vpc]), step)
        del self._installed[vpc], self._vnis[vpc]
        self._forget(self._linked.ports_of(vpc))

    def _put_in(self, vpc: RowId, since: int, step: _Step) -> None:
        """A VPC is to be looked at whole: it has its first port here, another VNI, or the host has changed."""
        step.rows.add(vpc)
        self._vnis[vpc] = self._linked.vpcs[vpc].vni
        for port in self._linked.ports_of(vpc):
            self._sort(vpc, dict.fromkeys(self._linked.addresses_of(port), port), since, step)

    def _remake(self, vpc: RowId, addresses: Addresses, step: _Step) -> None:
        """These addresses lead there now."""
        installed = self._installed[vpc]
        for ip, port in addresses.items():
            old, new = installed.get(ip), self._place(port, ":" in ip)
            if new is not None:
                installed[ip] = new
            elif old is not None:
                del installed[ip]
            if old != new:
                step.lead(address(ip), old, new)

    def _count_peers(self, step: _Step) -> set[RowId]:
        """Note how many addresses are on other hosts now; return the hosts for which that has changed."""
        changed = {host: by for host, by in step.on_host.items() if by and host != self.host}
        for host, by in changed.items():
            self._peers[host] += by
            if not self._peers[host]:
                del self._peers[host]
        return set(changed)

    def _note_peer(self, uuid: RowId) -> None:
        """Note whether this is a host to exchange tunnel packets with."""
        host = self._linked.hosts.get(uuid) if uuid in self._peers else None
        now = host if host and self._host and self._host.reaches(host) else None
        if now is not self._reached.get(uuid):
            self._peers_now = None
            self._reached.pop(uuid, None)
            if now:
                self._reached[uuid] = now

    def _place(self, uuid: RowId | None, ipv6: bool) -> Place | None:
        """Where a port's addresses of one family are now; None if they are nowhere."""
        if uuid is None:
            return None
        places = self._places[ipv6]
        there = places.get(uuid)
        if there is None and self._bridge and (port := self._linked.ports.get(uuid)) and (seat := port.seat(self.host)):
            peers = tuple(sorted(self._linked.peers_of(port))) if port.groups else ()
            host, vpc = self._linked.hosts[seat], self._linked.vpcs[port.vpc]
            there = places[uuid] = self._bridge.place(port, vpc, host, 6 if ipv6 else 4, peers)
        return there

    def _forget(self, ports: Iterable[RowId]) -> None:
        """The places of these ports may be others than they were."""
        for port in ports:
            for places in self._places:
                places.pop(port, None)

    def _note_far(self, ports: Iterable[RowId], step: _Step) -> None:
        """Note which of these ports, in a VPC known here, move, or are elsewhere and allowed more than their own."""
        hosts = self._linked.hosts
        for uuid in ports:
            port = self._linked.ports.get(uuid)
            if uuid in self._far:
                for there in self._far.pop(uuid)[1].others:
                    step.count(there.uuid, -1)
                step.far.add(uuid)
            if port and port.vpc in self._members:
                far = far_port(port, self.host, hosts, partial(self._linked.addresses_of, uuid))
                if far:
                    self._far[uuid] = port.vpc, far
                    for there in far.others:
                        step.count(there.uuid, 1)
                    step.far.add(uuid)

    def _grant(self, uuid: RowId, step: _Step) -> None:
        """Ask for the flows that such a port is to have now, and for none that only it had."""
        before, flows = self._grants.pop(uuid, ()), list(self._far_flows(uuid))
        if flows:
            self._grants[uuid] = tuple(flow.cookie for flow in flows)
        for flow in flows:
            self._granted[flow.cookie] += 1
            if self._granted[flow.cookie] == 1:
                step.wanted.append(flow)
        for cookie in before:
            self._granted[cookie] -= 1
            if not self._granted[cookie]:
                del self._granted[cookie]
                step.unwanted.append(cookie)

    def _far_flows(self, uuid: RowId) -> Iterable[Flow]:
        linked = self._linked
        if self._host is None or uuid not in self._far:
            return ()
        uuid_of_vpc, far = self._far[uuid]
        vpc = linked.vpcs.get(uuid_of_vpc)  # it may be gone already, as in `_flows`
        return self._rules.of_far_port(self._host, far, vpc) if vpc else ()

    def _flows(self, uuid: RowId) -> Iterable[Flow]:
        """The flows that come from a row alone, as the pure function makes them. A row that is gone has none."""
        host, linked, rules = self._host, self._linked, self._rules
        if host is None:
            return ()
        # A row may be gone already of which `update` is told next.
        if uuid in self._ports and uuid in linked.ports:
            port = linked.ports[uuid]
            vpc = linked.vpcs[port.vpc]
            groups = groups_of(port, linked.groups)
            return (*rules.of_port(port, vpc, self._ofports), *rules.of_groups(port, vpc, groups, self._ofports))
        if uuid in self._peers and uuid in linked.hosts:
            peer = linked.hosts[uuid]
            return rules.of_peer(host, peer) if host.reaches(peer) else ()
        if uuid in self._members and uuid in linked.vpcs:
            return rules.of_vpc(linked.vpcs[uuid], self._fleet_mtu)
        return (*misses(self._role), *rules.of_host(host)) if uuid == self.host else ()

    def _note_port(self, uuid: RowId) -> None:
        """Note where a row's device is, and its meters: none, if it is no port of this host, or gone."""
        port = self._linked.ports.get(uuid) if uuid in self._ports else None
        meters = dict(self._rules.meters(port, self._ofports)) if port else {}
        if port and port.device in self._ofports:
            self._devices[self._ofports[port.device]] = uuid
        if meters != self._metered.get(uuid, {}):
            self.meters_changed = True
            self._metered[uuid] = meters
            if not meters:
                del self._metered[uuid]

    def _all(self, have: Collection[int]) -> Iterator[Flow]:
        for uuid, cookies in self._cookies.items():
            known = set(cookies)
            flows = {flow.cookie: flow for flow in self._flows(uuid) if flow.cookie in known}
            if lost := known.difference(flows, have):
                self._cookies[uuid] = self._leave_out(lost, cookies)
            yield from flows.values()
        granted = {
            flow.cookie: flow for uuid in self._grants for flow in self._far_flows(uuid) if flow.cookie in self._granted
        }
        if lost := set(self._granted).difference(granted, have):
            self._leave_out(lost, ())
            for cookie in lost:
                del self._granted[cookie]
            for uuid, cookies in self._grants.items():
                self._grants[uuid] = tuple(cookie for cookie in cookies if cookie not in lost)
        yield from granted.values()
        for addresses in self._installed.values():
            for ip, there in addresses.items():
                yield from there.flows(address(ip))

    def _leave_out(self, lost: Collection[int], of: Iterable[int]) -> tuple[int, ...]:
        """These are not there, and their rows have changed: `update` makes them if they are still wanted."""
        self.incomplete = True
        self._count -= len(lost)
        self._digest = reduce(operator.xor, lost, self._digest)
        return tuple(cookie for cookie in of if cookie not in lost)


class _Step(Tally):
    """What one `update` comes to, and what it has to look at for that."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: set[RowId] = set()
        """Rows whose own flows are to be made again."""
        self.on_host: dict[RowId, int] = {}
        """Host -> by how many addresses more lead there than before."""
        self.far: set[RowId] = set()
        """Ports of other hosts of which it may be others that they are allowed."""
        self._move: tuple[Place, Place] | None = None
        """The places of the last address that has moved within a pattern."""
        self._parts: tuple[Part, ...] = ()
        """The parts of the pattern that make others there."""

    def lead(self, ip: int, old: Place | None, new: Place | None) -> None:
        """An address leads to another place than before; None: to none."""
        if old is not None:
            self.count(old.host, -1)
        if new is not None:
            self.count(new.host, 1)
        if old is None or new is None:
            self.wanted += new.flows(ip) if new else ()
            self.unwanted += old.cookies(ip) if old else ()
        elif old.pattern is not new.pattern:
            self.replace(old.flows(ip), new.flows(ip))
        else:
            # Addresses of one port move together.
            if self._move is None or self._move[0] is not old or self._move[1] is not new:
                self._move, self._parts = (old, new), old.differing(new)
            olds, news = (*old.numbers, ip), (*new.numbers, ip)
            for shape, pick in self._parts:
                self.overwrite(shape, pick(olds), pick(news))

    def count(self, host: RowId, by: int) -> None:
        """So many addresses more lead to this host."""
        self.on_host[host] = self.on_host.get(host, 0) + by
