"""What ofproto/trace prints, read as the flows that a packet meets."""

from __future__ import annotations

from topo.mininet_check import CHECKS, judge
from topo.mininet_flows import Step, parse

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


def test_a_trace_is_read_step_by_step() -> None:
    assert parse(TRACE) == [
        Step(
            "br-guest",
            "CLASSIFY",
            'ip,in_port="guest_a",vlan_tci=0x0000/0x1fff, priority 100',
            ("set_field:0x1389->reg0", "goto_table:2"),
        ),
        Step("br-guest", "IP_GUARD", 'ip,in_port="guest_a",nw_src=10.0.0.11, priority 100', ('output:"g-guest_a"',)),
        Step(
            "br-nic",
            "PUSH",
            "ip,tun_id=0x1389,nw_dst=10.2.0.12, priority 0",
            ("set_field:192.0.2.2->tun_dst", 'output:"t-vxlan"'),
        ),
        Step("br-nic", "DROP", "reg1=0xa, priority 100", ("drop",)),
    ]


def test_a_drop_says_why() -> None:
    assert str(parse(TRACE)[-1]) == "br-nic DROP: reg1=0xa, priority 100 actions=drop: no_mapping"


def test_what_mn_prints_is_judged() -> None:
    twovpcs = next(check for check in CHECKS if check.topology.startswith("twovpcs"))
    lossy = next(check for check in CHECKS if check.loses)
    good = ["*** Creating network", *twovpcs.says, "completed in 11.2 seconds"]
    assert judge(twovpcs, good) == []
    strayed = [line.replace("guest received meanwhile: 0", "guest received meanwhile: 1") for line in good]
    assert len(judge(twovpcs, strayed)) == 1
    reached = [line.replace("100% dropped (0/8", "87% dropped (1/8") for line in good]
    assert judge(twovpcs, reached)
    assert judge(twovpcs, good[:-1]) == ["it does not come to its end"]
    assert judge(twovpcs, [])
    measured = "*** guest_a -> guest_b: {}% of 300 pings lost; 18.5% expected"
    for lost, right in (("16.7", True), ("0.0", False), ("40.0", False)):
        assert (judge(lossy, [*lossy.says, measured.format(lost), "completed in 8 s"]) == []) == right
    assert judge(lossy, [*lossy.says, "completed in 8 s"]) == ["it does not say how many are lost"]
