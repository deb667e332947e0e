"""The control network of the lab: the mapping database and ryu-manager, in a network namespace of their own."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path

from mapping import service
from mapping.model import Snapshot
from mapping.replica import Replica
from mapping.rows import READ_COLUMNS, STATUS_COLUMNS
from topo import netns
from topo.members import Members
from topo.ovs import end, pid_of
from topo.ryu_manager import RyuManager
from topo.spec import CONTROL_IP, CONTROL_NETWORK, DATABASE_PORT, LabError


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
        self.controller = RyuManager(namespace, folder, self.members)
        self._database_pid = folder / "mapping.pid"

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
    def database_runs(self) -> bool:
        """Whether the database's process is there."""
        if self.members:
            return any(member.runs for member in self.members.all)
        return pid_of(self._database_pid) is not None

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
            settled = replica.wait_until(lambda: not _behind(replica) or not self.controller.runs, int(seconds * 1000))
            behind = _behind(replica)
        if not behind:
            return
        problem = "the controller has ended" if settled else f"waited {seconds:g} s for the controller"
        hosts = ", ".join(f"{name} (applied_seq {applied})" for name, applied in sorted(behind.items()))
        raise LabError(f"{problem}; not programmed yet: {hosts}\n{self.controller.says()}")

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
