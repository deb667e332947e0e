"""Ports for servers that tests start: nobody else is given one between the choice and the server's start."""

import subprocess
import sys
from pathlib import Path

from tests.site import free_port

ASK = "from tests.site import free_port; print([free_port('127.0.0.1') for _ in range(300)]); input()"


def test_no_two_are_given_the_same_and_none_who_connects() -> None:
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    argv = [sys.executable, "-c", ASK]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout
        theirs = set(map(int, other.stdout.readline().strip("[]\n").split(",")))
        ours = [free_port("127.0.0.1") for _ in range(300)]
        other.communicate("\n")
    assert len({*ours, *theirs}) == 600
    assert max(*ours, *theirs) < first
