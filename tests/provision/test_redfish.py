"""A real machine's firmware, kernel and DHCP client, turned on by a real Redfish service over HTTPS."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from mapping.errors import MappingError
from provision import control_network, redfish
from provision.machine import MachineError
from provision.record import Step
from provision.redfish import Credentials, RedfishMachine
from tests.conftest import Figure
from tests.provision import liar
from tests.provision.conftest import BMC, MAC, Tool, kill_at, stopped
from tests.provision.emulator import PORT, UUID, Emulator
from topo import netns
from topo.capture import Capture
from topo.spec import CONTROL_IP, CONTROL_NETWORK
from topo.waiting import wait_until

Machine = tuple[Tool, Emulator]

LIAR_PORT = 9443
BOOTED = 240
"""Seconds that firmware and kernel may take to come up, by software emulation on a busy machine."""
FRAME_OF_GUEST = bytes.fromhex(MAC.replace(":", ""))


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


@pytest.fixture(scope="module")
def lying(machine: Machine) -> Iterator[str]:
    """Where a BMC in wrong hands is: a lie's name is the rest of its URL."""
    tool, emulator = machine
    argv = [sys.executable, liar.__file__, str(CONTROL_IP), str(LIAR_PORT), f"https://{CONTROL_IP}:{PORT}", UUID]
    argv += [str(emulator.ca), str(emulator.folder / "bmc.key")]
    with subprocess.Popen(netns.inside(tool.lab.control.namespace, argv)) as process:
        try:
            wait_until(lambda: emulator.answers(LIAR_PORT), 60, "the liar to answer")
            yield f"https://{CONTROL_IP}:{LIAR_PORT}/redfish/v1/Systems/"
        finally:
            process.kill()


@contextmanager
def bmc(tool: Tool, url: str) -> Iterator[None]:
    """host-a has another BMC for a while."""
    tool.set_bmc(url)
    try:
        yield
    finally:
        tool.set_bmc(BMC)


def refused(tool: Tool, said: str, *more: str) -> None:
    """It is one clear error, a failed state that says so, and a closed port."""
    *_, error = tool("provision", "web", "--host", "host-a", *more, fails=True).splitlines()
    assert said in json.loads(error)["error"]
    found = tool.record()
    assert found["state"] == "failed"
    assert said in str(found["problem"])
    assert tool.bound() is None


def test_a_machine_that_was_off_boots_is_reached_and_is_gone_after_its_release(
    machine: Machine, guest_image: Path, figure: Figure
) -> None:
    tool, emulator = machine
    db = tool.lab.guests["db"]
    with served(tool, guest_image) as url:
        words = ("provision", "web", "--host", "host-a", "--image", url)
        kill_at(tool, Step.POWER_ON, *words)
        *events, _ = map(json.loads, tool(*words).splitlines())
    seen = next(event["seconds"] for event in events if event["step"] == "guest" and event["done"])
    figure("from power-on to the guest's first packet", round(seen, 1), "s")
    assert tool.record()["state"] == "active"
    assert db.ping("10.0.0.11", seconds=30)
    wait_until(lambda: "lease: 10.0.0.11" in emulator.console.read_text(), BOOTED, "the guest's lease")
    assert emulator.starts == 1
    assert to_nic(tool) > 0
    with stopped(tool, Step.UNBIND, "release", "web"):
        before = from_machine(tool)
    host = tool.lab.hosts["host-a"]
    with db.capture("in") as at_guest, host.capture("uplink", "out") as leaving:
        assert not db.ping("10.0.0.11", count=3)
    assert not [frame for frame in at_guest.frames + leaving.frames if FRAME_OF_GUEST in frame]
    assert (tool.record()["state"], tool.record()["power"]) == ("available", "off")
    assert from_machine(tool) == before


def test_a_guest_that_sends_at_once_reaches_nothing_before_its_rules_are_confirmed(
    machine: Machine, guest_image: Path
) -> None:
    """Somebody has turned the machine on by hand, with its port bound nowhere."""
    tool, emulator = machine
    nic, sent = to_nic(tool), from_machine(tool)
    with served(tool, guest_image) as url:
        emulator.turn_on(url)
        wait_until(lambda: from_machine(tool) > sent + 10, BOOTED, "the guest to send")
        assert to_nic(tool) == nic
        words = ("provision", "web", "--host", "host-a", "--image", url)
        # It sends until it is turned off, and, the rules being there, nothing until it is told to be on again.
        kill_at(tool, Step.BIND, *words)
        sent, starts = from_machine(tool), emulator.starts
        with stopped(tool, Step.POWER_ON, *words) as ended:
            assert to_nic(tool) == nic, "a frame of the guest before its rules were confirmed"
            assert (from_machine(tool), emulator.starts) == (sent, starts), "it was on"
            assert tool.bound() == "host-a"
    assert ended.status == 0
    assert to_nic(tool) > nic
    tool("release", "web")


