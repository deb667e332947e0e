"""The filter ahead of a port: what it refuses is counted for the port, and it keeps the port's own limit of packets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from scapy.packet import Raw

from tests.attack.case import ATTACKED, ATTACKER
from tests.attack.cases import CASES
from tests.attack.setting import ECHO_REPLY, NEAR, eth, ip
from tests.attack.world import World
from tests.conftest import Figure
from topo import bpf, port_filter, uplink_filter
from topo.spec import UPLINK
from topo.waiting import wait_until

REFUSED, LIMIT, SECONDS = 70, 1000, 3
REPORTED = 60
UNKNOWN = bytes(eth(src=NEAR.mac, type=0x88B5) / Raw(bytes(100)))
PACKET = bytes(eth() / ip() / ECHO_REPLY)


def lockgate(world: World, *words: str) -> Any:
    argv = [sys.executable, "-m", "mapping.cli", "--json", *words]
    env = os.environ | {"LOCKGATE_DB": world.lab.control.remote}
    return json.loads(subprocess.run(argv, env=env, check=True, capture_output=True, text=True).stdout)


def shown(world: World, port: str, reason: str) -> dict[str, int]:
    found: dict[str, int] = lockgate(world, "port", "show", port)["traffic"].get(reason, {"packets": 0, "bytes": 0})
    return found


def settles(count: Callable[[], int]) -> int:
    """What it is once it is the same twice."""
    last = -1

    def is_same() -> bool:
        nonlocal last
        before, last = last, count()
        return last == before

    wait_until(is_same, 10, "a counter to stand still")
    return last


def refused(world: World, what: str) -> int:
    return port_filter.refused(world.lab.guest(ATTACKER).host.namespace, ATTACKER)[what]


def test_what_the_filter_refuses_is_counted_for_the_port(world: World) -> None:
    guest = world.lab.guest("near")  # which attacks nobody
    assert shown(world, "near", "filter_types") == {"packets": 0, "bytes": 0}
    guest.send(*[UNKNOWN] * REFUSED)
    wanted = {"packets": REFUSED, "bytes": REFUSED * len(UNKNOWN)}
    wait_until(lambda: shown(world, "near", "filter_types") == wanted, REPORTED, "it to be counted")
    world.settled = None


def test_what_the_uplinks_filter_refuses_is_counted_for_the_host(world: World) -> None:
    def dropped() -> int:
        (host,) = (each for each in lockgate(world, "status")["hosts"] if each["name"] == ATTACKED)
        return int(host["drops"].get("filter_tunnels", 0))

    def refused() -> int:
        return uplink_filter.counted(bpf.attached(world.lab.host(ATTACKED).namespace)[UPLINK]).packets

    (case,) = (case for case in CASES if case.name == "Geneve options")
    before = refused()
    world.send(case)
    assert wait_until(lambda: refused() - before, 10, "it to be refused") == len(case.frames)
    wait_until(lambda: dropped() == refused(), REPORTED, "it to be counted")
    world.settled = None


def test_a_ports_limit_of_packets_is_kept_before_the_switch(world: World, figure: Figure) -> None:
    guest = world.lab.guest(ATTACKER)
    try:
        lockgate(world, "port", "set", ATTACKER, "--limit", f"from_guest_pps={LIMIT}")
        before, shown_before = refused(world, "frames"), shown(world, ATTACKER, "filter_frames")["packets"]

        def counted() -> int:
            return shown(world, ATTACKER, "filter_frames")["packets"] - shown_before

        def kept() -> bool:
            guest.send(*[PACKET] * LIMIT)
            return refused(world, "frames") > before

        wait_until(kept, 20, "the limit to be kept")
        start, started = settles(lambda: refused(world, "frames")), time.monotonic()
        sent = 0
        while time.monotonic() - started < SECONDS:
            guest.send(*[PACKET] * LIMIT)
            sent += LIMIT
        took = time.monotonic() - started
        passed = sent - (settles(lambda: refused(world, "frames")) - start)
        figure("of a limit of packets, let through at full speed", round(passed / took / LIMIT, 2), "x")
        assert sent > 5 * LIMIT * took, "it was no flood"
        assert 0.5 < passed / took / LIMIT < 1.5
        wait_until(lambda: counted() == refused(world, "frames") - before, REPORTED, "it to be counted")
    finally:
        lockgate(world, "port", "set", ATTACKER, "--limit", "none")

    def free() -> bool:
        before = refused(world, "frames")
        guest.send(*[PACKET] * LIMIT)
        return settles(lambda: refused(world, "frames")) == before

    wait_until(free, 20, "the limit to be gone")
    world.settled = None
