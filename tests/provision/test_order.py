"""Interrupted at any step, the same command ends in the same state, with one boot; and never two at once.

1 lab of 2 hosts, each with a machine that is a namespace; 1 VPC; db on host-b; web is provisioned.
"""

from __future__ import annotations

import json
import signal
from itertools import zip_longest
from pathlib import Path

import pytest

from mapping.errors import MappingError
from mapping.history import Cause
from mapping.writer import Writer
from provision import order
from provision.lab import LabMachine
from provision.order import Run
from provision.record import Ledger, Step
from provision.site import Site
from tests.provision.conftest import Tool, begun, kill_at, obey, stopped
from topo.waiting import wait_until

STEPS = (Step.POWER_OFF, Step.BIND, Step.CHECK, Step.BOOT_DEVICE, Step.POWER_ON, Step.GUEST)
RELEASE_STEPS = (Step.POWER_OFF, Step.UNBIND, Step.CONFIRM, Step.WIPE)


class Program:
    """What a guest runs when it is turned on; it counts that."""

    def __init__(self, folder: Path) -> None:
        self._counted, program = folder / "boots", folder / "boot"
        program.write_text(f"#!/bin/sh\necho on >> {self._counted}\nping -c 1 10.0.0.1\n")
        program.chmod(0o755)
        self.path = str(program)
        self.words = ("provision", "web", "--host", "host-a", "--image", self.path)

    @property
    def boots(self) -> int:
        return len(self._counted.read_text().splitlines()) if self._counted.exists() else 0


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path)


def state(tool: Tool, host: str = "host-a") -> tuple[str | None, str | None, str | None, str | None]:
    """State and power of a host, the port it is for, and where that port is bound."""
    found = tool.record(host)
    return found["state"], found["power"], found["port"], tool.bound()


GIVEN = ("active", "on", "web", "host-a")
TAKEN_BACK = ("available", "off", None, None)


def test_killed_at_each_step_and_run_again_it_ends_in_the_same_state_with_one_boot(
    lab_tool: Tool, program: Program
) -> None:
    tool = lab_tool
    words = (*program.words, "--device", "nic0")
    for boots, (step, release_step) in enumerate(zip_longest(STEPS, RELEASE_STEPS), 1):
        kill_at(tool, step, *words)
        assert tool.record()["state"] in ("closing", "deploying")
        tool(*words)
        assert state(tool) == GIVEN
        assert tool.record()["problem"] is None
        assert program.boots == boots, step
        if release_step:
            kill_at(tool, release_step, "release", "web")
        if tool.record()["state"] != "available":  # the last step may be over before the tool is killed
            tool("release", "web")
        assert state(tool) == TAKEN_BACK
        assert "nic0" not in tool.lab.hosts["host-a"].vsctl("list-ports", "br-guest").split()


