"""A guest, or a neighbour, floods a switch with random headers: how many entries of its cache each kind of them takes.

Bounded: some thousand frames of each kind, as fast as the switch takes them, between interfaces of the lab.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.attack.case import ATTACKED, ATTACKER
from tests.attack.floods import FLOODS, FROM_SUBSTRATE, MANY, MARKER, Flood, summed_up
from tests.attack.setting import DB, GUESTS, NEAR
from tests.attack.world import Counts, World
from tests.conftest import Figure
from topo.capture import send
from topo.guest import PORT
from topo.spec import UPLINK

FRAMES = 2000
BURST = 100
"""Fits what the kernel holds for Open vSwitch, so that none is lost."""
MOST_MASKS = 64


@dataclass(frozen=True, slots=True)
class Sender:
    """Who sends how many frames to which host, and how entries of its cache begin that are to be counted."""

    send: Callable[[list[bytes]], None]
    frames: int
    host: str
    entry: str


@pytest.mark.parametrize("flood", FLOODS, ids=lambda flood: flood.name)
def test_a_flood_makes_few_entries_of_the_cache(world: World, flood: Flood, figure: Figure) -> None:
    def send_some(frames: list[bytes]) -> None:
        world.lab.guest(ATTACKER).send(*frames)
        world.ping(ATTACKER, NEAR.ip)

    _flood(world, flood, Sender(send_some, FRAMES, GUESTS[ATTACKER].host, rf"in_port\({ATTACKER}\)"), figure)


@pytest.mark.parametrize("flood", FROM_SUBSTRATE, ids=lambda flood: flood.name)
def test_a_flood_from_the_substrate_makes_no_more_entries_than_frames_and_others_go_on(
    world: World, flood: Flood, figure: Figure
) -> None:
    def send_some(frames: list[bytes]) -> None:
        # The substrate's bridge refuses IPv4 whose checksum is wrong.
        send(world.neighbour, PORT, *(summed_up(frame) if frame[12:14] == b"\x08\x00" else frame for frame in frames))
        world.ping(ATTACKER, DB.ip)

    _flood(world, flood, Sender(send_some, MANY, ATTACKED, r"in_port\("), figure)


def _flood(world: World, flood: Flood, sender: Sender, figure: Figure) -> None:
    host = world.lab.host(sender.host)
    host.appctl("revalidator/purge")
    world.settled = None
    before = world.counts()
    world.take()

    started = time.monotonic()
    frames = list(flood.frames(sender.frames))
    for start in range(0, sender.frames, BURST):
        sender.send(frames[start : start + BURST])
    took = time.monotonic() - started
    entries = re.findall(rf"^.*\b{sender.entry}.*$", host.appctl("dpctl/dump-flows", "--names"), re.MULTILINE)
    masks = {mask(entry) for entry in entries}
    world.ping_all()

    dropped = _dropped(world.counts()) - _dropped(before)
    seen = world.take()
    del seen[f"{ATTACKER} out"]
    flooded = {name: sum(MARKER in frame for frame in frames) for name, frames in seen.items()}
    figure("frames", sender.frames, f"in {took:.2f} s")
    figure("entries of the cache", len(entries), f"under {len(masks)} masks")

    assert {name for name, count in flooded.items() if count} <= set(flood.seen)
    for name, frames in seen.items():
        extra = [frame for frame in frames if MARKER not in frame and not world.places[name].is_background(frame)]
        assert extra == [], name
    # Probes of the hosts may be among what was dropped.
    passed = flooded["db"] + flooded[ATTACKER]
    assert dropped + passed >= sender.frames, "not counted"
    assert len(entries) <= flood.most
    assert len(masks) <= MOST_MASKS


def _dropped(counts: Counts) -> int:
    """By the flows, and by the filters ahead of the attacker's port and of uplinks."""
    ahead = (f"filter {ATTACKER} ", f"filter {UPLINK} ")
    return sum(counts.drops.values()) + sum(
        count for (_, name), count in counts.other.items() if name.startswith(ahead)
    )


def mask(entry: str) -> str:
    """An entry without its values: which bits of which fields it looks at."""
    key = entry.partition(", packets:")[0]
    return re.sub(r"([=(])[^,()/=]+(?=[,)/])", r"\1", key)
