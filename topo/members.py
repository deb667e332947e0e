"""The lab's mapping database as a site runs it: members in namespaces of their own, TLS everywhere, Raft among them.

lg-LAB-m1 198.51.100.2   lg-LAB-m2 198.51.100.3   lg-LAB-m3 198.51.100.4      on the control network
member, front of controllers, in FOLDER/m1 ...                             unix sockets: FOLDER/m1/mapping.sock
"""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path
from typing import Final

from mapping import cluster, service
from mapping.pki import Pki
from mapping.tls import Identity
from topo import netns
from topo.ovs import end, pid_of
from topo.spec import CONTROL_IP, CONTROL_NETWORK

RAFT_PORT: Final = 6644
CONTROLLERS_PORT: Final = 6642


class Member:
    """One member, and the front of controllers beside it. `remote` is its unix socket."""

    def __init__(self, number: int, control: str, folder: Path, identity: Identity) -> None:
        self.number = number
        self.namespace = f"{control.removesuffix('control')}m{number}"
        self.folder = folder
        self.identity = identity
        self.address = str(CONTROL_IP + number)
        self.raft = f"ssl:{self.address}:{RAFT_PORT}"
        self.remote = f"unix:{folder}/mapping.sock"
        self.front = f"ssl:{self.address}:{CONTROLLERS_PORT}"
        self._control = control

    def create(self) -> None:
        """Make its namespace, and plug it into the control network."""
        self.folder.mkdir(parents=True, exist_ok=True)
        netns.add(self.namespace)
        netns.ip(
            self.namespace,
            f"link add dev eth0 type veth peer name m{self.number} netns {self._control}\n"
            f"addr add {self.address}/{CONTROL_NETWORK.prefixlen} dev eth0\nlink set dev eth0 up",
        )
        netns.ip(self._control, f"link set dev m{self.number} master br0 up")

    def start(self, join: str = "") -> None:
        """Begin the cluster, or join the one that `join` is a member of; or go on from the file that is there."""
        cluster.prepare(self.folder / "mapping.db", self.raft, [join] if join else [])
        service.start(
            self.folder,
            [f"p{self.remote}"],
            netns.inside(self.namespace, []),
            {"controller": [f"pssl:{CONTROLLERS_PORT}:{self.address}"]},
            self.identity,
        )

    @property
    def runs(self) -> bool:
        """Whether its process is there."""
        return pid_of(self.folder / "mapping.pid") is not None

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End the member and its front, at once by default."""
        for name in ("controller", "mapping"):
            end(self.folder / f"{name}.pid", how)

    def signal(self, what: signal.Signals) -> None:
        """Pause the member, or let it go on."""
        if pid := pid_of(self.folder / "mapping.pid"):
            subprocess.run(["kill", f"-{what.value}", str(pid)], check=True)

    def plug(self, *, into: bool) -> None:
        """Put its cable in, or pull it."""
        netns.ip(self.namespace, f"link set dev eth0 {'up' if into else 'down'}")


class Members:
    """Three of them, and certificates for all of the lab."""

    def __init__(self, control: str, folder: Path) -> None:
        self._folder = folder
        self._control = control
        self.pki = Pki(folder / "pki")
        self.all = [
            Member(number, control, folder / f"m{number}", Identity(folder / f"tls-m{number}")) for number in (1, 2, 3)
        ]

    @property
    def remotes(self) -> list[str]:
        """Where programs on this machine reach them, in whatever namespace they are."""
        return [member.remote for member in self.all]

    def create(self) -> None:
        """Make the authorities, the members' certificates and their namespaces."""
        self.pki.init()
        for member in self.all:
            self.pki.issue("member", f"m{member.number}", member.identity.folder)
            member.create()

    def start(self) -> None:
        """Start those that do not run."""
        for member in self.all:
            if not member.runs:
                member.start("" if member is self.all[0] else self.all[0].raft)

    def tls(self, role: str, name: str) -> Path:
        """The folder of somebody's certificate, which is made if it is not there."""
        out = self._folder / f"tls-{role}-{name}"
        if not out.exists():
            self.pki.issue(role, name, out)
        return out
