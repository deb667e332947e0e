"""What is kept current row by row equals what the pure functions make of everything, after any changes."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Any

import pytest

from flows.change import Change
from flows.desired import desired
from flows.flow import Flow
from flows.incremental import BridgeFlows
from flows.pipeline import BR_GUEST, BR_NIC
from flows.view import view
from mapping import rows
from mapping.linked import Linked, Touched
from mapping.model import BadRow, Encap, Host, Mapping, Port, SecurityGroup, Vpc
from mapping.security_rules import parse_rule
from mapping.values import in_order
from tests.build import BLUE, HOST_A, HOST_B, HOST_C, RED, group, having, mapping, port, vpc

HOSTS = [HOST_A, HOST_B, HOST_C]
VPCS = [BLUE, RED, vpc("green", 5003, "10.0.0.0/16", "fd00::/48")]
PORTS = [port(f"p{n}", VPCS[n % 3], f"02:00:00:00:00:{n:02x}", HOSTS[n % 3]) for n in range(1, 10)]
MAPPINGS = [mapping(f"10.0.0.{10 + n}", PORTS[n % 9]) for n in range(20)]
MAPPINGS += [mapping(f"fd00::{16 + n:x}", PORTS[n % 9]) for n in range(12)]
RULES = ["to_guest tcp 443 from any", "to_guest udp 5-9 from group web", "from_guest any to group db"]
RULES += ["to_guest icmp from fd00::/64", "to_guest tcp 443 from group db", "to_guest tcp 443 from group web"]
GROUPS = [group("web", VPCS[0], *RULES), group("db", VPCS[0]), group("red", VPCS[1], *RULES[1:4], stateless=True)]
PORTS = [having(each, *GROUPS[n % 3 : n % 3 + 2]) if n % 4 else each for n, each in enumerate(PORTS)]
TABLES: dict[type, str] = {Host: "Host", Vpc: "Vpc", SecurityGroup: "SecurityGroup", Port: "Port", Mapping: "Mapping"}


def changed(row: Any, rng: random.Random) -> Any:  # noqa: ANN401 - any row
    """The row, or one like it with something else in it, right or wrong."""
    if isinstance(row, Host):
        return rng.choice(
            [
                row,
                replace(row, encap=rng.choice(list(Encap))),
                replace(row, vtep_ip=IPv4Address(rng.randrange(1 << 24, 1 << 25))),
                replace(row, vtep_ip=IPv6Address(rng.randrange(1 << 126, 1 << 127))),
                replace(row, substrate_mtu=rng.choice([1400, 9000])),
                replace(row, nic_datapath=rng.choice(HOSTS).nic_datapath),
            ]
        )
    if isinstance(row, Vpc):
        return rng.choice(
            [
                row,
                replace(row, vni=row.vni + rng.randrange(3) * 100),
                replace(row, router_mac=PORTS[3].mac),
                replace(row, mtu=1300),
            ]
        )
    if isinstance(row, Port):
        if rng.random() < 0.3:
            return having(row, *rng.sample(GROUPS, rng.randrange(3)))
        host = rng.choice([None, *(host.uuid for host in HOSTS)])
        places = [None, *(host.uuid for host in HOSTS)]
        moving = replace(row, host=host, moving_to=rng.choice(places), previous_host=rng.choice(places))
        return rng.choice(
            [
                row,
                moving,
                replace(row, moving_to=rng.choice(places)),
                replace(row, host=host),
                replace(row, vpc=rng.choice(VPCS).uuid),
                *allowing(row, rng),
            ]
        )
    if isinstance(row, SecurityGroup):
        rules = tuple(parse_rule(text) for text in rng.sample(RULES, rng.randrange(5)))
        return rng.choice(
            [
                replace(row, rules=rules),
                replace(row, stateless=rng.random() < 0.5),
                replace(row, vpc=rng.choice(VPCS).uuid),
                replace(row, name=rng.choice(GROUPS).name),
                BadRow("SecurityGroup", row.uuid, "x", "junk"),
            ]
        )
    port = rng.choice(PORTS)
    return rng.choice(
        [row, row._replace(port=port.uuid), row._replace(vpc=port.vpc), BadRow("Mapping", row.uuid, "x", "junk")]
    )


def allowing(port: Port, rng: random.Random) -> list[Port]:
    """The port, allowed more: right or wrong, and often the same as others."""
    nets = ["10.0.0.10", "10.0.0.99", "10.0.0.128/28", "10.0.0.130", "10.0.0.0/30", "fd00::99", "fd00::80/124"]
    return [replace(port, allowed=in_order(map(ip_network, rng.sample(nets, rng.randrange(1, 4))))) for _ in range(2)]


def ofports_without(absent: str) -> dict[str, int]:
    """Every device and patch is there but those of one port."""
    names = [prefix + each.name for each in PORTS if each.name != absent for prefix in ("", "g-", "n-")]
    return {name: int.from_bytes(name.encode()) for name in names}


def make(switch: dict[int, Flow], change: Change) -> None:
    """Do to a switch's flows what is asked, and no more than is needed."""
    assert switch.keys() >= set(change.delete), "deletes what is not there"
    assert not switch.keys() & {flow.cookie for flow in change.add}, "adds what is there"
    for cookie in change.delete:
        del switch[cookie]
    there = {flow.key: cookie for cookie, flow in switch.items()}
    for flow in change.add:
        if flow.key in there:
            del switch[there[flow.key]]
        switch[flow.cookie] = flow
    assert len({flow.key for flow in switch.values()}) == len(switch), "adds two of one match"


