"""What the database says of the hosts, side by side with what their switches say. Each switch is asked once."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from explain import ofproto, words
from explain.hosts import Switch
from explain.ofproto import Step
from explain.origin import Origins, Row, meters, origins
from explain.words import Names
from flows.flow import Flow
from flows.meter import Meter
from flows.pipeline import TABLES
from flows.view import HostView, view
from mapping.model import Host, Snapshot

_TABLE_NAME: Final = re.compile(r"(?<=table[:=])[A-Z][A-Z0-9_]*")


@dataclass(frozen=True, slots=True)
class Met:
    """A flow that a packet has met on a host, and what is known of it."""

    host: str
    step: Step
    words: str
    rows: tuple[Row, ...]
    ours: bool
    """Whether it is as the database has it, by its cookie."""


@dataclass(frozen=True, slots=True)
class Bridge:
    """One bridge of one host: its ports as they are, and the flows that it should hold."""

    role: str
    switch: Switch
    ofports: dict[str, int]
    origins: Origins
    meters: dict[int, tuple[Meter, Row]]
    names: Names

    def desired(self) -> str:
        """Those flows as ovs-ofctl reads them."""
        return "".join(f"{as_ofctl(origin.flow)}\n" for origin in self.origins.values())

    def met(self, step: Step) -> Met:
        """What is known of a flow that a packet met here."""
        origin = self.origins.get(step.cookie or 0)
        if origin:
            return Met(self.switch.host, step, words.words(origin.flow, self.names), origin.rows, ours=True)
        if step.cookie is None:
            said = "no flow matched: a bridge without flows of ours drops everything"
        elif ofproto.is_ours(step.cookie):
            said = f"a flow that the database does not ask for, any more or yet: {step}"
        else:
            said = f"somebody else's flow: {step}"
        return Met(self.switch.host, step, said, (), ours=False)


class Switches:
    """`snapshot` is the database; `via` how commands are run on a host (`explain.hosts`)."""

    def __init__(self, snapshot: Snapshot, via: str) -> None:
        self.snapshot = snapshot
        self._via = via
        self._views: dict[str, HostView] = {}
        self._bridges: dict[tuple[str, str], Bridge] = {}

    def switch(self, host: Host) -> Switch:
        """The host's Open vSwitch."""
        return Switch(host.name, self._via)

    def bridge(self, host: Host, role: str) -> Bridge:
        """One of the host's bridges.

        Raises:
            UnreachableError: it could not be asked for its ports.
        """
        known = self._bridges.get((host.name, role))
        if known is None:
            switch = self.switch(host)
            known = self._bridges[host.name, role] = self.unasked(host, role, switch.ports(role))
        return known

    def unasked(self, host: Host, role: str, ofports: dict[str, int]) -> Bridge:
        """A bridge that has, or is taken to have, these ports."""
        part = self._views.setdefault(host.name, view(self.snapshot, host))
        found = origins(role, part, ofports)
        known = words.names(part, ofports)
        return Bridge(role, self.switch(host), ofports, found, meters(role, part, ofports), known)


def as_ofctl(flow: Flow) -> str:
    """A flow as ovs-ofctl reads it: tables have numbers there."""
    tables = TABLES[flow.table.bridge]
    match = "".join(f",{match}" for match in flow.match)
    actions = ",".join(map(str, flow.actions)) or "drop"
    actions = _TABLE_NAME.sub(lambda name: str(tables[name[0]].number), actions)
    return f"cookie={flow.cookie:#x},table={flow.table.number},priority={flow.priority}{match} actions={actions}"
