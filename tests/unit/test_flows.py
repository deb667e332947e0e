"""What the flows of small worlds are, in ovs-ofctl's notation, and how they change when the world does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flows.desired import desired
from flows.fields import ND_FLAGS, ND_OPTION
from flows.flow import Copy, SetField
from flows.pipeline import BR_GUEST, BR_NIC
from flows.priority import WRONG_BIT
from flows.view import view
from mapping.model import Encap, Host, Port, Snapshot
from tests.build import (
    BLUE,
    DB,
    GUEST_OFPORTS,
    HOST_A,
    HOST_A6,
    HOST_B,
    HOST_B6,
    HOST_C,
    MAPPINGS,
    NIC_OFPORTS,
    RED,
    SPY,
    TWO_HOSTS,
    TWO_HOSTS6,
    WEB,
    snapshot,
)


def lines(bridge: str, world: Snapshot, host: Host, table: str) -> list[str]:
    """One table's flows, without the 48 wrong bits and the DROP table's counters."""
    ofports = GUEST_OFPORTS if bridge == BR_GUEST else NIC_OFPORTS
    flows = desired(bridge, view(world, host), ofports).values()
    return sorted(
        str(flow).removeprefix(f"table={table},")
        for flow in flows
        if flow.table.name == table and not WRONG_BIT - 48 < flow.priority <= WRONG_BIT
    )


def test_push_sets_the_mac_the_vtep_and_the_encapsulation_that_the_mapping_names() -> None:
    assert lines(BR_NIC, TWO_HOSTS, HOST_A, "PUSH") == [
        "priority=0 actions=set_field:0xa->reg1,goto_table:DROP",
        (
            "priority=100,tun_id=0x1389,eth_type=0x800,nw_dst=10.0.0.11"
            " actions=set_field:02:00:00:00:00:01->eth_dst,output:20"
        ),
        (
            "priority=100,tun_id=0x1389,eth_type=0x800,nw_dst=10.0.0.12"
            " actions=set_field:02:00:00:00:00:02->eth_dst,set_field:192.0.2.2->tun_dst,output:3"
        ),
        (
            "priority=100,tun_id=0x1389,eth_type=0x86dd,ipv6_dst=fd00::11"
            " actions=set_field:02:00:00:00:00:01->eth_dst,output:20"
        ),
        (
            "priority=100,tun_id=0x1389,eth_type=0x86dd,ipv6_dst=fd00::12"
            " actions=set_field:02:00:00:00:00:02->eth_dst,set_field:192.0.2.2->tun_dst,output:3"
        ),
    ]


def test_pop_maps_source_and_destination_through_the_mapping_too() -> None:
    assert lines(BR_NIC, TWO_HOSTS, HOST_B, "SOURCE_GUARD") == [
        "priority=0 actions=set_field:0xd->reg1,goto_table:DROP",
        "priority=100,tun_id=0x1389,tun_src=192.0.2.1,eth_type=0x800,nw_src=10.0.0.11 actions=goto_table:DELIVER",
        "priority=100,tun_id=0x1389,tun_src=192.0.2.1,eth_type=0x86dd,ipv6_src=fd00::11 actions=goto_table:DELIVER",
    ]
    assert lines(BR_NIC, TWO_HOSTS, HOST_B, "DELIVER") == [
        "priority=0 actions=set_field:0xe->reg1,goto_table:DROP",
        (
            "priority=100,tun_id=0x1389,eth_type=0x800,nw_dst=10.0.0.12"
            " actions=set_field:02:00:00:00:00:02->eth_dst,output:20"
        ),
        (
            "priority=100,tun_id=0x1389,eth_type=0x86dd,ipv6_dst=fd00::12"
            " actions=set_field:02:00:00:00:00:02->eth_dst,output:20"
        ),
        (
            "priority=100,tun_id=0x138a,eth_type=0x800,nw_dst=10.0.0.12"
            " actions=set_field:02:00:00:00:00:03->eth_dst,output:21"
        ),
        (
            "priority=100,tun_id=0x138a,eth_type=0x86dd,ipv6_dst=fd00::12"
            " actions=set_field:02:00:00:00:00:03->eth_dst,output:21"
        ),
    ]


@pytest.mark.parametrize(
    ("encap", "tunnel", "outer"),
    [
        (Encap.VXLAN, 2, "nw_proto=17,udp_dst=4789"),
        (Encap.GENEVE, 3, "nw_proto=17,udp_dst=6081"),
        (Encap.GRE, 4, "nw_proto=47"),
    ],
)
def test_a_host_is_sent_to_in_the_encapsulation_that_it_wants(encap: Encap, tunnel: int, outer: str) -> None:
    there = replace(HOST_B, encap=encap)
    world = snapshot(HOST_A, there, BLUE, WEB, DB, MAPPINGS[:2])
    assert any(line.endswith(f"tun_dst,output:{tunnel}") for line in lines(BR_NIC, world, HOST_A, "PUSH"))
    here = "in_port={},vlan_vid=0x0,eth_type=0x800,nw_src=192.0.2.{},nw_dst=192.0.2.{},{} actions=output:{}"
    assert "priority=100," + here.format("LOCAL", 1, 2, outer, 1) in lines(BR_NIC, world, HOST_A, "CLASSIFY")
    assert "priority=100," + here.format(1, 1, 2, f"{outer},ip_frag=no", "LOCAL") in lines(
        BR_NIC, world, there, "CLASSIFY"
    )


def test_an_ipv6_substrate_carries_tunnels_between_known_hosts_and_neighbour_discovery() -> None:
    assert [line for line in lines(BR_NIC, TWO_HOSTS6, HOST_A6, "PUSH") if "tun_" in line.split("actions=")[1]] == [
        f"priority=100,tun_id=0x1389,eth_type={dst}"
        " actions=set_field:02:00:00:00:00:02->eth_dst,set_field:2001:db8::2->tun_ipv6_dst,output:3"
        for dst in ("0x800,nw_dst=10.0.0.12", "0x86dd,ipv6_dst=fd00::12")
    ]
    assert [line for line in lines(BR_NIC, TWO_HOSTS6, HOST_A6, "SOURCE_GUARD") if "tun_" in line] == [
        f"priority=100,tun_id=0x1389,tun_ipv6_src=2001:db8::2,eth_type={src} actions=goto_table:DELIVER"
        for src in ("0x800,nw_src=10.0.0.12", "0x86dd,ipv6_src=fd00::12")
    ]
    ours = [line for line in lines(BR_NIC, TWO_HOSTS6, HOST_A6, "CLASSIFY") if "eth_type" in line]
    nd = "vlan_vid=0x0,eth_type=0x86dd,nw_proto=58,nw_ttl=255,icmpv6_type={},icmpv6_code=0"
    udp = "vlan_vid=0x0,eth_type=0x86dd,ipv6_src=2001:db8::{},ipv6_dst=2001:db8::{},nw_proto=17,udp_dst={}"
    unknown = "vlan_vid=0x0,eth_type=0x86dd,ipv6_dst=2001:db8::1,nw_proto=17,udp_dst=4789,ip_frag=no"
    assert ours == [
        f"priority=100,in_port=1,{udp.format(2, 1, 4789)},ip_frag=no actions=output:LOCAL",
        f"priority=100,in_port=LOCAL,{udp.format(1, 2, 6081)} actions=output:1",
        f"priority=20,in_port=1,{unknown} actions=set_field:0xc->reg1,goto_table:DROP",
        f"priority=90,in_port=1,{nd.format(135)},nd_target=2001:db8::1 actions=output:LOCAL",
        f"priority=90,in_port=1,{nd.format(136)},ipv6_dst=2001:db8::1 actions=output:LOCAL",
        f"priority=90,in_port=LOCAL,{nd.format(135)},ipv6_src=2001:db8::1 actions=output:1",
        f"priority=90,in_port=LOCAL,{nd.format(136)},nd_target=2001:db8::1 actions=output:1",
    ]


def test_hosts_whose_vteps_are_of_different_versions_are_nothing_to_each_other() -> None:
    mixed = replace(TWO_HOSTS, hosts={HOST_A.uuid: HOST_A, HOST_B.uuid: HOST_B6})
    for own in mixed.hosts.values():
        assert view(mixed, own).peers == ()
        assert not any("tun_" in line for line in lines(BR_NIC, mixed, own, "SOURCE_GUARD"))
    assert [line for line in lines(BR_NIC, mixed, HOST_A, "PUSH") if ".12" in line or "::12" in line] == [
        f"priority=100,tun_id=0x1389,eth_type={dst} actions=set_field:0x1a->reg1,goto_table:DROP"
        for dst in ("0x800,nw_dst=10.0.0.12", "0x86dd,ipv6_dst=fd00::12")
    ]


def test_guest_bridge_lets_past_what_is_the_ports_own_and_answers_for_the_vpc() -> None:
    assert lines(BR_GUEST, TWO_HOSTS, HOST_A, "CLASSIFY") == [
        "priority=0 actions=set_field:0x1->reg1,goto_table:DROP",
        (
            "priority=100,in_port=10,vlan_vid=0x0,eth_src=02:00:00:00:00:01,eth_type=0x800"
            " actions=set_field:0x1389->reg0,goto_table:IP_GUARD"
        ),
        (
            "priority=100,in_port=10,vlan_vid=0x0,eth_src=02:00:00:00:00:01,eth_type=0x806"
            " actions=set_field:0x1389->reg0,goto_table:ARP_GUARD"
        ),
        (
            "priority=100,in_port=10,vlan_vid=0x0,eth_src=02:00:00:00:00:01,eth_type=0x86dd"
            " actions=set_field:0x1389->reg0,goto_table:IPV6_GUARD"
        ),
        "priority=100,in_port=11 actions=goto_table:LINK_GUARD",
        "priority=20,in_port=10 actions=set_field:0x6->reg1,goto_table:DROP",
        "priority=300,vlan_vid=0x1000/0x1000 actions=set_field:0x2->reg1,goto_table:DROP",
    ]
    assert lines(BR_GUEST, TWO_HOSTS, HOST_A, "TO_NIC")[1:] == ["priority=100,in_port=10 actions=output:11"]
    assert lines(BR_GUEST, TWO_HOSTS, HOST_A, "SELF_GUARD")[1:4] == [
        "priority=100,eth_type=0x800 actions=goto_table:FROM_TRACK",
        "priority=100,eth_type=0x86dd actions=goto_table:FROM_TRACK",
        "priority=110,in_port=10,eth_type=0x800,nw_dst=10.0.0.11 actions=set_field:0x11->reg1,goto_table:DROP",
    ]
    assert lines(BR_GUEST, TWO_HOSTS, HOST_A, "TO_GUEST")[1:] == ["priority=100,in_port=11 actions=output:10"]
    assert [line.split(" ")[0] for line in lines(BR_GUEST, TWO_HOSTS, HOST_A, "ARP_REPLY")] == [
        "priority=0",
        "priority=100,reg0=0x1389,eth_type=0x806,arp_op=1,arp_tpa=10.0.0.1",
        "priority=100,reg0=0x1389,eth_type=0x806,arp_op=1,arp_tpa=10.0.0.11",
        "priority=100,reg0=0x1389,eth_type=0x806,arp_op=1,arp_tpa=10.0.0.12",
        "priority=20,eth_type=0x806,arp_op=1",
    ]


def test_neighbours_are_solicited_from_the_ports_own_mac_and_addresses_and_answered_for_the_vpc() -> None:
    solicitation = "eth_type=0x86dd,nw_proto=58,icmpv6_type=135,icmpv6_code=0"
    own = "nd_options_type=1,nd_sll=02:00:00:00:00:01"
    assert lines(BR_GUEST, TWO_HOSTS, HOST_A, "ND_GUARD") == [
        "priority=0 actions=set_field:0x16->reg1,goto_table:DROP",
        f"priority=100,in_port=10,{solicitation},ipv6_src=::,nd_options_type=0 actions=goto_table:ND_REPLY",
        f"priority=100,in_port=10,{solicitation},ipv6_src=fd00::11,{own} actions=goto_table:ND_REPLY",
        f"priority=100,in_port=10,{solicitation},ipv6_src=fe80::/ffc0::,{own} actions=goto_table:ND_REPLY",
    ]
    assert (
        f"priority=110,in_port=10,{solicitation},nd_target=fd00::11 actions=set_field:0x17->reg1,goto_table:DROP"
    ) in lines(BR_GUEST, TWO_HOSTS, HOST_A, "ND_REPLY")
    swap = "move:eth_src->eth_dst,set_field:{}->eth_src,{}set_field:136->icmpv6_type,goto_table:ND_ANSWER"
    assert lines(BR_GUEST, TWO_HOSTS, HOST_A, "ND_REPLY")[1:4] == [
        f"priority=100,reg0=0x1389,{solicitation},nd_target={ip} actions={swap.format(mac, router)}"
        for ip, mac, router in (
            ("fd00::1", "0a:00:5e:00:00:01", "set_field:0x1->reg3,"),
            ("fd00::11", "02:00:00:00:00:01", ""),
            ("fd00::12", "02:00:00:00:00:02", ""),
        )
    ]


def test_no_flow_sets_what_open_vswitch_refuses_to_set_over_the_kernels_datapath() -> None:
    flows = desired(BR_GUEST, view(TWO_HOSTS, HOST_A), GUEST_OFPORTS).values()
    actions = [action for flow in flows for action in flow.actions]
    refused = {ND_FLAGS, ND_OPTION}
    assert {action.target for action in actions if isinstance(action, Copy)} > refused
    assert not [action for action in actions if isinstance(action, SetField) and action.field in refused]


def test_every_wrong_bit_of_a_mac_is_a_rule_and_the_right_mac_meets_none() -> None:
    flows = desired(BR_GUEST, view(TWO_HOSTS, HOST_A), GUEST_OFPORTS).values()
    own = 0x020000000001
    for table in ("CLASSIFY", "ARP_GUARD", "ND_GUARD"):
        bits = [flow.match[-1] for flow in flows if flow.table.name == table and 150 < flow.priority <= WRONG_BIT]
        assert sum(match.mask for match in bits) == (1 << 48) - 1
        assert all(match.value == ~own & match.mask for match in bits)


@pytest.mark.parametrize(
    "world",
    [
        snapshot(HOST_A, HOST_B, BLUE, WEB, replace(DB, host=None), MAPPINGS[:2]),
        snapshot(HOST_A, HOST_B, BLUE, WEB, DB, MAPPINGS[:1]),
    ],
    ids=["bound nowhere", "no mapping"],
)
def test_what_maps_nowhere_is_in_no_flow(world: Snapshot) -> None:
    for bridge, table in ((BR_NIC, "PUSH"), (BR_NIC, "SOURCE_GUARD"), (BR_GUEST, "ARP_REPLY")):
        assert not any("10.0.0.12" in line for line in lines(bridge, world, HOST_A, table))


def test_a_host_learns_only_the_vpcs_that_have_a_port_on_it() -> None:
    for table in ("PUSH", "SOURCE_GUARD", "DELIVER"):
        assert not any("0x138a" in line for line in lines(BR_NIC, TWO_HOSTS, HOST_A, table))
    assert view(TWO_HOSTS, HOST_A).peers == (HOST_B,)
    assert view(snapshot(HOST_A, HOST_B, HOST_C, BLUE, WEB, MAPPINGS[:1]), HOST_A).peers == ()


def test_a_port_whose_device_is_not_there_yet_has_no_rule_of_its_own() -> None:
    without = desired(BR_GUEST, view(TWO_HOSTS, HOST_A), {})
    assert not any("in_port" in str(flow).split(" ", maxsplit=1)[0] for flow in without.values())
    assert not any("10.0.0.11" in str(flow) for flow in desired(BR_NIC, view(TWO_HOSTS, HOST_A), {}).values())


def test_a_port_that_moves_changes_both_ends_and_nothing_of_another_vpc() -> None:
    moved: Port = replace(DB, host=HOST_A.uuid)
    after = snapshot(HOST_A, HOST_B, BLUE, RED, WEB, moved, SPY, MAPPINGS)
    ofports = {"n-web": 20, "n-db": 22, "n-spy": 21}
    for host in (HOST_A, HOST_B):
        before = desired(BR_NIC, view(TWO_HOSTS, host), ofports)
        after_flows = desired(BR_NIC, view(after, host), ofports)
        touched = [
            flow
            for flows, others in ((before, after_flows), (after_flows, before))
            for flow in (flows[cookie] for cookie in flows.keys() - others.keys())
        ]
        assert touched
        assert not [flow for flow in touched if "0x138a" in str(flow)]
