"""Who waits for whom: nobody for more than a share of each other VPC's changes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flows.backlog import Addresses, Backlog


def taken(backlog: Backlog, most: int) -> dict[str, Addresses]:
    found: dict[str, Addresses] = {}
    for vpc, addresses in backlog.take(most):
        found.setdefault(vpc, {}).update(addresses)
    return found


def many(count: int) -> Addresses:
    return {f"10.0.{n // 256}.{n % 256}": "p" for n in range(count)}


def test_a_quiet_vpc_has_its_turn_at_once_however_much_a_busy_one_has() -> None:
    backlog = Backlog()
    backlog.add("busy", many(10_000), 1)
    for round_number in range(20):
        backlog.add("busy", many(1000), round_number)
        backlog.add("quiet", {"10.0.0.1": "q"}, round_number)
        step = taken(backlog, 100)
        assert step["quiet"] == {"10.0.0.1": "q"}
        assert len(step["busy"]) == 99


def test_shares_are_equal_and_what_one_does_not_use_others_do() -> None:
    backlog = Backlog()
    for vpc, count in (("a", 5), ("b", 100), ("c", 100)):
        backlog.add(vpc, many(count), 1)
    assert {vpc: len(addresses) for vpc, addresses in taken(backlog, 45).items()} == {"a": 5, "b": 20, "c": 20}


def test_with_more_vpcs_than_room_each_has_its_turn() -> None:
    backlog = Backlog()
    for n in range(10):
        backlog.add(f"vpc{n}", many(2), 1)
    assert [set(taken(backlog, 4)) for _ in range(5)] == [
        {"vpc0", "vpc1", "vpc2", "vpc3"},
        {"vpc4", "vpc5", "vpc6", "vpc7"},
        {"vpc8", "vpc9", "vpc0", "vpc1"},
        {"vpc2", "vpc3", "vpc4", "vpc5"},
        {"vpc6", "vpc7", "vpc8", "vpc9"},
    ]
    assert not backlog


def test_under_a_load_without_end_what_is_done_moves_on() -> None:
    """Each change is of addresses that wait already, or of new ones; what is done follows at a distance."""
    backlog = Backlog()
    done = []
    for change in range(1, 200):
        backlog.add("busy", {f"10.0.0.{(change * step) % 250}": "p" for step in range(1, 9)}, change)
        taken(backlog, 6)
        done.append(backlog.done(change))
    assert done == sorted(done)
    assert 100 < done[-1] < 199


CHANGES = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.dictionaries(st.sampled_from(["1", "2", "3", "4"]), st.sampled_from(["p", "q", None]), max_size=4),
        st.integers(0, 3),
        st.booleans(),
    ),
    max_size=30,
)


@given(CHANGES)
def test_whatever_is_taken_when_the_last_word_on_each_address_is_taken_before_it_counts_as_done(changes: list) -> None:  # type: ignore[type-arg]
    backlog = Backlog()
    last: dict[tuple[str, str], tuple[int, str | None]] = {}
    seen: dict[tuple[str, str], str | None] = {}
    for number, (vpc, addresses, most, forget) in enumerate(changes, 1):
        backlog.add(vpc, addresses, number)
        last |= {(vpc, ip): (number, port) for ip, port in addresses.items()}
        if forget and addresses:
            ip = next(iter(addresses))
            backlog.forget(vpc, ip)
            seen[vpc, ip] = addresses[ip]
        for of, taken_out in backlog.take(most):
            seen |= {(of, ip): port for ip, port in taken_out.items()}
        done = backlog.done(number)
        assert done <= number
        for key, (change, port) in last.items():
            if change <= done:
                assert seen[key] == port
    for of, taken_out in backlog.take(1000):
        seen |= {(of, ip): port for ip, port in taken_out.items()}
    assert seen == {key: port for key, (_, port) in last.items()}
    assert not backlog
    assert backlog.done(77) == 77
