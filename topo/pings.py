"""A ping that runs while something happens, and what it lost."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import Final

from topo import netns
from topo.guest import Guest
from topo.waiting import wait_until

INTERVAL: Final = 0.01
"""Seconds between two pings, as asked for. Ping adds the grain of the kernel's timer; below this it would spin."""


@dataclass
class Pings:
    """What a run of pings saw. The last ping is not counted: it may still have been on its way."""

    sent: int = 0
    lost: int = 0
    interval: float = 0.0
    """Seconds between two pings, as they were sent."""
    longest_gap: float = 0.0
    """Seconds for which, at worst, every ping sent was lost."""

    def take(self, output: str) -> None:
        """Read what ping printed."""
        answered = {int(number) for number in re.findall(r"icmp_seq=(\d+) ttl=", output)}
        totals = re.search(r"(\d+) packets transmitted.* time (\d+)ms", output)
        self.sent, milliseconds = (int(totals[1]) - 1, int(totals[2])) if totals else (0, 0)
        self.interval = milliseconds / 1000 / max(1, self.sent)
        self.lost = sum(number not in answered for number in range(1, self.sent + 1))
        gap = 0
        for number in range(1, self.sent + 1):
            gap = 0 if number in answered else gap + 1
            self.longest_gap = max(self.longest_gap, gap * self.interval)


@contextmanager
def pinging(guest: Guest, address: str) -> Iterator[Pings]:
    """Ping from a guest for as long as the block runs; the result is complete when the block has ended.

    Raises:
        TimeoutError: the first pings are not answered.
    """
    pings = Pings()
    with TemporaryFile("w+") as output:  # a pipe that nobody reads would fill, and ping would wait
        argv = netns.inside(guest.namespace, ["ping", "-n", "-i", str(INTERVAL), address])
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        try:
            wait_until(lambda: os.pread(output.fileno(), 4096, 0).count(b" ttl=") >= 5, 10, f"answers from {address}")
            yield pings
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(10)
            output.seek(0)
            pings.take(output.read())
