"""Rules of security groups: one spelling each, and a mend for whatever else is written."""

from dataclasses import replace

import pytest

from flows.guest_groups import port_blocks
from mapping import document, plan, rows, security_rules, wanted
from mapping.linked import Linked
from mapping.model import BadRow, groups_of
from tests.build import BLUE, RED, WEB, uuid
from tests.unit.test_plan import content, tables

GOOD = [
    "to_guest any from any",
    "to_guest tcp 443 from any",
    "to_guest udp 8000-8100 from 10.0.0.0/24",
    "to_guest sctp 1-65535 from fd00::/64",
    "to_guest icmp from group web",
    "from_guest 47 to fd00::12",
    "from_guest udp 53 to 10.0.0.2",
]
BAD = {
    "": "write it like",
    "tcp 443 from any": "write it like",
    "to_guest tcp 443 to any": "write it like",
    "to_guest tcp  443 from any": "write it like",
    "to_guest tcp 443 from group": "address 'group'",
    "to_guest tcp 0 from any": "1 to 65535",
    "to_guest tcp 080 from any": "1 to 65535",
    "to_guest tcp 70000 from any": "1 to 65535",
    "to_guest tcp 9-8 from any": "smaller port first",
    "to_guest tcp 8-8 from any": "single one by itself",
    "to_guest icmp 8 from any": "icmp has no ports",
    "to_guest 6 from any": "protocol '6'",
    "to_guest gre from any": "protocol 'gre'",
    "to_guest tcp from 10.0.0.1/24": "write the peer as 10.0.0.0/24",
    "to_guest tcp from 10.0.0.1/32": "write the peer as 10.0.0.1",
    "to_guest tcp from 0.0.0.0/0": "write the peer as any",
    "to_guest tcp from fe80::/10%eth0": "peer",
    "to_guest tcp from group -x": "name '-x'",
}


@pytest.mark.parametrize("text", GOOD)
def test_a_rule_has_one_spelling(text: str) -> None:
    assert security_rules.show_rule(security_rules.parse_rule(text)) == text


@pytest.mark.parametrize(("text", "problem"), BAD.items())
def test_what_is_no_rule_is_told_with_its_mend(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        security_rules.parse_rule(text)


FILE = """\
vpcs:
  blue: {vni: 5001, subnets: [10.0.0.0/24]}
  red: {vni: 5002, subnets: [10.0.0.0/24]}
groups:
  web: {vpc: blue, rules: [to_guest tcp 443 from any, to_guest tcp 22 from group web]}
  bare: {vpc: blue, stateless: true}
  red: {vpc: red}
ports:
  p: {vpc: blue, mac: "02:00:00:00:00:01", groups: [web, bare]}
"""


def test_a_file_says_groups_and_is_done_at_once() -> None:
    rows_ = content(FILE)
    assert rows_["SecurityGroup"]["web",]["stateless"] is False
    assert rows_["SecurityGroup"]["bare",]["stateless"] is True
    assert rows_["Port"]["p",]["groups"] == ("bare", "web")
    made = plan.make(rows_, {"Global": {"r0": {"config_seq": 1}}})
    port = next(operation for operation in made.operations if operation["table"] == "Port")
    assert [kind for kind, _ in port["row"]["groups"][1]] == ["named-uuid"] * 2
    assert plan.make(rows_, tables(FILE)).edits == ()


WRONG = {
    ("group web]", "group red]"): "VPC blue has no group 'red'",
    ("group web]", "group wep]"): "VPC blue has no group 'wep': did you mean 'web'?",
    ("[web, bare]", "[web, bar]"): "there is no group 'bar'",
    ("[web, bare]", "[red]"): "group red is of VPC red, port p of blue",
    ("stateless: true", "stateless: yes"): "write true or false",
}


@pytest.mark.parametrize(("change", "problem"), WRONG.items())
def test_groups_that_do_not_fit_are_refused(change: tuple[str, str], problem: str) -> None:
    read = document.read(FILE.replace(*change).encode(), "f.yaml")
    said = [*map(str, read.problems), *(fault.text for fault in plan.make(read.rows, tables("vpcs: {}")).faults)]
    assert any(problem in text for text in said), said


def test_a_group_that_a_port_has_is_not_deleted() -> None:
    there = tables(FILE)
    made = plan.make(wanted.empty(), there, absent={("SecurityGroup", ("web",))})
    assert [fault.text for fault in made.faults] == ["group web is still needed by port p: delete or change that first"]


def test_a_rule_whose_group_is_gone_allows_nothing_and_shows_until_it_is_back() -> None:
    group = rows.parse_row(
        "SecurityGroup",
        uuid("g"),
        {"name": "g", "vpc": ["uuid", BLUE.uuid], "stateless": False, "rules": "to_guest tcp 1 from group other"},
    )
    other = rows.parse_row(
        "SecurityGroup",
        uuid("o"),
        {"name": "other", "vpc": ["uuid", BLUE.uuid], "stateless": False, "rules": ["set", []]},
    )
    assert not isinstance(group, BadRow)
    linked = Linked()
    for vpc in (BLUE, RED):
        linked.put("Vpc", vpc.uuid, vpc)
    linked.put("SecurityGroup", uuid("g"), group)
    assert linked.settle().bad == {uuid("g")}
    assert "allow nothing: other" in str(linked.snapshot(1).bad[0])
    linked.put("SecurityGroup", uuid("o"), other)
    linked.settle()
    assert linked.snapshot(1).bad == ()
    assert set(linked.groups) == {uuid("g"), uuid("o")}
    assert groups_of(replace(WEB, groups=(uuid("gone"),)), linked.groups) == (None,)


def test_ports_are_matched_by_leading_bits_each_once() -> None:
    for first, last in ((1, 65535), (80, 80), (80, 90), (8000, 8100), (1, 1), (65535, 65535), (32768, 65535)):
        blocks = [block if isinstance(block, tuple) else (block, 0xFFFF) for block in port_blocks(first, last)]
        matched = [port for port in range(1 << 16) for value, mask in blocks if port & mask == value]
        assert matched == list(range(first, last + 1))
        assert len(blocks) <= 30
