"""Measure Lockgate beside its peers, in the same run.

    python -m bench [--quick] [--mappings N] [--plots FOLDER] [GROUP...]

Prints one table, and writes bench-results.json. Everything that runs for it is private, in a temporary folder. Only
the group `throughput` needs root.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from rich.console import Console

from bench import busy, fanout, growth, load, ovn, plots, throughput, working_set
from bench.results import Row, table, write
from bench.run import FULL, QUICK, BenchError, Run
from mapping.writer import MappingError
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
    try:
        if options.plots:
            plots.check(options.plots)
        # Short, because the paths of sockets are in it.
        with tempfile.TemporaryDirectory(prefix="lgb-") as folder:
            run = Run(scale, Path(folder))
            rows = [row for group in options.groups or GROUPS for row in measured(group, run)]
        console.print(table(rows, "Lockgate, beside its peers in the same run"))
        write(rows, options.results)
        drawn = plots.draw(run, options.plots) if options.plots else []
        console.print(f"written to {', '.join(map(str, (options.results, *drawn)))}")
    except (BenchError, CommandError, LabError, MappingError, OSError, TimeoutError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def measured(group: str, run: Run) -> Iterator[Row]:
    """The rows of a group."""
    run.say(f"[{group}]")
    for row in GROUPS[group](run):
        row.group = group
        yield row


if __name__ == "__main__":
    sys.exit(main())
