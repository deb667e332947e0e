"""What is shown at Mininet's prompt, and what is made of what mn prints."""

from __future__ import annotations

from explain.ofproto import Step
from topo.mininet_check import CHECKS, judge
from topo.mininet_flows import shown


def test_a_drop_says_why() -> None:
    step = Step("br-nic", "DROP", 0x10C64022669CF810, 100, "reg1=0xa", ("drop",), ())
    assert shown(step) == "br-nic DROP: reg1=0xa, priority 100 actions=drop: no_mapping"


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
