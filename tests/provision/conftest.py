"""A lab of two hosts whose first is a bare machine with a BMC, and the tool as an operator runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests import shapes
from tests.provision import image
from tests.provision.emulator import PORT, TAP, UUID, Emulator
from topo import bridges, netns, port_filter
from topo.lab import Lab
from topo.spec import CONTROL_IP

WEB, DB = "10.0.0.11", "10.0.0.12"
MAC = "02:00:00:00:00:11"
BMC = f"https://{CONTROL_IP}:{PORT}/redfish/v1/Systems/{UUID}"
MAPPING = f"""\
vpcs:
  blue: {{vni: 5001, subnets: [10.0.0.0/24]}}
hosts:
  host-a: {{vtep: 192.0.2.1, bmc: "{{bmc}}"}}
  host-b: {{vtep: 192.0.2.2, encap: geneve}}
ports:
  web: {{vpc: blue, mac: "{MAC}", addresses: [{WEB}]}}
  db: {{vpc: blue, mac: "02:00:00:00:00:12", host: host-b, addresses: [{DB}]}}
""".replace("{{", "{").replace("}}", "}")
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

    def popen(self, *words: str) -> subprocess.Popen[str]:
        argv = netns.inside(self.lab.control.namespace, [_LOCKGATE, "--json", *words])
        return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=self.env)

    def __call__(self, *words: str, fails: bool = False) -> str:
        """Run it, and return what it printed."""
        with self.popen(*words) as process:
            out, _ = process.communicate(timeout=400)
        assert (process.returncode != 0) == fails, out
        shapes.check(shapes.command(words), out)
        return out

    def record(self) -> dict[str, Any]:
        """What the database says of host-a's provisioning."""
        rows: list[dict[str, Any]] = json.loads(self("host", "list"))
        return next(row for row in rows if row["name"] == "host-a")

    def set_bmc(self, url: str) -> None:
        """Have host-a's row name another BMC."""
        file = self.lab.folder / "bmc.yaml"
        file.write_text(f'hosts:\n  host-a: {{vtep: 192.0.2.1, bmc: "{url}"}}\n')
        self("apply", "-f", str(file))

    def port(self, name: str) -> dict[str, Any]:
        rows: list[dict[str, Any]] = json.loads(self("port", "list"))
        return next(row for row in rows if row["name"] == name)


MakeTool = Callable[[str], Tool]


@pytest.fixture
def lab_tool(tmp_path: Path) -> Iterator[Tool]:
    """The tool, and a lab whose machine is a namespace."""
    with Lab(next(_names)) as lab:
        file = tmp_path / "mapping.yaml"
        file.write_text(MAPPING.replace("{bmc}", f"lab:{lab.name}"))
        lab.up(file)
        yield Tool(lab, {})


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
            env = {"LOCKGATE_BMC_CA": str(emulator.ca), "LOCKGATE_BMC_USER": emulator.user}
            yield Tool(lab, env | {"LOCKGATE_BMC_PASSWORD": emulator.password}), emulator
        finally:
            emulator.stop()


@pytest.fixture(scope="session")
def guest_image() -> Path:
    """A Linux that sends from web's address at once, and asks for it by DHCP."""
    return image.build(Path(sys.prefix, "guest-image"), WEB, DB)
