"""Mininet, as its users work with it: `mn` on every topology, its command line, from Python; and nothing is left.

Topologies: 2 or 3 hosts on one switch; 2 leaves, 2 spines, 4 hosts; 2 VPCs with the same addresses; a lossy substrate.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path

import pytest

from topo import netns
from topo.lab import Lab
from topo.mininet_check import CHECKS, Check, command, left, run, start
from topo.mininet_control import ROOT
from topo.removal import FOLDER, prefix
from topo.waiting import wait_until

Figure = Callable[[str, object, str], None]
SECONDS = 120
INTERRUPTED_AT = ("Adding links", "Starting 4 switches", "program every host", "testing ping")
_names = (f"mnt{os.getpid()}n{number}" for number in count())


def machine() -> tuple[str, ...]:
    """What a lab must leave alone: the machine's own interfaces, Open vSwitch, and limits."""
    links = sorted(link["ifname"] for link in json.loads(netns.run(None, ["ip", "-j", "link"])))
    limits = Path("/proc/sys/net/ipv4/neigh/default/gc_thresh1").read_text()
    switch = sorted(str(path) for path in Path("/run/openvswitch").glob("*"))
    return (*links, limits, *switch)


@pytest.fixture(autouse=True)
def _nothing_changes_on_the_machine() -> Iterator[None]:
    before = machine()
    yield
    assert machine() == before


def mn(topology: str, script: str = "", *options: str) -> str:
    """What `mn` prints when these lines are typed at it. It leaves nothing."""
    with start(command(topology, *options)) as process:
        said = process.communicate(script, timeout=SECONDS)[0]
    assert left(process.pid) == []
    return said


def between(said: str, begin: str, end: str) -> str:
    return said.partition(begin)[2].partition(end)[0]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.topology)
def test_pingall_gives_what_the_topology_promises(check: Check, figure: Figure) -> None:
    printed: list[str] = []
    begun = time.monotonic()
    assert run(check, printed.append) == [], "\n".join(printed)
    figure(check.topology, round(time.monotonic() - begun, 1), "s")
    for line in printed:
        if line.startswith("*** Results:") or line in check.says or "pings lost" in line:
            figure("mn says", line, "")


@pytest.mark.parametrize("encap", ["geneve", "gre"])
def test_other_encapsulations_carry_it_too(encap: str) -> None:
    assert "0% dropped (2/2 received)" in mn(f"baremetal,encap={encap}", "", "--test", "pingall")


def test_options_of_mn_that_would_change_what_nodes_are_do_nothing() -> None:
    options = ("--mac", "--arp", "--switch", "ovsk", "--controller", "remote", "--test", "pingall")
    assert "0% dropped (2/2 received)" in mn("baremetal", "", *options)


@pytest.mark.parametrize("command_line", ["iperf guest_a guest_b", "iperfudp 5M guest_a guest_b"])
def test_throughput_is_measured_between_guests(command_line: str) -> None:
    assert re.search(
        r"\*\*\* Results: \['[\d.]+ Mbits/sec', '[\d.]+ Mbits/sec'\]", mn("baremetal", f"{command_line}\n")
    )


def test_guests_ping_by_name_flows_are_shown_and_hosts_listed() -> None:
    received = "py [guest_b.frames() > 0, guest_b.echoes()]"
    lines = ("guest_a ping -c1 guest_b", "hosts", "flows guest_a guest_b", "flows guest_a nobody", received)
    said = mn("baremetal", "\n".join([*lines, ""]))
    assert "[True, 1]" in said, "so what pingall says of what guests received is counted"
    assert "1 packets transmitted, 1 received, 0% packet loss" in said
    assert "host2  VTEP 192.0.2.2/24  control 198.51.100.11/24  guests: guest_b 10.0.0.12/24" in said
    assert "All is well: every host has applied config_seq 1." in said
    met = iter(re.findall(r"(host\d) (br-\S+) (\w+): ", said))
    in_order = [
        ("host1", "br-guest", "CLASSIFY"),
        ("host1", "br-guest", "IP_GUARD"),
        ("host1", "br-nic", "CLASSIFY"),
        ("host1", "br-nic", "PUSH"),
        ("host1", "br-nic", "CLASSIFY"),
        ("host2", "br-nic", "CLASSIFY"),
        ("host2", "br-nic", "SOURCE_GUARD"),
        ("host2", "br-nic", "DELIVER"),
        ("host2", "br-guest", "CLASSIFY"),
        ("host2", "br-guest", "TO_GUEST"),
    ]
    assert [step for step in in_order if step not in met] == [], "not met, or not in this order"
    assert "usage: flows GUEST GUEST; guests: guest_a guest_b" in said


