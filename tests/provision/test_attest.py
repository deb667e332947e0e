"""Whoever changes a host's bridges or flows is seen, and what he did is mended, or the port closed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from subprocess import Popen

import pytest

from tests.conftest import Figure
from tests.provision.conftest import Tool
from topo.host import Host
from topo.waiting import wait_until

TAMPER = {
    "a flow": (["ofctl", "add-flow", "br-nic", "table=0,priority=60000,ip,actions=NORMAL"], "a flow is stranger"),
    "a port": (["vsctl", "add-port", "br-nic", "x", "--", "set", "Interface", "x", "type=internal"], "port 'x'"),
    "a patch": (
        ["vsctl", "add-port", "br-ctl", "p", "--", "set", "Interface", "p", "type=patch", "options:peer=q"],
        "port 'p'",
    ),
    "fail mode": (["vsctl", "set-fail-mode", "br-guest", "standalone"], "not secure"),
    "in band": (["vsctl", "set", "Bridge", "br-nic", "other-config:disable-in-band=false"], "in-band"),
    "a mirror": (
        [
            *("vsctl", "--", "--id=@m", "create", "Mirror", "name=m", "select-all=true", "output-vlan=7"),
            *("--", "set", "Bridge", "br-nic", "mirrors=@m"),
        ],
        "mirrors is set",
    ),
    "a manager": (["vsctl", "set-manager", "ptcp:6640:127.0.0.1"], "manager"),
}


@pytest.fixture
def watching(lab_tool: Tool) -> Iterator[tuple[Tool, Popen[str]]]:
    with lab_tool.popen("attest", "host-b", "--watch", "--policy", "mend") as process:
        yield lab_tool, process
        process.terminate()


def _do(host: Host, words: list[str]) -> None:
    tool, *rest = words
    if tool == "vsctl":
        host.vsctl(*rest)
    else:
        host.ofctl(*rest)


def test_tampering_is_seen_and_mended(watching: tuple[Tool, Popen[str]], figure: Figure) -> None:
    tool, process = watching
    host = tool.lab.hosts["host-b"]
    assert process.stdout
    for name, (words, said) in TAMPER.items():
        begun = time.monotonic()
        _do(host, words)
        alarm = json.loads(process.stdout.readline())
        figure(name, round(time.monotonic() - begun, 1), "s")
        assert said in alarm["what"]
        assert alarm["done"] == "mended", name
    wait_until(lambda: tool("attest", "host-b") == "", 30, "the host to be as it must be")
    assert "db" in host.vsctl("list-ports", "br-guest").split()


def test_a_port_is_closed_when_the_policy_says_so(lab_tool: Tool) -> None:
    host = lab_tool.lab.hosts["host-b"]
    _do(host, TAMPER["a flow"][0])
    alarm = json.loads(lab_tool("attest", "host-b", "--policy", "close", fails=True))
    assert alarm["done"] == "closed: db"
    assert "db" not in host.vsctl("list-ports", "br-guest").split()
