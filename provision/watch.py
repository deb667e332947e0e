"""Looks at a host's bridges and flows again and again, says what is not as it must be, and mends it or closes the port.

One look reads all of the bridges' configuration, flows and meters. They are compared with the database, flow by flow,
when they or the database are not as they were when nothing was wrong.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

from explain import audit
from explain.hosts import Switch
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
    """One host. `look` is called again and again."""

    def __init__(self, site: Site, ledger: Ledger, host: str, policy: Policy) -> None:
        self._site = site
        self._ledger = ledger
        self._host = host
        self._policy = policy
        self._switch = Switch(host, site.via)
        self._good: tuple[object, ...] = ()
        self._said: set[str] = set()

    def look(self) -> Iterator[Alarm]:
        """Look once; yield what is wrong that was not at the last look. A host that cannot be asked is wrong, too."""
        wrong: dict[str, Mend] = {}
        try:
            snapshot = self._site.snapshot()
            host = self._site.host(snapshot, self._host)
            wrong = self._wrong(snapshot, host)
            for what, mend in wrong.items():
                done = failed = ""
                try:
                    done = self._act(host, what, mend)
                except MappingError as error:
                    failed = f"not {'closed' if self._policy is Policy.CLOSE else 'mended'}: {error}"
                if what not in self._said or done:
                    yield Alarm(self._host, what, done or failed)
        except MappingError as error:
            wrong[str(error)] = _nothing
            if str(error) not in self._said:
                yield Alarm(self._host, str(error), "")
        self._said = set(wrong)

    def _wrong(self, snapshot: Snapshot, host: Host) -> dict[str, Mend]:
        """What is wrong, in words, and what mends it."""
        wrong: dict[str, Mend] = {
            fault.what: partial(self._mend_bridge, fault) for fault in self._site.bridge_faults(host)
        }
        held = self._held(snapshot)
        if held != self._good:
            found = self._site.flows(snapshot, host)
            wrong |= {_flow(each): partial(self._mend_flow, host, each) for each in found}
            # What is still wrong is looked at again the next time.
            self._good = () if found else held
        return wrong

    def _act(self, host: Host, what: str, mend: Mend) -> str:
        if self._policy is Policy.MEND:
            return mend()
        return self._close(host, what) if self._policy is Policy.CLOSE else ""

    def _mend_bridge(self, fault: attest.Fault) -> str:
        if not fault.mend:
            return ""
        self._switch.vsctl(*fault.mend)
        return "mended"

    def _mend_flow(self, host: Host, finding: audit.Finding) -> str:
        bridge = Switches(self._site.snapshot(), self._site.via).bridge(host, finding.bridge)
        return "mended" if audit.mend(bridge, [finding], strangers=True) else ""

    def _close(self, host: Host, what: str) -> str:
        """Take every guest's port off the host: from its bridges, and from the database, which all others obey.

        Raises:
            MappingError: something of it could not be done, at last; all else is done.
        """
        snapshot = self._site.snapshot()
        ports = sorted((port.name, port.device) for port in snapshot.ports.values() if port.host == host.uuid)
        why = f"closed by attestation: {what}: mend the host, then release the port"
        steps: list[Callable[[], object]] = []
        for _, device in ports:
            plugged = ((BR_GUEST, device), (BR_GUEST, guest_patch(device)), (BR_NIC, nic_patch(device)))
            steps += [partial(self._switch.vsctl, "--if-exists", "del-port", *each) for each in plugged]
        steps.append(partial(self._ledger.condemn, self._host, why))
        steps += [partial(self._site.unbind, name, self._host) for name, _ in ports]
        failed: list[str] = []
        for step in steps:
            try:
                step()
            except MappingError as error:
                failed.append(str(error))
        if failed:
            raise MappingError("; ".join(dict.fromkeys(failed)))
        return f"closed: {', '.join(name for name, _ in ports)}" if ports else ""

    def _held(self, snapshot: Snapshot) -> tuple[object, ...]:
        """What the bridges hold, and of which state of the database."""
        flows = (sorted(self._switch.flows(role).splitlines()) for role in _ROLES)
        return (snapshot.config_seq, *flows, *(self._switch.meters(role) for role in _ROLES))


def _flow(finding: audit.Finding) -> str:
    return f"{finding.bridge}: a flow is {finding.kind}: {finding.installed or finding.desired}"


def _nothing() -> str:
    return ""
