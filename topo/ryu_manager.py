"""A controller of the lab: ryu-manager, in the control network's namespace."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping as MappingABC
from pathlib import Path
from typing import Final

from topo import netns
from topo.host import OPENFLOW_PORT
from topo.members import Members
from topo.ovs import end, pid_of
from topo.spec import CONTROL_IP, DATABASE_PORT, LabError
from topo.waiting import wait_until

_STARTED_SECONDS: Final = 300
_TAIL_LINES: Final = 25


class RyuManager:
    """Number 1 is the one that hosts are built to obey; others have the ports after its.

    With `members` it follows their cluster, and what it serves is TLS. `environment` is added to this process's own.
    """

    def __init__(
        self,
        namespace: str,
        folder: Path,
        members: Members | None,
        number: int = 1,
        environment: MappingABC[str, str] | None = None,
    ) -> None:
        self._namespace = namespace
        self._members = members
        self._name = f"c{number}"
        self._port = OPENFLOW_PORT + number - 1
        self._environment = dict(environment or {})
        self.log = folder / ("controller.log" if number == 1 else f"controller-{number}.log")
        """What it says."""
        self._pid = self.log.with_suffix(".pid")

    @property
    def target(self) -> str:
        """It, as switches connect to it."""
        return f"{'ssl' if self._members else 'tcp'}:{CONTROL_IP}:{self._port}"

    @property
    def runs(self) -> bool:
        """Whether its process is there."""
        return pid_of(self._pid) is not None

    def start(self) -> None:
        """Start it, and wait until it runs.

        Raises:
            LabError: it does not, and what it said.
        """
        argv = [
            *(str(Path(sys.executable).with_name("ryu-manager")), "controller.app"),
            *("--ofp-listen-host", str(CONTROL_IP)),
            *("--ofp-tcp-listen-port", str(self._port)),
            *("--pid-file", str(self._pid)),
        ]
        env = os.environ | {"LOCKGATE_DB": f"tcp:{CONTROL_IP}:{DATABASE_PORT}"}
        if self._members:
            tls = self._members.tls("controller", self._name)
            env |= {"LOCKGATE_DB": ",".join(member.front for member in self._members.all), "LOCKGATE_TLS": str(tls)}
            argv += ["--ofp-ssl-listen-port", str(self._port), "--ctl-privkey", f"{tls}/key.pem"]
            argv += ["--ctl-cert", f"{tls}/cert.pem", "--ca-certs", f"{tls}/host.pem"]
        netns.start(self._namespace, argv, self.log, env | self._environment)
        try:
            wait_until(lambda: self.runs, _STARTED_SECONDS, "ryu-manager to start")
        except TimeoutError as error:
            raise LabError(f"{error}\n{self.says()}") from error

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End it, at once by default."""
        end(self._pid, how)

    def says(self) -> str:
        """The end of its log."""
        try:
            lines = self.log.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
        except FileNotFoundError:
            lines = []
        return "\n".join([f"the end of {self.log}:", *(f"  {line}" for line in lines or ["(nothing)"])])
