"""Offers changes of mappings to a database at a steady rate: the load of bench/busy.py, in a process of its own.

    python -m bench.offer SOCKET RATE BATCH SECONDS LAST_IP < lines of "mapping port port"

Each transaction moves BATCH mappings to the other of their two ports; the last one also gives the first mapping the
address LAST_IP, so that a watcher of the switch knows the end when it sees it. Prints `ready` and, at the end, as JSON,
the changes made, the seconds from the first to the last commit, when the last one was asked for (monotonic clock), and
the `config_seq` then.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from pathlib import Path

from bench.client import Client, Operation, update
from mapping import schema


def main() -> int:
    """Offer until the time is over."""
    path, rate, batch, seconds, last_ip = sys.argv[1:]
    mappings = [line.split() for line in sys.stdin]
    turns = itertools.cycle([(mapping, ports[side]) for side in (0, 1) for mapping, *ports in mappings])
    client = Client(Path(path), schema.DATABASE, ("Global", "config_seq"))
    interval, size = int(batch) / float(rate), int(batch)
    transactions = 0
    print("ready", flush=True)
    begin = time.monotonic()
    while (now := time.monotonic()) - begin < float(seconds):
        due = begin + transactions * interval
        if due > now:
            time.sleep(due - now)
        client.change([_move(*next(turns)) for _ in range(size)])
        transactions += 1
    took = time.monotonic() - begin
    end = time.monotonic()
    config_seq = client.change([update("Mapping", mappings[0][0], ip=last_ip)])
    done = {"changes": transactions * size, "seconds": took, "end": end, "config_seq": config_seq}
    print(json.dumps(done))
    return 0


def _move(mapping: str, port: str) -> Operation:
    return update("Mapping", mapping, port=["uuid", port])


if __name__ == "__main__":
    sys.exit(main())
