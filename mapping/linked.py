"""The rows that hold together, kept so while rows come and go.

`mapping.rows.link` says what holds together, by going through everything. This keeps the same answer current in time
proportional to what a change touches: a mapping by itself, a port with its mappings, a host or a VPC with all that
refers to it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from mapping import rows
from mapping.model import BadRow, Host, Mapping, Port, RowId, Snapshot, Vpc

_NONE: frozenset[RowId] = frozenset()


@dataclass(slots=True)
class Touched:
    """Rows that have changed, or refer to one that has, by table."""

    hosts: set[RowId] = field(default_factory=set)
    vpcs: set[RowId] = field(default_factory=set)
    ports: set[RowId] = field(default_factory=set)
    mappings: set[RowId] = field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(self.hosts or self.vpcs or self.ports or self.mappings)

    def add(self, other: Touched) -> None:
        """Take in another's."""
        self.hosts |= other.hosts
        self.vpcs |= other.vpcs
        self.ports |= other.ports
        self.mappings |= other.mappings


class Linked:
    """Rows as `mapping.rows.parse_row` made them, and those of them that hold together, each by row uuid."""

    def __init__(self) -> None:
        self.hosts: dict[RowId, Host] = {}
        self.vpcs: dict[RowId, Vpc] = {}
        self.ports: dict[RowId, Port] = {}
        self.mappings: dict[RowId, Mapping] = {}
        self.bad: dict[RowId, BadRow] = {}
        self._parsed: dict[RowId, Any] = {}
        self._ports_of: defaultdict[RowId, set[RowId]] = defaultdict(set)
        """Host or VPC -> ports that refer to it."""
        self._mappings_of: defaultdict[RowId, set[RowId]] = defaultdict(set)
        """Port or VPC -> mappings that refer to it."""
        self._claimants: defaultdict[int, set[RowId]] = defaultdict(set)
        """Datapath id -> hosts that claim it."""
        self._dirty = Touched()

    def put(self, table: str, uuid: RowId, value: Any | None) -> None:  # noqa: ANN401 - what parse_row returns
        """A row is this now, as `parse_row` made it; None: it is gone. It counts from the next `settle` on."""
        self._refer(self._parsed.pop(uuid, None), uuid, put=False)
        if value is not None:
            self._parsed[uuid] = value
            self._refer(value, uuid, put=True)
        dirty = {"Host": self._dirty.hosts, "Vpc": self._dirty.vpcs, "Port": self._dirty.ports}
        dirty.get(table, self._dirty.mappings).add(uuid)

    def settle(self) -> Touched:
        """Check what was put, and all that refers to it; return both."""
        touched, self._dirty = self._dirty, Touched()
        for uuid in touched.hosts:
            self._keep("Host", self.hosts, uuid, lambda host: rows.check_host(host, self._claims(host)))
            touched.ports |= self._ports_of.get(uuid, _NONE)
        for uuid in touched.vpcs:
            self._keep("Vpc", self.vpcs, uuid, lambda _: True)
            touched.ports |= self._ports_of.get(uuid, _NONE)
            touched.mappings |= self._mappings_of.get(uuid, _NONE)
        for uuid in touched.ports:
            self._keep("Port", self.ports, uuid, lambda port: rows.check_port(port, self.vpcs, self.hosts))
            touched.mappings |= self._mappings_of.get(uuid, _NONE)
        for uuid in touched.mappings:
            self._keep("Mapping", self.mappings, uuid, lambda one: rows.check_mapping(one, self.vpcs, self.ports))
        return touched

    def snapshot(self, config_seq: int) -> Snapshot:
        """What holds together now. It shares these dicts: it is good until the next `settle`."""
        bad = tuple(sorted(self.bad.values(), key=lambda row: (row.table, row.name, row.uuid)))
        return Snapshot(config_seq, self.hosts, self.vpcs, self.ports, self.mappings, bad)

    def host_of(self, datapath: int) -> Host | None:
        """The host that one of whose bridges has this datapath id; None if no row that holds together says so."""
        return next((self.hosts[uuid] for uuid in self._claimants.get(datapath, _NONE) if uuid in self.hosts), None)

    def mappings_of(self, uuid: RowId) -> Iterator[RowId]:
        """Mappings of a VPC, or of a port, that hold together."""
        return (each for each in self._mappings_of.get(uuid, _NONE) if each in self.mappings)

    def _claims(self, host: Host) -> dict[int, int]:
        twice = host.guest_datapath == host.nic_datapath
        datapaths = (host.guest_datapath, host.nic_datapath)
        return {datapath: len(self._claimants[datapath]) + twice for datapath in datapaths}

    def _refer(self, value: Any, uuid: RowId, *, put: bool) -> None:  # noqa: ANN401
        """Note, or forget, what a row refers to."""
        if isinstance(value, Host):
            for datapath in (value.guest_datapath, value.nic_datapath):
                _note(self._claimants, datapath, uuid, put=put)
                self._dirty.hosts |= self._claimants.get(datapath, set())
        elif isinstance(value, Port):
            _note(self._ports_of, value.vpc, uuid, put=put)
            if value.host:
                _note(self._ports_of, value.host, uuid, put=put)
        elif isinstance(value, Mapping):
            _note(self._mappings_of, value.vpc, uuid, put=put)
            _note(self._mappings_of, value.port, uuid, put=put)

    def _keep(self, table: str, kept: dict[RowId, Any], uuid: RowId, check: Any) -> None:  # noqa: ANN401
        kept.pop(uuid, None)
        self.bad.pop(uuid, None)
        value = self._parsed.get(uuid)
        if isinstance(value, BadRow):
            self.bad[uuid] = value
        elif value is not None:
            verdict = rows.judge(table, value, check)
            if isinstance(verdict, BadRow):
                self.bad[uuid] = verdict
            elif verdict:
                kept[uuid] = value


def _note(index: defaultdict[Any, set[RowId]], key: Any, uuid: RowId, *, put: bool) -> None:  # noqa: ANN401
    if put:
        index[key].add(uuid)
        return
    index[key].discard(uuid)
    if not index[key]:
        del index[key]
