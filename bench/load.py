"""From the database to one host's switch, all mappings in one VPC; the peer is ovs-ofctl with the same flows."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from bench.channel import Proxy
from bench.client import insert
from bench.content import ADDRESSES_OF_A_PORT, FIRST, VPC, Content, changed_ips, mapping_row, single_vpc
from bench.results import Row
from bench.run import BenchError, Run, percentile, seconds
from bench.site import BRIDGES, PATIENCE, Changes, Site
from bench.watch import FlowCount, Monitor

PEER = "ovs-ofctl --bundle add-flows, the same flows from a file"


def measure(run: Run) -> Iterator[Row]:
    """Load, change, restart, empty, and load in pieces."""
    with ExitStack() as stack:
        mappings = run.scale.mappings
        content = single_vpc(mappings)
        site = Site(run.place("load"), content, stack)
        run.say(f"ryu-manager starts on {mappings} mappings, with an empty switch")
        first_load = site.start()
        memory = site.controller.rss_kb()
        flows = site.flow_count()
        peer = PeerLoad(site, run.scale.turns)
        yield from _single_changes(run, site, content)
        yield from _restart(run, site, flows)
        run.say("the switch is emptied behind its back")
        emptied = _emptied(site)
        yield from _pause(run, site, flows)
        site.stop()
        run.say("ovs-ofctl loads the same flows")
        reference = peer.seconds()
        note = f"{flows} flows"
        yield Row("ryu-manager started, empty switch -> last flow", first_load, "s", reference, PEER, 2.5, note=note)
        yield Row(
            "switch emptied -> programmed again", emptied, "s", reference, PEER, 1.5, note="deletion of all included"
        )
    yield from _over_tls(run)
    yield from _committed(run, memory)


class PeerLoad:
    """Has ovs-ofctl load the flows that a site's switch holds when this is made."""

    def __init__(self, site: Site, turns: int) -> None:
        self._site = site
        self._turns = turns
        self._flows = site.flow_count()
        self._files: dict[str, Path] = {}
        for bridge in BRIDGES:
            dump = site.ovs.ofctl("dump-flows", bridge, "--no-names", "--no-stats").splitlines()
            self._files[bridge] = site.folder / f"{bridge}.flows"
            self._files[bridge].write_text("\n".join(line.strip() for line in dump if "actions=" in line))

    def seconds(self) -> float:
        """How long it takes, into an empty switch: the median of its turns. The controller must not run."""
        return statistics.median(self._turn() for _ in range(self._turns))

    def _turn(self) -> float:
        self._site.empty()
        # It frees the memory of what it has forgotten afterwards, which is no part of loading.
        self._site.settle()
        took = seconds(self._load)
        if (there := self._site.flow_count()) != self._flows:
            raise BenchError(f"ovs-ofctl has loaded {there} flows, of {self._flows}")
        return took

    def _load(self) -> None:
        for bridge, file in self._files.items():
            self._site.ovs.ofctl("add-flows", bridge, "--bundle", str(file))


def _single_changes(run: Run, site: Site, content: Content, name: str = "one mapping changes") -> Iterator[Row]:
    run.say("single mappings change")
    with ExitStack() as stack:
        changes = Changes(site, stack)
        chosen = content.mappings[: run.scale.changes]
        latencies = [changes.give(mapping, ip) for mapping, ip in zip(chosen, changed_ips(), strict=False)]
    run.distribution(name, latencies)
    for percent, target in ((50, 3), (99, 10)):
        row = f"{name}: asked -> both bridges have it, p{percent}"
        yield Row(row, percentile(latencies, percent), "ms", target=target, note=f"{len(latencies)} changes")


def _over_tls(run: Run) -> Iterator[Row]:
    """Single changes as a site has them: the controller reads from a front, and every connection is TLS."""
    with ExitStack() as stack:
        content = single_vpc(run.scale.mappings)
        site = Site(run.place("tls"), content, stack, tls=True)
        run.say("ryu-manager starts again, with TLS and a front")
        site.start()
        yield from _single_changes(run, site, content, "one mapping changes, TLS and a front")


def _restart(run: Run, site: Site, flows: int) -> Iterator[Row]:
    run.say("ryu-manager is killed, and starts again")
    site.stop()
    with ExitStack() as stack:
        monitors = [Monitor(site.ovs.folder, bridge, (), stack, only_added=False) for bridge in BRIDGES]
        took = _in_sync(site)
        cpu = site.controller.cpu_seconds()
        touched = sum(len(monitor.take()) for monitor in monitors) + abs(site.flow_count() - flows)
    yield Row("ryu-manager restarted, nothing changed: CPU until in sync", cpu, "s", target=5)
    yield Row("the same: time until in sync", took, "s")
    yield Row("the same: flows that the restart touched", touched, "", target=0)


