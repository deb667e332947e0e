"""A real machine's firmware, kernel and DHCP client, turned on by a real Redfish service over HTTPS."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from provision.record import Step
from tests.conftest import Figure
from tests.provision import liar
from tests.provision.conftest import BMC, Tool
from tests.provision.emulator import PORT, Emulator
from tests.provision.test_order import kill_at
from topo import netns
from topo.spec import CONTROL_IP
from topo.waiting import wait_until

Machine = tuple[Tool, Emulator]


def to_nic(tool: Tool) -> int:
    """Frames of the guest that br-nic has had."""
    ports = tool.lab.hosts["host-a"].ofctl("dump-ports", "br-nic", "n-web")
    return int(ports.split("rx pkts=")[1].split(",")[0])


def from_machine(tool: Tool) -> int:
    """Frames that the machine has sent."""
    ports = tool.lab.hosts["host-a"].ofctl("dump-ports", "br-guest", "web")
    return int(ports.split("rx pkts=")[1].split(",")[0])


def _listens(namespace: str) -> bool:
    return ":8080 " in netns.run(namespace, ["ss", "-Hltn"])


@contextmanager
def served(tool: Tool, image: Path) -> Iterator[str]:
    """The image's URL, on the control network."""
    argv = [sys.executable, "-m", "http.server", "8080", "--bind", str(CONTROL_IP), "--directory", str(image.parent)]
    with subprocess.Popen(
        netns.inside(tool.lab.control.namespace, argv), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as server:
        try:
            wait_until(lambda: _listens(tool.lab.control.namespace), 20, "the images' server")
            yield f"http://{CONTROL_IP}:8080/{image.name}"
        finally:
            server.terminate()


def test_a_machine_that_was_off_boots_is_reached_and_is_gone_after_its_release(
    machine: Machine, guest_image: Path, figure: Figure
) -> None:
    tool, emulator = machine
    db = tool.lab.guests["db"]
    with served(tool, guest_image) as url:
        words = ("provision", "web", "--host", "host-a", "--image", url)
        kill_at(tool, Step.POWER_ON, *words)
        events = [json.loads(line) for line in tool(*words).splitlines() if line.startswith('{"step"')]
    assert emulator.password not in json.dumps(events) + emulator.console.read_text()
    seen = next(event["seconds"] for event in events if event["step"] == "guest" and event["done"])
    figure("from power-on to the guest's first packet", round(seen, 1), "s")
    assert tool.record()["state"] == "active"
    assert db.ping("10.0.0.11", seconds=5)
    assert emulator.console.read_text().count("Linux version") <= 1
    wait_until(lambda: "lease: 10.0.0.11" in emulator.console.read_text(), 60, "the guest's lease")
    assert to_nic(tool) > 0
    tool("release", "web")
    with db.capture("in") as capture:
        assert not db.ping("10.0.0.11", count=3)
    assert not [frame for frame in capture.frames if bytes.fromhex("020000000011") in frame]
    before = from_machine(tool)
    assert tool.record()["power"] == "off"
    assert from_machine(tool) == before


def test_a_guest_that_sends_at_once_reaches_nothing_before_its_rules_are_confirmed(
    machine: Machine, guest_image: Path
) -> None:
    """Somebody has turned the machine on by hand, with its port bound nowhere."""
    tool, emulator = machine
    nic, sent = to_nic(tool), from_machine(tool)
    with served(tool, guest_image) as url:
        emulator.turn_on(url)
        wait_until(lambda: from_machine(tool) > sent + 10, 120, "the guest to send")
        assert to_nic(tool) == nic
        with tool.popen("provision", "web", "--host", "host-a", "--image", url) as process:
            assert process.stdout
            for line in process.stdout:
                event = json.loads(line)
                if event["step"] == "check" and not event["done"]:
                    assert to_nic(tool) == nic, "a frame of the guest before its rules were confirmed"
                    break
            else:
                pytest.fail("it never came to the check")
            process.communicate(timeout=300)
    tool("release", "web")


def test_a_bmc_that_lies_refuses_hangs_or_dies_leaves_the_port_closed(machine: Machine, guest_image: Path) -> None:
    tool, emulator = machine
    honest = tool.env["LOCKGATE_BMC_PASSWORD"]

    def refused(said: str) -> None:
        assert said in tool("provision", "web", "--host", "host-a", fails=True)
        found = tool.record()
        assert found["state"] == "failed"
        assert said in found["problem"]
        assert honest not in found["problem"]
        assert tool.port("web")["host"] is None

    tool.env["LOCKGATE_BMC_PASSWORD"] = "wrong"  # noqa: S105 - nobody's
    refused("refuses the user or the password")
    tool.env["LOCKGATE_BMC_PASSWORD"] = honest
    tool.env["LOCKGATE_BMC_CA"] = "/etc/ssl/certs/ca-certificates.crt"
    refused("shows a certificate that is not trusted")
    tool.env["LOCKGATE_BMC_CA"] = str(emulator.ca)
    emulator.signal(signal.SIGSTOP)
    try:
        refused("does not answer within")
    finally:
        emulator.signal(signal.SIGCONT)
    with served(tool, guest_image) as url:
        sent = from_machine(tool)
        emulator.turn_on(url)
        wait_until(lambda: from_machine(tool) > sent, 120, "the guest to send")
        argv = [sys.executable, liar.__file__, str(CONTROL_IP), "9443", f"https://{CONTROL_IP}:{PORT}"]
        argv += [str(emulator.ca), str(emulator.folder / "bmc.key"), "Off"]
        with subprocess.Popen(netns.inside(tool.lab.control.namespace, argv)) as lying:
            try:
                tool.set_bmc(BMC.replace(f":{PORT}", ":9443"))
                wait_until(lambda: emulator.answers(9443), 30, "the liar to answer")
                refused("says that it is off, and frames still come")
            finally:
                lying.terminate()
                tool.set_bmc(BMC)
    tool("release", "web")
    with tool.popen("provision", "web", "--host", "host-a") as process:
        assert process.stdout
        for line in process.stdout:
            event = json.loads(line)
            if event["step"] == "check" and not event["done"]:
                emulator.kill()
                break
        out, _ = process.communicate(timeout=120)
    assert "cannot be reached" in out
    assert (tool.record()["state"], tool.port("web")["host"]) == ("failed", None)
