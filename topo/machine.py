"""A virtual machine of a lab, as whoever may log in to it sees it."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from topo import netns

SSH_OPTIONS: Final = (
    "-oBatchMode=yes",
    # Machines are made anew each time, and nobody is between them and us.
    "-oStrictHostKeyChecking=no",
    "-oUserKnownHostsFile=/dev/null",
    "-oLogLevel=ERROR",
    "-oConnectTimeout=5",
    "-oServerAliveInterval=10",
    "-oServerAliveCountMax=6",
)
_SHARED: Final = ("-oControlMaster=auto", "-oControlPersist=60", "-oControlPath={folder}/%C")
"""One connection for all commands: without hardware virtualisation its handshake takes a second."""


class Machine:
    """`ssh` is the command line that leads there, up to where the remote command would stand."""

    def __init__(self, name: str, namespace: str | None, ssh: Sequence[str], folder: str) -> None:
        self.name = name
        self.namespace = namespace
        self._ssh = [ssh[0], *(word.format(folder=folder) for word in _SHARED), *ssh[1:]]

    def run(self, script: str, seconds: float = 600) -> str:
        """Run a script of bash as root, up to the first command that fails, and return what it printed.

        Raises:
            CommandError: a command in it failed, or it took longer.
        """
        command = [*self._ssh, "sudo bash -euo pipefail -s"]
        return netns.run(self.namespace, command, stdin=script, seconds=seconds)

    def answers(self) -> bool:
        """Whether it lets us in."""
        try:
            self.run("true", seconds=30)
        except netns.CommandError:
            return False
        return True

    def put(self, file: Path, place: str) -> None:
        """Copy a file there, as root."""
        with file.open("rb") as content:
            command = [*self._ssh, f"sudo tee {place} >/dev/null"]
            subprocess.run(netns.inside(self.namespace, command), stdin=content, check=True, timeout=300)

    def guest(self, guest: str, command: str, seconds: float = 120) -> str:
        """Run a command in one of its guests, a network namespace."""
        return self.run(f"ip netns exec {guest} {command}", seconds)

    def pings(self, guest: str, address: str, count: int = 3, options: str = "", seconds: float = 5) -> int:
        """How many of `count` pings from a guest to an address are answered, each within `seconds`.

        Each is a program of its own: see `Guest.round_trips`.
        """
        ping = f"ip netns exec {guest} ping -n -c 1 -W {seconds:g} {options} {address}"
        return self.run(f"for _ in $(seq {count}); do {ping} || true; done", 120 + count * seconds).count(" 1 received")
