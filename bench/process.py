"""Programs that the measurements start, and what /proc says of them."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from bench.run import BenchError

OVN: Final = Path(sys.prefix, "ovn")
"""Where `make bench` unpacks OVN's Debian packages: see the Makefile."""

SYSTEM: Final = ("/usr/sbin", "/sbin")
"""Ordinary users of Debian do not have these on their path."""

PACKAGES: Final = {
    "ovn-northd": "ovn-central",
    "ovn-controller": "ovn-host",
    "iperf3": "iperf3",
    "ip": "iproute2",
    "ss": "iproute2",
}
"""The Debian package of each program, where it is not openvswitch-switch."""

_END_SECONDS: Final = 10

_WITH_KEPT: Final = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[2], sys.argv[2:])
"""
"""As sd_listen_fds(3) says."""


def find(program: str) -> str:
    """The path of a program.

    Raises:
        BenchError: it is not there; says which Debian package has it.
    """
    path = os.pathsep.join([str(OVN / "usr/bin"), os.environ.get("PATH", os.defpath), *SYSTEM])
    found = shutil.which(program, path=path)
    if not found:
        package = PACKAGES.get(program, "openvswitch-switch")
        raise BenchError(f"{program} is not there: install Debian's package {package} (`make bench` does it)")
    return found


def piped(argv: Sequence[str]) -> subprocess.Popen[str]:
    """Start a module of ours, like ("bench.offer", ...), to talk to by pipes. The caller ends it."""
    command = [sys.executable, "-m", *argv]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, process_group=0)


class Process:
    """A program that runs until `stop`; what it says goes to the end of `log`."""

    def __init__(
        self, argv: Sequence[str], log: Path, env: Mapping[str, str] | None = None, kept: socket.socket | None = None
    ) -> None:
        """With `kept` it is given this socket, as a service manager gives one that it has kept."""
        self._log = log
        if kept:
            argv = [sys.executable, "-ISc", _WITH_KEPT, str(kept.fileno()), *argv]
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=os.environ | dict(env or {}),
                pass_fds=[kept.fileno()] if kept else (),
                process_group=0,  # Ctrl-C reaches this process alone, which then ends the others in order
            )
        self.pid = self._process.pid

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it, and wait until it has ended."""
        self._process.send_signal(how)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_SECONDS)
            return
        self._process.kill()
        self._process.wait(_END_SECONDS)

    def check(self) -> None:
        """Raise if it has ended."""
        if self._process.poll() is not None:
            said = self._log.read_text(errors="replace").strip().splitlines()[-5:]
            raise BenchError(f"{self._process.args!r} has ended: " + "\n".join(said))

    def rss_kb(self) -> float:
        """Memory that it has in use, in kilobytes of 1024."""
        return self._proc("status", r"VmRSS:\s+(\d+) kB")

    def cpu_seconds(self) -> float:
        """CPU time so far, of user and system."""
        return self._proc("stat", r"\) \S(?: \S+){10} (\d+) (\d+)") / os.sysconf("SC_CLK_TCK")

    def _proc(self, what: str, pattern: str) -> float:
        self.check()
        found = re.search(pattern, Path(f"/proc/{self.pid}/{what}").read_text())
        if not found:
            raise BenchError(f"/proc/{self.pid}/{what} has no {pattern}")
        return sum(map(float, found.groups()))