@pytest.mark.parametrize("seed", range(6))
def test_any_changes_end_in_what_the_pure_functions_say(seed: int) -> None:
    rng = random.Random(seed)
    linked = Linked()
    parsed: dict[str, dict[Any, Any]] = {table: {} for table in TABLES.values()}
    bridges = {
        (host.uuid, bridge): BridgeFlows(bridge, host.uuid, linked) for host in HOSTS for bridge in (BR_GUEST, BR_NIC)
    }
    held: dict[Any, dict[int, Flow]] = {key: {} for key in bridges}
    ofports = ofports_without("p1")
    for _ in range(250):
        for _ in range(rng.choice([1, 1, 2, 5, 30])):
            row: Any = rng.choice([*HOSTS, *VPCS, *GROUPS, *PORTS, *MAPPINGS])
            table = TABLES[type(row)]
            value = None if rng.random() < 0.2 else changed(row, rng)
            parsed[table].pop(row.uuid, None)
            if value is not None:
                parsed[table][row.uuid] = value
            linked.put(table, row.uuid, value)
        if rng.random() < 0.1:
            ofports = ofports_without(rng.choice(["p1", "none", "p4"]))
        touched = linked.settle()
        pure = rows.link(7, parsed)
        assert linked.snapshot(7) == pure
        for (uuid, bridge), flows in bridges.items():
            switch = held[uuid, bridge]
            make(switch, flows.update(touched, ofports, 7))
            while flows.busy:
                make(switch, flows.update(Touched(), ofports, 7))
            host = pure.hosts.get(uuid)
            want = desired(bridge, view(pure, host), ofports) if host else {}
            assert switch == want
            assert set(flows.cookies) == want.keys()
            assert flows.matches(list(want))
            assert not flows.matches([*want, 1])
            assert set(flows.peers) == (set(view(pure, host).peers) if host else set())


def everything() -> Linked:
    linked = Linked()
    every: list[Host | Vpc | SecurityGroup | Port | Mapping] = [*HOSTS, *VPCS, *GROUPS, *PORTS, *MAPPINGS]
    for row in every:
        linked.put(TABLES[type(row)], row.uuid, row)
    return linked


def test_a_switch_that_lost_some_and_kept_stale_flows_is_mended() -> None:
    linked, ofports = everything(), ofports_without("none")
    flows = BridgeFlows(BR_NIC, HOST_A.uuid, linked)
    want: dict[int, Flow] = {}
    make(want, flows.update(linked.settle(), ofports, 1))
    while flows.busy:
        make(want, flows.update(Touched(), ofports, 1))
    assert len(want) > 30
    lost = list(want)[::3]
    changes = list(flows.mend([*(cookie for cookie in want if cookie not in lost), 1, 2]))
    assert sorted(cookie for change in changes for cookie in change.delete) == [1, 2]
    assert {flow.cookie for change in changes for flow in change.add} == set(lost)
    assert not any(change for change in flows.mend(list(want)))
    assert not flows.update(Touched(), ofports, 1)


