"""Addresses whose flows are to be looked at again, VPC by VPC, so that a busy VPC does not keep others waiting."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice

from mapping.model import RowId

Addresses = dict[str, RowId | None]
"""Address -> the port that it is mapped to; None: to none."""


class Backlog:
    """What is not done yet. An address that changes again while it waits is done once, as it is then."""

    def __init__(self) -> None:
        self._lanes: dict[RowId, _Lane] = {}

    def __bool__(self) -> bool:
        return bool(self._lanes)

    def __len__(self) -> int:
        return sum(len(lane) for lane in self._lanes.values())

    def add(self, vpc: RowId, addresses: Mapping[str, RowId | None], config_seq: int) -> None:
        """These addresses lead there since this change."""
        if addresses:
            self._lanes.setdefault(vpc, _Lane(config_seq)).add(addresses, config_seq)

    def drop(self, vpc: RowId) -> None:
        """Nothing of this VPC is to be done."""
        self._lanes.pop(vpc, None)

    def forget(self, vpc: RowId, address: str) -> None:
        """Nothing is to be done about the address any more."""
        if lane := self._lanes.get(vpc):
            lane.forget(address)
            if not lane.now:
                del self._lanes[vpc]

    def take(self, most: int) -> Iterator[tuple[RowId, Addresses]]:
        """Take out as many addresses in all at most, an equal share for each VPC in turn; by VPC."""
        while most > 0 and self._lanes:
            share = max(1, most // len(self._lanes))
            for vpc, lane in list(islice(self._lanes.items(), most)):
                addresses = lane.take(share)
                most -= len(addresses)
                # At the end of the row; and out of it, if nothing is left.
                del self._lanes[vpc]
                if lane.now:
                    self._lanes[vpc] = lane
                yield vpc, addresses

    def done(self, newest: int) -> int:
        """The last change of which nothing is left to do, when `newest` is the last of all."""
        return min((lane.since - 1 for lane in self._lanes.values()), default=newest)


class _Lane:
    """One VPC's. What comes while `now` is worked off waits in `later`, so that `now` comes to an end."""

    def __init__(self, config_seq: int) -> None:
        self.now: Addresses = {}
        self.since = config_seq
        """The change that the first of `now` came with."""
        self._later: Addresses = {}
        self._later_since = 0

    def __len__(self) -> int:
        return len(self.now) + len(self._later)

    def add(self, addresses: Mapping[str, RowId | None], config_seq: int) -> None:
        if not self.now:
            self.now.update(addresses)
            self.since = config_seq
            return
        for address, port in addresses.items():
            if address in self.now:
                self.now[address] = port
            else:
                if not self._later:
                    self._later_since = config_seq
                self._later[address] = port

    def forget(self, address: str) -> None:
        self._later.pop(address, None)
        if self.now.pop(address, self) is not self and not self.now:
            self._turn()

    def take(self, most: int) -> Addresses:
        if most >= len(self.now):
            taken = self.now
            self._turn()
            return taken
        # From the end: a dict's first entries, once taken, are in the way of whoever looks for the first.
        return dict(self.now.popitem() for _ in range(most))

    def _turn(self) -> None:
        self.now, self.since, self._later = self._later, self._later_since, {}
