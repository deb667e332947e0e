"""Whose turn it is to be told of the router: everybody's within the interval, and never many at once."""

from __future__ import annotations

from itertools import count, takewhile
from typing import cast

import pytest

from controller.advertiser import INTERVAL, Device, Rounds


def devices(number: int) -> list[Device]:
    """Nothing looks into them."""
    return [cast("Device", (None, ofport)) for ofport in range(number)]


@pytest.mark.parametrize("number", [1, 7, 3000])
def test_everybody_has_a_turn_in_each_interval_evenly_spread(number: int) -> None:
    rounds, everybody = Rounds(), devices(number)
    turns: list[Device] = []
    most = 0
    for now in takewhile(lambda now: now < 2 * INTERVAL, (float(second) for second in count())):
        taken = list(rounds.take(lambda: everybody, now))
        most = max(most, len(taken))
        turns += taken
    assert all(turns.count(device) >= 2 for device in everybody[:10])
    assert len(turns) <= 2 * number + most
    assert most <= 2 * number / INTERVAL + 2


def test_who_comes_has_a_turn_in_the_next_round_and_who_has_gone_none() -> None:
    rounds = Rounds()
    assert list(rounds.take(list, 0.0)) == []
    first, second = devices(2)
    assert list(rounds.take(lambda: [first], 1.0)) == [first]
    assert list(rounds.take(lambda: [second], 2.0)) == []
    assert list(rounds.take(lambda: [second], 1.0 + INTERVAL)) == [second]


def test_what_was_missed_is_not_made_up_for_all_at_once() -> None:
    rounds, everybody = Rounds(), devices(3000)
    list(rounds.take(lambda: everybody, 0.0))
    assert len(list(rounds.take(lambda: everybody, 10 * INTERVAL))) <= 3000 / INTERVAL + 2
