"""A machine with a BMC: libvirt runs it under software emulation, and sushy-emulator speaks Redfish for it, over HTTPS.

libvirt and the emulator run for the test alone, in a namespace of their own for mounts and processes: all of them end
when the first process in there does. The machine is plugged by a tap in its host's network namespace; the emulator
listens on the control network.
"""

from __future__ import annotations

import os
import secrets
import shlex
import signal
import subprocess
import sys
import textwrap
from contextlib import suppress
from pathlib import Path
from typing import Final

from topo import netns
from topo.host import Host
from topo.spec import CONTROL_IP
from topo.waiting import wait_until

PORT: Final = 8443
TAP: Final = "web"
"""The machine's device on br-guest."""
UUID: Final = "6c6f636b-6761-7465-2d62-6d632d746573"
_DOMAIN: Final = """\
<domain type='qemu'>
  <name>machine</name><uuid>{uuid}</uuid>
  <memory unit='MiB'>256</memory><vcpu>1</vcpu>
  <cpu mode='custom' match='exact'><model>qemu64</model></cpu>
  <os><type arch='x86_64' machine='pc'>hvm</type><boot dev='hd'/></os>
  <features><acpi/></features>
  <devices>
    <interface type='ethernet'>
      <mac address='{mac}'/><target dev='{tap}' managed='no'/><model type='virtio'/>
      <driver name='qemu'><host csum='off' gso='off' tso4='off' tso6='off' ecn='off' ufo='off'/></driver>
    </interface>
    <serial type='file'><source path='{console}'/><target port='0'/></serial>
    <memballoon model='none'/>
  </devices>
</domain>
"""
_CONFIG: Final = """\
SUSHY_EMULATOR_LISTEN_IP = {ip!r}
SUSHY_EMULATOR_LISTEN_PORT = {port}
SUSHY_EMULATOR_SSL_CERT = {cert!r}
SUSHY_EMULATOR_SSL_KEY = {key!r}
SUSHY_EMULATOR_AUTH_FILE = {auth!r}
SUSHY_EMULATOR_LIBVIRT_URI = "qemu:///system"
SUSHY_EMULATOR_STATE_DIR = {state!r}
SUSHY_EMULATOR_VMEDIA_VERIFY_SSL = False
"""


class Emulator:
    """The machine of `host`, with this MAC. Its BMC is in the namespace of the control network."""

    def __init__(self, folder: Path, host: Host, namespace: str, mac: str) -> None:
        self.folder = folder
        self.user, self.password = "lockgate", secrets.token_urlsafe(12)
        self.url = f"https://{CONTROL_IP}:{PORT}/redfish/v1/Systems/{UUID}"
        self.ca = folder / "bmc.pem"
        self.console = folder / "console.log"
        self._host = host
        self._namespace = namespace
        self._ip = str(CONTROL_IP)
        self._mac = mac
        self._tap = TAP
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start libvirt, the emulator, and define the machine, which is off."""
        domain = _DOMAIN.format(uuid=UUID, mac=self._mac, tap=self._tap, console=self.console)
        (self.folder / "domain.xml").write_text(domain)
        self._certificate()
        self._passwords()
        config = _CONFIG.format(
            ip=self._ip,
            port=PORT,
            cert=str(self.ca),
            key=str(self.folder / "bmc.key"),
            auth=str(self.folder / "htpasswd"),
            state=str(self.folder / "state"),
        )
        (self.folder / "emulator.conf").write_text(config)
        netns.ip(self._host.namespace, f"tuntap add dev {self._tap} mode tap\nlink set dev {self._tap} up")
        libvirt = "from pathlib import Path; from topo import private_libvirt; "
        libvirt += f"private_libvirt.start(Path({str(self.folder)!r}), {self._host.namespace!r})"
        emulator = Path(sys.prefix, "emulator/bin/sushy-emulator")
        script = textwrap.dedent(f"""\
            set -e
            {sys.executable} -c {shlex.quote(libvirt)}
            virsh -q pool-define-as default dir --target /var/lib/libvirt/images
            virsh -q pool-build default
            virsh -q pool-start default
            virsh -q define {self.folder / "domain.xml"}
            exec ip netns exec {self._namespace} {emulator} --config {self.folder / "emulator.conf"}
            """)
        # However this run ends, so does all of it.
        argv = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--propagation", "private"]
        argv += ["--pid", "--fork", "--kill-child", "--mount-proc"]
        with (self.folder / "emulator.log").open("ab") as log:
            self._process = subprocess.Popen([*argv, "bash", "-c", script], stdout=log, stderr=log)
        try:
            wait_until(self.answers, 180, "the emulator to answer")
        except TimeoutError:
            raise AssertionError(self.log) from None

    def stop(self) -> None:
        """End all of it."""
        if self._process:
            self._process.kill()
            self._process.wait(60)

    def signal(self, how: signal.Signals) -> None:
        """Send a signal to every emulator process: SIGSTOP makes a BMC that does not answer."""
        for pid in self._emulators():
            os.kill(pid, how)

    @property
    def log(self) -> str:
        """What all of it wrote."""
        return (self.folder / "emulator.log").read_text()

    @property
    def starts(self) -> int:
        """How often the machine has been started."""
        return (self.folder / "var/log/libvirt/qemu/machine.log").read_text().count("starting up")

    def _emulators(self) -> list[int]:
        return [pid for pid in netns.pids([self._namespace]) if b"sushy-emulator" in _command(pid)]

    def turn_on(self, url: str) -> None:
        """As a person at the machine would: a CD is put in, and the button pressed."""
        self._redfish("POST", "/VirtualMedia/Cd/Actions/VirtualMedia.InsertMedia", f'{{"Image": "{url}"}}')
        boot = '{"Boot": {"BootSourceOverrideTarget": "Cd", "BootSourceOverrideEnabled": "Continuous"}}'
        self._redfish("PATCH", "", boot)
        self._redfish("POST", "/Actions/ComputerSystem.Reset", '{"ResetType": "On"}')

    def _redfish(self, method: str, path: str, body: str) -> None:
        words = ["-s", "-f", "-X", method, "-H", "Content-Type: application/json", "-d", body, "--cacert", str(self.ca)]
        # From standard input: nobody's list of processes shows it.
        user = f'user = "{self.user}:{self.password}"'
        netns.run(self._namespace, ["curl", "-K", "-", *words, self.url + path], stdin=user)

    def kill(self) -> None:
        """Kill the emulator; the machine goes on."""
        for pid in self._emulators():
            os.kill(pid, signal.SIGKILL)

    def answers(self, port: int = PORT) -> bool:
        """Whether a Redfish service answers at a port."""
        url = f"https://{self._ip}:{port}/redfish/v1/"
        argv = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--cacert", str(self.ca), url]
        try:
            return netns.run(self._namespace, argv).startswith(("2", "4"))
        except netns.CommandError:
            return False

    def _certificate(self) -> None:
        argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=bmc"]
        argv += ["-addext", f"subjectAltName=IP:{self._ip}", "-keyout", "bmc.key", "-out", "bmc.pem"]
        subprocess.run(argv, check=True, cwd=self.folder, capture_output=True)

    def _passwords(self) -> None:
        code = "import bcrypt, sys; print(bcrypt.hashpw(sys.stdin.read().encode(), bcrypt.gensalt(4)).decode())"
        python = Path(sys.prefix, "emulator/bin/python")
        hashed = subprocess.run([python, "-c", code], input=self.password, check=True, capture_output=True, text=True)
        (self.folder / "htpasswd").write_text(f"{self.user}:{hashed.stdout}")


def _command(pid: int) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""
