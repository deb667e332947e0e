"""One VPC changes thousands of times a second: what that does to the changes of another VPC on the same host.

The quiet VPC's mappings change at a pace of their own, in turns with and without the load. Each change is seen twice:
in the switch, and by a bare client that follows the quiet VPC's rows in the database. What grows for the latter, too,
is not Lockgate's: it is the database, and the machine's cores that all of this shares.
"""

from __future__ import annotations

import json
import random
import re
import select
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import IPv4Address
from typing import Final, NamedTuple

from bench.client import update
from bench.content import CHANGED, FIRST, Content, fill_vpc
from bench.process import piped
from bench.results import Row
from bench.run import BenchError, Run, percentile
from bench.site import Changes, Site
from bench.watch import Source, arrivals

QUIET_NET: Final = "10.240.0.0/12"
LAST: Final = int(IPv4Address("10.200.0.0"))
"""The busy VPC's last change of each turn gives an address from here on."""
LAST_NET: Final = "10.200.0.0/16"
GROWTH: Final = 1.1
PATIENCE: Final = 120
_COLUMNS: Final = {
    "switch": "asked -> both bridges",
    "database": "of that, asked -> a bare client of the database",
    "between": "of that, from there -> both bridges",
}


class Times(NamedTuple):
    """Milliseconds of one change of the quiet VPC."""

    switch: float
    """From when it was asked for until both bridges have it."""
    database: float
    """From when it was asked for until a bare client of the database knows."""
    between: float
    """From the one to the other: the controller's and the switch's part."""


class Quiet:
    """Changes the quiet VPC, and times what it sees."""

    def __init__(self, site: Site, mappings: list[str], vpc: str, stack: ExitStack) -> None:
        self._mappings = mappings
        self._asker, self._follower = (site.database.client(stack) for _ in range(2))
        self._follower.monitor("Mapping", ["ip"], [["vpc", "==", ["uuid", vpc]]])
        # The switch tells of the quiet VPC's flows only: the busy one's would be work for this process and the switch.
        changes = Changes(site, stack, [f"ip,nw_dst={QUIET_NET}", f"arp,arp_tpa={QUIET_NET}"])
        self._sources: dict[Source, str] = {source: rf" {field}=(\S+) " for source, field in changes.fields.items()}
        self._sources[self._follower] = r'"(10\.[0-9.]+)"'
        self._number = 0
        # Else each change would come at the same moment of the busy VPC's pace.
        self._random = random.Random(7)  # noqa: S311

    def during(self, interval: float, seconds: float, process: subprocess.Popen[str] | None = None) -> list[Times]:
        """Make changes at about this pace, for so long or until the process ends, whether or not the last is done."""
        asked: dict[str, float] = {}
        seen: dict[str, dict[Source, float]] = {}
        begin = due = time.monotonic()
        going = True
        while True:
            now = time.monotonic()
            going = going and (process.poll() is None if process else now < begin + seconds)
            if going and now >= due:
                asked[self._ask()] = due
                due += interval * self._random.uniform(0.5, 1.5)
            if not going and all(len(seen.get(ip, {})) == len(self._sources) for ip in asked):
                return [self._times(asked[ip], seen[ip]) for ip in asked]
            if now > due + PATIENCE:
                raise TimeoutError("changes of the quiet VPC do not arrive")
            self._look(max(0.0, due - time.monotonic()) if going else 1.0, seen)

    def _look(self, within: float, seen: dict[str, dict[Source, float]]) -> None:
        for source in select.select([self._asker, *self._sources], [], [], within)[0]:
            now = time.monotonic()
            for text in source.take():
                for ip in re.findall(self._sources[source], text):
                    seen.setdefault(ip, {}).setdefault(source, now)

    def _ask(self) -> str:
        self._number += 1
        ip = str(IPv4Address(CHANGED + self._number))
        self._asker.ask([update("Mapping", self._mappings[self._number % len(self._mappings)], ip=ip)])
        return ip

    def _times(self, asked: float, seen: dict[Source, float]) -> Times:
        known = seen[self._follower]
        in_switch = max(when for source, when in seen.items() if source is not self._follower)
        return Times((in_switch - asked) * 1000, (known - asked) * 1000, max(0.0, in_switch - known) * 1000)