def test_a_machine_whose_turning_on_was_broken_off_is_off_and_can_be_turned_on(
    lab_tool: Tool, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = LabMachine("host-a", lab_tool.lab.name, "web", "web", lab_tool.snapshot)
    machine.boot_from(program.path)
    try:
        for broken in ("topo.guest.Guest.connect", "provision.lab.LabMachine._start"):
            with monkeypatch.context() as killed:
                killed.setattr(broken, broke_off)
                with pytest.raises(BrokenOffError):
                    machine.turn_on()
            assert not machine.is_on()
        machine.turn_on()
        assert machine.is_on()
        wait_until(lambda: program.boots == 1, 10, "its program to run")
    finally:
        machine.turn_off()
    assert not machine.is_on()


class BrokenOffError(Exception):
    """As if the tool had been killed."""


def broke_off(*_: object) -> None:
    raise BrokenOffError


def test_the_events_are_those_that_are_documented(lab_tool: Tool, program: Program) -> None:
    tool = lab_tool
    *events, record = map(json.loads, tool(*program.words).splitlines())
    assert [(event["step"], event["done"]) for event in events] == [(step, done) for step in STEPS for done in (0, 1)]
    assert all(set(event) == {"step", "what", "done", "seconds"} for event in events)
    assert all(event["seconds"] > 0 for event in events if event["done"])
    assert (record["host"], record["port"], record["state"], record["power"]) == ("host-a", "web", "active", "on")
    assert len(tool(*program.words).splitlines()) == 1, "an active host is provisioned again"
    columns, *rows = tool("host", "list", as_json=False).splitlines()
    assert "state" in columns.split()
    assert "power" in columns.split()
    assert {"active", "on", "web"} <= set(next(row for row in rows if row.startswith("host-a")).split())
    *events, record = map(json.loads, tool("release", "web").splitlines())
    assert [event["step"] for event in events if event["done"]] == list(RELEASE_STEPS)
    assert record["state"] == "available"
    (error,) = map(json.loads, tool("release", "web", fails=True).splitlines())
    assert "is provisioned on no host" in error["error"]


def test_ctrl_c_leaves_a_host_that_is_gone_on_with_at_once(lab_tool: Tool, program: Program) -> None:
    tool = lab_tool
    with begun(tool, Step.CHECK, *program.words) as process:
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Traceback" not in out
    with Writer([tool.lab.control.remote]) as writer:
        record = Ledger(writer).of("host-a")
    assert record
    assert (record.state, record.owner) == ("deploying", "")
    tool(*program.words)
    assert (state(tool), program.boots) == (GIVEN, 1)


def test_one_at_a_time_and_one_port_at_a_time(lab_tool: Tool, program: Program) -> None:
    tool = lab_tool
    with stopped(tool, Step.POWER_OFF, *program.words) as ended:
        assert "is being worked on by" in tool(*program.words, fails=True)
        assert "port web is closing on host host-a" in tool("provision", "web", "--host", "host-b", fails=True)
    assert ended.status == 0
    tool("port", "add", "more", "--vpc", "blue", "--mac", "02:00:00:00:00:13")
    tool("host", "add", "bare", "--vtep", "192.0.2.9")
    assert "`lockgate release web` first" in tool("provision", "more", "--host", "host-a", fails=True)
    assert "bare has no BMC" in tool("provision", "more", "--host", "bare", fails=True)
    assert "still needed" in tool("host", "delete", "host-a", fails=True)
    tool("host", "delete", "bare")
    tool("port", "delete", "more")
    assert (state(tool), program.boots) == (GIVEN, 1)


def test_of_two_that_begin_together_one_boots(lab_tool: Tool, program: Program) -> None:
    """Four runs: two for each of two hosts, and all for one port."""
    tool = lab_tool
    other = (*program.words[:3], "host-b", *program.words[4:])
    runs = [tool.popen(*words) for words in (program.words, other) * 2]
    said = [run.communicate(timeout=400)[0] for run in runs]
    assert program.boots == 1, said
    assert {run.returncode for run in runs} == {0, 1}
    won = {words[3] for words, run in zip((program.words, other) * 2, runs, strict=True) if not run.returncode}
    (host,) = won
    assert state(tool, host) == ("active", "on", "web", host)


def test_a_port_that_is_on_another_host_stays_there(lab_tool: Tool, program: Program) -> None:
    """An operator has bound it by hand while the machine was being turned off."""
    tool = lab_tool
    file = tool.lab.folder / "by-hand.yaml"
    file.write_text("ports: {web: {vpc: blue, mac: '02:00:00:00:00:11', host: host-b}}")
    with stopped(tool, Step.POWER_OFF, *program.words) as ended:
        tool("apply", "-f", str(file))
    assert "port web is on host host-b" in ended.said
    assert state(tool) == ("failed", "off", "web", "host-b")
    assert program.boots == 0


def test_another_port_gets_no_machine_that_is_not_released(lab_tool: Tool, program: Program) -> None:
    """Its wipe fails: the port is unbound, and what is on the machine is still the last tenant's."""
    tool = lab_tool
    tool(*program.words)
    tool("release", "web", "--wipe", "false", fails=True)
    assert state(tool)[::3] == ("failed", None)
    file = tool.lab.folder / "its-device.yaml"
    file.write_text("ports: {db: {vpc: blue, mac: '02:00:00:00:00:12', host: host-a, device: web}}")
    move = ("port", "move", "db", "--host", "host-a", "--device", "web")
    for words in (move, ("apply", "-f", str(file))):
        assert "device web of host host-a is failed for port web: `lockgate release web`" in tool(*words, fails=True)
    assert tool.bound("db") == "host-b"
    tool("release", "web")


def test_who_has_lost_the_row_touches_nothing_more(lab_tool: Tool, program: Program) -> None:
    """It was stopped for so long that another run has taken over, and has bound the port."""
    tool = lab_tool
    with stopped(tool, Step.CHECK, *program.words) as ended, Writer([tool.lab.control.remote]) as writer:
        writer.record([{"op": "update", "table": "Provision", "where": [], "row": {"owner": "other@elsewhere:1"}}])
    assert "another run of the tool has taken over" in ended.said
    assert tool.bound() == "host-a", "it has closed a port that is the other run's"
    assert program.boots == 0
    with Writer([tool.lab.control.remote]) as writer:
        writer.record([{"op": "update", "table": "Provision", "where": [], "row": {"owner": ""}}])


def test_a_machine_that_somebody_else_turns_on_meanwhile_gets_no_port(lab_tool: Tool, program: Program) -> None:
    """The button is pressed between closing and deploying: it runs what the last tenant has left."""
    tool = lab_tool
    with stopped(tool, Step.CHECK, *program.words) as ended:
        LabMachine("host-a", tool.lab.name, "web", "web", tool.snapshot).turn_on()
    assert "turned on by somebody else" in ended.said
    assert state(tool)[::3] == ("failed", None)
    assert program.boots == 0
    tool(*program.words)
    assert (state(tool), program.boots) == (GIVEN, 1)


@pytest.mark.parametrize("step", [Step.CHECK, Step.GUEST])
def test_a_database_that_dies_midway_is_one_error_and_one_boot(lab_tool: Tool, program: Program, step: Step) -> None:
    tool = lab_tool
    with stopped(tool, step, *program.words) as ended:
        tool.lab.kill_database()
    *_, said = ended.said.splitlines()
    assert "mapping database" in json.loads(said)["error"]
    assert "run the same again" in json.loads(said)["error"]
    assert ended.status == 1
    tool.lab.start_database()
    tool(*program.words)
    assert (state(tool), program.boots) == (GIVEN, 1)


def test_what_cannot_be_is_one_clear_error(lab_tool: Tool) -> None:
    for words, said in {
        ("provision", "a-port-with-a-long-name", "--host", "host-a"): "name the machine's with --device",
        ("provision", "web", "--host", "nosuch"): "there is no host 'nosuch'",
        ("provision", "nosuch", "--host", "host-a"): "there is no port 'nosuch'",
        ("release", "web"): "is provisioned on no host",
        ("attest", "nosuch"): "there is no host 'nosuch'",
    }.items():
        out = lab_tool(*words, fails=True)
        assert said in out
        assert "Traceback" not in out


def test_a_host_that_is_not_as_it_must_be_gets_no_power(lab_tool: Tool, program: Program) -> None:
    """Its switch confirms what it is told, and has another flow besides."""
    tool = lab_tool
    host = tool.lab.hosts["host-a"]
    host.ofctl("add-flow", "br-nic", "table=0,priority=60000,actions=NORMAL")
    assert "a flow is stranger" in tool(*program.words, fails=True)
    assert state(tool) == ("failed", "off", "web", None)
    assert "priority=60000" in tool.record()["problem"]
    assert program.boots == 0
    host.ofctl("del-flows", "br-nic", "cookie=0/-1")
    tool(*program.words)
    assert state(tool) == GIVEN


def test_a_host_that_obeys_another_controller_gets_no_power(lab_tool: Tool, program: Program) -> None:
    """Its target is changed when the rules are confirmed; who may be obeyed is said as to attestation."""
    tool = lab_tool
    host = tool.lab.hosts["host-a"]
    right = ("--controller", tool.lab.control.controller.target)
    with stopped(tool, Step.CHECK, *program.words, *right) as ended:
        obey(host, "tcp:203.0.113.1:6653")
    assert "br-nic obeys tcp:203.0.113.1:6653, not" in ended.said
    assert state(tool) == ("failed", "off", "web", None)
    assert program.boots == 0
    obey(host, tool.lab.control.controller.target)
    tool(*program.words, *right)
    assert state(tool) == GIVEN
    tool("release", "web", *right)


def test_what_comes_from_another_host_makes_no_machine_active(lab_tool: Tool, tmp_path: Path) -> None:
    """While the machine comes up, its port is moved by hand to host-b, where its guest sends without end."""
    tool = lab_tool
    silent, talking = Program(tmp_path), tmp_path / "talk"
    Path(silent.path).write_text("#!/bin/sh\n")
    talking.write_text("#!/bin/sh\nexec ping 10.0.0.1\n")
    talking.chmod(0o755)
    machines = [LabMachine(host, tool.lab.name, "web", "web", tool.snapshot) for host in ("host-a", "host-b")]
    with Writer([tool.lab.control.remote]) as writer:
        site = Site(writer, tool.env["LOCKGATE_VIA"], Cause("test", "", ""))
        with stopped(tool, Step.GUEST, *silent.words) as ended:
            tool("port", "move", "web", "--host", "host-b")
            machines[0].turn_off()
            machines[1].boot_from(str(talking))
            machines[1].turn_on()
            wait_until(lambda: site.seen("web", "host-b"), 30, "the guest on host-b")
        machines[1].turn_off()
    assert "port web was taken off host host-a meanwhile" in ended.said
    assert state(tool)[::3] == ("failed", "host-b")


def test_ports_of_other_vpcs_on_its_host_keep_a_machine_off(lab_tool: Tool, program: Program) -> None:
    """The last tenant has left one on a further device. One of the same VPC may be there."""
    tool = lab_tool
    tool("vpc", "add", "green", "--vni", "5002", "--subnet", "10.0.0.0/24")
    for name, vpc, mac in (("left", "green", "02:00:00:00:00:21"), ("more", "blue", "02:00:00:00:00:22")):
        tool("port", "add", name, "--vpc", vpc, "--mac", mac, "--host", "host-a", "--device", f"nic-{name}")
    try:
        said = tool(*program.words, fails=True)
        assert "port left of VPC green is on it as well, at device nic-left" in said
        assert (state(tool), program.boots) == (("failed", "off", "web", None), 0)
        tool("port", "unbind", "left")
        tool(*program.words)
        assert (state(tool), program.boots) == (GIVEN, 1)
    finally:
        tool("port", "delete", "left")
        tool("port", "delete", "more")
        tool("vpc", "delete", "green")


@pytest.mark.parametrize("seat", ["moving_to", "previous_host"])
def test_a_host_that_a_port_of_the_vpc_moves_to_or_from_must_confirm_a_release(lab_tool: Tool, seat: str) -> None:
    """The host `bare` has no bridges that would confirm anything."""
    tool = lab_tool
    tool("host", "add", "bare", "--vtep", "192.0.2.9")
    with Writer([tool.lab.control.remote]) as writer:
        select = {"op": "select", "table": "Host", "where": [["name", "==", "bare"]], "columns": ["_uuid"]}
        (bare,) = writer.record([select])[0]["rows"]
        there = {"op": "update", "table": "Port", "where": [["name", "==", "db"]], "row": {seat: bare["_uuid"]}}
        site = Site(writer, tool.env["LOCKGATE_VIA"], Cause("test", "", ""))
        writer.transact([there], "move")
        try:
            assert not site.is_bound("web", "host-a")
            closed = site.closed("web", "host-a", "web", 3.0, lambda: None)
        finally:
            writer.transact([{**there, "row": {seat: ["set", []]}}], "move back")
    tool("host", "delete", "bare")
    assert "host bare has not confirmed its rules" in closed.problem


class Broken(LabMachine):
    """A driver with a fault of its own."""

    def boot_from(self, image: str) -> None:
        raise RuntimeError(image)


def test_whatever_fails_closes_the_port(lab_tool: Tool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that breaks; and rules that no controller confirms. Here nobody waits long for them."""
    tool = lab_tool
    monkeypatch.setattr(order, "APPLIED_SECONDS", 2.0)
    monkeypatch.setattr(order, "_CLOSED_SECONDS", 2.0)
    with Writer([tool.lab.control.remote]) as writer:
        site = Site(writer, tool.env["LOCKGATE_VIA"], Cause("test", "", ""))
        machine = Broken("host-a", tool.lab.name, "web", "web", site.snapshot)
        run = Run(Ledger(writer), machine, site, lambda _: None)
        with pytest.raises(RuntimeError):
            run.provision("host-a", "web", "web", "x", 1)
        assert state(tool) == ("failed", "off", "web", None)
        tool.lab.kill_controller()
        with pytest.raises(MappingError, match="has not confirmed its rules"):
            run.provision("host-a", "web", "web", "x", 1)
    assert state(tool) == ("failed", "off", "web", None)


def test_no_program_that_is_started_inherits_the_credentials(lab_tool: Tool, tmp_path: Path) -> None:
    """Neither those by which hosts are asked, nor the guest's, nor what wipes."""
    tool, seen = lab_tool, tmp_path / "seen"
    script = tmp_path / "script"
    script.write_text(f'#!/bin/bash\nenv >> {seen}\nexec "${{@:-true}}"\n')
    script.chmod(0o755)
    known = {"LOCKGATE_BMC_USER": "somebody", "LOCKGATE_BMC_PASSWORD": "hunter2"}
    asked = Tool(tool.lab, known | {"LOCKGATE_VIA": f"{script} {tool.env['LOCKGATE_VIA']}"})
    program = Program(tmp_path)
    Path(program.path).write_text(f"#!/bin/sh\nenv >> {seen}\nping -c 1 10.0.0.1\n")
    for words in (program.words, ("attest", "host-a"), ("release", "web", "--wipe", str(script))):
        asked(*words)
        assert "LOCKGATE_VIA=" in seen.read_text()
        assert not [value for value in known.values() if value in seen.read_text()], words
        seen.unlink()


def test_what_the_wipe_says_is_heard(lab_tool: Tool, program: Program, tmp_path: Path) -> None:
    tool = lab_tool
    tool(*program.words)
    wipe = tmp_path / "wipe"
    wipe.write_text('#!/bin/sh\necho "disk of $LOCKGATE_HOST is stuck $LOCKGATE_BMC_PASSWORD" >&2\nexit 1\n')
    wipe.chmod(0o755)
    assert "disk of host-a is stuck: wipe" in tool("release", "web", "--wipe", str(wipe), fails=True)
    assert tool.record()["state"] == "failed"
    assert "cannot wipe" in tool("release", "web", "--wipe", "/nosuch", fails=True)
    tool("release", "web", "--wipe", "sleep 1.5")
    assert state(tool) == TAKEN_BACK