def _in_sync(site: Site) -> float:
    begin = time.monotonic()
    site.start()
    return time.monotonic() - begin


def _emptied(site: Site) -> float:
    """Seconds from before the first flow is deleted until all are there again."""
    flows = site.flow_count()
    begin = time.monotonic()
    site.empty()
    return _counted(site.flow_count, flows) - begin


def _counted(flow_count: FlowCount, flows: int) -> float:
    """Wait until the switch holds so many flows; return when it did."""

    def there(within: float) -> bool:
        time.sleep(within)
        return flow_count() == flows

    return flow_count.until(there, PATIENCE)[1]


def _pause(run: Run, site: Site, flows: int) -> Iterator[Row]:
    run.say("ryu-manager loads an empty switch once more, through a proxy that sends echo requests")
    site.stop()
    site.empty()
    with Proxy(site.listens) as proxy:
        site.start(through=proxy.port)
        _counted(site.flow_count, flows)
        longest, answered, lost = proxy.longest(), proxy.answered, proxy.connections - len(BRIDGES)
        site.stop()
    note = f"{answered} echo requests; inactivity probe 5 s"
    yield Row("longest pause of the OpenFlow channel during that load", longest, "s", target=1, note=note)
    yield Row("connections lost during that load", lost, "", target=0)


def _committed(run: Run, memory: float) -> Iterator[Row]:
    """The mappings come in transactions while the controller runs."""
    mappings, batch = run.scale.mappings, run.scale.batch
    turns = [_commit(run, f"committed{turn}") for turn in range(run.scale.turns)]
    empty = turns[0].empty
    yield Row("memory of ryu-manager: RSS per mapping", memory / mappings, "KB", target=1.5)
    note = f"RSS less the {empty / 1024:.0f} MB without mappings"
    yield Row("memory of ryu-manager: growth per mapping", (memory - empty) / mappings, "KB", note=note)
    for bridge, (bare, flows) in turns[0].flows.items():
        note = f"{bare} without mappings: of the host, a VPC and a port"
        yield Row(f"flows of a mapping on {bridge}", (flows - bare) / mappings, "", note=note)
    lags = [turn.lag for turn in turns]
    took = ", ".join(f"{turn.took:.1f}" for turn in turns)
    note = f"median of {len(turns)}; {mappings / batch:g} commits in {took} s"
    name = f"committed {batch} at a time: last commit -> last flow"
    yield Row(name, statistics.median(lags), "s", target=0.5, note=note)
    yield Row("the same: the slowest", max(lags), "s")


class Commits(NamedTuple):
    """What came of one turn of them."""

    empty: float
    """RSS of ryu-manager before, in KB."""
    flows: dict[str, tuple[int, int]]
    """Of each bridge, before and after."""
    took: float
    """Seconds from before the first commit to after the last."""
    lag: float
    """Seconds from the last commit to the last flow."""


def _commit(run: Run, name: str) -> Commits:
    mappings, batch = run.scale.mappings, run.scale.batch
    with ExitStack() as stack:
        content = Content()
        vpc = content.vpc(VPC)
        content.port(vpc, content.here, "local")
        ports = [content.port(vpc, content.there) for _ in range(-(-mappings // ADDRESSES_OF_A_PORT))]
        site = Site(run.place(name), content, stack)
        run.say("ryu-manager starts on a database without mappings")
        site.start()
        empty = site.controller.rss_kb()
        counts = {bridge: FlowCount(site.ovs.folder, [bridge]) for bridge in BRIDGES}
        bare = {bridge: count() for bridge, count in counts.items()}
        run.say(f"{mappings} mappings are committed, {batch} at a time")
        begin = time.monotonic()
        for start in range(0, mappings, batch):
            rows = [
                mapping_row(vpc, ports[n // ADDRESSES_OF_A_PORT], FIRST + n)
                for n in range(start, min(start + batch, mappings))
            ]
            site.change([insert("Mapping", **row) for row in rows])
        committed = time.monotonic()
        last = site.wait_applied()
        flows = {bridge: (bare[bridge], count()) for bridge, count in counts.items()}
        return Commits(empty, flows, committed - begin, max(0.0, last - committed))
