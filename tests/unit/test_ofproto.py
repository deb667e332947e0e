"""What Open vSwitch prints, read: traces, ports, what differs."""

from __future__ import annotations

import pytest

from explain import ofproto
from explain.ofproto import Difference, Step
from explain.packet import Proto, inner
from flows.meter import Meter
from flows.pipeline import BR_NIC

TRACE = """\
Flow: icmp,in_port="guest_a",vlan_tci=0x0000

bridge("br-guest")
------------------
 0. ip,in_port="guest_a",vlan_tci=0x0000/0x1fff, priority 100, cookie 0x10c6d52ecf40e1e4
    set_field:0x1389->reg0
    goto_table:2
 2. ip,in_port="guest_a",nw_src=10.0.0.11, priority 100, cookie 0x10c6a87ff24f59ed
    output:"g-guest_a"

bridge("br-nic")
----------------
 1. ip,tun_id=0x1389,nw_dst=10.2.0.12, priority 0, cookie 0x10c66c2548dc23
    set_field:192.0.2.2->tun_dst
    output:"t-vxlan"
     -> output to native tunnel
     >> Nobody answers
 4. reg1=0xa, priority 100, cookie 0x10c64022669cf810
    drop

Final flow: icmp,in_port="guest_a"
Datapath actions: drop
"""

CONNTRACK = """\
bridge("br-guest")
------------------
 2. ip,nw_dst=10.0.0.12, priority 500, cookie 0x7
    ct(table=3,zone=5)
    drop
     -> A clone of the packet is forked to recirculate. The forked pipeline will be resumed at table 3.

Final flow: icmp,in_port=web
Datapath actions: ct(zone=5),recirc(0x1)

===============================================================================
recirc(0x1) - resume conntrack with default ct_state=trk|new (use --ct-next to customize)
===============================================================================

Flow: recirc_id=0x1,ct_state=new|trk

bridge("br-guest")
------------------
    thaw
        Resuming from table 3
77. No match.
    drop

Final flow: unchanged
"""


def test_a_trace_is_read_flow_by_flow() -> None:
    first, guard, push, drop = ofproto.steps(TRACE)
    assert first == Step(
        *("br-guest", "CLASSIFY", 0x10C6D52ECF40E1E4, 100, 'ip,in_port="guest_a",vlan_tci=0x0000/0x1fff'),
        *(("set_field:0x1389->reg0", "goto_table:2"), ()),
    )
    assert (guard.table, guard.actions) == ("IP_GUARD", ('output:"g-guest_a"',))
    assert (push.bridge, push.priority, push.reason) == ("br-nic", 0, None)
    assert push.notes == ("output to native tunnel", "Nobody answers")
    assert (drop.table, drop.reason, drop.actions) == ("DROP", 10, ("drop",))


def test_a_packet_goes_on_after_conntrack_and_through_tables_that_are_not_ours() -> None:
    before, after = ofproto.steps(CONNTRACK)
    assert (before.cookie, before.actions[0]) == (7, "ct(table=3,zone=5)")
    assert after == Step("br-guest", "77", None, 0, "", ("drop",), ())


def test_only_what_is_rewritten_of_the_packet_changes() -> None:
    sent = inner(Proto.TCP, 443, ("02:00:00:00:00:01", "0a:00:5e:00:00:01"), ("10.0.0.11", "10.0.0.12"))
    actions = ("set_field:02:00:00:00:00:02->eth_dst", "set_field:0x1389->tun_id", "dec_ttl", "output:3")
    after = sent.after([Step(BR_NIC, "PUSH", 1, 1, "", actions, ())])
    assert after.header == {**sent.header, "dl_dst": "02:00:00:00:00:02", "nw_ttl": "63"}
    where = after.at(in_port=2, tun_id=5)
    assert where.startswith("tcp,in_port=2,tun_id=5,dl_src=02:00:00:00:00:01,dl_dst=02:00:00:00:00:02,nw_src=")
    assert where.endswith("tcp_dst=443")


def test_ports_are_read_by_name() -> None:
    said = " 1(g-web): addr:4e:9d:3d:7b:a5:39\n     config:     0\n 2(web): addr:aa:55\n LOCAL(br-guest): addr:62:75\n"
    assert ofproto.ports(said) == {"g-web": 1, "web": 2}


@pytest.mark.parametrize(
    ("line", "difference"),
    [
        ("-priority=3,in_port=4 actions=output:3", (False, "CLASSIFY", "table=0,priority=3,in_port=4", 0, "output:3")),
        ("-table=77 actions=drop", (False, "77", "table=77", 0, "drop")),
        (
            "+table=4 priority=1,reg1=0x5 cookie=0x10 actions=drop",
            (True, "DROP", "table=4,priority=1,reg1=0x5", 16, "drop"),
        ),
        ("-table=1 cookie=0x7 idle_timeout=9 actions=drop", (False, "PUSH", "table=1", 7, "drop")),
        ("-table=1 priority=5 idle_timeout=9 actions=drop", (False, "PUSH", "table=1,priority=5", 0, "drop")),
    ],
)
def test_what_differs_is_read(line: str, difference: tuple[bool, str, str, int, str]) -> None:
    assert list(ofproto.differences(line, BR_NIC)) == [Difference(*difference)]


def test_what_is_not_understood_is_not_passed_over() -> None:
    with pytest.raises(ValueError, match="not understood"):
        list(ofproto.differences("?table=1", BR_NIC))


METERS = """\
OFPST_METER_CONFIG reply (OF1.5) (xid=0x2):
meter=1 kbps burst bands=
type=drop rate=1000 burst_size=100

meter=2 pktps burst stats bands=
type=drop rate=80 burst_size=80
"""


def test_meters_are_read_and_nothing_else_is_taken_for_them() -> None:
    assert ofproto.meters(METERS) == {1: Meter("kbps", 1000, 100), 2: Meter("pktps", 80, 80)}
    assert ofproto.meters(METERS.splitlines()[0]) == {}
    for junk in ("", "hello", f"{METERS}hello\n", METERS.replace("meter=2", f"meter={'9' * 5000}")):
        with pytest.raises(ValueError, match=r"."):
            ofproto.meters(junk)
