"""`make demo` shows what it should, fails when it should, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from topo import netns
from topo.demo import EXAMPLE, PARTS, _play, _take
from topo.demo_show import Part, Step
from topo.lab import Lab
from topo.removal import FOLDER
from topo.waiting import wait_until

COOKIE = "0x5ab07a9e"
_names = (f"d{os.getpid()}n{number}" for number in count())


def demo(*args: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "topo.demo", *args]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def assert_nothing_left(name: str) -> None:
    assert netns.names(f"lg-{name}-") == []
    assert not (FOLDER / name).exists()
    assert [path for path in Path("/proc").glob("[0-9]*/cmdline") if mentions(path, f"{FOLDER}/{name}/")] == []


def mentions(path: Path, text: str) -> bool:
    try:
        return text in path.read_text(errors="replace")
    except OSError:
        return False


def test_every_step_holds_and_nothing_is_left() -> None:
    name = next(_names)
    with demo("--json", "--name", name) as running:
        said, complaints = running.communicate(timeout=120)
    steps = [json.loads(line) for line in said.splitlines()]
    assert [check for step in steps for check in step["checks"] if not check["ok"]] == []
    assert (running.returncode, complaints) == (0, "")
    assert [step["title"] for step in steps[:-1]] == [part.title for part in PARTS]
    assert [step["step"] for step in steps] == list(range(1, len(PARTS) + 2))
    assert all(step["ok"] and step["checks"] for step in steps)
    assert_nothing_left(name)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_one_that_is_broken_off_cleans_up(signum: signal.Signals) -> None:
    name = next(_names)
    with demo("--json", "--name", name) as running:
        assert running.stdout
        json.loads(running.stdout.readline())  # in the middle: the first step is done
        running.send_signal(signum)
        _, complaints = running.communicate(timeout=30)
    assert running.returncode == 130
    assert complaints == "lockgate demo: interrupted; the lab is removed\n"
    assert_nothing_left(name)


def test_one_that_is_broken_off_while_the_lab_is_made_cleans_up() -> None:
    name = next(_names)
    with demo("--name", name) as running:
        wait_until(lambda: f"lg-{name}-h-host-a" in netns.names(), 20, "the first host")
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=30)
    assert running.returncode == 130
    assert_nothing_left(name)


def test_two_at_once_do_not_share_a_lab() -> None:
    name = next(_names)
    with demo("--name", name) as first:
        wait_until(lambda: netns.names(f"lg-{name}-"), 20, "the first to begin")
        with demo("--name", name) as second:
            _, complaints = second.communicate(timeout=30)
        assert second.returncode == 1
        assert "is running" in complaints
        first.send_signal(signal.SIGINT)
        first.communicate(timeout=30)
    assert first.returncode == 130
    assert_nothing_left(name)


@pytest.mark.parametrize(
    ("play", "complaint"),
    [
        (lambda _, step: step.equal("one", 1, 2), "step 1: one: 2 (expected: 1)"),
        (lambda *_: wait_until(lambda: False, 0, "what never comes"), "step 1: goes on to its end: waited 0 s for"),
        (lambda *_: None, "step 1: claims nothing"),
    ],
    ids=["does not hold", "breaks off", "claims nothing"],
)
def test_a_step_that_fails_turns_the_exit_status(
    play: Callable[[Lab, Step], None],
    complaint: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    name = next(_names)
    monkeypatch.setattr("topo.demo.PARTS", (Part("A part", "something", play),))
    assert _play(name, None) == 1
    said = capfd.readouterr()
    assert complaint in said.err
    assert [json.loads(line)["ok"] for line in said.out.splitlines()] == [False, True]
    assert_nothing_left(name)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """The demonstration's own, for all that sabotage it."""
    with Lab(next(_names)) as lab:
        lab.up(EXAMPLE)
        yield lab


def add_flow(host: str, bridge: str, flow: str) -> Callable[[Lab], None]:
    """A flow that is not the controller's, which therefore leaves it alone."""

    def add(lab: Lab) -> None:
        lab.host(host).ofctl("add-flow", bridge, f"cookie={COOKIE},table=0,priority=65000,{flow}")

    return add


def cable_to_control_network(lab: Lab) -> None:
    """A host's owner connects the guests' bridge to the control channel's."""
    host = lab.host("host-a")
    host.vsctl(
        *("add-port", "br-guest", "leak", "--", "set", "Interface", "leak", "type=patch", "options:peer=kael", "--"),
        *("add-port", "br-ctl", "kael", "--", "set", "Interface", "kael", "type=patch", "options:peer=leak"),
    )
    add_flow("host-a", "br-guest", "in_port=blue-web,ip,nw_dst=198.51.100.1,actions=output:leak")(lab)


SABOTAGE: dict[str, tuple[Callable[[Lab], None], str]] = {
    "The first packet": (
        add_flow("host-b", "br-guest", "in_port=g-blue-db,actions=drop"),
        "answers to the first ping",
    ),
    "One frame": (
        add_flow("host-b", "br-guest", "in_port=g-blue-db,ip,actions=mod_nw_ttl:9,output:blue-db"),
        "at the other guest",
    ),
    "Another VPC": (
        add_flow("host-b", "br-guest", "in_port=g-green-db,actions=output:green-db,output:blue-db"),
        "frames that reached blue",
    ),
    "A destination without": (
        add_flow("host-a", "br-nic", "in_port=n-blue-web,ip,nw_dst=203.0.113.9,actions=drop"),
        "dropped: ",
    ),
    "A neighbour": (
        add_flow("host-b", "br-nic", "in_port=t-geneve,tun_src=192.0.2.3,tun_id=5001,actions=output:n-blue-db"),
        "frames at the guest from any of those",
    ),
    "A guest tries": (cable_to_control_network, "the guest's frames among"),
}
"""How a step's title begins -> what makes its claim false, and how the check begins that must notice."""


@pytest.mark.parametrize("title", SABOTAGE)
def test_what_a_step_claims_is_not_claimed_of_a_lab_where_it_is_false(lab: Lab, title: str) -> None:
    (part,) = [part for part in PARTS if part.title.startswith(title)]
    sabotage, check = SABOTAGE[title]
    sabotage(lab)
    step = Step(1, part.title, part.expected, None)
    try:
        _take(part, lab, step)
    finally:
        for host in lab.hosts.values():
            for bridge in ("br-guest", "br-nic"):
                host.ofctl("del-flows", bridge, f"cookie={COOKIE}/-1")
    assert any(found.what.startswith(check) and not found.ok for found in step.checks), step.checks
