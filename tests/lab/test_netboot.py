"""A guest with a kernel of its own, on the userspace datapath: QEMU on a tap of a host in a network namespace.

2 hosts, 1 VPC: `metal`, the machine, on host-a; `server`, a namespace, on host-b. The machine has no disk: all that it
runs comes from the server, which it knows of by DHCP alone. In virtual machines it is the same, in another kernel's
Open vSwitch: vagrant/metal.sh.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Figure
from topo import bridges, netns, port_filter
from topo.lab import Lab
from topo.vm_lab import BOX
from topo.waiting import wait_until

METAL, SERVER = "10.0.0.11", "10.0.0.12"
MAC = "02:00:00:00:00:11"
MAPPING = f"""\
vpcs:
  blue: {{vni: 5001, subnets: [10.0.0.0/24], mtu: 1400}}
hosts:
  host-a: {{vtep: 192.0.2.1}}
  host-b: {{vtep: 192.0.2.2, encap: geneve}}
ports:
  metal:
    {{vpc: blue, mac: "{MAC}", host: host-a, addresses: [{METAL}], boot: {{next_server: {SERVER}, ipxe: boot.ipxe}}}}
  server: {{vpc: blue, mac: "02:00:00:00:00:12", host: host-b, addresses: [{SERVER}]}}
"""
SECONDS = 300


@contextlib.contextmanager
def running(namespace: str, *argv: str) -> Iterator[subprocess.Popen[str]]:
    """A program that ends with us, even if we are killed."""
    with netns.popen(namespace, ["setpriv", "--pdeathsig", "KILL", *argv]) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    file = tmp_path / "mapping.yaml"
    file.write_text(MAPPING)
    with Lab(f"nb{os.getpid()}") as lab:
        lab.up(file)
        yield lab


def test_a_machine_without_a_disk_boots_what_dhcp_names_and_is_reached(
    lab: Lab, tmp_path: Path, figure: Figure
) -> None:
    host, server = lab.host("host-a"), lab.guest("server")
    # The namespace guest of this name is only a cable's end: the machine takes its place.
    metal = lab.guest("metal")
    bridges.unplug(host.vsctl, "metal")
    netns.ip(host.namespace, "link delete dev metal\ntuntap add dev metal mode tap\nlink set dev metal mtu 1400 up")
    port_filter.attach(host.namespace, "metal")
    bridges.plug(host.vsctl, "metal")
    assert metal.spec.mac == MAC
    console = tmp_path / "console"
    files = BOX / "boot"
    tftp = ("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--enable-tftp", "--user=root")
    machine = (
        *("qemu-system-x86_64", "-accel", "tcg", "-cpu", "qemu64", "-m", "192", "-display", "none", "-vga", "none"),
        *("-monitor", "none", "-nodefaults", "-serial", f"file:{console}", "-boot", "order=n"),
        *("-netdev", "tap,id=n0,ifname=metal,script=no,downscript=no"),
        *("-device", f"virtio-net-pci,netdev=n0,mac={MAC}"),
    )

    def said() -> str:
        return console.read_text(errors="replace") if console.exists() else ""

    with (
        running(server.namespace, *tftp, f"--tftp-root={files}", f"--listen-address={SERVER}", "--pid-file="),
        running(server.namespace, "python3", "-m", "http.server", "80", "--bind", SERVER, "--directory", str(files)),
        host.capture("uplink", "in") as arrived,
        running(host.namespace, *machine),
    ):
        wait_until(lambda: "lease: " in said(), SECONDS, f"the machine to boot; its console: {said()}")
        assert f"lease: {METAL}/24 router 10.0.0.1 mtu 1400" in said()
        assert server.ping(METAL, 3, 5)
    assert len(arrived.frames) > files.joinpath("vmlinuz").stat().st_size / 1500
    figure("kernel", said().partition("kernel: ")[2].split()[0], "")
