"""When peers are probed."""

from __future__ import annotations

import itertools

from controller.prober import SETTLE, Schedule
from tests.build import HOST_B, HOST_C


def test_a_new_peer_is_probed_at_once_often_and_then_now_and_then() -> None:
    schedule = Schedule()
    peers = (HOST_B,)
    times = [tick / 100 for tick in range(200_00) if schedule.take(peers, tick / 100)]
    assert times[0] == 0
    assert len([time for time in times if time <= SETTLE]) >= 3, "a host is reported before its peers were asked thrice"
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert max(pauses) < 15 * 60 / 2, "a neighbour could be forgotten between two probes"
    assert pauses[-1] > pauses[0]


def test_a_peer_that_came_up_is_probed_again_at_once_and_the_others_are_not() -> None:
    schedule = Schedule()
    peers = (HOST_B, HOST_C)
    for tick in range(2000):
        schedule.take(peers, tick / 100)
    assert schedule.take(peers, 20.0) == []
    schedule.restart(HOST_C)
    assert schedule.take(peers, 20.0) == [HOST_C]


def test_a_peer_that_is_gone_is_not_probed_and_a_returning_one_is_new() -> None:
    schedule = Schedule()
    assert schedule.take((HOST_B, HOST_C), 0.0) == [HOST_B, HOST_C]
    assert all(HOST_C not in schedule.take((HOST_B,), float(now)) for now in range(1, 100))
    assert schedule.take((HOST_B, HOST_C), 100.0) == [HOST_C]
