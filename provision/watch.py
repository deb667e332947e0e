"""Looks at a host's bridges and flows again and again, says what is not as it must be, and mends it or closes the port.

One look reads all of the bridges' configuration, flows and meters. They are compared with the database, flow by flow,
when they or the database are not as they were when nothing was wrong.

While the database is gone, they are compared for a while with what it said last: the configuration, which hardly
depends on it, and of flows those of others alone, as any of ours may have been changed by right since then.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

from explain import audit
from explain.hosts import NonsenseError, Switch
from explain.site import Switches
from flows.pipeline import BR_GUEST, BR_NIC
from flows.ports import guest_patch, nic_patch
from mapping.errors import MappingError
from mapping.model import Host, Snapshot
from provision import attest
from provision.record import Ledger
from provision.site import Site

INTERVAL: Final = 2.0
"""Seconds between two looks."""

STALE_SECONDS: Final = 3600.0
"""For how long a host is compared with what the database said last, while that is gone."""

_ROLES: Final = (BR_GUEST, BR_NIC)

Mend = Callable[[], str]
"""Mends something, and says what it has done."""


class Policy(enum.StrEnum):
    """What is done about what is not as it must be."""

    REPORT = "report"
    MEND = "mend"
    CLOSE = "close"


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something was not as it must be; `done` says what was done about it."""

    host: str
    what: str
    done: str


class Watcher:
    """One host. `look` is called again and again. `clock` tells unix seconds."""

    def __init__(
        self,
        site: Site,
        ledger: Ledger,
        host: str,
        policy: Policy,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._site = site
        self._ledger = ledger
        self._host = host
        self._policy = policy
        self._clock = clock
        self._switch = Switch(host, site.via)
        self._snapshot: Snapshot | None = None
        self._read_at = 0.0
        self._gone = ""
        """What is said of a database that is gone."""
        self._good: tuple[object, ...] = ()
        self._said: set[str] = set()

    def look(self) -> Iterator[Alarm]:
        """Look once; yield what is wrong that was not at the last look. What cannot be asked is wrong, too."""
        now: set[str] = set()
        try:
            snapshot = self._known()
            if self._gone:
                now.add(self._gone)
                if self._gone not in self._said:
                    yield Alarm(self._host, self._gone, "")
            host = self._site.host(snapshot, self._host)
            for what, mend in self._wrong(snapshot, host).items():
                now.add(what)
                done = failed = ""
                try:
                    done = self._act(snapshot, host, what, mend)
                except MappingError as error:
                    failed = f"not {'closed' if self._policy is Policy.CLOSE else 'mended'}: {error}"
                if what not in self._said or done:
                    yield Alarm(self._host, what, done or failed)
        except MappingError as error:
            now.add(str(error))
            if str(error) not in self._said:
                yield Alarm(self._host, str(error), "")
        self._said = now

    def _known(self) -> Snapshot:
        """The database now, or as it was last.

        Raises:
            MappingError: it is gone, and what it said is too old, or was never read.
        """
        try:
            self._snapshot, self._read_at, self._gone = self._site.snapshot(), self._clock(), ""
        except MappingError as error:
            if self._snapshot is None:
                raise
            since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self._read_at))
            if self._clock() - self._read_at > STALE_SECONDS:
                raise MappingError(
                    f"the mapping database is gone since {since}: nothing of the host is compared any more"
                ) from None
            self._gone = self._gone or (
                f"the mapping database is gone since {since}, and bridges are compared with what it said then, flows "
                f"only for those of others, until {STALE_SECONDS / 60:g} minutes have passed: {error}"
            )
        return self._snapshot

    def _wrong(self, snapshot: Snapshot, host: Host) -> dict[str, Mend]:
        """What is wrong, in words, and what mends it. A host that answers with junk is wrong, whatever that hides."""
        wrong: dict[str, Mend] = {}
        for look in (self._wrong_bridges, self._wrong_flows):
            try:
                wrong |= look(snapshot, host)
            except NonsenseError as error:
                wrong[str(error)] = _nothing
        return wrong

    def _wrong_bridges(self, _: Snapshot, host: Host) -> dict[str, Mend]:
        return {fault.what: partial(self._mend_bridge, fault) for fault in self._site.bridge_faults(host)}

    def _wrong_flows(self, snapshot: Snapshot, host: Host) -> dict[str, Mend]:
        held = self._held(snapshot)
        if held == self._good:
            return {}
        found = [each for each in self._site.flows(snapshot, host) if each.kind == "stranger" or not self._gone]
        # What is still wrong is looked at again the next time.
        self._good = () if found else held
        return {_flow(each): partial(self._mend_flow, snapshot, host, each) for each in found}

    def _act(self, snapshot: Snapshot, host: Host, what: str, mend: Mend) -> str:
        if self._policy is Policy.MEND:
            return mend()
        return self._close(snapshot, host, what) if self._policy is Policy.CLOSE else ""

    def _mend_bridge(self, fault: attest.Fault) -> str:
        if not fault.mend:
            return ""
        self._switch.vsctl(*fault.mend)
        return "mended"

    def _mend_flow(self, snapshot: Snapshot, host: Host, finding: audit.Finding) -> str:
        bridge = Switches(snapshot, self._site.via).bridge(host, finding.bridge)
        return "mended" if audit.mend(bridge, [finding], strangers=True) else ""

    def _close(self, snapshot: Snapshot, host: Host, what: str) -> str:
        """Take every guest's port off the host: from its bridges, and from the database, which all others obey.

        Raises:
            MappingError: something of it could not be done, at last; all else is done.
        """
        ports = sorted((port.name, port.device) for port in snapshot.ports.values() if port.host == host.uuid)
        why = f"closed by attestation: {what}: mend the host, then release the port"
        steps: list[Callable[[], object]] = []
        for _, device in ports:
            plugged = ((BR_GUEST, device), (BR_GUEST, guest_patch(device)), (BR_NIC, nic_patch(device)))
            steps += [partial(self._switch.vsctl, "--if-exists", "del-port", *each) for each in plugged]
        if not self._gone:
            steps.append(partial(self._ledger.condemn, self._host, why))
            steps += [partial(self._site.unbind, name, self._host) for name, _ in ports]
        failed: list[str] = []
        for step in steps:
            try:
                step()
            except MappingError as error:
                failed.append(str(error))
        names = ", ".join(name for name, _ in ports)
        if self._gone and ports:
            failed.append(f"only off the bridges, until the database is back: {names}")
        if failed:
            raise MappingError("; ".join(dict.fromkeys(failed)))
        return f"closed: {names}" if ports else ""

    def _held(self, snapshot: Snapshot) -> tuple[object, ...]:
        """What the bridges hold, and of which state of the database."""
        flows = (sorted(self._switch.flows(role).splitlines()) for role in _ROLES)
        return (self._gone, snapshot.config_seq, *flows, *(self._switch.meters(role) for role in _ROLES))


def _flow(finding: audit.Finding) -> str:
    return f"{finding.bridge}: a flow is {finding.kind}: {finding.installed or finding.desired}"


def _nothing() -> str:
    return ""
