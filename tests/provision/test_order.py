"""Interrupted at any step, the same command ends in the same state, with one boot; and never two at once."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from mapping.writer import Writer
from provision.record import Step
from tests.provision.conftest import Tool

STEPS = (Step.POWER_OFF, Step.BIND, Step.CHECK, Step.BOOT_DEVICE, Step.POWER_ON, Step.GUEST)


def boots(tmp_path: Path) -> tuple[Path, Path]:
    """A program that a guest runs when it is turned on, and the file in which it counts that."""
    counted, program = tmp_path / "boots", tmp_path / "boot"
    program.write_text(f"#!/bin/sh\necho on >> {counted}\nping -c 1 10.0.0.1\n")
    program.chmod(0o755)
    return program, counted


def kill_at(tool: Tool, step: Step, *words: str) -> None:
    """Run the tool, and kill it as soon as it begins a step."""
    with tool.popen(*words) as process:
        assert process.stdout
        for line in process.stdout:
            if not line.startswith('{"step"'):
                pytest.fail(line + process.stdout.read())
            event = json.loads(line)
            if event.get("step") == step and not event["done"]:
                process.send_signal(signal.SIGKILL)
                break
        else:
            pytest.fail(f"it never began {step}")


def test_killed_at_each_step_and_run_again_it_ends_in_the_same_state_with_one_boot(
    lab_tool: Tool, tmp_path: Path
) -> None:
    tool = lab_tool
    for step in STEPS:
        program, counted = boots(tmp_path)
        counted.unlink(missing_ok=True)
        words = ("provision", "web", "--host", "host-a", "--device", "nic0", "--image", str(program))
        kill_at(tool, step, *words)
        assert tool.record()["state"] in ("closing", "deploying")
        tool(*words)
        found = tool.record()
        assert (found["state"], found["port"], found["power"], found["problem"]) == ("active", "web", "on", None)
        assert tool.port("web")["host"] == "host-a"
        assert counted.read_text() == "on\n", step
        assert '"seconds"' not in tool(*words), "an active host is provisioned again"
        kill_at(tool, Step.CONFIRM, "release", "web")
        tool("release", "web")
        found = tool.record()
        assert (found["state"], found["port"], found["power"]) == ("available", None, "off")
        assert tool.port("web")["host"] is None
        assert "nic0" not in tool.lab.hosts["host-a"].vsctl("list-ports", "br-guest").split()


def test_one_at_a_time_and_one_port_at_a_time(lab_tool: Tool, tmp_path: Path) -> None:
    tool = lab_tool
    program, _ = boots(tmp_path)
    words = ("provision", "web", "--host", "host-a", "--image", str(program))
    with tool.popen(*words) as process:
        assert process.stdout
        process.stdout.readline()
        process.send_signal(signal.SIGSTOP)
        assert "is being worked on by" in tool(*words, fails=True)
        process.send_signal(signal.SIGCONT)
        out, _ = process.communicate(timeout=120)
        assert process.returncode == 0, out
    tool("port", "add", "more", "--vpc", "blue", "--mac", "02:00:00:00:00:13")
    assert "`lockgate release web` first" in tool("provision", "more", "--host", "host-a", fails=True)
    assert "host-b has no BMC" in tool("provision", "more", "--host", "host-b", fails=True)
    assert "still needed" in tool("host", "delete", "host-a", fails=True)


def test_who_has_lost_the_row_touches_nothing_more(lab_tool: Tool, tmp_path: Path) -> None:
    """It was stopped for so long that another run has taken over, and has bound the port."""
    tool = lab_tool
    program, counted = boots(tmp_path)
    with tool.popen("provision", "web", "--host", "host-a", "--image", str(program)) as process:
        assert process.stdout
        for line in process.stdout:
            event = json.loads(line)
            if event["step"] == Step.CHECK and not event["done"]:
                break
        process.send_signal(signal.SIGSTOP)
        with Writer([tool.lab.control.remote]) as writer:
            writer.record([{"op": "update", "table": "Provision", "where": [], "row": {"owner": "other@elsewhere:1"}}])
        process.send_signal(signal.SIGCONT)
        out, _ = process.communicate(timeout=120)
    assert "another run of the tool has taken over" in out
    assert tool.port("web")["host"] == "host-a", "it has closed a port that is the other run's"
    assert not counted.exists()


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


def test_a_host_that_is_not_as_it_must_be_gets_no_power(lab_tool: Tool, tmp_path: Path) -> None:
    tool = lab_tool
    host = tool.lab.hosts["host-a"]
    program, counted = boots(tmp_path)
    words = ("provision", "web", "--host", "host-a", "--image", str(program))
    host.ofctl("add-flow", "br-nic", "table=0,priority=60000,actions=NORMAL")
    assert "a flow is stranger" in tool(*words, fails=True)
    found = tool.record()
    assert (found["state"], found["power"]) == ("failed", "off")
    assert "priority=60000" in found["problem"]
    assert tool.port("web")["host"] is None
    assert not counted.exists()
    host.ofctl("del-flows", "br-nic", "cookie=0/-1")
    tool(*words)
    assert tool.record()["state"] == "active"


def test_rules_that_are_not_confirmed_give_no_power(lab_tool: Tool, tmp_path: Path) -> None:
    tool = lab_tool
    program, counted = boots(tmp_path)
    tool.lab.kill_controller()
    said = tool("provision", "web", "--host", "host-a", "--image", str(program), fails=True)
    assert "has not confirmed its rules" in said
    assert not counted.exists()
    assert tool.record()["state"] == "failed"


def test_what_the_wipe_says_is_heard(lab_tool: Tool, tmp_path: Path) -> None:
    tool = lab_tool
    program, _ = boots(tmp_path)
    tool("provision", "web", "--host", "host-a", "--image", str(program))
    wipe = tmp_path / "wipe"
    wipe.write_text('#!/bin/sh\necho "disk of $LOCKGATE_HOST is stuck" >&2\nexit 1\n')
    wipe.chmod(0o755)
    assert "disk of host-a is stuck" in tool("release", "web", "--wipe", str(wipe), fails=True)
    assert tool.record()["state"] == "failed"
    tool("release", "web", "--wipe", "true")
    assert tool.record()["state"] == "available"
