"""Which row of the mapping database is behind each flow. Pure: it asks the rules that make the flows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from flows.desired import RULES, Ofports, Source, by_source
from flows.flow import Flow
from flows.meter import Meter
from flows.view import HostView, Location
from mapping.model import Host, Port, Vpc


class Row(NamedTuple):
    """A row by the name that a person knows it by; no `table` and no `key`: no row, every such bridge has the flow."""

    table: str
    key: tuple[str, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Origin:
    """A flow that is desired, and the rows that it is made from: mostly one."""

    flow: Flow
    rows: tuple[Row, ...]

    @property
    def why(self) -> str:
        """The rows, in words."""
        return in_words(self.rows)


Origins = dict[int, Origin]
"""Cookie -> origin."""


def origins(bridge: str, view: HostView, ofports: Ofports) -> Origins:
    """Every flow that a bridge (its role) of the host should hold, with its rows."""
    found: Origins = {}
    for source, flows in by_source(bridge, view, ofports):
        row = _row(source, view)
        for flow in flows:
            earlier = found[flow.cookie].rows if flow.cookie in found else ()
            found[flow.cookie] = Origin(flow, (*earlier, row))
    return found


def meters(bridge: str, view: HostView, ofports: Ofports) -> dict[int, tuple[Meter, Row]]:
    """Every meter that a bridge of the host should have, with the row that it is made from."""
    return {
        number: (meter, _row(port, view))
        for port in view.ports
        for number, meter in RULES[bridge].meters(port, ofports)
    }


def in_words(rows: Iterable[Row]) -> str:
    """Rows by name, each once; of many the first three."""
    texts = list(dict.fromkeys(row.text for row in rows))
    return "; ".join(texts[:3]) + (f"; and {len(texts) - 3} more" if len(texts) > 3 else "")


def _row(source: Source, view: HostView) -> Row:
    if isinstance(source, Host):
        role = "" if source == view.host else f", a peer of {view.host.name}"
        return Row("Host", (source.name,), f"host {source.name}{role}")
    if isinstance(source, Vpc):
        return Row("Vpc", (source.name,), f"VPC {source.name}")
    if isinstance(source, Port):
        return Row("Port", (source.name,), f"port {source.name}")
    if isinstance(source, Location):
        key, at = (source.vpc.name, str(source.ip)), f"port {source.port.name} on {source.host.name}"
        return Row("Mapping", key, f"mapping {key[1]} of VPC {key[0]} -> {at}")
    return Row("", (), "no row: every host has it")
