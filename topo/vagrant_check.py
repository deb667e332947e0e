"""`make vagrant-test`: the real `vagrant up` of a control machine and two hosts, what it should do, and what it leaves.

libvirt runs for this alone, in namespaces of its own for network, mounts and processes: this machine's own libvirt and
networks are not touched, and when the first process in there ends, however it does, all others end with it.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from topo import netns, private_libvirt, removal
from topo.machine import SSH_OPTIONS, Machine
from topo.vm_lab import AS_OPERATOR, BOX, FILES, SHARE, make_certificates

ROOT: Final = Path(__file__).parent.parent
_MACHINES: Final = ("control", "host-1", "host-2")
_HOUR: Final = 3600
_STARTED: Final = time.monotonic()
_STUB: Final = "#!/bin/sh\necho 7.0.0r0\n"


class _WrongError(RuntimeError):
    """Something is not as promised."""


def main() -> int:
    """Make the namespaces, and in them the check. Exit status 1 if anything is not as promised, 130 if interrupted."""
    # Whoever tells it to end wants it to end its machines first, as with Ctrl-C.
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.default_int_handler)
    name = f"vagrant{os.getpid()}"
    namespace = f"{removal.prefix(name)}net"
    folder = (FILES / name).absolute()
    try:
        folder.mkdir(mode=0o700, parents=True)
        netns.add(namespace)
        command = [
            *("setpriv", "--pdeathsig", "KILL"),
            *("unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"),
            # The first process has to take up those whose parents have ended, as a shell does: libvirt waits for it.
            *("bash", "-c", '"$@"; exit $?', "init"),
            *(sys.executable, "-m", "topo.vagrant_check", str(folder)),
        ]
        return subprocess.run(netns.inside(namespace, command), check=False, cwd=ROOT).returncode
    except KeyboardInterrupt:
        return 130
    finally:
        with removal.undisturbed():
            removal.remove(name)
            shutil.rmtree(folder, ignore_errors=True)


def check(folder: Path) -> int:
    """What is done in the namespaces."""
    report = Report()
    try:
        report.versions.append(private_libvirt.start(folder))
        _say(f"libvirtd runs, for this alone: {report.versions[0]}")
        make_certificates(folder / "tls", 2)
        vagrant = _Vagrant(folder)
        report.versions.append(", ".join([vagrant.run("--version").strip(), *_plugin(vagrant)]))
        with report.stage("vagrant validate, for libvirt and VirtualBox"):
            _validate(vagrant, folder)
        with report.stage("vagrant up: control, host-1, host-2"):
            vagrant.run("up", "--no-parallel")
        machines = vagrant.machines()
        report.versions += _versions_in(machines["host-1"])
        with report.stage("guests on both hosts reach each other"):
            _guests_reach_each_other(machines)
        with report.stage("vagrant provision, which changes nothing"):
            _provision_again(vagrant)
        with report.stage("the demonstration's checks, in namespaces of host-1"):
            _whole_demonstration_in(machines["host-1"], folder)
        with report.stage("vagrant destroy, which leaves the box alone"):
            _destroy(vagrant)
    except KeyboardInterrupt:
        return 130
    except (_WrongError, netns.CommandError, TimeoutError) as error:
        print(f"\n{report}\nNot as promised: {error}", file=sys.stderr)
        return 1
    print(f"\n{report}\nAs promised: all of it.")
    return 0


class Report:
    """What was done, how long each of it took, and of which versions: printed as it may stand in a document."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.versions: list[str] = []
        self._clock = clock
        self._stages: list[tuple[str, float]] = []

    @contextlib.contextmanager
    def stage(self, what: str) -> Iterator[None]:
        """Whatever is done in here, until it ends or fails."""
        begun = self._clock()
        _say(what)
        try:
            yield
        finally:
            self._stages.append((what, self._clock() - begun))

    def __str__(self) -> str:
        """The stages in order, with seconds, and then the versions."""
        rows = [*self._stages, ("all of it", sum(seconds for _, seconds in self._stages))]
        return "\n".join([*(f"{seconds:6.0f} s  {what}" for what, seconds in rows), "", *self.versions])


def _plugin(vagrant: _Vagrant) -> list[str]:
    return [
        f"vagrant-libvirt {version}"
        for version in re.findall(r"vagrant-libvirt \((\S+),", vagrant.run("plugin", "list"))
    ]


def _versions_in(machine: Machine) -> list[str]:
    commands = ("uname -sr", "ovs-vsctl --version | head -n 1", "dpkg-query --show lockgate", "python3 --version")
    return [f"{machine.name}: " + ", ".join(" ".join(machine.run(command).split()) for command in commands)]


def _say(text: str) -> None:
    print(f"{time.monotonic() - _STARTED:7.1f} s  {text}", flush=True)


