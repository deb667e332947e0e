"""Stock programs that configure a guest, run as a distribution would run them; nothing of the machine's own is touched.

Each sees a copy of /etc, and a /run of its own: they are made in the mount namespace that `ip netns exec` gives every
program.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from topo.guest import PORT, Guest
from topo.waiting import wait_until

_PRIVATE = """
set -e
mount -t tmpfs tmpfs /mnt
cp -a /etc /mnt/etc
mount --bind /mnt/etc /etc
mount -t tmpfs tmpfs /run
mount -o remount,ro,bind /sys  # by which systemd knows that there is no udev to wait for
"""


class Client:
    """A program that configures a guest, and goes on."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def read(self, path: str) -> str:
        """A file as the program sees it; empty while there is none."""
        file = Path(f"/proc/{self._process.pid}/root{path}")
        return file.read_text() if file.exists() else ""


@contextmanager
def run(guest: Guest, setup: str, program: str) -> Iterator[Client]:
    """Run a program in a guest that has lost all its addresses. What it did stays until the next one is run."""
    forget(guest)
    with guest.popen(["sh", "-c", f"{_PRIVATE}{setup}\nexec {program}"]) as process:
        try:
            yield Client(process)
        except BaseException as error:
            process.kill()
            error.add_note(process.communicate(timeout=10)[0])
            raise
        finally:
            process.kill()


def forget(guest: Guest) -> None:
    """Let the guest be as one that has just started: with a link-local address, and any card's MTU."""
    for command in (
        ["ip", "link", "set", "dev", PORT, "down"],
        ["ip", "addr", "flush", "dev", PORT],
        # systemd-networkd listens for routers by itself, and leaves it at that.
        ["sysctl", "-q", f"net.ipv6.conf.{PORT}.accept_ra=1"],
        ["ip", "link", "set", "dev", PORT, "mtu", "1500", "up"],
    ):
        guest.run(command)
    wait_until(lambda: _has_link_local(guest), 10, "the kernel to know that nobody has its link-local address")


def _has_link_local(guest: Guest) -> bool:
    shown = guest.run(["ip", "-6", "addr", "show", "dev", PORT])
    return "fe80::" in shown and "tentative" not in shown


def addresses(guest: Guest, family: int = 4) -> dict[str, int]:
    """Each address with its prefix, and how many seconds it is good for."""
    return {
        f"{each['local']}/{each['prefixlen']}": each["valid_life_time"]
        for link in _ip(guest, "addr", "show", "dev", PORT, family=family)
        for each in link["addr_info"]
        if each["scope"] == "global"
    }


def routes(guest: Guest, family: int = 4) -> dict[str, str]:
    """Destination -> router; none where it is on the link."""
    return {each["dst"]: each.get("gateway", "") for each in _ip(guest, "route", "show", family=family)}


def mtu(guest: Guest) -> int:
    """The MTU of the guest's port."""
    return int(_ip(guest, "link", "show", "dev", PORT)[0]["mtu"])


def _ip(guest: Guest, *words: str, family: int = 4) -> list[Any]:
    read = json.loads(guest.run(["ip", f"-{family}", "-j", *words]) or "[]")
    return [each for each in read if each]
