"""Lockgate and OVN with the same ports: one on this host, all others on another one.

Two layouts: all ports on one switch, and spread over switches of 250 behind one router, which suits OVN better. In both
systems one agent (ryu-manager, ovn-controller) programs one switch; what is timed ends when that switch has the last
flow, as the switch itself tells: by its number of flows, or for single changes by `ovs-ofctl monitor`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import NamedTuple

from bench.layout import SPREAD, Layout, batches, content, port_operations
from bench.ovn_site import BR_INT, OvnSite, version
from bench.results import Row
from bench.run import BenchError, Run, percentile
from bench.site import Changes, Site
from bench.watch import Monitor, arrivals


class Figures(NamedTuple):
    """What one system takes for one layout."""

    bulk: float
    """Seconds from the first commit of the ports to the last flow."""
    finished: bool
    """Whether that was reached, or given up."""
    restart: float
    """Seconds from the agent's start, with an empty switch, to the last flow."""
    changes: list[float]
    """Milliseconds of each single change."""
    memory: float
    """MB of the agent."""
    flows: int


def measure(run: Run) -> Iterator[Row]:
    """Every number of ports, both layouts."""
    reference = version()
    for ports in run.scale.ovn_ports:
        for number, layout in enumerate((Layout(ports, ports), Layout(ports, SPREAD))):
            run.say(f"Lockgate: {layout.words}")
            ours = _lockgate(run, layout, f"l{ports}-{number}")
            run.say(f"OVN: {layout.words}")
            theirs = _ovn(run, layout, f"o{ports}-{number}")
            yield from _rows(run, layout, ours, theirs, reference)


def _rows(run: Run, layout: Layout, ours: Figures, theirs: Figures, reference: str) -> Iterator[Row]:
    words = layout.words
    note = f"{ours.flows} flows, OVN {theirs.flows}"
    if not theirs.finished:
        note += f"; OVN takes more than {theirs.bulk:.0f} s: given up"
    yield Row(f"{words}: committed -> last flow", ours.bulk, "s", theirs.bulk, reference, 1.0, note=note)
    yield Row(f"{words}: agent restarted, empty switch", ours.restart, "s", theirs.restart, reference, 1.0)
    run.distribution(f"Lockgate, {words}", ours.changes)
    run.distribution(f"OVN, {words}", theirs.changes)
    note = f"{len(ours.changes)} changes, OVN {len(theirs.changes)}"
    for percent in (50, 99):
        one, other = (percentile(figures.changes, percent) for figures in (ours, theirs))
        yield Row(f"{words}: one address changes, p{percent}", one, "ms", other, reference, 1.0, note=note)
    yield Row(f"{words}: memory of the agent", ours.memory, "MB", theirs.memory, reference)


def _lockgate(run: Run, layout: Layout, name: str) -> Figures:
    with ExitStack() as stack:
        made = content(layout)
        site = Site(run.place(name), made, stack, kept=True)
        site.start()
        begin = time.monotonic()
        for numbers in batches(layout):
            site.change(list(port_operations(layout, made, numbers)))
        bulk = site.wait_applied() - begin
        site.settle()
        restart, flows, memory = _restarted(site, site.flow_count())
        uuids = {row["ip"]: row["_uuid"][1] for row in site.client.select("Mapping")}
        changes = Changes(site, stack)
        times = [
            changes.give(uuids[str(layout.ip(port))], str(layout.changed_ip(port)))
            for port in layout.changing(run.scale.ovn_changes)
        ]
    return Figures(bulk, True, restart, times, memory, flows)


def _ovn(run: Run, layout: Layout, name: str) -> Figures:
    with ExitStack() as stack:
        site = OvnSite(run.place(name), stack, run.scale.ovn_patience)
        site.build(layout)
        begin = time.monotonic()
        site.add_ports(layout)
        try:
            bulk, finished = site.wait_applied(run.scale.ovn_bulk_seconds) - begin, True
        except TimeoutError:
            # ovn-controller takes in port after port, and each costs the more the more ports the switch has. Begun
            # anew it takes in all of them at once: so the other figures can be had.
            bulk, finished = time.monotonic() - begin, False
            run.say(f"OVN is not done after {bulk:.0f} s: that is given up, and the rest measured")
        restart, flows, memory = _restarted(site, site.flow_count() if finished else None)
        monitor = Monitor(site.ovs.folder, BR_INT, (), stack)
        times: list[float] = []
        end = time.monotonic() + run.scale.ovn_seconds
        for port in layout.changing(run.scale.ovn_changes):
            asked = time.monotonic()
            site.readdress(layout, port)
            # In both layouts there is an answer to ARP for each address.
            expected = {monitor: f" arp_tpa={layout.changed_ip(port)} "}
            times.append((max(arrivals(expected, site.patience).values()) - asked) * 1000)
            if time.monotonic() > end:
                break
    return Figures(bulk, finished, restart, times, memory, flows)


def _restarted(site: Site | OvnSite, flows: int | None) -> tuple[float, int, float]:
    """Kill the agent, empty the switch, start the agent again: seconds, flows then, MB of the agent."""
    site.kill()
    site.empty()
    took = site.start()
    now = site.flow_count()
    if flows not in (None, now):
        raise BenchError(f"after the agent's restart the switch holds {now} flows, before it {flows}")
    return took, now, site.controller.rss_kb() / 1024