def test_without_an_image_firmware_boots_by_lockgates_dhcp(machine: Machine) -> None:
    """It is told its address, and where its boot loader is: it asks db for that, who has none."""
    tool, _ = machine
    tool("port", "set", "web", "--boot", "next_server=10.0.0.12", "--boot", "bios=loader", "--boot", "ipxe=loader")
    with tool.lab.guests["db"].capture("in") as seen:
        tool("provision", "web", "--host", "host-a")
        # UDP to port 69, from its address: RFC 1350.
        frame = seen.wait_for(lambda frame: frame[23] == 17 and frame[36:38] == bytes([0, 69]), BOOTED)
    assert frame[26:30] == bytes([10, 0, 0, 11])
    assert b"loader\0" in frame
    tool("release", "web")
    tool("port", "set", "web", "--boot", "none")


def test_a_bmc_that_says_off_while_frames_still_come_is_not_believed(
    machine: Machine, guest_image: Path, lying: str
) -> None:
    tool, emulator = machine
    with served(tool, guest_image) as url:
        sent = from_machine(tool)
        emulator.turn_on(url)
        wait_until(lambda: from_machine(tool) > sent, BOOTED, "the guest to send")
        with bmc(tool, f"{lying}off"):
            refused(tool, "says that it is off, and frames still come")
    tool("release", "web")


def test_a_bmc_that_does_not_do_it_refuses_hangs_or_dies_leaves_the_port_closed(machine: Machine, lying: str) -> None:
    tool, emulator = machine
    password = tool.env["LOCKGATE_BMC_PASSWORD"]
    with bmc(tool, f"{lying}disk"):
        refused(tool, "has not taken it")
    with bmc(tool, f"{lying}silent"):
        refused(tool, "nothing came from an address of port web within 3 s", "--boot-timeout", "3")
    tool.env["LOCKGATE_BMC_PASSWORD"] = "wrong"  # noqa: S105 - nobody's
    refused(tool, "refuses the user or the password")
    tool.env["LOCKGATE_BMC_PASSWORD"] = password
    tool.env["LOCKGATE_BMC_CA"] = "/etc/ssl/certs/ca-certificates.crt"
    refused(tool, "shows a certificate that is not trusted")
    tool.env["LOCKGATE_BMC_CA"] = str(emulator.ca)
    emulator.signal(signal.SIGSTOP)
    try:
        refused(tool, "does not answer within")
    finally:
        emulator.signal(signal.SIGCONT)
    tool("release", "web")


WRONG = {
    "elsewhere": "sends the tool elsewhere",
    "endless": "answers without end",
    "dripping": "has not done it within 3 s",
    "echoing": "does not do it",
    "list": "no Redfish",
    "words": "no Redfish",
    "empty": "does not do it",
    "deep": "no Redfish",
    "bomb": "in an encoding that nobody asked for",
}
"""What becomes of a BMC's answers that are none."""


