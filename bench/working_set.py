"""What a host pays for mappings that are none of its: a large database, beside one that has only the host's own."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Final, NamedTuple

from bench.content import Content, fill_vpc
from bench.results import Row
from bench.run import Run
from bench.site import Site

SAME: Final = 1.1


class Cost(NamedTuple):
    """Of one host."""

    load: float
    cpu: float
    memory: float


def measure(run: Run) -> Iterator[Row]:
    """The same host on both databases."""
    everyone, ours = run.scale.everyone, run.scale.ours
    small = _cost(run, "ours", ours)
    large = _cost(run, "all", everyone)
    reference = f"with only those {ours} in the database"
    note = f"{everyone} mappings in the database, {ours} of them in this host's VPC; median of {run.scale.turns}"
    yield Row("ryu-manager started, empty switch -> last flow", large.load, "s", small.load, reference, SAME, note=note)
    yield Row("the same: CPU", large.cpu, "s", small.cpu, reference, SAME)
    yield Row("the same: memory", large.memory, "MB", small.memory, reference, SAME)


def _cost(run: Run, name: str, mappings: int) -> Cost:
    ours = run.scale.ours
    with ExitStack() as stack:
        content = Content()
        fill_vpc(content, "vpc0", ours, "local")
        for number, start in enumerate(range(ours, mappings, ours), 1):
            fill_vpc(content, f"vpc{number}", min(ours, mappings - start))
        run.say(f"a database of {mappings} mappings is made")
        site = Site(run.place(name), content, stack)
        turns = [_start(run, site) for _ in range(run.scale.turns)]
        return Cost(*(statistics.median(column) for column in zip(*turns, strict=True)))


def _start(run: Run, site: Site) -> Cost:
    """The site is as before afterwards."""
    run.say("ryu-manager starts on it, with an empty switch")
    load = site.start()
    cost = Cost(load, site.controller.cpu_seconds(), site.controller.rss_kb() / 1024)
    site.stop()
    site.empty()
    site.settle()
    return cost
