"""The control network of the lab: the mapping database and ryu-manager, in a network namespace of their own."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from mapping import service
from mapping.model import Snapshot
from mapping.replica import Replica
from mapping.rows import READ_COLUMNS, STATUS_COLUMNS
from topo import netns
from topo.host import OPENFLOW_PORT
from topo.members import Members
from topo.ovs import end, pid_of
from topo.spec import CONTROL_IP, CONTROL_NETWORK, LabError
from topo.waiting import wait_until

DATABASE_PORT: Final = 6640
_STARTED_SECONDS: Final = 300
_TAIL_LINES: Final = 25


class Control:
    """`remote` is the database as programs on this machine reach it, in whatever namespace they are.

    With `secure` it is a cluster of three members, and every connection is TLS. Without, it is one server, and what
    goes over the lab's own control network is plain TCP.
    """

    def __init__(self, namespace: str, folder: Path, *, secure: bool = False) -> None:
        self.namespace = namespace
        self.folder = folder
        self.members = Members(namespace, folder) if secure else None
        self.remote = ",".join(self.members.remotes) if self.members else f"unix:{folder}/mapping.sock"
        self.controller_log = folder / "controller.log"
        self._database_pid = folder / "mapping.pid"
        self._controller_pid = folder / "controller.pid"

    def create(self) -> None:
        """Make the network; hosts connect to its bridge br0."""
        netns.add(self.namespace)
        netns.ip(
            self.namespace,
            "link add dev br0 type bridge\n"
            f"addr add {CONTROL_IP}/{CONTROL_NETWORK.prefixlen} dev br0\n"
            "link set dev br0 up",
        )
        if self.members:
            self.members.create()

    def tls(self, role: str, name: str) -> Path | None:
        """The folder of somebody's certificate, if the lab has any."""
        return self.members.tls(role, name) if self.members else None

    @property
    def openflow(self) -> str:
        """The controller, as switches connect to it."""
        return f"{'ssl' if self.members else 'tcp'}:{CONTROL_IP}:{OPENFLOW_PORT}"

    @property
    def database_runs(self) -> bool:
        """Whether the database's process is there."""
        if self.members:
            return any(member.runs for member in self.members.all)
        return pid_of(self._database_pid) is not None

    @property
    def controller_runs(self) -> bool:
        """Whether the controller's process is there."""
        return pid_of(self._controller_pid) is not None

    def start_database(self) -> None:
        """Start the mapping database on the file that it had, or a new one."""
        if self.members:
            self.members.start()
            return
        remotes = (f"p{self.remote}", f"ptcp:{DATABASE_PORT}:{CONTROL_IP}")
        service.start(self.folder, remotes, prefix=netns.inside(self.namespace, []))

    def kill_database(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End the mapping database, at once by default."""
        for member in self.members.all if self.members else ():
            member.kill(how)
        end(self._database_pid, how)

    def start_controller(self) -> None:
        """Start ryu-manager, and wait until it runs. What it says is in `controller_log`."""
        argv = [
            *(str(Path(sys.executable).with_name("ryu-manager")), "controller.app"),
            *("--ofp-listen-host", str(CONTROL_IP)),
            *("--ofp-tcp-listen-port", str(OPENFLOW_PORT)),
            *("--pid-file", str(self._controller_pid)),
        ]
        env = os.environ | {"LOCKGATE_DB": f"tcp:{CONTROL_IP}:{DATABASE_PORT}"}
        if self.members:
            tls = self.members.tls("controller", "c1")
            env |= {"LOCKGATE_DB": ",".join(member.front for member in self.members.all), "LOCKGATE_TLS": str(tls)}
            argv += ["--ofp-ssl-listen-port", str(OPENFLOW_PORT), "--ctl-privkey", f"{tls}/key.pem"]
            argv += ["--ctl-cert", f"{tls}/cert.pem", "--ca-certs", f"{tls}/host.pem"]
        netns.start(self.namespace, argv, self.controller_log, env)
        try:
            wait_until(lambda: self.controller_runs, _STARTED_SECONDS, "ryu-manager to start")
        except TimeoutError as error:
            raise LabError(f"{error}\n{self.controller_says()}") from error

    def kill_controller(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End ryu-manager, at once by default."""
        end(self._controller_pid, how)

    def controller_says(self) -> str:
        """The end of its log."""
        try:
            lines = self.controller_log.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
        except FileNotFoundError:
            lines = []
        return "\n".join([f"the end of {self.controller_log}:", *(f"  {line}" for line in lines or ["(nothing)"])])

    def snapshot(self) -> Snapshot:
        """What the database says now."""
        with self._replica() as replica:
            return replica.snapshot

    def hosts_behind(self) -> dict[str, int]:
        """Hosts whose switches do not hold yet what the database says -> how far each is."""
        with self._replica() as replica:
            return _behind(replica)

    def wait_applied(self, seconds: float = 120) -> None:
        """Wait until every host's switches hold what the database says.

        Raises:
            LabError: they do not after `seconds`, or the controller has ended.
        """
        with self._replica() as replica:
            settled = replica.wait_until(lambda: not _behind(replica) or not self.controller_runs, int(seconds * 1000))
            behind = _behind(replica)
        if not behind:
            return
        problem = "the controller has ended" if settled else f"waited {seconds:g} s for the controller"
        hosts = ", ".join(f"{name} (applied_seq {applied})" for name, applied in sorted(behind.items()))
        raise LabError(f"{problem}; not programmed yet: {hosts}\n{self.controller_says()}")

    @contextlib.contextmanager
    def _replica(self) -> Iterator[Replica]:
        columns = {table: (*names, *STATUS_COLUMNS.get(table, ())) for table, names in READ_COLUMNS.items()}
        replica = Replica(self.remote.split(","), columns)
        try:
            if not replica.wait_in_sync(5000):
                why = replica.refused or replica.session.error or "no answer"
                raise LabError(f"mapping database {self.remote}: {why}")
            yield replica
        finally:
            replica.session.close()


def _behind(replica: Replica) -> dict[str, int]:
    wanted = replica.snapshot.config_seq
    rows = replica.tables["Host"].values()
    return {row["name"]: row["applied_seq"] for row in rows if row["applied_seq"] < wanted}
