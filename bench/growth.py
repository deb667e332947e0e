"""How cost grows with the number of mappings: a site of its own for each number."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from typing import Final, NamedTuple

from bench.content import changed_ips, single_vpc
from bench.results import Row
from bench.run import Run, percentile
from bench.site import Changes, Site

LINEAR: Final = 1.2
"""How much more a mapping may cost in the last step than in the one before, for growth to be called linear."""
FLAT: Final = 1.5
"""How much longer a single change may take with the most mappings than with the fewest, to be called flat."""


class Point(NamedTuple):
    """What one number of mappings costs."""

    mappings: int
    load: float
    """Seconds from the start of ryu-manager to the last flow."""
    cpu: float
    """Seconds of ryu-manager."""
    memory: float
    """RSS of ryu-manager, MB."""
    change: float
    """Milliseconds of a single change, p50."""


def measure(run: Run) -> Iterator[Row]:
    """Every number, then what they say together."""
    points: list[Point] = []
    for mappings in run.scale.growth:
        point = _point(run, mappings)
        points.append(point)
        run.series["growth"] = [tuple(map(float, point)) for point in points]
        what = f"{mappings} mappings"
        yield Row(f"{what}: started, empty switch -> last flow", point.load, "s")
        yield Row(f"{what}: CPU of ryu-manager for it", point.cpu, "s")
        yield Row(f"{what}: memory of ryu-manager", point.memory, "MB")
        yield Row(f"{what}: one mapping changes, p50", point.change, "ms")
    # What it costs to start at all is in every point, so the steps between the points are compared.
    (before, last), words = _last_steps(points)
    for column, unit, scale in (("load", "ms", 1000.0), ("cpu", "ms", 1000.0), ("memory", "KB", 1024.0)):
        value, reference = (_slope(step, column) * scale for step in (last, before))
        name = f"linear: {column} for each mapping, {words[1]}"
        # With few mappings a step is nothing beside the start.
        yield Row(name, value, unit, reference, words[0], LINEAR) if reference > 0 else Row(name, value, unit)
    fewest = f"with {points[0].mappings}"
    name = f"flat: one mapping changes, p50, with {points[-1].mappings} mappings"
    yield Row(name, points[-1].change, "ms", points[0].change, fewest, FLAT)


def _point(run: Run, mappings: int) -> Point:
    run.say(f"ryu-manager starts on {mappings} mappings, with an empty switch")
    with ExitStack() as stack:
        content = single_vpc(mappings)
        site = Site(run.place(f"g{mappings}"), content, stack)
        load = site.start()
        cpu, memory = site.controller.cpu_seconds(), site.controller.rss_kb() / 1024
        changes = Changes(site, stack)
        chosen = content.mappings[: run.scale.growth_changes]
        latencies = [changes.give(mapping, ip) for mapping, ip in zip(chosen, changed_ips(), strict=False)]
    return Point(mappings, load, cpu, memory, percentile(latencies, 50))


_Step = tuple[Point, Point]


def _last_steps(points: list[Point]) -> tuple[tuple[_Step, _Step], tuple[str, str]]:
    *_, before, last = pairwise(points)
    first, second = (f"{low.mappings} to {high.mappings}" for low, high in (before, last))
    return (before, last), (f"from {first}", f"from {second}")


def _slope(step: _Step, column: str) -> float:
    low, high = step
    return float(getattr(high, column) - getattr(low, column)) / (high.mappings - low.mappings)
