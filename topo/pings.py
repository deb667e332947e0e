"""A ping that runs while something happens, and what it lost."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import Final

from topo import netns
from topo.guest import Guest
from topo.waiting import wait_until

INTERVAL: Final = 0.01
"""Seconds between two pings, as asked for. Ping adds the grain of the kernel's timer; below this it would spin."""

PATIENCE: Final = 3
"""Seconds for which the last answers are waited for, once no more pings count."""


@dataclass
class Pings:
    """What a run of pings saw: what of those sent while it lasted was not answered within `PATIENCE` more."""

    sent: int = 0
    lost: int = 0
    interval: float = 0.0
    """Seconds between two pings, as they were sent."""
    longest_gap: float = 0.0
    """Seconds for which, at worst, every ping sent was lost."""

    def take(self, output: str) -> None:
        """Read what ping printed.

        Raises:
            RuntimeError: it ended before it was told to.
        """
        answered = _answered(output)
        totals = re.search(r"(\d+) packets transmitted.* time (\d+)ms", output)
        self.sent = _sent(output)
        if not totals or not 0 < self.sent <= int(totals[1]):
            raise RuntimeError(f"ping did not run to its end: {output[-500:]}")
        self.interval = int(totals[2]) / 1000 / int(totals[1])
        self.lost = sum(number not in answered for number in range(1, self.sent + 1))
        gap = 0
        for number in range(1, self.sent + 1):
            gap = 0 if number in answered else gap + 1
            self.longest_gap = max(self.longest_gap, gap * self.interval)


def _answered(output: str) -> set[int]:
    return {int(number) for number in re.findall(r"icmp_seq=(\d+) ttl=", output)}


def _sent(output: str) -> int:
    """How many were sent when ping was asked. It answers in the middle of what else it prints; 0: it has not yet."""
    asked = re.search(r"\d+/(\d+) packets, \d+% loss", output)
    return int(asked[1]) if asked else 0


@contextmanager
def pinging(guest: Guest, address: str) -> Iterator[Pings]:
    """Ping from a guest for as long as the block runs; the result is complete when the block has ended.

    Raises:
        TimeoutError: the first pings are not answered.
        RuntimeError: ping ended before the block did.
    """
    pings = Pings()
    with TemporaryFile("w+") as output:  # a pipe that nobody reads would fill, and ping would wait

        def read() -> str:
            return os.pread(output.fileno(), os.fstat(output.fileno()).st_size, 0).decode()

        argv = netns.inside(guest.namespace, ["ping", "-n", "-i", str(INTERVAL), address])
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        try:
            wait_until(lambda: len(_answered(read())) >= 5, 10, f"answers from {address}")
            yield pings
            process.send_signal(signal.SIGQUIT)  # says how many there have been
            number = wait_until(lambda: _sent(read()), 10, "ping to say how many it has sent")
            with suppress(TimeoutError):
                wait_until(lambda: {*range(1, number + 1)} <= _answered(read()), PATIENCE, "the last answers")
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(10)
        pings.take(read())
