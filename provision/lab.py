"""Machines of the lab: a guest in a network namespace is on while its namespace is there.

`Host.bmc` is lab:NAME, where NAME is the lab's. The image is a program that the guest runs when it is turned on; with
none it only has the addresses that the mapping says.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from typing import Final

from mapping.model import Snapshot
from provision.machine import MachineError
from topo import bridges, netns, removal
from topo.guest import Guest
from topo.lab import Lab
from topo.spec import GuestSpec, LabError, guest_spec
from topo.waiting import wait_until

_SECONDS: Final = 30


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
        self._unfinished = f"{removal.prefix(lab)}off-{port}"
        """A namespace that is there from before the machine's is made until its program starts: one whose turning on
        was broken off is off, as nothing runs on it."""

    def is_on(self) -> bool:
        there = netns.names()
        return self._namespace in there and self._unfinished not in there

    def turn_on(self) -> None:
        if self.is_on():
            return
        try:
            self.turn_off()
            # The kernel takes a namespace's interfaces, and their other ends, away when it comes to it.
            wait_until(lambda: not self._has_device(), _SECONDS, f"device {self._device} to go")
            spec = self._spec()
            netns.add(self._unfinished)
            Guest(spec, self._namespace, self._host).create()
            # As any operating system does when it comes up, it asks where its router is.
            self._start(
                *([self._image] if self._image else ["ping", "-c", "1", str(spec.gateway or spec.gateway_ipv6)])
            )
            wait_until(self.is_on, _SECONDS, "its program to start")
        except (netns.CommandError, LabError, OSError) as error:  # TimeoutError is an OSError
            self.turn_off()
            raise MachineError(
                f"{self._what} cannot be turned on: {error}: look at the lab with `lockgate lab`"
            ) from None

    def turn_off(self) -> None:
        there = netns.names()
        netns.delete([name for name in (self._namespace, self._unfinished) if name in there])
        bridges.unplug(self._host.vsctl, self._device)

    def _has_device(self) -> bool:
        links = json.loads(netns.run(self._host.namespace, ["ip", "-json", "link"]))
        return any(link["ifname"] == self._device for link in links)

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
        on = ["sh", "-c", 'ip netns delete "$0" && exec "$@"', self._unfinished, *netns.inside(self._namespace, argv)]
        subprocess.run(["setsid", "--fork", *on], stdin=quiet, stdout=quiet, stderr=quiet, check=True)
