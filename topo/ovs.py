"""An Open vSwitch of one's own: ovsdb-server and ovs-vswitchd in a folder, in a network namespace if wanted.

Nothing of it touches the machine's own Open vSwitch: every socket, log, pid file and database is in the folder.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from topo import netns

SCHEMA = Path("/usr/share/openvswitch/vswitch.ovsschema")

_END_SECONDS: Final = 5


class OpenVSwitch:
    """`vswitchd_options` are for ovs-vswitchd, like "--enable-dummy=system"."""

    def __init__(self, folder: Path, namespace: str | None = None, vswitchd_options: Sequence[str] = ()) -> None:
        self.folder = folder
        self.namespace = namespace
        self._options = vswitchd_options
        self.env = dict.fromkeys(("OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"), str(folder))
        """With this in their environment the tools of Open vSwitch talk to this one."""
        self._database = f"unix:{folder}/db.sock"

    def start(self) -> None:
        """Start both processes on an empty database; bridges are made after this."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        database = self.folder / "conf.db"
        if not database.exists():
            self._run(["ovsdb-tool", "create", str(database), str(SCHEMA)])
        self._daemon("ovsdb-server", str(database), f"--remote=p{self._database}")
        self.vsctl("--no-wait", "init")
        self.start_vswitchd()

    def start_vswitchd(self) -> None:
        """Start ovs-vswitchd. It makes the bridges that the database has, without any flow."""
        self._daemon("ovs-vswitchd", self._database, *self._options)

    def stop(self) -> None:
        """Stop both processes."""
        self.stop_vswitchd()
        self._stop("ovsdb-server")

    def stop_vswitchd(self) -> None:
        """Stop ovs-vswitchd. Its flows, and the interfaces that it made (LOCAL ports), are gone."""
        self._stop("ovs-vswitchd")

    def running(self) -> bool:
        """Whether both processes run."""
        return all(pid_of(self.folder / f"{program}.pid") for program in ("ovsdb-server", "ovs-vswitchd"))

    def vsctl(self, *args: str) -> str:
        """ovs-vsctl, which waits until ovs-vswitchd has done it."""
        return self._run(["ovs-vsctl", "--timeout=50", *args])

    def ofctl(self, command: str, bridge: str, *args: str, stdin: str | None = None) -> str:
        """ovs-ofctl on a bridge, like `ofctl("dump-flows", "br-nic")`; tables and ports are shown by name."""
        options = ["--names", "--timeout=20", "-OOpenFlow15"]
        return self._run(["ovs-ofctl", *options, command, bridge, *args], stdin)

    def appctl(self, *args: str) -> str:
        """ovs-appctl on ovs-vswitchd, like `appctl("ofproto/trace", "br-nic", "in_port=1")`."""
        return self._run(["ovs-appctl", "--timeout=20", *args])

    def _daemon(self, program: str, *args: str) -> None:
        files = [f"--pidfile={self.folder}/{program}.pid", f"--log-file={self.folder}/{program}.log"]
        self._run([program, *args, *files, "--detach", "--no-chdir", "-vconsole:off"])

    def _stop(self, program: str) -> None:
        end(self.folder / f"{program}.pid")

    def _run(self, argv: Sequence[str], stdin: str | None = None) -> str:
        return netns.run(self.namespace, argv, env=os.environ | self.env, stdin=stdin)


def pid_of(pidfile: Path) -> int | None:
    """The process that wrote the file, if it still runs: one that has this file among its arguments."""
    try:
        pid = int(pidfile.read_text())
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return None
    return pid if os.fsencode(pidfile) in arguments else None


def end(pidfile: Path, how: signal.Signals = signal.SIGTERM) -> None:
    """End the process that wrote the file, and wait until it is gone; one that does not listen is killed."""
    for signum in (how, signal.SIGKILL):
        if pid := pid_of(pidfile):
            with contextlib.suppress(ProcessLookupError), _process(pid) as process:
                os.kill(pid, signum)
                # Ready once its last thread has ended: only then are its sockets closed.
                select.select([process], [], [], _END_SECONDS)


@contextlib.contextmanager
def _process(pid: int) -> Iterator[int]:
    process = os.pidfd_open(pid)
    try:
        yield process
    finally:
        os.close(process)
