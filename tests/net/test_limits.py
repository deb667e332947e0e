"""Limits of ports with real TCP, changed while it runs: guests a and c are on h1, b on h2, all in one VPC."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from tests.conftest import Figure
from tests.net.conftest import TWO_HOSTS
from topo.lab import Lab
from topo.waiting import wait_until

pytestmark = pytest.mark.alone

C = '  c: {vpc: red, host: h1, mac: "02:00:00:00:00:0c", addresses: [10.0.0.12]}\n'
SECONDS = 2
MARK = b"counted at the receiver"


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    file = tmp_path_factory.mktemp("mapping") / "three.yaml"
    file.write_text(TWO_HOSTS + C)
    with Lab(f"lim{os.getpid()}") as lab:
        lab.up(file)
        yield lab


def limit(lab: Lab, port: str, *limits: str) -> None:
    """Give a port these limits, and wait until the switches have them."""
    argv = [sys.executable, "-m", "mapping.cli", "port", "set", port]
    for each in limits or ("none",):
        argv += ["--limit", each]
    subprocess.run(argv, env=os.environ | {"LOCKGATE_DB": lab.control.remote}, check=True, capture_output=True)
    lab.control.wait_applied()


def serve(lab: Lab, port: int) -> subprocess.Popen[str]:
    server = lab.guest("b").popen(["iperf3", "--server", "--one-off", "--port", str(port)])
    listening = ["ss", "--no-header", "--listening", "--tcp", f"sport = :{port}"]
    wait_until(lambda: lab.guest("b").run(listening).strip(), 10, "iperf3 to listen")
    return server


def client(port: int, *more: str) -> list[str]:
    return ["iperf3", "--client", "10.0.0.11", "--port", str(port), "--time", str(SECONDS), "--json", *more]


def kbps(said: str) -> float:
    """What arrived: by the receiver's clock, whichever side that is."""
    report: dict[str, Any] = json.loads(said)
    return float(report["end"]["sum_received"]["bits_per_second"]) / 1000


def measure(lab: Lab, *more: str) -> float:
    with serve(lab, 5201):
        return kbps(lab.guest("a").run(client(5201, *more)))


@pytest.mark.parametrize("way", ["from_guest_kbps", "to_guest_kbps"])
def test_tcp_keeps_to_a_limit_that_is_changed_live(three: Lab, figure: Figure, way: str) -> None:
    reverse = ["--reverse"] if way == "to_guest_kbps" else []
    free = measure(three, *reverse)
    low, high = int(free / 16), int(free / 4)
    limit(three, "a", f"{way}={low}")
    slow = measure(three, *reverse)
    limit(three, "a", f"{way}={high}")
    faster = measure(three, *reverse)
    limit(three, "a")
    again = measure(three, *reverse)
    figure(f"{way}: of a limit of 1/16 is used", round(slow / low, 2), "x")
    figure(f"{way}: of a limit of 1/4 is used", round(faster / high, 2), "x")
    assert 0.3 < slow / low < 1.3
    assert 0.3 < faster / high < 1.3
    assert again > 1.5 * faster


def test_packets_to_a_guest_keep_to_a_limit_that_is_changed_live(three: Lab, figure: Figure) -> None:
    """Guest b sends as fast as it can; `from_guest_pps` is measured likewise in tests/attack/test_filter.py."""
    a, b = three.guest("a"), three.guest("b")
    frame = bytes(Ether(src=b.spec.mac, dst=a.spec.mac) / IP(src=b.ip, dst=a.ip) / UDP(sport=7, dport=7) / MARK)
    got = []
    for rate in (300, 1200):
        limit(three, "a", f"to_guest_pps={rate}")
        with a.capture("in") as seen:
            started, sent = time.monotonic(), 0
            while time.monotonic() - started < SECONDS:
                b.send(*[frame] * 200)
                sent += 200
            took = time.monotonic() - started
            wait_until(lambda: b.ping(a.ip), 10, "what was sent to be done with")
            passed = sum(MARK in each for each in seen.frames)
        assert sent > 2 * rate * took, "it was no flood"
        got.append(passed / took / rate)
        figure(f"of a limit of {rate} packets a second is used", round(got[-1], 2), "x")
    limit(three, "a")
    assert all(0.5 < share < 1.5 for share in got)


def test_a_flooding_port_leaves_its_neighbour_the_same_share(three: Lab, figure: Figure) -> None:
    """Guest a sends UDP as fast as it can, c with TCP; both have the same limit."""
    share = int(measure(three) / 8)
    for name in ("a", "c"):
        limit(three, name, f"from_guest_kbps={share}")
    with serve(three, 5201), serve(three, 5202):
        flood = three.guest("a").popen(client(5201, "--udp", "--bitrate", f"{3 * share}k"))
        got = {"c": kbps(three.guest("c").run(client(5202)))}
        got["a"] = kbps(flood.communicate(timeout=30)[0])
    figure("flooding guest, of its share", round(got["a"] / share, 2), "x")
    figure("its neighbour, of its share", round(got["c"] / share, 2), "x")
    assert got["a"] / share < 1.3
    assert 0.3 < got["c"] / share < 1.3
