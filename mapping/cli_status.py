"""`lockgate status`: what is wrong and what to do, on one screen."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Final, TypeVar

import typer
from rich.console import Console
from rich.text import Text

from mapping import status as state
from mapping.cli_common import console, follow, print_json, settings, show_table
from mapping.replica import Replica
from mapping.writer import Writer

_LINES: Final = 8
"""Of each part of the screen, unless all is asked for."""

Shown = TypeVar("Shown")

All = Annotated[bool, typer.Option("--all", help="Show every line, however many there are.")]


def status(context: typer.Context, *, everything: All = False) -> None:
    """Show what is wrong and what to do, how far each host is, and what was dropped by reason.

    Hosts in trouble come first. `lockgate explain REASON` says what a reason means.
    """
    options = settings(context)
    replica = Replica(options.remotes, state.COLUMNS)
    try:
        follow(replica, options)
        with Writer(options.remotes) as reader:
            provisions = reader.read_provision()
        report = state.report(replica.tables, replica.snapshot, time.time(), provisions)
    finally:
        replica.session.close()
    if options.json:
        print_json(_as_json(report, replica.session.remote))
    else:
        _show(report, replica.session.remote, None if everything else _LINES)


def _as_json(report: state.Report, remote: str) -> dict[str, object]:
    found = dataclasses.asdict(report)
    for host, shown in zip(report.hosts, found["hosts"], strict=True):
        shown["live"] = host.live
    for row in found["bad"]:
        row["uuid"] = str(row["uuid"])
    return {**found, "database": remote}


def _show(report: state.Report, remote: str, most: int | None) -> None:
    out = console()
    for line in _first(out, report.summary, most):
        out.print(line, style="green" if report.ok else "yellow", markup=False, soft_wrap=True)
    for line in report.notes:
        out.print(Text(f"note: {line}"), soft_wrap=True)
    counts = ", ".join(f"{count} {table.removeprefix('Security').lower()}(s)" for table, count in report.counts.items())
    out.print(f"database {remote}: config_seq {report.config_seq}, {counts}", markup=False, soft_wrap=True)
    if report.hosts:
        out.print()
        columns = ("host", "vtep", "encap", "guest bridge", "NIC bridge", "applied", "behind by", "heard", "controller")
        # Those in trouble first; otherwise in their order.
        hosts = sorted(report.hosts, key=lambda host: (host.live, not host.problem, not host.lag))
        show_table(columns, map(_host_line, _first(out, hosts, most)))
    if dropped := _dropped(report):
        out.print()
        show_table(("dropped as", "packets", "at"), _first(out, dropped, most))
    if report.bad:
        out.print()
        bad = [(row.table, row.name, row.problem) for row in report.bad]
        show_table(("bad row", "name", "why"), _first(out, bad, most))


def _first(out: Console, lines: Sequence[Shown], most: int | None) -> Sequence[Shown]:
    """As many as there is room for. That there are more is said before them, where the screen does not scroll."""
    if most is None or len(lines) <= most:
        return lines
    out.print(Text(f"the first {most} of {len(lines)}, --all shows all:", "dim"))
    return lines[:most]


def _dropped(report: state.Report) -> list[tuple[str, str, str]]:
    """Each reason, the most frequent first: its packets, and the hosts that dropped them, likewise."""
    total: Counter[str] = Counter()
    at: dict[str, Counter[str]] = {}
    for host in report.hosts:
        total.update(host.drops)
        for reason, packets in host.drops.items():
            at.setdefault(reason, Counter())[host.name] += packets
    return [
        (reason, str(packets), state.some([name for name, _ in at[reason].most_common()]))
        for reason, packets in total.most_common()
    ]


def _host_line(host: state.HostStatus) -> list[str]:
    heard = "never" if host.heard is None else f"{host.heard} s ago"
    progress = (str(host.applied_seq), str(host.lag))
    return [host.name, host.vtep_ip, host.encap, host.guest, host.nic, *progress, heard, host.controller]
