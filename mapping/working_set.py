"""Which rows some hosts need, as conditions of a monitor (ovsdb-server(7), 4.1.13), and whether they have come.

A host needs its ports, and whole the VPCs that those are in. Which VPCs these are is known once the ports are: so it
takes two questions, and until the second is answered a change that brought them has not been taken in.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from mapping.linked import Linked
from mapping.model import RowId
from mapping.schema import Json

Conditions = dict[str, list[Json]]
"""Table -> conditions; a row is sent if any of them holds for it."""

_SEATS: Final = ("host", "moving_to", "previous_host")
_NONE: Final[list[Json]] = [False]


class WorkingSet:
    """What is asked of the server for `hosts`, which may be changed at any time."""

    def __init__(self, hosts: Collection[RowId]) -> None:
        self.hosts = frozenset(hosts)
        self.ready: frozenset[RowId] = frozenset()
        """Hosts of which everything has come."""
        self.interrupted = False
        """Whether the connection before this one ended while rows were asked for."""
        self._asked: tuple[frozenset[RowId], frozenset[RowId]] = (frozenset(), frozenset())
        """The hosts and VPCs that were asked for last."""
        self._waiting: dict[int, int] = {}
        """Request that is not answered yet -> `config_seq` when it was made."""
        self._settled = 0

    @property
    def waiting(self) -> bool:
        """Whether something that was asked for has not come."""
        return bool(self._waiting)

    def begin(self) -> dict[str, dict[str, Json]]:
        """A connection is new; returns what its monitor says of tables: the conditions that were asked for last.

        Where these hold for no row the server is told that nothing is wanted yet: else it goes through all rows.
        """
        self.interrupted = bool(self._waiting)
        self._waiting.clear()
        return {
            table: {"where": where, "select": {"initial": where != _NONE}}
            for table, where in self._conditions().items()
        }

    def adjust(self, linked: Linked) -> Conditions:
        """The conditions to ask for, by what is known now, of the tables for which they are not as they were.

        For each table that is named the server goes through all of its rows.
        """
        vpcs: frozenset[RowId] = frozenset().union(*(linked.vpcs_on(host) for host in self.hosts))
        before, self._asked = self._conditions(), (self.hosts, vpcs)
        return {table: where for table, where in self._conditions().items() if where != before[table]}

    def asked(self, request: int, config_seq: int) -> None:
        """The conditions were asked for by this request, when this was the newest change."""
        self._waiting[request] = config_seq

    def answered(self, request: object) -> bool:
        """Whether this request asked for conditions; its rows have come before the answer."""
        if not isinstance(request, int) or request not in self._waiting:
            return False
        self._settled = max(self._settled, self._waiting.pop(request))
        return True

    def settled(self, newest: int) -> int:
        """The newest change that has been taken in with all that it brought, when `newest` is the newest of all."""
        if not self.waiting:
            self._settled = newest
            self.ready = self.hosts
        self.ready &= self.hosts
        return self._settled

    def _conditions(self) -> Conditions:
        hosts, vpcs = self._asked
        in_vpcs = [["vpc", "==", ["uuid", vpc]] for vpc in sorted(vpcs)]
        return {
            "Vpc": [["_uuid", "==", ["uuid", vpc]] for vpc in sorted(vpcs)] or _NONE,
            "Port": [*([column, "==", ["uuid", host]] for host in sorted(hosts) for column in _SEATS), *in_vpcs]
            or _NONE,
            "SecurityGroup": in_vpcs or _NONE,
            "Mapping": in_vpcs or _NONE,
        }