def measure(run: Run) -> Iterator[Row]:
    """Turns of both, one after the other."""
    scale = run.scale
    idle: list[Times] = []
    busy: list[Times] = []
    offers: list[dict[str, float]] = []
    lags: list[float] = []
    with ExitStack() as stack:
        site, quiet, busy_lines = _site(run, stack)
        end_watch = Changes(site, stack, [f"ip,nw_dst={LAST_NET}", f"arp,arp_tpa={LAST_NET}"])
        for turn in range(scale.busy_turns):
            run.say(f"the quiet VPC changes, alone (turn {turn + 1} of {scale.busy_turns})")
            idle += quiet.during(scale.quiet_interval, scale.busy_seconds)
            run.say(f"{scale.busy_rate} changes/s are offered to the busy VPC for {scale.busy_seconds:g} s")
            last = str(IPv4Address(LAST + turn))
            options = (scale.busy_rate, scale.busy_batch, scale.busy_seconds, last)
            argv = ["bench.offer", str(site.database.socket), *map(str, options)]
            with piped(argv) as offer:
                if not offer.stdin or not offer.stdout:
                    raise BenchError("no pipe to the process that offers changes")
                offer.stdin.write(busy_lines)
                offer.stdin.close()
                offer.stdout.readline()  # it is ready
                try:
                    busy += quiet.during(scale.quiet_interval, scale.busy_seconds, offer)
                finally:
                    offer.terminate()
                offers.append(json.loads(offer.stdout.read()))
            lags.append(max(arrivals(end_watch.expected(last), PATIENCE).values()) - offers[-1]["end"])
            site.config_seq = int(offers[-1]["config_seq"])
            site.wait_applied()
    yield from _rows(run, idle, busy, offers, lags)


def _site(run: Run, stack: ExitStack) -> tuple[Site, Quiet, str]:
    scale = run.scale
    content = Content()
    quiet_vpc = content.vpc("quiet")
    content.port(quiet_vpc, content.here, "quiet")
    port = content.port(quiet_vpc, content.there)
    quiet = [content.mapping(quiet_vpc, port, FIRST + n) for n in range(1000)]
    busy = fill_vpc(content, "busy", scale.busy_mappings, "busy")
    pair = [content.port(content.vpcs["busy"], content.there) for _ in range(2)]
    lines = "".join(f"{mapping} {' '.join(pair)}\n" for mapping in busy)
    site = Site(run.place("busy"), content, stack)
    run.say(f"ryu-manager starts on a quiet VPC of {len(quiet)} mappings and a busy one of {len(busy)}")
    site.start()
    return site, Quiet(site, quiet, quiet_vpc, stack), lines


def _rows(
    run: Run,
    idle: list[Times],
    busy: list[Times],
    offers: list[dict[str, float]],
    lags: list[float],
) -> Iterator[Row]:
    scale = run.scale
    made = sum(offer["changes"] for offer in offers) / sum(offer["seconds"] for offer in offers)
    note = f"offered: {scale.busy_rate}/s for {scale.busy_seconds:g} s, {scale.busy_batch} in a transaction"
    yield Row("changes of the busy VPC that the database took", made, "/s", scale.busy_rate, "offered", note=note)
    yield Row("after the last of them: until the switch has the final state", max(lags), "s", note="worst turn")
    note = f"{len(idle)} changes idle, {len(busy)} busy"
    for column, name in _COLUMNS.items():
        quiet, loud = ([getattr(times, column) for times in both] for both in (idle, busy))
        run.distribution(f"{column}, idle", quiet)
        run.distribution(f"{column}, busy", loud)
        for percent in (50, 99):
            target = GROWTH if (column, percent) == ("switch", 99) else None
            figures = percentile(loud, percent), "ms", percentile(quiet, percent)
            yield Row(f"the quiet VPC changes: {name}, p{percent}", *figures, "when idle", target, note=note)
