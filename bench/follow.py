"""Simulated hosts: followers of a database, each with a connection and a copy of its own, for bench/fanout.py.

    python -m bench.follow REMOTE HOST...

Each follows what the host of that row id needs, as a controller does. Prints `ready` when all are in sync, then for
each change its `config_seq` and when the last of them had it (monotonic clock). Ends when its standard input does.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
from typing import Final

from mapping.replica import Replica

_FOREVER_MS: Final = 1 << 30


def main() -> int:
    """Follow."""
    remote, *hosts = sys.argv[1:]
    threading.excepthook = _end
    seen: queue.SimpleQueue[tuple[int, float]] = queue.SimpleQueue()
    for host in hosts:
        # A thread sleeps until its own connection has something, as a host would: one loop over all of them would
        # spend its time on looking through those that have nothing.
        threading.Thread(target=_follow, args=(remote, host, seen), daemon=True).start()
    threading.Thread(target=_report, args=(len(hosts), seen), daemon=True).start()
    sys.stdin.read()
    return 0


def _follow(remote: str, host: str, seen: queue.SimpleQueue[tuple[int, float]]) -> None:
    replica = Replica([remote], hosts=())
    replica.wait_until(lambda: replica.current, _FOREVER_MS)
    replica.follow([host])
    replica.wait_until(lambda: bool(replica.linked.parsed("Mapping")), _FOREVER_MS)
    last = replica.config_seq
    seen.put((-1, time.monotonic()))
    while True:
        replica.wait_until(lambda: replica.config_seq != last, _FOREVER_MS)  # noqa: B023 - called at once
        last = replica.config_seq
        seen.put((last, time.monotonic()))


def _end(error: threading.ExceptHookArgs) -> None:
    """Nobody waits for a change of which one of the hosts will never say that it has it."""
    threading.__excepthook__(error)
    os._exit(1)


def _report(hosts: int, seen: queue.SimpleQueue[tuple[int, float]]) -> None:
    counts: dict[int, int] = {}
    while True:
        number, when = seen.get()
        counts[number] = counts.get(number, 0) + 1
        if counts[number] == hosts:
            print("ready" if number < 0 else f"{number} {when}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
