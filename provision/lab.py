"""Machines of the lab: a guest in a network namespace is on while its namespace is there.

`Host.bmc` is lab:NAME, where NAME is the lab's. The image is a program that the guest runs when it is turned on; with
none it only has the addresses that the mapping says.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable

from mapping.model import Snapshot
from provision.machine import MachineError
from topo import bridges, netns, removal
from topo.guest import Guest
from topo.lab import Lab
from topo.spec import GuestSpec, LabError, guest_spec


class LabMachine:
    """The machine of a host of the lab, for the guest of `port`. `snapshot` reads the database."""

    def __init__(self, host: str, lab: str, port: str, device: str, snapshot: Callable[[], Snapshot]) -> None:
        self._what = f"machine {host} of lab {lab}"
        self._port = port
        self._device = device
        self._snapshot = snapshot
        self._image = ""
        if os.geteuid():
            raise MachineError(f"{self._what}: a lab needs root: run it with sudo")
        try:
            self._host = Lab(lab).hosts[host]
        except (KeyError, LabError):
            raise MachineError(f"{self._what}: there is no such lab: `lockgate lab up -n {lab}`") from None
        self._namespace = f"{removal.prefix(lab)}g-{port}"

    def is_on(self) -> bool:
        return self._namespace in netns.names()

    def turn_on(self) -> None:
        if self.is_on():
            return
        try:
            spec = self._spec()
            Guest(spec, self._namespace, self._host).create()
            # As any operating system does when it comes up, it asks where its router is.
            self._start(
                *([self._image] if self._image else ["ping", "-c", "1", str(spec.gateway or spec.gateway_ipv6)])
            )
        except (netns.CommandError, LabError, OSError) as error:
            self.turn_off()
            raise MachineError(
                f"{self._what} cannot be turned on: {error}: look at the lab with `lockgate lab`"
            ) from None

    def turn_off(self) -> None:
        if self.is_on():
            netns.delete([self._namespace])
        bridges.unplug(self._host.vsctl, self._device)

    def boot_from(self, image: str) -> None:
        if image and not os.access(image, os.X_OK):
            raise MachineError(f"{self._what} cannot boot {image}: name a program that can be run")
        self._image = image

    def eject(self) -> None:
        self._image = ""

    def _spec(self) -> GuestSpec:
        snapshot = self._snapshot()
        port = next(each for each in snapshot.ports.values() if each.name == self._port)
        return guest_spec(snapshot, port, self._host.name)

    def _start(self, *argv: str) -> None:
        quiet = subprocess.DEVNULL
        command = netns.inside(self._namespace, ["setsid", "--fork", *argv])
        subprocess.run(command, stdin=quiet, stdout=quiet, stderr=quiet, check=True)
