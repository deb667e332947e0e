"""A guest floods the switch with random headers: how many entries of the datapath's cache each kind of them takes.

Bounded: some thousand frames of each kind, as fast as the switch takes them, between interfaces of the lab.
"""

from __future__ import annotations

import re
import time

import pytest

from tests.attack.case import ATTACKER
from tests.attack.floods import FLOODS, MARKER, Flood
from tests.attack.setting import NEAR
from tests.attack.world import Counts, World
from tests.conftest import Figure

FRAMES = 2000
BURST = 100
"""Fits what the kernel holds for Open vSwitch, so that none is lost."""


@pytest.mark.parametrize("flood", FLOODS, ids=lambda flood: flood.name)
def test_a_flood_makes_few_entries_of_the_cache(world: World, flood: Flood, figure: Figure) -> None:
    host = world.lab.host(world.lab.guest(ATTACKER).host.name)
    host.appctl("revalidator/purge")
    world.settled = None
    before = world.counts()
    world.take()

    started = time.monotonic()
    frames = list(flood.frames(FRAMES))
    for start in range(0, FRAMES, BURST):
        world.lab.guest(ATTACKER).send(*frames[start : start + BURST])
        world.ping(ATTACKER, NEAR.ip)
    took = time.monotonic() - started
    entries = re.findall(rf"^.*\bin_port\({ATTACKER}\).*$", host.appctl("dpctl/dump-flows", "--names"), re.MULTILINE)
    world.ping_all()

    dropped = _dropped(world.counts()) - _dropped(before)
    seen = world.take()
    del seen[f"{ATTACKER} out"]
    flooded = {name: sum(MARKER in frame for frame in frames) for name, frames in seen.items()}
    figure("frames", FRAMES, f"in {took:.2f} s")
    figure("entries of the cache", len(entries), f"under {len({mask(entry) for entry in entries})} masks")

    assert {name for name, count in flooded.items() if count} <= set(flood.seen)
    for name, frames in seen.items():
        extra = [frame for frame in frames if MARKER not in frame and not world.places[name].is_background(frame)]
        assert extra == [], name
    # Probes of the hosts may be among what was dropped.
    passed = flooded["db"] + flooded[ATTACKER]
    assert dropped + passed >= FRAMES, "not counted"
    assert len(entries) <= flood.most


def _dropped(counts: Counts) -> int:
    """By the flows, and by the filter ahead of the attacker's port."""
    filtered = [count for (_, name), count in counts.other.items() if name.startswith(f"filter {ATTACKER} ")]
    return sum(counts.drops.values()) + sum(filtered)


def mask(entry: str) -> str:
    """An entry without its values: which bits of which fields it looks at."""
    key = entry.partition(", packets:")[0]
    return re.sub(r"([=(])[^,()/=]+(?=[,)/])", r"\1", key)
