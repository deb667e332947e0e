"""A lab of two hosts whose first is a bare machine with a BMC, and the tool as an operator runs it."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from subprocess import PIPE, STDOUT, Popen
from typing import Any, TextIO

import pytest

from mapping import rows
from mapping.history import Cause
from mapping.model import Snapshot
from mapping.writer import PROVISION, Writer
from provision.lab import LabMachine
from provision.order import Run
from provision.record import Ledger, Step
from provision.site import Site
from tests import shapes
from tests.provision import image
from tests.provision.emulator import PORT, TAP, UUID, Emulator
from topo import bridges, netns, port_filter
from topo.host import Host
from topo.lab import Lab
from topo.spec import CONTROL_IP, CONTROL_NETWORK

WEB, DB = "10.0.0.11", "10.0.0.12"
MAC, DB_MAC = "02:00:00:00:00:11", "02:00:00:00:00:12"
BMC = f"https://{CONTROL_IP}:{PORT}/redfish/v1/Systems/{UUID}"
MAPPING = f"""\
vpcs:
  blue: {{vni: 5001, subnets: [10.0.0.0/24]}}
hosts:
  host-a: {{vtep: 192.0.2.1, bmc: "{{bmc}}"}}
  host-b: {{vtep: 192.0.2.2, encap: geneve, bmc: "{{bmc}}"}}
ports:
  web: {{vpc: blue, mac: "{MAC}", addresses: [{WEB}]}}
  db: {{vpc: blue, mac: "{DB_MAC}", host: host-b, addresses: [{DB}]}}
"""
"""2 hosts, 1 VPC; db on host-b; web, which is to be provisioned on host-a."""

_LOCKGATE = str(Path(sys.executable).with_name("lockgate"))
_names = (f"p{os.getpid()}n{number}" for number in count())


def pytest_configure() -> None:
    # A run that is told to end ends its labs and machines first, as with Ctrl-C.
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.default_int_handler)


class Tool:
    """`lockgate`, in the control network of a lab."""

    def __init__(self, lab: Lab, env: dict[str, str]) -> None:
        self.lab = lab
        # As `lockgate lab exec` does, which takes half a second to start.
        via = f"ip netns exec {lab.prefix}h-{{host}} env OVS_RUNDIR={lab.folder}/hosts/{{host}}"
        self.env = os.environ | {"LOCKGATE_DB": lab.control.remote, "LOCKGATE_VIA": via} | env

    def popen(self, *words: str, as_json: bool = True, stdout: int | TextIO = PIPE) -> Popen[str]:
        argv = netns.inside(self.lab.control.namespace, [_LOCKGATE, *(["--json"] if as_json else []), *words])
        return Popen(argv, stdout=stdout, stderr=STDOUT, text=True, env=self.env)

    def __call__(self, *words: str, fails: bool = False, as_json: bool = True) -> str:
        """Run it, and return what it printed."""
        with self.popen(*words, as_json=as_json) as process:
            try:
                out, _ = process.communicate(timeout=400)
            finally:
                process.kill()
        assert (process.returncode != 0) == fails, out
        if as_json:
            shapes.check(shapes.command(words), out)
        return out

    def record(self, host: str = "host-a") -> dict[str, Any]:
        """What the database says of a host's provisioning."""
        with Writer([self.lab.control.remote]) as writer:
            return writer.read_provision().get(host, dict.fromkeys(PROVISION))

    def bound(self, port: str = "web") -> str | None:
        """The host that a port is on."""
        snapshot = self.snapshot()
        row = next(row for row in snapshot.ports.values() if row.name == port)
        return snapshot.hosts[row.host].name if row.host else None

    def snapshot(self) -> Snapshot:
        with Writer([self.lab.control.remote]) as writer:
            return rows.read(writer.read())

    def set_bmc(self, url: str) -> None:
        """Have host-a's row name another BMC."""
        file = self.lab.folder / "bmc.yaml"
        file.write_text(f'hosts:\n  host-a: {{vtep: 192.0.2.1, bmc: "{url}"}}\n')
        self("apply", "-f", str(file))


