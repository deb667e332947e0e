"""What every group of measurements is given: how large, where, and whom to tell."""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path


class BenchError(Exception):
    """A measurement cannot be made. The text is for a person: it names the thing and the mend."""


@dataclass(frozen=True)
class Scale:
    """How large and how long everything is. These are the numbers of `make bench`."""

    mappings: int = 100_000
    batch: int = 1000
    """Rows of one transaction where the database is filled while the controller runs."""
    changes: int = 500
    """Single changes timed on a loaded host. Below some hundred a p99 says little."""
    turns: int = 3
    """How often what comes out otherwise each time is measured; the median counts."""
    growth: tuple[int, ...] = (1000, 10_000, 100_000, 1_000_000)
    growth_changes: int = 100
    busy_turns: int = 3
    busy_seconds: float = 10
    busy_rate: int = 10_000
    """Row changes offered to the busy VPC each second."""
    busy_batch: int = 100
    """Row changes in one of its transactions."""
    busy_mappings: int = 10_000
    quiet_interval: float = 0.02
    """Seconds from one change of the quiet VPC to the next, on average."""
    everyone: int = 1_000_000
    """Mappings in the database of the working set's measurement."""
    ours: int = 2000
    """Those of them that are in this host's VPC."""
    hosts: int = 200
    processes: int = 4
    """Processes that simulate the hosts."""
    relays: int = 4
    commits: int = 100
    ovn_ports: tuple[int, ...] = (1000, 10_000)
    ovn_changes: int = 100
    ovn_seconds: float = 30
    """Longest time that OVN's single changes of one layout may take together; those done by then count."""
    ovn_bulk_seconds: float = 60
    """When OVN's taking in of all ports is given up."""
    ovn_patience: float = 180
    """Longest that anything else of OVN is waited for."""
    throughput_turns: int = 5
    throughput_seconds: int = 5


FULL = Scale()
QUICK = Scale(
    mappings=5000,
    changes=100,
    turns=1,
    growth=(500, 5000, 20_000),
    growth_changes=20,
    busy_turns=1,
    busy_seconds=2,
    busy_mappings=1000,
    everyone=20_000,
    ours=500,
    hosts=20,
    processes=2,
    relays=2,
    commits=20,
    ovn_ports=(500,),
    ovn_changes=20,
    ovn_seconds=10,
    throughput_turns=1,
    throughput_seconds=1,
)


@dataclass
class Run:
    """One call of the program. `series` holds what the plots are drawn from, by name."""

    scale: Scale
    folder: Path
    """Everything that is made is in here, and goes with it."""
    series: dict[str, list[tuple[float, ...]]] = field(default_factory=dict)
    begin: float = field(default_factory=time.monotonic)

    def say(self, text: str) -> None:
        """Tell how far it is."""
        print(f"{time.monotonic() - self.begin:6.1f} s  {text}", file=sys.stderr, flush=True)

    def place(self, name: str) -> Path:
        """A new folder of this name. Short, because the paths of sockets must be."""
        folder = self.folder / name
        folder.mkdir()
        return folder

    def distribution(self, name: str, milliseconds: Sequence[float]) -> None:
        """Keep latencies for the plot."""
        self.series.setdefault(name, []).extend((value,) for value in milliseconds)


def seconds(do: Callable[[], object]) -> float:
    """How long it takes."""
    begin = time.monotonic()
    do()
    return time.monotonic() - begin


def percentile(values: Sequence[float], percent: int) -> float:
    """The value that so many percent do not exceed."""
    if len(values) < 2:
        return values[0] if values else math.nan
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]