@pytest.mark.parametrize("bridge", [BR_NIC, BR_GUEST])
def test_rows_that_change_between_the_slices_of_mending_end_in_what_the_pure_function_says(
    bridge: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was lost meanwhile, and whether or not a row is again as it was."""
    monkeypatch.setattr("flows.incremental.SLICE", 1)
    left_out = 0
    for seed in range(60):
        rng = random.Random(seed)
        linked, ofports = everything(), ofports_without("none")
        for each in PORTS:
            linked.put("Port", each.uuid, rng.choice([each, *allowing(each, rng)]))
        flows = BridgeFlows(bridge, HOST_A.uuid, linked)
        switch: dict[int, Flow] = {}
        touched = linked.settle()
        while touched or flows.busy:
            make(switch, flows.update(touched, ofports, 1))
            touched = Touched()
        for cookie in rng.sample(list(switch), len(switch) // rng.choice([1, 2, 8])):
            del switch[cookie]
        for change in flows.mend(list(switch)):
            make(switch, change)
            for _ in range(rng.choice([0, 1, 3])):
                every: list[Any] = [HOST_B, HOST_C, *VPCS, *GROUPS, *PORTS]
                row = rng.choice(every)
                value = rng.choice([None, row, changed(row, rng)])
                linked.put(TABLES[type(row)], row.uuid, value)
                touched.add(linked.settle())
        left_out += flows.incomplete
        while touched or flows.busy:
            make(switch, flows.update(touched, ofports, 2))
            touched = Touched()
        known = HOST_A.uuid in linked.hosts
        assert switch == (desired(bridge, view(linked.snapshot(1), HOST_A), ofports) if known else {})
        assert flows.matches(list(switch))
    assert left_out > 3


def test_rows_that_change_while_others_wait_their_turn_end_in_what_the_pure_function_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flows.incremental.SLICE", 1)
    waited = 0
    for seed in range(40):
        rng = random.Random(seed)
        linked, ofports = everything(), ofports_without("none")
        linked.settle()
        flows = BridgeFlows(BR_NIC, HOST_A.uuid, linked)
        switch: dict[int, Flow] = {}
        touched = Touched()
        for _ in range(30):
            make(switch, flows.update(touched, ofports, 1))
            touched = Touched()
            waited += flows.busy
            for _ in range(rng.choice([0, 1, 1, 4])):
                row: Any = rng.choice([HOST_B, HOST_C, *VPCS, *PORTS, *MAPPINGS])
                linked.put(TABLES[type(row)], row.uuid, None if rng.random() < 0.1 else changed(row, rng))
                touched.add(linked.settle())
        make(switch, flows.update(touched, ofports, 1))
        while flows.busy:
            make(switch, flows.update(Touched(), ofports, 1))
        # Another host may have come to claim its datapath.
        known = HOST_A.uuid in linked.hosts
        assert switch == (desired(BR_NIC, view(linked.snapshot(1), HOST_A), ofports) if known else {})
    assert waited > 200


def test_a_change_of_one_mapping_touches_two_addresses() -> None:
    linked = everything()
    linked.settle()
    old = MAPPINGS[0]
    linked.put("Mapping", old.uuid, old._replace(ip="10.0.0.99"))
    assert linked.settle() == Touched(addresses={old.vpc: {old.ip: None, "10.0.0.99": old.port}})


def test_a_host_that_carries_less_changes_one_flow_of_each_vpc_here_that_names_no_mtu() -> None:
    linked = everything()
    linked.put("Vpc", RED.uuid, replace(RED, mtu=1300))
    for each in PORTS:
        linked.put("Port", each.uuid, replace(each, host=HOST_A.uuid))
    flows = BridgeFlows(BR_GUEST, HOST_A.uuid, linked)
    switch: dict[int, Flow] = {}
    make(switch, flows.update(linked.settle(), ofports_without("none"), 1))
    linked.put("Host", "new", replace(HOST_C, uuid="new", guest_datapath=98, nic_datapath=99, substrate_mtu=1400))
    change = flows.update(linked.settle(), ofports_without("none"), 2)
    make(switch, change)
    assert {flow.table.name for flow in change.add} == {"SIZE"}
    assert len(change.add) == len(change.delete) == 2
    assert all("check_pkt_larger(1364)" in str(flow) for flow in change.add)
    linked.put("Host", "new", replace(linked.hosts["new"], vtep_ip=IPv4Address("192.0.2.99")))
    assert flows.update(linked.settle(), ofports_without("none"), 3) == Change(())
    assert switch == desired(BR_GUEST, view(linked.snapshot(3), HOST_A), ofports_without("none"))


TEN, ELEVEN = vpc("ten", 100, "10.10.0.0/16"), vpc("eleven", 200, "10.11.0.0/16")
OWN = [port("own10", TEN, "02:00:00:00:01:10", HOST_A), port("own11", ELEVEN, "02:00:00:00:01:11", HOST_A)]
FAR = [port("far10", TEN, "02:00:00:00:02:10", HOST_B), port("far11", ELEVEN, "02:00:00:00:02:11", HOST_C)]
NETS = {"10.10.": "own10", "10.11.": "own11"}
NUMBERED = {f"{prefix}{name}": 10 + n for n, name in enumerate(("own10", "own11")) for prefix in ("", "g-", "n-")}


def strangers(switch: dict[int, Flow], classify: Callable[[str], bool]) -> set[str]:
    """Addresses of one VPC that packets of the other's own port can meet: VNIs in which both have flows."""
    enters = {
        str(NUMBERED[own]): re.findall(r"set_field:(\w+)->(?:tun_id|reg0)", str(flow))
        for flow in switch.values()
        for own in NETS.values()
        if classify(str(flow)) and f"in_port={NUMBERED[own]}," in str(flow)
    }
    found = set()
    for flow in map(str, switch.values()):
        vni = re.search(r"(?:tun_id|reg0)=(\w+),", flow)
        address = re.search(r"(?:nw_dst|arp_tpa)=(10\.1[01]\.)(\S+)", flow)
        if vni and address:
            own = NUMBERED[NETS[address[1]]]
            found |= {address[0] for port, vnis in enters.items() if vni[1] in vnis and int(port) != own}
    return found


SWAP: list[list[Any]] = [[replace(TEN, vni=200), replace(ELEVEN, vni=100)]]
TAKE_OVER: list[list[Any]] = [[replace(TEN, vni=300)], [replace(ELEVEN, vni=100)], [replace(TEN, vni=200)]]
LEAVE: list[list[Any]] = [[replace(OWN[0], host=None)], [replace(TEN, vni=300)], [replace(ELEVEN, vni=100)]]
AT_ONCE: list[list[Any]] = [[replace(OWN[0], host=None), replace(TEN, vni=300), replace(ELEVEN, vni=100)]]


@pytest.mark.parametrize("bridge", [BR_NIC, BR_GUEST])
@pytest.mark.parametrize("transactions", [SWAP, TAKE_OVER, LEAVE, AT_ONCE])
def test_a_vni_never_leads_to_the_vpc_that_had_it_before(
    transactions: list[list[Any]], bridge: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even for the moment in which other changes wait their turn."""
    monkeypatch.setattr("flows.incremental.SLICE", 1)
    linked = Linked()
    addresses = [mapping(f"10.{10 + n}.0.{9 + k}", each[n]) for each in (OWN, FAR) for n in (0, 1) for k in range(9)]
    for number, one in enumerate(addresses):
        addresses[number] = one._replace(uuid=f"m{number}", ip=one.ip if number < 18 else one.ip.replace(".0.", ".1."))
    rows_now: list[Any] = [HOST_A, HOST_B, HOST_C, TEN, ELEVEN, *OWN, *FAR, *addresses]
    for row in rows_now:
        linked.put(TABLES[type(row)], row.uuid, row)
    flows = BridgeFlows(bridge, HOST_A.uuid, linked)
    switch: dict[int, Flow] = {}
    touched = linked.settle()
    steps = 0
    for number, transaction in enumerate([[], *transactions], 1):
        for row in transaction:
            linked.put(TABLES[type(row)], row.uuid, row)
        touched.add(linked.settle())
        # Some have their turn before the next transaction, some do not.
        for _ in range(6 if number > 1 else 100):
            make(switch, flows.update(touched, NUMBERED, number))
            touched = Touched()
            assert not strangers(switch, lambda flow: "table=CLASSIFY" in flow)
            steps += flows.busy
    while flows.busy:
        make(switch, flows.update(Touched(), NUMBERED, number))
        assert not strangers(switch, lambda flow: "table=CLASSIFY" in flow)
    assert steps > 20
    assert switch == desired(bridge, view(linked.snapshot(1), HOST_A), NUMBERED)


@pytest.mark.parametrize(("bridge", "flows_of_an_address"), [(BR_NIC, 2), (BR_GUEST, 1)])
def test_what_is_overwritten_is_not_deleted_as_well(bridge: str, flows_of_an_address: int) -> None:
    linked = Linked()
    rows_now: list[Any] = [HOST_A, HOST_B, HOST_C, TEN, OWN[0], FAR[0], mapping("10.10.0.9", FAR[0])]
    for row in rows_now:
        linked.put(TABLES[type(row)], row.uuid, row)
    flows = BridgeFlows(bridge, HOST_A.uuid, linked)
    switch: dict[int, Flow] = {}
    make(switch, flows.update(linked.settle(), NUMBERED, 1))
    linked.put("Port", FAR[0].uuid, replace(FAR[0], mac="02:00:00:00:00:77"))
    change = flows.update(linked.settle(), NUMBERED, 2)
    # The way there, and what ARP answers. Where packets from there come from is as it was.
    assert (len(change.add), change.delete) == (1, ())
    make(switch, change)
    assert flows.matches(list(switch))
    linked.put("Mapping", rows_now[-1].uuid, None)
    change = flows.update(linked.settle(), NUMBERED, 3)
    assert len(change.delete) >= flows_of_an_address
    assert not change.add
    make(switch, change)
    assert switch == desired(bridge, view(linked.snapshot(1), HOST_A), NUMBERED)