@contextmanager
def begun(tool: Tool, step: Step, *words: str) -> Iterator[Popen[str]]:
    """A run of the tool that has begun a step."""
    with tool.popen(*words) as process:
        assert process.stdout
        try:
            for line in process.stdout:
                event = json.loads(line)
                if event.get("step") == step and not event["done"]:
                    break
            else:
                pytest.fail(f"it never began {step}: {line}")
            yield process
        finally:
            process.kill()


@dataclass
class Ended:
    """How a run of the tool has ended, and all that it said; known when it has."""

    said: str = ""
    status: int | None = None


@contextmanager
def stopped(tool: Tool, step: Step, *words: str) -> Iterator[Ended]:
    """One that has begun a step and does nothing more, until the end of this: then it goes on to its own."""
    ended = Ended()
    with begun(tool, step, *words) as process:
        process.send_signal(signal.SIGSTOP)
        yield ended
        process.send_signal(signal.SIGCONT)
        ended.said, _ = process.communicate(timeout=400)
        ended.status = process.returncode


def kill_at(tool: Tool, step: Step, *words: str) -> None:
    """Run the tool, and kill it as soon as it begins a step."""
    with begun(tool, step, *words):
        pass


def obey(host: Host, target: str) -> None:
    """Change where br-nic's controller is."""
    controller = host.vsctl("get", "Bridge", "br-nic", "controller").strip("[]\n")
    host.vsctl("set", "Controller", controller, f'target="{target}"')


@pytest.fixture(scope="session")
def lab_mapping(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mapping") / "mapping.yaml"


@pytest.fixture(scope="session")
def shared_lab(lab_mapping: Path) -> Iterator[Tool]:
    with Lab(next(_names)) as lab:
        lab_mapping.write_text(MAPPING.replace("{bmc}", f"lab:{lab.name}"))
        lab.up(lab_mapping)
        yield Tool(lab, {})


@pytest.fixture
def lab_tool(shared_lab: Tool, lab_mapping: Path) -> Iterator[Tool]:
    """The tool, and a lab whose machines are namespaces: host-a and host-b are available, and as they must be."""
    yield shared_lab
    lab = shared_lab.lab
    try:
        if lab.state == "up" and not lab.control.controller.runs:
            lab.start_controller()
        with Writer([lab.control.remote]) as writer:
            allowed = frozenset({lab.control.controller.target})
            site = Site(writer, shared_lab.env["LOCKGATE_VIA"], Cause("test", "", ""), allowed)
            for host, record in Ledger(writer).all().items():
                if record.port:
                    machine = LabMachine(host, lab.name, record.port, record.device, site.snapshot)
                    Run(Ledger(writer), machine, site, lambda _: None).release(host, record.port, None)
            assert site.faults("host-a") + site.faults("host-b") == []
        assert (shared_lab.bound("web"), shared_lab.bound("db")) == (None, "host-b")
        assert "db" in lab.hosts["host-b"].vsctl("list-ports", "br-guest").split()
    except Exception:  # noqa: BLE001 - whatever a test has left
        lab.down()
        lab.up(lab_mapping)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Tool, Emulator]]:
    """The tool, and a lab whose machine is an emulated computer with a BMC."""
    folder = tmp_path_factory.mktemp("bmc")
    with Lab(next(_names)) as lab:
        file = folder / "mapping.yaml"
        file.write_text(MAPPING.replace("{bmc}", BMC))
        lab.up(file)
        host = lab.hosts["host-a"]
        emulator = Emulator(folder, host, lab.control.namespace, MAC)
        try:
            emulator.start()
            port_filter.attach(host.namespace, TAP)
            bridges.plug(host.vsctl, TAP)
            env = {"LOCKGATE_BMC_CA": str(emulator.ca), "LOCKGATE_CONTROL_NETWORK": str(CONTROL_NETWORK)}
            env |= {"LOCKGATE_BMC_USER": emulator.user, "LOCKGATE_BMC_PASSWORD": emulator.password}
            yield Tool(lab, env), emulator
        finally:
            emulator.stop()


@pytest.fixture(scope="session")
def guest_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Linux that sends from web's address at once, and asks for it by DHCP."""
    return image.build(Path(sys.prefix, "guest-image"), tmp_path_factory.mktemp("image"), WEB, (DB, DB_MAC))
