"""vagrant/guests.sh by itself, in a machine of namespaces: what it makes, and what it makes of what is half made."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from topo import netns

SCRIPT = Path(__file__).parents[2] / "vagrant" / "guests.sh"
GUESTS = """\
blue-1 02:00:00:00:01:01 1400 10.0.0.11/24 fd00:5001::11/64
green-1 02:00:00:00:02:01 1400 10.0.0.11/24
"""
PORT = "ip link add dev blue-1 mtu 1400 type veth peer name eth0 address 02:00:00:00:01:01 mtu 1400 netns blue-1"
_PLACES = {"etc": "/etc", "opt": "/opt", "run": "/run"}

Guests = Callable[[str], subprocess.CompletedProcess[str]]


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Guests]:
    """Run lines of a shell in a machine that has nothing but the list of guests; they stay until the end.

    `lockgate` there fails until it is made otherwise, as it does while Open vSwitch does not answer.
    """
    (tmp_path / "etc/lockgate").mkdir(parents=True)
    (tmp_path / "etc/lockgate/guests").write_text(GUESTS)
    (tmp_path / "opt/lockgate/bin").mkdir(parents=True)
    (tmp_path / "opt/lockgate/bin/lockgate").write_text('#!/bin/sh\n[ -e /run/answers ] && echo "$@"\n')
    (tmp_path / "opt/lockgate/bin/lockgate").chmod(0o755)
    (tmp_path / "run").mkdir()
    name = f"vmg{os.getpid()}"
    netns.add(name)
    mounts = "".join(f"mount --bind {tmp_path / own} {there}\n" for own, there in _PLACES.items())
    script = f'cd {SCRIPT.parent}\n{mounts}echo ready\nwhile read -r line; do eval "$line"; echo "done $?"; done\n'
    command = ["unshare", "--mount", "--propagation", "private", "bash", "-c", script]
    with subprocess.Popen(
        netns.inside(name, command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as shell:

        def run(line: str) -> subprocess.CompletedProcess[str]:
            assert shell.stdin
            assert shell.stdout
            shell.stdin.write(f"{line}\n")
            shell.stdin.flush()
            said = ""
            for answer in shell.stdout:
                if answer.startswith("done "):
                    return subprocess.CompletedProcess(line, int(answer.split()[1]), said)
                said += answer
            raise AssertionError(said)

        try:
            assert shell.stdout
            assert shell.stdout.readline() == "ready\n"
            yield run
        finally:
            shell.kill()
    netns.delete([name])


def addresses(machine: Guests, guest: str) -> set[str]:
    """Those of its port, link-local ones left out."""
    (port,) = json.loads(machine(f"ip -n {guest} -j address show dev eth0").stdout)
    assert "UP" in port["flags"]
    return {f"{each['local']}/{each['prefixlen']}" for each in port["addr_info"] if each["scope"] == "global"}


@pytest.mark.parametrize(
    "half",
    [
        "true",
        "ip netns add blue-1",
        f"ip netns add blue-1; {PORT}",
        "./guests.sh",
    ],
    ids=["nothing", "a namespace", "a port without addresses", "all, but plugged"],
)
def test_guests_are_completed_by_the_next_start(machine: Guests, half: str) -> None:
    machine(half)
    assert machine("./guests.sh").returncode, "Open vSwitch does not answer, so the unit has to start it again"
    machine("touch /run/answers")
    done = machine("./guests.sh")
    assert (done.returncode, done.stdout) == (0, "bridges plug blue-1 green-1\n")
    assert addresses(machine, "blue-1") == {"10.0.0.11/24", "fd00:5001::11/64"}
    assert addresses(machine, "green-1") == {"10.0.0.11/24"}
    for guest in ("blue-1", "green-1"):
        assert "default via 10.0.0.1 dev eth0" in machine(f"ip -n {guest} route").stdout
        assert machine(f"cat /proc/sys/net/ipv6/conf/{guest}/disable_ipv6").stdout == "1\n"
    assert machine("ip netns exec green-1 cat /proc/sys/net/ipv6/conf/eth0/disable_ipv6").stdout == "1\n"
