"""Sums of what switches count, which begin anew with their flows."""

from controller.counters import HostCounters
from controller.replies import Traffic


def test_only_what_was_added_counts_and_what_shrank_has_begun_anew() -> None:
    counters = HostCounters("h")
    readings = [
        {1: Traffic(5, 50), 2: Traffic(0, 0)},
        {1: Traffic(7, 90), 2: Traffic(0, 0)},
        {1: Traffic(3, 30)},
        {},
        {1: Traffic(2, 20)},
    ]
    added = [dict(counters.added("br-nic", reading)) for reading in readings]
    assert added == [{1: Traffic(5, 50)}, {1: Traffic(2, 40)}, {1: Traffic(3, 30)}, {}, {1: Traffic(2, 20)}]


def test_bridges_do_not_mix() -> None:
    counters = HostCounters("h")
    assert dict(counters.added("br-nic", {1: Traffic(5, 5)})) == dict(counters.added("br-guest", {1: Traffic(5, 5)}))
    assert dict(counters.added("br-nic", {1: Traffic(6, 6)})) == {1: Traffic(1, 1)}