@pytest.mark.parametrize("lie", WRONG)
def test_whatever_a_bmc_answers_is_one_clear_error_without_the_password(
    machine: Machine, lying: str, lie: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool, emulator = machine
    if lie == "dripping":
        monkeypatch.setattr(redfish, "_WHOLE_SECONDS", 3.0)
    known = Credentials(emulator.user, emulator.password)
    asked = RedfishMachine("host-a", lying + lie, known, (CONTROL_NETWORK,), str(emulator.ca))
    with netns.entered(tool.lab.control.namespace), pytest.raises(MachineError) as error:
        asked.is_on()
    said = str(error.value)
    assert WRONG[lie] in said
    assert said.startswith(f"the BMC of host host-a at {CONTROL_IP}:{LIAR_PORT} ")
    assert said.isprintable()
    assert len(said) < 500
    for secret in secrets_of(emulator):
        assert secret not in said


def secrets_of(emulator: Emulator) -> tuple[str, str]:
    """The password, and what a request has of it."""
    return emulator.password, base64.b64encode(f"{emulator.user}:{emulator.password}".encode()).decode()


def test_the_password_is_in_no_list_of_processes_no_log_no_database_and_no_message(
    machine: Machine, lying: str, tmp_path: Path
) -> None:
    tool, emulator = machine
    shown, said = set(), []
    with bmc(tool, f"{lying}echoing"), tool.popen("provision", "web", "--host", "host-a") as process:
        assert process.stdout
        while process.poll() is None:
            for each in Path("/proc").glob("[0-9]*/cmdline"):
                with suppress(OSError):
                    shown.add(each.read_bytes())
        said.append(process.stdout.read())
    assert tool.record()["state"] == "failed"
    inherited = tmp_path / "inherited"
    wipe = tmp_path / "wipe"
    wipe.write_text(f"#!/bin/sh\nenv > {inherited}\n")
    wipe.chmod(0o755)
    said.append(tool("release", "web", "--wipe", str(wipe)))
    said.append(tool("host", "list") + tool("history"))
    assert any(b"provision" in line for line in shown), "nothing was looked at"
    files = [file for file in tool.lab.folder.rglob("*") if file.is_file()]
    assert any(b"Provision" in file.read_bytes() for file in files), "the database is not among them"
    everything = b"\n".join([*shown, "\n".join(said).encode(), *(file.read_bytes() for file in [*files, inherited])])
    for secret in secrets_of(emulator):
        assert secret.encode() not in everything


def test_a_bmc_is_reached_by_the_control_network_alone(machine: Machine) -> None:
    tool, emulator = machine
    known = Credentials(emulator.user, emulator.password)
    lab, elsewhere = tool.lab, "198.51.100.200"
    host = lab.hosts["host-a"].namespace
    netns.ip(host, f"route add {elsewhere} dev br-nic")
    try:
        for url, namespace, said in (
            (BMC.replace(str(CONTROL_IP), "192.0.2.2"), lab.control.namespace, "is at 192.0.2.2, which is not"),
            (BMC.replace(str(CONTROL_IP), "localhost"), lab.control.namespace, "which is not in the control network"),
            (BMC.replace(str(CONTROL_IP), elsewhere), host, "would be reached from 192.0.2.1, which is not"),
        ):
            asked = RedfishMachine("host-a", url, known, (CONTROL_NETWORK,), str(emulator.ca))
            with Capture(host, "uplink") as seen, netns.entered(namespace), pytest.raises(MachineError, match=said):
                asked.is_on()
            assert not [frame for frame in seen.frames if CONTROL_NETWORK[200].packed in frame]
    finally:
        netns.ip(host, f"route del {elsewhere} dev br-nic")
    hosts = tool.snapshot().hosts.values()
    for text, said in {
        "": "which network BMCs are in is not said",
        "198.51.100.7/24": "name networks",
        "198.51.100.0/24,192.0.2.0/24": "is the substrate, where host host-",
    }.items():
        with pytest.raises(MappingError, match=said):
            control_network.networks(hosts, {control_network.NETWORKS: text}.get)


def test_neither_a_guest_nor_the_substrate_reaches_a_bmc(machine: Machine) -> None:
    """The neighbour on the substrate takes each host for a router; a guest takes its own for one."""
    tool, emulator = machine
    lab = tool.lab
    netns.ip(lab.substrate, f"addr add 192.0.2.254/24 dev br0\nroute add {CONTROL_NETWORK} via 192.0.2.1")
    try:
        with Capture(lab.control.namespace, "br0") as seen:
            for namespace in (lab.substrate, lab.guests["db"].namespace):
                with pytest.raises(netns.CommandError):
                    netns.run(namespace, ["curl", "-s", "-k", "-m", "2", f"https://{CONTROL_IP}:{PORT}/redfish/v1/"])
            assert emulator.answers()
    finally:
        netns.ip(lab.substrate, f"addr del 192.0.2.254/24 dev br0\nroute flush {CONTROL_NETWORK}")
    strangers = [b"\xc0\x00\x02", bytes([10, 0, 0, 12])]
    assert not [frame for frame in seen.frames if frame[26:29] in strangers or frame[26:30] in strangers]


def test_a_bmc_that_dies_midway_leaves_the_port_closed(machine: Machine) -> None:
    tool, emulator = machine
    with stopped(tool, Step.CHECK, "provision", "web", "--host", "host-a") as ended:
        emulator.kill()
    assert "cannot be reached" in ended.said
    assert (tool.record()["state"], tool.bound()) == ("failed", None)
