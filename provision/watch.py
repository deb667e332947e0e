"""Looks at a host's bridges and flows again and again, says what is not as it must be, and mends it or closes the port.

One look costs two commands on the host: all of the bridges' configuration, and how many flows there are with our mark
and without. A flow of ours that is changed the controller sees and mends at once; flow by flow they are compared only
when the numbers are not as they were, and now and then.
"""

from __future__ import annotations

import enum
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from explain import audit
from explain.hosts import Switch
from explain.site import Site as Switches
from flows.flow import COOKIE_MARK, COOKIE_MARK_SHIFT
from flows.pipeline import BR_GUEST, BR_NIC
from flows.ports import guest_patch, nic_patch
from mapping.model import Host
from provision import attest
from provision.site import Site

INTERVAL: Final = 2.0
"""Seconds between two looks."""
WHOLE_INTERVAL: Final = 60.0
"""Seconds after which flows are compared one by one although their numbers are as they were."""

_COUNT: Final = re.compile(r"flow_count=(\d+)")
_OURS: Final = f"cookie={COOKIE_MARK << COOKIE_MARK_SHIFT:#x}/{0xFFFF << COOKIE_MARK_SHIFT:#x}"
_ROLES: Final = (BR_GUEST, BR_NIC)

Counts = tuple[tuple[int, int], ...]


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

    def __init__(self, site: Site, via: str, host: str, policy: Policy, controllers: frozenset[str]) -> None:
        self._site = site
        self._via = via
        self._host = host
        self._policy = policy
        self._controllers = controllers
        self._switch = Switch(host, via)
        self._counts: Counts = ()
        self._compared = 0.0
        self._said: set[str] = set()

    def look(self) -> Iterator[Alarm]:
        """Look once; yield what is wrong that was not at the last look.

        Raises:
            UnreachableError: the host could not be asked.
        """
        snapshot = self._site.snapshot()
        host = self._site.host(snapshot, self._host)
        wrong: dict[str, Callable[[], str]] = {
            fault.what: lambda fault=fault: self._mend_bridge(fault)  # type: ignore[misc]
            for fault in attest.faults(self._site.configuration(self._host), host, self._controllers)
        }
        counts = self._count()
        if counts != self._counts or time.monotonic() - self._compared >= WHOLE_INTERVAL:
            found = self._site.flows(snapshot, host)
            self._compared = time.monotonic()
            wrong |= {_flow(each): lambda each=each: self._mend_flow(host, each) for each in found}  # type: ignore[misc]
            # What is still wrong is looked at again the next time.
            self._counts = () if found else self._count()
        for what, mend in wrong.items():
            done = self._act(host, mend)
            if what not in self._said or done:
                yield Alarm(self._host, what, done)
        self._said = set(wrong)

    def _act(self, host: Host, mend: Callable[[], str]) -> str:
        if self._policy is Policy.MEND:
            return mend()
        return self._close(host) if self._policy is Policy.CLOSE else ""

    def _mend_bridge(self, fault: attest.Fault) -> str:
        if not fault.mend:
            return ""
        self._switch.vsctl(*fault.mend)
        return "mended"

    def _mend_flow(self, host: Host, finding: audit.Finding) -> str:
        bridge = Switches(self._site.snapshot(), self._via).bridge(host, finding.bridge)
        return "mended" if audit.mend(bridge, [finding], strangers=True) else ""

    def _close(self, host: Host) -> str:
        """Take every guest's device off the bridges: what is no port of them gets nothing, and sends nothing."""
        snapshot = self._site.snapshot()
        devices = sorted(port.device for port in snapshot.ports.values() if port.host == host.uuid)
        for device in devices:
            ports = ((BR_GUEST, device), (BR_GUEST, guest_patch(device)), (BR_NIC, nic_patch(device)))
            for bridge, port in ports:
                self._switch.vsctl("--if-exists", "del-port", bridge, port)
        return f"closed: {', '.join(devices)}" if devices else ""

    def _count(self) -> Counts:
        return tuple(
            tuple(int(_COUNT.findall(self._switch.aggregate(role, which))[0]) for which in ("", _OURS))  # type: ignore[misc]
            for role in _ROLES
        )


def _flow(finding: audit.Finding) -> str:
    return f"{finding.bridge}: a flow is {finding.kind}: {finding.installed or finding.desired}"
