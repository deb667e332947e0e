"""Bare-metal hosts as virtual machines without hardware virtualisation: real kernels, and so the kernel's datapath.

    lg-NAME-net         substrate, control: a Linux bridge each, without any address
        |  |  (taps)
    host-1, host-2      QEMU: eth0 (ssh, user network), eth1 uplink, eth2 control network
        host-1 is the control machine, too

The machines boot the lab's box (vagrant/box.sh) and are made hosts by vagrant/provision.sh, as Vagrant's are. Their
disks are files without a name, and the machines end with the process that has started them, whatever becomes of it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

from topo import netns, removal
from topo.machine import SSH_OPTIONS, Machine
from topo.removal import FOLDER, undisturbed
from topo.spec import LabError
from topo.waiting import wait_until

T = TypeVar("T")

SUBSTRATE: Final = "substrate"
CONTROL: Final = "control"
FILES: Final = Path(__file__).parent.parent / ".venv"
BOX: Final = FILES / "box"
"""What vagrant/box.sh has made, at `make vagrant-box`."""
SHARE: Final = FILES / "lab"
"""What machines see, read-only, at /mnt: Lockgate's package, and the scripts of vagrant/."""
AS_OPERATOR: Final = "LOCKGATE_TLS=/etc/lockgate/tls/operator lockgate --db ssl:198.51.100.1:6641"
"""The command, as an operator runs it on the control machine."""
TLS: Final = "/root/tls"
"""Where a machine finds the archives of its certificates."""
_BOOT_SECONDS: Final = 600
_PORT: Final = 2200
_MEGABYTES: Final = 1024


class VmLab:
    """`machines` are those that are up, by name."""

    def __init__(self, name: str) -> None:
        self.namespace = f"{removal.prefix(name)}net"
        self.machines: dict[str, Machine] = {}
        self._name = name
        self._folder = FOLDER / name
        self._running: dict[str, subprocess.Popen[str]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with undisturbed():
            self.down()

    def up(self, count: int) -> None:
        """Start so many machines, and return when they let us in.

        Raises:
            LabError, CommandError: one does not come up.
        """
        self._folder.mkdir(mode=0o700, parents=True)
        key = self._folder / "key"
        shutil.copyfile(well_known_key(), key)
        key.chmod(0o600)
        netns.add(self.namespace)
        for bridge in (SUBSTRATE, CONTROL):
            netns.ip(self.namespace, f"link add dev {bridge} type bridge\nlink set dev {bridge} up")
        for number in range(1, count + 1):
            name = f"host-{number}"
            self._start(name, number)
            ssh = ["ssh", *SSH_OPTIONS, f"-i{key}", f"-p{_PORT + number}", "vagrant@127.0.0.1"]
            self.machines[name] = Machine(name, self.namespace, ssh, str(self._folder))
        make_certificates(self._folder / "tls", count)
        self.on_all(self._wait)

    def put_certificates(self, machine: Machine) -> None:
        """Give a machine what it needs to prove who it is: host-1 is the control machine, too."""
        machine.run(f"mkdir -p -m 700 {TLS}")
        for name in (machine.name, "control") if machine.name == "host-1" else (machine.name,):
            machine.put(self._folder / "tls" / f"{name}.tar", f"{TLS}/{name}.tar")

    def on_all(self, work: Callable[[Machine], T]) -> list[T]:
        """Do something on all machines at once, and return what it returns, in their order."""
        with ThreadPoolExecutor() as pool:
            try:
                return list(pool.map(work, self.machines.values()))
            except BaseException:
                # Leaving the pool waits for what is under way on the others, and that ends with them.
                self._kill()
                raise

    def down(self) -> None:
        """End the machines, and remove all that was made."""
        self._kill()
        for process in self._running.values():
            process.wait()
            if process.stdout:
                process.stdout.close()
        self._running = {}
        self.machines = {}
        removal.remove(self._name)

    def _kill(self) -> None:
        for process in self._running.values():
            process.kill()

    def _start(self, name: str, number: int) -> None:
        nics = []
        for index, bridge in enumerate((SUBSTRATE, CONTROL), 1):
            tap = f"{bridge[:3]}{number}"
            netns.ip(
                self.namespace,
                f"tuntap add dev {tap} mode tap\nlink set dev {tap} master {bridge}\nlink set dev {tap} up",
            )
            nics += ["-netdev", f"tap,id=n{index},ifname={tap},script=no,downscript=no"]
            nics += ["-device", f"virtio-net-pci,netdev=n{index},mac=52:54:00:00:0{index}:{number:02x}"]
        argv = [
            # It ends with us, even if we are killed.
            *("setpriv", "--pdeathsig", "KILL"),
            *("qemu-system-x86_64", "-name", name),
            # A /dev/kvm that is there need not work. Of the processors that are emulated this one is the fastest.
            *("-accel", "tcg,thread=multi,tb-size=256", "-cpu", "qemu64"),
            *("-m", str(_MEGABYTES), "-display", "none", "-vga", "none", "-monitor", "none", "-nodefaults"),
            *("-serial", f"file:{self._folder}/{name}.log"),
            *("-kernel", str(BOX / "vmlinuz"), "-initrd", str(BOX / "initrd.img")),
            *("-append", "root=LABEL=root ro console=ttyS0 net.ifnames=0 quiet mitigations=off"),
            # What it writes goes to a file that has no name any more.
            *("-drive", f"file={BOX}/box.img,if=virtio,format=qcow2,snapshot=on,cache=unsafe"),
            *("-drive", f"file=fat:{SHARE},if=virtio,format=raw,readonly=on"),
            *("-device", "virtio-rng-pci"),
            # Only for us to log in: nothing leads out.
            *("-netdev", f"user,id=n0,restrict=on,hostfwd=tcp:127.0.0.1:{_PORT + number}-:22"),
            *("-device", f"virtio-net-pci,netdev=n0,mac=52:54:00:00:00:{number:02x}"),
            *nics,
        ]
        self._running[name] = netns.popen(self.namespace, argv)

    def _wait(self, machine: Machine) -> None:
        process = self._running[machine.name]

        def there() -> bool:
            return process.poll() is not None or machine.answers()

        try:
            wait_until(there, _BOOT_SECONDS, f"{machine.name} to boot")
        except TimeoutError as error:
            console = (self._folder / f"{machine.name}.log").read_text(errors="replace")
            raise LabError(f"{error}; its console: {console[-2000:]}") from error
        if process.poll() is not None:
            said = process.stdout.read().strip() if process.stdout else ""
            raise LabError(f"{machine.name}: QEMU has ended: {said or f'exit status {process.returncode}'}")
        machine.run("mount -o ro /dev/vdb1 /mnt")


def make_certificates(folder: Path, count: int) -> None:
    """Make an archive of certificates for each machine of a lab of so many hosts: `folder`/MACHINE.tar."""
    env = os.environ | {"LOCKGATE": str(Path(sys.executable).with_name("lockgate"))}
    script = Path(__file__).parent.parent / "vagrant" / "certificates.sh"
    netns.run(None, [str(script), str(folder), str(count)], env=env, seconds=300)


def well_known_key() -> Path:
    """The key that lets anyone into a box of Vagrant's, which therefore is no secret."""
    found = sorted(Path("/usr/share").glob("**/vagrant-*/keys/vagrant"))
    if not found:
        raise LabError("Vagrant's well-known key: not found: install vagrant")
    return found[0]
