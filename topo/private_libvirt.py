"""A libvirt that runs for one purpose alone, as root, without systemd.

For namespaces of its own for mounts and processes, in which the machine's own libvirt is not seen and not touched; when
the first process in there ends, so does this.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from topo import netns
from topo.waiting import wait_until

_PRIVATE: Final = ("etc/libvirt", "var/lib/libvirt", "var/log/libvirt", "var/cache/libvirt", "run/libvirt")
_LIBVIRTD: Final = 'auth_unix_rw = "none"\nmdns_adv = 0\n'
_QEMU: Final = """\
user = "root"
group = "root"
security_driver = "none"
dynamic_ownership = 0
remember_owner = 0
cgroup_controllers = []
namespaces = []
stdio_handler = "file"
"""
_SECONDS: Final = 60


def start(folder: Path, namespace: str | None = None) -> str:
    """Start it, with its files in a folder, in a network namespace; wait until it answers, and return its version.

    Raises:
        CommandError, TimeoutError: it does not start, or does not answer.
    """
    for place in _PRIVATE:
        own, there = folder / place, Path("/", place)
        own.mkdir(parents=True)
        there.mkdir(parents=True, exist_ok=True)
        netns.run(None, ["mount", "--bind", str(own), str(there)])
    Path("/etc/libvirt/libvirtd.conf").write_text(_LIBVIRTD)
    Path("/etc/libvirt/qemu.conf").write_text(_QEMU)
    netns.run(namespace, ["libvirtd", "--daemon", "--pid-file", "/run/libvirt/libvirtd.pid"])
    said = wait_until(_versions, _SECONDS, "libvirtd to answer")
    return ", ".join(
        line.partition(": ")[2] for line in said.splitlines() if line.startswith(("Using lib", "Running hy"))
    )


def virsh(*args: str) -> str:
    """What virsh prints for these words.

    Raises:
        CommandError: it fails: there is no such thing, or libvirtd does not answer.
    """
    return netns.run(None, ["virsh", "--quiet", "--connect", "qemu:///system", *args])


def _versions() -> str:
    try:
        return virsh("version", "--daemon")
    except netns.CommandError:
        return ""
