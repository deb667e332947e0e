"""The rows that hold together, kept so while rows come and go.

`mapping.rows.link` says what holds together, by going through everything. This keeps the same answer current in time
proportional to what a change touches: a mapping by itself, a port with its mappings, a host or a VPC with all that
refers to it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any, Final

from mapping import rows
from mapping.model import (
    BadRow,
    Host,
    Mapping,
    Port,
    RowId,
    SecurityGroup,
    Snapshot,
    Vpc,
    fleet_mtu,
    groups_of,
    peers_named,
)

_NONE: Final[frozenset[RowId]] = frozenset()
_TABLES: Final = ("Host", "Vpc", "SecurityGroup", "Port", "Mapping")


@dataclass(slots=True)
class Touched:
    """What has changed, or refers to what has: rows by table, and addresses by VPC."""

    hosts: set[RowId] = field(default_factory=set)
    vpcs: set[RowId] = field(default_factory=set)
    groups: set[RowId] = field(default_factory=set)
    ports: set[RowId] = field(default_factory=set)
    addresses: dict[RowId, dict[str, RowId | None]] = field(default_factory=dict)
    """VPC -> address -> the port that it is mapped to now; None: to none."""
    bad: set[RowId] = field(default_factory=set)
    """Those of the rows that cannot be used."""

    def __bool__(self) -> bool:
        return bool(self.hosts or self.vpcs or self.groups or self.ports or self.addresses)

    def add(self, later: Touched) -> None:
        """Take in what was touched after this."""
        self.hosts |= later.hosts
        self.vpcs |= later.vpcs
        self.groups |= later.groups
        self.ports |= later.ports
        self.bad |= later.bad
        for vpc, addresses in later.addresses.items():
            self.addresses.setdefault(vpc, {}).update(addresses)


class _Index:
    """Row -> rows that refer to it. Most are referred to by one, which is kept as it is; more are keys of a dict."""

    def __init__(self) -> None:
        self._of: dict[Any, RowId | dict[RowId, None]] = {}

    def add(self, key: Any, row: RowId) -> None:  # noqa: ANN401 - any key
        there = self._of.setdefault(key, row)
        if isinstance(there, dict):
            there[row] = None
        elif there != row:
            self._of[key] = {there: None, row: None}

    def discard(self, key: Any, row: RowId) -> None:  # noqa: ANN401
        there = self._of.get(key)
        if isinstance(there, dict):
            there.pop(row, None)
            if there:
                return
        elif there != row:
            return
        del self._of[key]

    def get(self, key: Any) -> AbstractSet[RowId]:  # noqa: ANN401
        there = self._of.get(key)
        if there is None:
            return _NONE
        return {there} if isinstance(there, str) else there.keys()


class Linked:
    """Rows as `mapping.rows.parse_row` made them, and those of them that hold together, each by row uuid."""

    def __init__(self) -> None:
        self.hosts: dict[RowId, Host] = {}
        self.vpcs: dict[RowId, Vpc] = {}
        self.groups: dict[RowId, SecurityGroup] = {}
        self.ports: dict[RowId, Port] = {}
        self.bad: dict[RowId, BadRow] = {}
        self._parsed: dict[str, dict[RowId, Any]] = {table: {} for table in _TABLES}
        self._adrift: set[RowId] = set()
        """Mappings that do not hold: fewer than those that do."""
        self._ports_of = _Index()
        """Host, VPC or group -> ports that refer to it."""
        self._groups_in = _Index()
        """VPC -> its groups, whether or not they hold together."""
        self._called = _Index()
        """VPC and name -> groups that are called so."""
        self._naming = _Index()
        """VPC and name -> groups whose rules name such a group as a peer."""
        self._dangling: set[RowId] = set()
        """Groups whose rules name one that is not there."""
        self._mappings_of = _Index()
        """Port -> mappings that refer to it."""
        self._claimants = _Index()
        """Datapath id -> hosts that claim it."""
        self._carried: Counter[tuple[int, int]] = Counter()
        """What the hosts carry -> how many do: few values, and of all hosts there are."""
        self._dirty = Touched()
        self._dirty_mappings: set[RowId] = set()
        self._left: list[Mapping] = []

    @property
    def fleet_mtu(self) -> int:
        """The MTU of guests whose VPC does not say."""
        return fleet_mtu(self._carried)

    def guest_mtu(self, vpc: Vpc) -> int:
        """The MTU of a VPC's guests, in bytes of IP packet."""
        return self.fleet_mtu if vpc.mtu is None else vpc.mtu

    def parsed(self, table: str) -> dict[RowId, Any]:
        """Every row of a table by itself, as `parse_row` made it."""
        return self._parsed[table]

    def put(self, table: str, uuid: RowId, value: Any | None) -> None:  # noqa: ANN401 - what parse_row returns
        """A row is this now, as `parse_row` made it; None: it is gone. It counts from the next `settle` on."""
        known = self._parsed[table]
        self._refer(known.pop(uuid, None), uuid, put=False)
        if value is not None:
            known[uuid] = value
            self._refer(value, uuid, put=True)
        dirty = {"Host": self._dirty.hosts, "Vpc": self._dirty.vpcs, "Port": self._dirty.ports}
        dirty["SecurityGroup"] = self._dirty.groups
        dirty.get(table, self._dirty_mappings).add(uuid)

    def settle(self) -> Touched:
        """Check what was put, and all that refers to it; return both."""
        touched, self._dirty = self._dirty, Touched()
        mappings, self._dirty_mappings = self._dirty_mappings, set()
        for uuid in touched.hosts:
            before = self.hosts.get(uuid)
            self._keep("Host", self.hosts, uuid, lambda host: rows.check_host(host, self._claims(host)))
            touched.ports.update(self._ports_of.get(uuid))
            self._count_carried(before, self.hosts.get(uuid))
        for uuid in touched.vpcs:
            self._keep("Vpc", self.vpcs, uuid, lambda _: True)
            touched.ports.update(self._ports_of.get(uuid))
            touched.groups.update(self._groups_in.get(uuid))
        if touched.groups:
            self._settle_groups(touched)
        for uuid in touched.ports:
            self._keep("Port", self.ports, uuid, lambda port: rows.check_port(port, self.vpcs, self.hosts))
            mappings.update(self._mappings_of.get(uuid))
        if touched.vpcs:
            parsed = self._parsed["Mapping"]
            mappings.update(each for each in self._adrift if getattr(parsed.get(each), "vpc", None) in touched.vpcs)
        self._settle_addresses(touched, mappings)
        touched.bad = (touched.hosts | touched.vpcs | touched.groups | touched.ports | mappings) & self.bad.keys()
        return touched

    def snapshot(self, config_seq: int) -> Snapshot:
        """What holds together now. It shares these dicts: it is good until the next `settle`."""
        bad = tuple(sorted(self.bad.values(), key=lambda row: (row.table, row.name, row.uuid)))
        mappings = {uuid: one for uuid, one in self._parsed["Mapping"].items() if uuid not in self._adrift}
        return Snapshot(config_seq, self.hosts, self.vpcs, self.ports, mappings, bad, self.groups)

    def host_of(self, datapath: int) -> Host | None:
        """The host that one of whose bridges has this datapath id; None if no row that holds together says so."""
        return next((self.hosts[uuid] for uuid in self._claimants.get(datapath) if uuid in self.hosts), None)

    def ports_of(self, uuid: RowId) -> Iterator[RowId]:
        """Ports of a VPC, or on a host, that hold together."""
        return (each for each in self._ports_of.get(uuid) if each in self.ports)

    def addresses_of(self, port: RowId) -> Iterator[str]:
        """The addresses that are mapped to a port."""
        parsed = self._parsed["Mapping"]
        return (parsed[each].ip for each in self._mappings_of.get(port) if each not in self._adrift)

    def vpcs_on(self, host: RowId) -> set[RowId]:
        """The VPCs of the ports on a host, whether or not they hold together."""
        parsed = self._parsed["Port"]
        return {parsed[port].vpc for port in self._ports_of.get(host)}

    def peers_of(self, port: Port) -> frozenset[str]:
        """The groups of a port that rules of its VPC name as peers."""
        groups = groups_of(port, self.groups) if port.groups else ()
        return frozenset(group.name for group in groups if group and self._naming.get((group.vpc, group.name)))

    def _settle_groups(self, touched: Touched) -> None:
        """Check these groups. Of ports that have them, those are touched that others are to know otherwise."""
        changes: list[tuple[SecurityGroup | None, SecurityGroup | None]] = []
        for uuid in touched.groups:
            old = self.groups.get(uuid)
            self._keep("SecurityGroup", self.groups, uuid, lambda group: group.vpc in self.vpcs)
            now = self.groups.get(uuid)
            changes.append((old, now))
            if (old and (old.vpc, old.name)) != (now and (now.vpc, now.name)):
                touched.ports.update(self._ports_of.get(uuid))
        every = [group for change in changes for group in change if group]
        there = {key: bool(self._called.get(key)) for key in {(group.vpc, group.name) for group in every}}
        named = {key: bool(self._naming.get(key)) for group in every for key in _peer_keys(group)}
        for old, now in changes:
            self._note_group(old, put=False)
            self._note_group(now, put=True)
        for key, before in named.items():
            if bool(self._naming.get(key)) != before:
                for uuid in self._called.get(key):
                    touched.ports.update(self._ports_of.get(uuid))
        suspects = set(touched.groups)
        for key, before in there.items():
            if bool(self._called.get(key)) != before:
                suspects |= self._naming.get(key)
        for uuid in suspects:
            self._note_dangling(uuid, touched)

    def _note_group(self, group: SecurityGroup | None, *, put: bool) -> None:
        if group:
            _note(self._called, (group.vpc, group.name), group.uuid, put=put)
            for key in _peer_keys(group):
                _note(self._naming, key, group.uuid, put=put)

    def _note_dangling(self, uuid: RowId, touched: Touched) -> None:
        """Note whether the rules of a group name others that are not there."""
        group = self.groups.get(uuid)
        row = rows.dangling(group, lambda vpc, name: bool(self._called.get((vpc, name)))) if group else None
        if row:
            if uuid not in self._dangling:
                touched.groups.add(uuid)
            self._dangling.add(uuid)
            self.bad[uuid] = row
        elif uuid in self._dangling:
            self._dangling.remove(uuid)
            if group:
                self.bad.pop(uuid, None)

    def _settle_addresses(self, touched: Touched, mappings: set[RowId]) -> None:
        """Check these mappings, and note what their addresses lead to now."""
        parsed, adrift, addresses = self._parsed["Mapping"], self._adrift, touched.addresses
        # What one row leaves another may have taken: first all that is left, then all that is there.
        for old in self._left:
            addresses.setdefault(old.vpc, {})[old.ip] = None
        self._left.clear()
        holding: list[Mapping] = []
        for uuid in mappings:
            adrift.discard(uuid)
            self.bad.pop(uuid, None)
            value = parsed.get(uuid)
            if value is None:
                continue
            verdict = value
            if not isinstance(value, BadRow):
                verdict = rows.judge("Mapping", value, lambda one: rows.check_mapping(one, self.vpcs, self.ports))
                if verdict is True:
                    holding.append(value)
                    continue
                addresses.setdefault(value.vpc, {})[value.ip] = None
            adrift.add(uuid)
            if isinstance(verdict, BadRow):
                self.bad[uuid] = verdict
        for one in holding:
            addresses.setdefault(one.vpc, {})[one.ip] = one.port

    def _count_carried(self, before: Host | None, after: Host | None) -> None:
        if after:
            self._carried[after.carries] += 1
        if before:
            self._carried[before.carries] -= 1
            if not self._carried[before.carries]:
                del self._carried[before.carries]

    def _claims(self, host: Host) -> dict[int, int]:
        twice = host.guest_datapath == host.nic_datapath
        datapaths = (host.guest_datapath, host.nic_datapath)
        return {datapath: len(self._claimants.get(datapath)) + twice for datapath in datapaths}

    def _refer(self, value: Any, uuid: RowId, *, put: bool) -> None:  # noqa: ANN401
        """Note, or forget, what a row refers to."""
        if isinstance(value, Mapping):
            if not put:
                self._left.append(value)
            _note(self._mappings_of, value.port, uuid, put=put)
        elif isinstance(value, Port):
            _note(self._ports_of, value.vpc, uuid, put=put)
            for referent in (*value.hosts, *value.groups):
                _note(self._ports_of, referent, uuid, put=put)
        elif isinstance(value, SecurityGroup):
            _note(self._groups_in, value.vpc, uuid, put=put)
        elif isinstance(value, Host):
            for datapath in (value.guest_datapath, value.nic_datapath):
                self._dirty.hosts.update(self._claimants.get(datapath))
                _note(self._claimants, datapath, uuid, put=put)

    def _keep(self, table: str, kept: dict[RowId, Any], uuid: RowId, check: Any) -> None:  # noqa: ANN401
        kept.pop(uuid, None)
        self.bad.pop(uuid, None)
        value = self._parsed[table].get(uuid)
        if isinstance(value, BadRow):
            self.bad[uuid] = value
        elif value is not None:
            verdict = rows.judge(table, value, check)
            if isinstance(verdict, BadRow):
                self.bad[uuid] = verdict
            elif verdict:
                kept[uuid] = value


def _note(index: _Index, key: Any, uuid: RowId, *, put: bool) -> None:  # noqa: ANN401
    (index.add if put else index.discard)(key, uuid)


def _peer_keys(group: SecurityGroup) -> set[tuple[RowId, str]]:
    """The groups that its rules name, by VPC and name."""
    return {(group.vpc, peer) for peer in peers_named(group)}