class _Vagrant:
    """Vagrant with all its state in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {key: value for key, value in os.environ.items() if key != "LIBVIRT_DEFAULT_URI"} | {
            "VAGRANT_HOME": str(folder / "home"),
            "VAGRANT_DOTFILE_PATH": str(folder / "dot"),
            "VAGRANT_CWD": str(ROOT / "vagrant"),
            "VAGRANT_CHECKPOINT_DISABLE": "1",
            "VAGRANT_DEFAULT_PROVIDER": "libvirt",
            "LOCKGATE_DEB": str((SHARE / "lockgate.deb").absolute()),
            "LOCKGATE_VAGRANT_TLS": str(folder / "tls"),
            "LOCKGATE_VAGRANT_BOX": str((BOX / "lockgate.box").absolute()),
            # A /dev/kvm that is there need not work.
            "LOCKGATE_VAGRANT_DRIVER": os.environ.get("LOCKGATE_VAGRANT_DRIVER", "qemu"),
            "LOCKGATE_VAGRANT_CPU": os.environ.get("LOCKGATE_VAGRANT_CPU", "qemu64"),
        }

    def run(self, *args: str, **env: str) -> str:
        """Run it, show what it says, and return that.

        Raises:
            _WrongError: it failed.
        """
        said = []
        with subprocess.Popen(
            ["vagrant", *args],
            env=self.env | env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            for line in process.stdout or ():
                said.append(line)
                _say(line.rstrip())
        if process.returncode:
            raise _WrongError(f"vagrant {' '.join(args)}: exit status {process.returncode}")
        return "".join(said)

    def machines(self) -> dict[str, Machine]:
        """The machines that are up, by name."""
        found = {}
        for name in _MACHINES:
            said = subprocess.run(
                ["vagrant", "ssh-config", name], env=self.env, capture_output=True, text=True, check=True
            ).stdout
            config = dict(re.findall(r"^  (\w+) (.*)$", said, re.MULTILINE))
            ssh = ["ssh", *SSH_OPTIONS, f"-i{config['IdentityFile']}", f"-p{config['Port']}"]
            found[name] = Machine(name, None, [*ssh, f"{config['User']}@{config['HostName']}"], str(self.folder))
        return found


def _validate(vagrant: _Vagrant, folder: Path) -> None:
    vagrant.run("validate")
    # Vagrant checks the block of the provider that it is to use, and asks that one for its version.
    stubs = folder / "bin"
    stubs.mkdir()
    (stubs / "VBoxManage").write_text(_STUB)
    (stubs / "VBoxManage").chmod(0o755)
    vagrant.run("validate", VAGRANT_DEFAULT_PROVIDER="virtualbox", PATH=f"{stubs}:{os.environ['PATH']}")


def _guests_reach_each_other(machines: dict[str, Machine]) -> None:
    one = machines["host-1"]
    _expect("datapath of br-nic", "system", one.run("ovs-vsctl get Bridge br-nic datapath_type").strip())
    for guest, target in (("blue-1", "10.0.0.12"), ("blue-1", "fd00:5001::12"), ("green-1", "10.0.0.12")):
        _expect(f"{guest} to {target}: of 5 pings answered", 5, one.pings(guest, target, 5))
    pushes = [flow for flow in one.run("ovs-dpctl dump-flows").splitlines() if "set(tunnel(tun_id=0x1389" in flow]
    _say(f"a flow of the kernel: {pushes[0] if pushes else 'none'}")
    _expect("the kernel has a flow that pushes", True, bool(pushes))
    status = machines["control"].run(f"{AS_OPERATOR} status", seconds=300)
    print(status)


def _expect(what: str, wanted: object, found: object) -> None:
    _say(f"{what}: {found}")
    if wanted != found:
        raise _WrongError(f"{what}: {found}; expected: {wanted}")


def _provision_again(vagrant: _Vagrant) -> None:
    said = vagrant.run("provision")
    _expect("provisioning again: changes", [], re.findall(r"changed: .*", said))
    _expect("provisioning again: steps that changed nothing", 2 * len(_MACHINES), said.count("nothing changed"))


def _whole_demonstration_in(machine: Machine, folder: Path) -> None:
    """Its hosts are namespaces of one machine, and the kernel is the datapath of each."""
    archive = folder / "lockgate.tar"
    netns.run(None, ["tar", "cf", str(archive), "-C", str(ROOT), *_FOLDERS])
    machine.put(archive, "/root/lockgate.tar")
    machine.run("mkdir -p /root/lockgate && tar xf /root/lockgate.tar -C /root/lockgate --no-same-owner")
    where = "LOCKGATE_DATAPATH=system PYTHONPATH=/root/lockgate"
    print(machine.run(f"cd /root/lockgate && {where} /opt/lockgate/bin/python3 -m topo.demo 2>&1", seconds=_HOUR))


_FOLDERS: Final = ("controller", "explain", "flows", "mapping", "topo", "examples")


def _destroy(vagrant: _Vagrant) -> None:
    machines, networks, disks, boxes = _listed()
    # What is not seen now would not be missed afterwards.
    _expect("machines", len(_MACHINES), len(machines))
    _expect("networks of the lab", ["lockgate-control", "lockgate-substrate"], [n for n in networks if "lockgate" in n])
    _expect("disks of machines", True, len(disks) >= len(_MACHINES))
    _expect("disks of the box", 1, len(boxes))
    vagrant.run("destroy", "--force")
    _expect("what is left, but for the box", ([], [], [], boxes), _listed())


def _listed() -> tuple[list[str], list[str], list[str], list[str]]:
    """What libvirt has of Vagrant's machines: these, networks, disks; and disks of boxes.

    Raises:
        CommandError: libvirt does not answer.
    """
    machines = private_libvirt.virsh("list", "--all", "--name").split()
    networks = private_libvirt.virsh("net-list", "--all", "--name").split()
    volumes = [line.split()[0] for line in private_libvirt.virsh("vol-list", "default").splitlines() if line.strip()]
    return (
        machines,
        sorted(name for name in networks if name.startswith(("lockgate", "vagrant"))),
        [name for name in volumes if "_vagrant_box_image_" not in name],
        [name for name in volumes if "_vagrant_box_image_" in name],
    )


if __name__ == "__main__":
    sys.exit(check(Path(sys.argv[1])) if len(sys.argv) > 1 else main())
