"""The tables are well formed, and flows that do not fit them cannot be made."""

from __future__ import annotations

from itertools import combinations, pairwise

import pytest

from flows.desired import desired
from flows.fields import ETH_DST, ETH_SRC, IP_DST, REASON
from flows.flow import Flow, Goto, Output, OutputInPort, SetField, ToController, UseMeter, drop, flow
from flows.pipeline import BR_GUEST, BR_NIC, FILTERED, METERED, TABLES, UPLINK_FILTERED, Reason, reasons
from flows.view import view
from tests.build import GUEST_OFPORTS, NIC_OFPORTS, TWO_HOSTS, TWO_HOSTS6

BRIDGES = [BR_GUEST, BR_NIC]


def flows_of_both_hosts() -> list[tuple[str, list[Flow]]]:
    return [
        (bridge, list(desired(bridge, view(world, host), ofports).values()))
        for world in (TWO_HOSTS, TWO_HOSTS6)
        for host in world.hosts.values()
        for bridge, ofports in ((BR_GUEST, GUEST_OFPORTS), (BR_NIC, NIC_OFPORTS))
    ]


@pytest.mark.parametrize("bridge", BRIDGES)
def test_tables_are_numbered_in_order_and_exits_lead_forward(bridge: str) -> None:
    tables = list(TABLES[bridge].values())
    assert all(later.number == earlier.number + 1 for earlier, later in pairwise(tables))
    for table in tables:
        assert all(TABLES[bridge][name].number > table.number for name in table.exits)


@pytest.mark.parametrize("bridge", BRIDGES)
def test_every_table_but_the_last_has_a_miss_and_all_are_reachable(bridge: str) -> None:
    tables = TABLES[bridge]
    assert [name for name, table in tables.items() if table.miss is None] == ["DROP"]
    reached = {"CLASSIFY", "DROP"}
    for name, table in tables.items():
        assert name in reached, f"nothing leads to {name}"
        reached |= table.exits


def test_reasons_have_numbers_and_meanings_of_their_own() -> None:
    assert len({reason.number for reason in Reason}) == len(Reason)
    assert len({reason.meaning for reason in Reason}) == len(Reason)
    assert {*reasons(BR_GUEST), *reasons(BR_NIC)} == set(Reason) - METERED - {*FILTERED, *UPLINK_FILTERED}, (
        "a reason that no table gives"
    )


def test_a_flow_that_its_table_does_not_declare_cannot_be_made() -> None:
    push, classify = TABLES[BR_NIC]["PUSH"], TABLES[BR_NIC]["CLASSIFY"]
    with pytest.raises(ValueError, match="does not declare a match"):
        flow(push, 100, {ETH_SRC: 1}, [])
    with pytest.raises(ValueError, match="does not declare the exit DELIVER"):
        flow(classify, 100, {}, [Goto("DELIVER")])
    with pytest.raises(ValueError, match="does not declare an output"):
        flow(TABLES[BR_NIC]["SOURCE_GUARD"], 100, {}, [Output(1)])
    with pytest.raises(ValueError, match="does not declare the reason 3"):
        flow(push, 100, {}, drop(Reason.SPOOFED_MAC))


def test_nothing_is_sent_to_the_controller_but_what_a_meter_lets_through() -> None:
    dhcp = TABLES[BR_GUEST]["DHCP"]
    assert flow(dhcp, 100, {}, [UseMeter(1), ToController()])
    assert flow(dhcp, 100, {}, [OutputInPort()]), "which is another flow"
    with pytest.raises(ValueError, match="no meter before the controller"):
        flow(dhcp, 100, {}, [ToController()])
    with pytest.raises(ValueError, match="no meter before the controller"):
        flow(dhcp, 100, {}, [ToController(), UseMeter(1)])
    punts = [rule for _, flows in flows_of_both_hosts() for rule in flows if ToController() in rule.actions]
    assert {rule.table.name for rule in punts} == {"DHCP", "ROUTER", "TTL_EXPIRED", "FIT"}


def test_no_two_flows_of_one_table_and_priority_can_match_one_packet() -> None:
    for bridge, flows in flows_of_both_hosts():
        for one, other in combinations(flows, 2):
            if (one.table, one.priority) == (other.table, other.priority):
                fields = {match.field: match for match in one.match}
                apart = [
                    match
                    for match in other.match
                    if match.field in fields
                    and (match.value ^ fields[match.field].value) & match.mask & fields[match.field].mask
                ]
                assert apart, f"{bridge}: both match some packet:\n{one}\n{other}"


def test_every_flow_ends_somewhere_and_drops_say_why() -> None:
    for _, flows in flows_of_both_hosts():
        for rule in flows:
            if rule.table.name == "DROP":
                assert not rule.actions
            else:
                assert rule.actions, f"a drop without a reason: {rule}"
                gives_reason = any(isinstance(action, SetField) and action.field is REASON for action in rule.actions)
                assert gives_reason == (rule.actions[-1] == Goto("DROP")), rule


def test_cookies_tell_flows_apart_and_carry_our_mark() -> None:
    for bridge, flows in flows_of_both_hosts():
        assert len({rule.cookie for rule in flows}) == len(flows), bridge
        assert {rule.cookie >> 48 for rule in flows} == {0x10C6}
    table = TABLES[BR_NIC]["PUSH"]
    assert flow(table, 1, {}, []).cookie == flow(table, 1, {}, []).cookie
    assert flow(table, 1, {}, []).cookie != flow(table, 1, {}, [SetField(ETH_DST, 1)]).cookie
    assert flow(table, 1, {}, [SetField(ETH_DST, 1)]).cookie != flow(table, 1, {}, [SetField(ETH_DST, 2)]).cookie
    assert flow(table, 1, {IP_DST: 1}, []).cookie != flow(table, 1, {IP_DST: 2}, []).cookie
