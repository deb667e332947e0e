"""Measure Lockgate beside its peers, in the same run.

    python -m bench [--quick] [--mappings N] [--plots FOLDER] [GROUP...]

Prints one table, and writes bench-results.json. Everything that runs for it is private, in a temporary folder. Only
the group `throughput` needs root.
"""

from __future__ import annotations

import argparse
import math
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from rich.console import Console

from bench import busy, fanout, growth, load, ovn, plots, throughput, working_set
from bench.process import find
from bench.results import Row, table, write
from bench.run import FULL, QUICK, BenchError, Run
from mapping.errors import MappingError
from topo.netns import CommandError
from topo.spec import LabError

GROUPS: Final[dict[str, Callable[[Run], Iterator[Row]]]] = {
    "load": load.measure,
    "growth": growth.measure,
    "busy": busy.measure,
    "working-set": working_set.measure,
    "fanout": fanout.measure,
    "ovn": ovn.measure,
    "throughput": throughput.measure,
}


PROGRAMS: Final[dict[str, Sequence[str]]] = {
    "ovn": ("ovn-northd", "ovn-controller"),
    "throughput": ("ip", "ss", "iperf3"),
}
"""What a group starts besides Open vSwitch's own programs."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        prog="bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"which to measure: {', '.join(GROUPS)}")
    parser.add_argument("--quick", action="store_true", help="a smaller form of everything, in less than a minute")
    parser.add_argument("--mappings", type=int, help="addresses of the group load")
    parser.add_argument("--results", type=Path, default=Path("bench-results.json"), help="where the rows go, as JSON")
    parser.add_argument("--plots", type=Path, help="folder to draw plots in")
    options = parser.parse_args(arguments)
    if unknown := set(options.groups) - set(GROUPS):
        parser.error(f"no group {', '.join(sorted(unknown))}: there are {', '.join(GROUPS)}")
    scale = QUICK if options.quick else FULL
    if options.mappings:
        scale = replace(scale, mappings=options.mappings)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = Console()
    if not console.is_terminal:
        console.width = 160
    groups = options.groups or list(GROUPS)
    try:
        for group in groups:
            check(group)
        if options.plots:
            plots.check(options.plots)
        # Short, because the paths of sockets are in it.
        with tempfile.TemporaryDirectory(prefix="lgb-") as folder:
            run = Run(scale, Path(folder))
            rows = [row for group in groups for row in measured(group, run)]
        console.print(table(rows, "Lockgate, beside its peers in the same run"))
        write(rows, options.results)
        drawn = plots.draw(run, options.plots) if options.plots else []
        console.print(f"written to {', '.join(map(str, (options.results, *drawn)))}")
    except (BenchError, OSError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return int(any(row.failed for row in rows))


def check(group: str) -> None:
    """Raise unless the group can be measured here: at once, not after minutes of other work.

    Raises:
        BenchError: what it lacks.
    """
    if group == "throughput" and os.geteuid():
        raise BenchError("the group throughput needs root, for network namespaces: use sudo, or name other groups")
    for program in PROGRAMS.get(group, ()):
        find(program)


def measured(group: str, run: Run) -> Iterator[Row]:
    """The rows of a group. What goes wrong in it ends it, not the other groups: then its last row says why."""
    run.say(f"[{group}]")
    try:
        for row in GROUPS[group](run):
            row.group = group
            yield row
    except (BenchError, CommandError, LabError, MappingError, OSError, TimeoutError) as error:
        print(f"bench: {group}: {error}", file=sys.stderr)
        yield Row("the rest was not measured", math.nan, "", note=str(error)[:200], group=group, failed=True)


if __name__ == "__main__":
    sys.exit(main())
