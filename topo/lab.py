r"""The lab: bare-metal hosts in network namespaces, each with its own Open vSwitch, between two networks.

    lg-LAB-control     br0 198.51.100.1: mapping database, ryu-manager
       |  |  (mgmt)
    lg-LAB-h-HOST      br-ctl | br-nic, br-guest        one per host of the mapping
       |  |  (uplink)      \_ device - eth0  lg-LAB-g-PORT   one per port that has a host
    lg-LAB-substrate   br0

The two networks share nothing: no interface, no address, no route. Every interface is made inside a namespace, so
nothing of a lab is ever seen on the machine's own network, and labs of different names stand side by side.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from topo import netns, removal
from topo.control import Control
from topo.guest import Guest
from topo.host import Host
from topo.removal import FOLDER, undisturbed
from topo.spec import LabError, Spec

DEFAULT: Final = "lab"
_NAME: Final = re.compile(r"[a-z0-9]{1,16}")

Say = Callable[[str], None]


class Lab:
    """A lab by name. It need not exist: `up` makes it, `down` removes it, and `state` says how things are."""

    def __init__(self, name: str = DEFAULT, say: Say = lambda _: None, *, secure: bool = False) -> None:
        # No sign in it: then no lab's prefix is the beginning of another's.
        if not _NAME.fullmatch(name):
            raise LabError(f"lab name {name!r}: use 1 to 16 lower case letters and digits")
        self.name = name
        self.folder = FOLDER / name
        self.prefix = removal.prefix(name)
        self.substrate = f"{self.prefix}substrate"
        self.control = Control(f"{self.prefix}control", self.folder, secure=secure)
        self.hosts: dict[str, Host] = {}
        self.guests: dict[str, Guest] = {}
        self._say = say
        # Written last: there is one when the lab is whole.
        self._spec_file = self.folder / "lab.json"
        with contextlib.suppress(FileNotFoundError, PermissionError):
            self._take(Spec.from_json(self._spec_file.read_text()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with undisturbed():
            self.down()

    def host(self, name: str) -> Host:
        """A host by its name in the mapping."""
        return self.hosts[name]

    def guest(self, port: str) -> Guest:
        """A guest by its port's name in the mapping."""
        return self.guests[port]

    @property
    def state(self) -> str:
        """One of "down", "up" and "broken": begun and not finished, or something of it has died."""
        if not self.folder.exists() and not netns.names(self.prefix):
            return "down"
        members = self.control.members.all if self.control.members else []
        wanted = {
            self.substrate,
            self.control.namespace,
            *(member.namespace for member in members),
            *(node.namespace for node in self._nodes()),
        }
        alive = self.control.database_runs and all(host.ovs.running() for host in self.hosts.values())
        whole = self._spec_file.exists() and wanted <= set(netns.names(self.prefix))
        return "up" if whole and alive else "broken"

    def up(self, file: Path, *, controller: bool = True) -> None:
        """Make the lab that a mapping file describes. One that is up is kept when that is what it is already.

        A file that the database refuses changes nothing about a lab that is up.

        Raises:
            LabError, CommandError, MappingError: it could not be made, and nothing is left of it.
        """
        if os.geteuid():
            raise LabError("a lab needs root")
        state = self.state
        if state == "up":
            self._apply(file)
            if Spec.of(self.control.snapshot()) == self._spec():
                self._say(f"lab {self.name} is up already")
                self._start_controller(controller)
                return
            self._say(f"{file} describes another lab than the one that is up: making it anew")
        elif state == "broken":
            self._say(f"lab {self.name} is broken: making it anew")
        self.down()
        try:
            self._build(file)
            self._start_controller(controller)
        except BaseException:
            self._say("failed: removing what was made")
            with undisturbed():
                self.down()
            raise

    def down(self) -> None:
        """Remove every trace of a lab of this name, whatever state it is in, and whoever made it."""
        removal.remove(self.name)
        self.hosts, self.guests = {}, {}

    def start_controller(self) -> None:
        """Start ryu-manager, and wait until every host is programmed."""
        self.control.controller.start()
        self.control.wait_applied()

    def kill_controller(self) -> None:
        """Kill ryu-manager (SIGKILL)."""
        self.control.controller.kill()

    def start_database(self) -> None:
        """Start the mapping database again."""
        self.control.start_database()

    def kill_database(self) -> None:
        """Kill the mapping database (SIGKILL)."""
        self.control.kill_database()

    def status(self) -> dict[str, Any]:
        """How the lab is, as data."""
        state = self.state
        behind: dict[str, int] | None = None
        if self.control.database_runs:
            with contextlib.suppress(LabError):
                behind = self.control.hosts_behind()
        return {
            "lab": self.name,
            "state": state,
            "folder": str(self.folder),
            "database": self.control.remote if self.control.database_runs else None,
            "controller": self.control.controller.runs,
            "hosts": [
                {
                    "name": host.name,
                    "namespace": host.namespace,
                    "vtep": host.spec.vtep,
                    "control": host.spec.control,
                    "switch": host.ovs.running(),
                    "programmed": behind is not None and host.name not in behind,
                }
                for host in self.hosts.values()
            ],
            "guests": [
                {
                    "name": guest.name,
                    "namespace": guest.namespace,
                    "vpc": guest.spec.vpc,
                    "host": guest.host.name,
                    "mac": guest.spec.mac,
                    "addresses": guest.spec.addresses,
                    "filtered": guest.filtered(),
                }
                for guest in self.guests.values()
            ],
        }

    def command(self, name: str, argv: list[str]) -> tuple[list[str], dict[str, str]]:
        """What runs `argv` in a guest, a host, "control" or "substrate", and what to add to its environment."""
        nodes = {"substrate": self.substrate, "control": self.control.namespace}
        nodes |= {node.name: node.namespace for node in self._nodes()}
        if name not in nodes:
            raise LabError(f"lab {self.name} has no {name!r}; it has: {', '.join(nodes) if self.hosts else 'nothing'}")
        env = {"LOCKGATE_DB": self.control.remote} if name == "control" else {}
        if nodes[name] == f"{self.prefix}h-{name}":
            env = self.hosts[name].ovs.env
        return netns.inside(nodes[name], argv), env

    def _build(self, file: Path) -> None:
        self.folder.mkdir(mode=0o700, parents=True)
        self.control.create()
        self.control.start_database()
        self._say(f"mapping database: {self.control.remote}")
        self._apply(file)
        spec = Spec.of(self.control.snapshot())
        netns.add(self.substrate)
        netns.ip(self.substrate, f"link add dev br0 mtu {spec.substrate_mtu} type bridge\nlink set dev br0 up")
        self._take(spec)
        for host in self.hosts.values():
            host.create(self.substrate, self.control.namespace, spec.substrate_mtu)
            self._say(f"host {host.name}: VTEP {host.spec.vtep}, control {host.spec.control}")
        for guest in self.guests.values():
            guest.create()
            self._say(f"guest {guest.name} on {guest.spec.host}: {', '.join(guest.spec.addresses)} ({guest.spec.vpc})")
        self._spec_file.write_text(spec.to_json())

    def _apply(self, file: Path) -> None:
        argv = [sys.executable, "-m", "mapping.cli", "--db", self.control.remote, "apply", "--prune", "-f", str(file)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode:
            raise LabError((done.stderr or done.stdout).strip())
        self._say(f"{file} applied")

    def _start_controller(self, wanted: bool) -> None:
        if not wanted:
            return
        if not self.control.controller.runs:
            self.control.controller.start()
            self._say("ryu-manager runs; waiting until it has programmed every host")
        self.control.wait_applied()
        self._say("every host is programmed")

    def _spec(self) -> Spec | None:
        return Spec.from_json(self._spec_file.read_text()) if self._spec_file.exists() else None

    def _take(self, spec: Spec) -> None:
        self.hosts = {
            host.name: Host(
                host,
                f"{self.prefix}h-{host.name}",
                self.folder / "hosts" / host.name,
                self.control.controller.target,
                partial(self.control.tls, "host", host.name),
            )
            for host in spec.hosts
        }
        self.guests = {
            guest.name: Guest(guest, f"{self.prefix}g-{guest.name}", self.hosts[guest.host]) for guest in spec.guests
        }

    def _nodes(self) -> list[Host | Guest]:
        return [*self.hosts.values(), *self.guests.values()]