def test_flows_between_vpcs_end_in_a_drop_with_its_reason() -> None:
    said = mn("twovpcs", "flows blue_a green_b\n")
    assert re.search(r"host1 br-nic DROP: .*: no_mapping$", said, re.MULTILINE), said
    assert not re.search("^host2", said, re.MULTILINE)


def test_a_moved_guest_is_reached_at_its_new_host() -> None:
    lines = ("move guest_a host2", "hosts", "flows guest_a guest_b", "pingall", "net", "move guest_a host1", "pingall")
    wrong = ("move guest_z host1", "move guest_a host9", "move guest_a")
    said = mn("baremetal,hosts=3", "\n".join([*lines, *wrong, ""]))
    assert "host2  VTEP 192.0.2.2/24  control 198.51.100.11/24  guests: guest_a 10.0.0.11/24, guest_b 10.0.0.12" in said
    for host in ("host1", "host2", "host3"):
        assert re.search(rf"^{host} .* connected +connected +2 +0 ", said, re.MULTILINE), said
    assert "host2 br-nic PUSH: ip,tun_id=0x1389,nw_dst=10.0.0.12, priority 100 actions=" in said
    assert "guest_a:eth0" in between(said, "host2 mgmt", "host3 mgmt"), "as Mininet sees it, too"
    assert said.count("*** Results: 0% dropped (6/6 received)") == 2
    assert "no guest guest_z; there are: guest_a guest_b guest_c" in said
    assert "no host host9; there are: host1 host2 host3" in said
    assert "usage: move PORT HOST" in said


def test_the_fabric_goes_on_when_a_spine_is_cut_off() -> None:
    # Pings until the first answer, which is when the spanning tree has found the other way.
    said = mn("leafspine", "link leaf1 spine1 down\nguest_a ping -c1 -w30 guest_b\npingall\n")
    assert "1 received" in between(said, "ping statistics", "rtt"), said
    assert "*** Results: 0% dropped (12/12 received)" in said


def test_a_lossy_substrate_does_not_disturb_control() -> None:
    said = mn("lossy,loss=30", "move guest_a host2\nhosts\nguest_a ping -c20 -i0.01 -W1 guest_b\n")
    for host in ("host1", "host2"):
        assert re.search(rf"^{host} .* connected +connected +2 +0 ", said, re.MULTILINE), said
    assert "20 packets transmitted, 20 received" in said, f"on one host nothing is lost: {said}"


def test_delay_is_made_or_refused_by_name() -> None:
    name = next(_names)
    netns.add(name)
    try:
        netns.run(name, ["tc", "qdisc", "add", "dev", "lo", "root", "netem"])
        netem = True
    except netns.CommandError:
        netem = False
    finally:
        netns.delete([name])
    said = mn("baremetal,delay=5ms", "guest_a ping -c5 guest_b\n")
    if netem:
        # A ping crosses four cables' ends.
        assert float(between(said, "min/avg/max/mdev = ", "/")) >= 20
    else:
        assert "LabError: this kernel has no netem" in said
        assert "ping statistics" not in said


