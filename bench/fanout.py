"""Many hosts follow one database, directly and through relays: how long until the last of them has a change.

The hosts are real replicas (`mapping.replica`), each of what its host needs, without switches, in a few processes: on a
small machine most of the time is theirs, and in practice each would have a processor of its own.
"""

from __future__ import annotations

import select
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from bench.client import update
from bench.content import VPC, Content, changed_ips, single_vpc
from bench.process import Process, find, piped
from bench.results import Row
from bench.run import BenchError, Run, percentile
from bench.site import Database
from mapping import schema
from topo.waiting import wait_until

MAPPINGS: Final = 1000
PATIENCE: Final = 120


class Followers:
    """A process of simulated hosts."""

    def __init__(self, remote: str, hosts: Sequence[str], stack: ExitStack) -> None:
        self._process = piped(["bench.follow", remote, *hosts])
        stack.enter_context(self._process)
        stack.callback(self._process.terminate)

    def line(self) -> str:
        """The next thing that it says."""
        if not self._process.stdout or not select.select([self._process.stdout], [], [], PATIENCE)[0]:
            raise TimeoutError("the simulated hosts say nothing")
        line = self._process.stdout.readline().strip()
        if not line:
            raise BenchError("the simulated hosts have ended")
        return line


def measure(run: Run) -> Iterator[Row]:
    """Direct, then through relays."""
    scale = run.scale
    direct = _latencies(run, "direct", 0)
    relayed = _latencies(run, "relays", scale.relays)
    note = f"{scale.commits} commits, {scale.hosts} hosts in {scale.processes} processes"
    for percent in (50, 99):
        reference = percentile(direct, percent)
        yield Row(f"commit -> all {scale.hosts} hosts, p{percent}", reference, "ms", note=note)
        name = f"the same through {scale.relays} relays, p{percent}"
        yield Row(name, percentile(relayed, percent), "ms", reference, "directly")


def _latencies(run: Run, name: str, relays: int) -> list[float]:
    """Milliseconds from asking for a change until the last host has it."""
    scale = run.scale
    with ExitStack() as stack:
        content, hosts = _everywhere(scale.hosts)
        folder = run.place(name)
        database = Database(folder, content, stack)
        remotes = [_relay(folder, database, number, stack) for number in range(relays)] or [database.remote]
        run.say(f"{scale.hosts} hosts follow one database, {f'through {relays} relays' if relays else 'directly'}")
        followers = [
            Followers(remotes[number % len(remotes)], share, stack)
            for number, share in enumerate(shares(hosts, max(scale.processes, relays)))
        ]
        for each in followers:
            if each.line() != "ready":
                raise BenchError("the simulated hosts are not ready")
        client = database.client(stack)
        chosen = (content.mappings[number % MAPPINGS] for number in range(scale.commits))
        latencies = []
        for mapping, ip in zip(chosen, changed_ips(), strict=False):
            begin = time.monotonic()
            number = client.change([update("Mapping", mapping, ip=ip)])
            ends = [each.line().split() for each in followers]
            if {int(seq) for seq, _ in ends} != {number}:
                raise BenchError(f"a host saw change {ends} instead of {number}")
            latencies.append((max(float(end) for _, end in ends) - begin) * 1000)
    run.distribution(f"all hosts, {name}", latencies)
    return latencies


def _relay(folder: Path, database: Database, number: int, stack: ExitStack) -> str:
    path = folder / f"relay{number}.sock"
    argv = [find("ovsdb-server"), f"relay:{schema.DATABASE}:{database.remote}", f"--remote=punix:{path}"]
    argv += [f"--unixctl={folder}/relay{number}.ctl", "-vsyslog:off"]
    relay = Process(argv, folder / f"relay{number}.log")
    stack.callback(relay.stop)
    wait_until(path.exists, 10, f"relay {number} to listen")
    return f"unix:{path}"


def _everywhere(hosts: int) -> tuple[Content, Sequence[str]]:
    """One VPC, which has a port on each of so many hosts besides the mappings; and those hosts' ids."""
    content = single_vpc(MAPPINGS)
    added = [content.host(f"h{number}") for number in range(hosts)]
    for host in added:
        content.port(content.vpcs[VPC], host)
    return content, added


def shares(hosts: Sequence[str], parts: int) -> Sequence[Sequence[str]]:
    """The hosts in as many parts, as equal as can be."""
    return [hosts[part::parts] for part in range(parts)]
