"""The filter ahead of a port: what it refuses is counted for the port, and it keeps the port's own limit of packets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from scapy.layers.inet import UDP
from scapy.packet import Packet, Raw

from flows.pipeline import Reason
from tests.attack.case import ATTACKED, ATTACKER
from tests.attack.cases import CASES
from tests.attack.setting import ECHO_REPLY, NEAR, eth, ip, ip6
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
        return uplink_filter.counted(bpf.attached(world.lab.host(ATTACKED).namespace)[UPLINK])[
            Reason.FILTER_TUNNELS
        ].packets

    (case,) = (case for case in CASES if case.name == "Geneve options")
    before = refused()
    world.send(case)
    assert wait_until(lambda: refused() - before, 10, "it to be refused") == len(case.frames)
    wait_until(lambda: dropped() == refused(), REPORTED, "it to be counted")
    world.settled = None


MANY = 2 * port_filter.CONVERSATIONS_AT_ONCE
VARIED: dict[str, tuple[Packet, Callable[[bytearray, int], None], bool]] = {
    # In the frame: DSCP and ECN of IPv4 at 15, its number of fragments at 18, its TTL at 22; DSCP and ECN of IPv6 at 14
    # and 15, its flow label at 15 to 17, its hop limit at 21.
    "TTL and DSCP": (eth() / ip(), lambda frame, n: _put(frame, {22: n & 0xFF, 15: n >> 8 << 2}), True),
    "destination MAC": (eth() / ip(), lambda frame, n: _put(frame, {4: n >> 8, 5: n & 0xFF}), True),
    "hop limit and flow label": (eth() / ip6(), lambda frame, n: _put(frame, {21: n & 0xFF, 17: n >> 8}), True),
    "ECN and the number of fragments": (
        eth() / ip(),
        lambda frame, n: _put(frame, {15: n & 3, 18: n >> 8, 19: n & 0xFF}),
        False,
    ),
    "ECN of IPv6": (eth() / ip6(), lambda frame, n: _put(frame, {15: (n & 3) << 4}), False),
}
"""What differs from frame to frame of the same addresses, and whether each is a conversation of its own."""


def _put(frame: bytearray, values: dict[int, int]) -> None:
    for at, value in values.items():
        frame[at] = value


@pytest.mark.parametrize("what", VARIED)
def test_random_headers_are_new_conversations_and_what_a_sender_varies_is_none(world: World, what: str) -> None:
    packet, vary, is_new = VARIED[what]
    guest, blank = world.lab.guest(ATTACKER), bytes(packet / UDP(sport=9, dport=9))
    frames = [bytearray(blank) for _ in range(MANY)]
    for number, frame in enumerate(frames):
        vary(frame, number)
    before, started = port_filter.refused(guest.host.namespace, ATTACKER), time.monotonic()
    guest.send(*map(bytes, frames))
    settles(lambda: sum(port_filter.refused(guest.host.namespace, ATTACKER).values()))
    took = time.monotonic() - started
    after = port_filter.refused(guest.host.namespace, ATTACKER)
    refused = {name: count - before[name] for name, count in after.items() if count != before[name]}
    world.settled = None
    if is_new:
        allowed = port_filter.CONVERSATIONS_AT_ONCE + took * port_filter.CONVERSATIONS_PER_SECOND
        assert set(refused) == {"conversations"}
        assert refused["conversations"] >= MANY - allowed
    else:
        assert refused == {}


def test_who_uses_every_protocol_all_the_time_has_few_at_a_time(world: World, figure: Figure) -> None:
    guest, seconds = world.lab.guest(ATTACKER), port_filter.PROTOCOL_SECONDS
    frames = [bytes(eth() / ip(proto=proto) / Raw(bytes(64))) for proto in range(256)]
    started, passed = time.monotonic(), []
    while (now := time.monotonic()) < started + 2.5 * seconds:
        before = settles(lambda: refused(world, "protocols"))
        guest.send(*frames)
        if now > started + 2 * seconds:
            passed.append(len(frames) - settles(lambda: refused(world, "protocols")) + before)
    world.settled = None
    figure("of 256 protocols, let on at a time", max(passed), f"after {2 * seconds} s of all")
    always = 4
    assert always < max(passed) <= always + 1.5 * seconds * port_filter.PROTOCOLS_PER_SECOND
    world.ping_all()


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