def test_from_python_as_documented() -> None:
    example = between((ROOT / "docs/labs.md").read_text(), "sudo /usr/bin/python3 -c '", "'\n```")
    assert example
    with start(["/usr/bin/python3", "-c", example]) as process:
        said = process.communicate(timeout=SECONDS)[0]
    assert "*** Results: 0% dropped (30/30 received)" in said
    assert "1 received, 0% packet loss" in said
    assert left(process.pid) == []


def read_to(process: subprocess.Popen[str], text: str) -> str:
    assert process.stdout
    said = ""
    while text not in said and (character := process.stdout.read(1)):
        said += character
    assert text in said, said
    return said


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("moment", INTERRUPTED_AT)
def test_ctrl_c_leaves_nothing(moment: str, signum: signal.Signals) -> None:
    with start(command("twovpcs", "--test", "pingall")) as process:
        said = read_to(process, moment)
        # As a terminal does it: to all that is in the foreground.
        os.killpg(process.pid, signum)
        said += process.communicate(timeout=SECONDS)[0]
    assert "completed in" not in said
    assert left(process.pid) == [], said


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
def test_one_that_is_ended_at_its_prompt_leaves_nothing(signum: signal.Signals) -> None:
    with start(command("baremetal")) as process:
        read_to(process, "Starting CLI")
        os.killpg(process.pid, signum)
        assert process.wait(SECONDS) == 128 + signum
    assert left(process.pid) == []


def test_ctrl_c_at_the_prompt_ends_only_what_runs_there() -> None:
    with start(command("baremetal")) as process:
        assert process.stdin
        process.stdin.write("guest_a ping guest_b\n")
        process.stdin.flush()
        read_to(process, "icmp_seq=2")
        os.killpg(process.pid, signal.SIGINT)
        assert "packet loss" in read_to(process, "lockgate> ")
        assert "0% dropped" in process.communicate("pingall\n", timeout=SECONDS)[0]
    assert left(process.pid) == []


def test_a_failure_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for topology, problem in (
        ("baremetal,hosts=0", "hosts=0: use 1 to"),
        ("lossy,loss=101", "loss=101: use 0 to 100"),
        ("baremetal,encap=ipip", "ipip"),
    ):
        said = mn(topology, "", "--test", "pingall")
        assert problem in said
        assert "completed in" not in said
    assert "none of Lockgate's topologies" in mn("minimal", "", "--test", "pingall")
    assert "a lab has no NAT" in mn("baremetal", "", "--nat", "--test", "pingall")
    python = Path("/nonexistent/python")
    with monkeypatch.context() as patched:
        patched.setattr("topo.mininet_check.sys.executable", str(python))
        assert f"no {python}: run `make setup`" in mn("baremetal", "", "--test", "pingall")


def test_what_a_killed_mn_has_left_the_next_removes() -> None:
    with start(command("baremetal")) as killed:
        assert killed.stdout
        wait_until(lambda: f"{prefix(f'mn{killed.pid}')}h-host2" in netns.names(), 30, "the second host")
        killed.kill()
    assert left(killed.pid) != []
    mn("baremetal", "exit\n")
    assert left(killed.pid) == []


def test_other_labs_are_left_alone(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab()
    with start(command("baremetal")) as other:
        assert other.stdin
        wait_until((FOLDER / f"mn{other.pid}/controller.log").exists, 60, "the controller")
        assert "0% dropped" in mn("baremetal", "", "--test", "pingall"), "side by side"
        os.killpg(other.pid, signal.SIGINT)
        other.communicate("exit\n", timeout=SECONDS)
    assert left(other.pid) == []
    assert lab.state == "up"
    assert lab.control.controller.runs
    wait_until(partial(lab.guest("a").ping, "10.0.0.11"), 20, "an answer")


def test_the_documented_command_is_what_is_tested() -> None:
    documents = (ROOT / "docs/labs.md").read_text()
    assert f"sudo {shlex.join(command(CHECKS[0].topology, '--test', 'pingall'))}" in documents
