"""What a change costs does not grow with what it does not concern: bytecodes are counted, never time."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from types import FrameType, SimpleNamespace
from typing import Any

import pytest

from controller.guest_config import config_of
from controller.switch import Switch
from flows.incremental import BridgeFlows
from flows.pipeline import BR_GUEST, BR_NIC
from mapping.linked import Linked, Touched
from mapping.model import Encap, Host, Mapping, Port, SecurityGroup, Vpc, guest_mtu
from mapping.security_rules import parse_rule
from tests.build import group, having, host, mapping, port, vpc

TABLES: dict[type, str] = {Host: "Host", Vpc: "Vpc", SecurityGroup: "SecurityGroup", Port: "Port", Mapping: "Mapping"}
FEW, MANY = 20, 200
MORE = 1.1
"""Sets and dicts that grow are walked in another order."""


def work(do: Callable[[], object]) -> int:
    """Bytecodes that are run."""
    count = 0

    def counted(*_: object) -> None:
        nonlocal count
        count += 1

    if sys.version_info >= (3, 12):  # from here on a trace misses those of code that has not been traced before
        monitoring = sys.monitoring
        monitoring.use_tool_id(monitoring.PROFILER_ID, "work")
        monitoring.register_callback(monitoring.PROFILER_ID, monitoring.events.INSTRUCTION, counted)
        monitoring.set_events(monitoring.PROFILER_ID, monitoring.events.INSTRUCTION)
        try:
            do()
        finally:
            monitoring.set_events(monitoring.PROFILER_ID, monitoring.events.NO_EVENTS)
            monitoring.free_tool_id(monitoring.PROFILER_ID)
        return count

    def trace(frame: FrameType, event: str, _: object) -> Any:  # noqa: ANN401
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            counted()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        do()
    finally:
        sys.settrace(before)
    return count


class World:
    """One VPC. On the host here it has one port; on each of many others one with an address, of a group of its own."""

    def __init__(self, bridge: str, many: int, addresses: int = 3) -> None:
        blue = vpc("blue", 5001, "10.0.0.0/8")
        here = host("here", "192.0.2.1")
        self.hosts = [host(f"h{n}", f"192.0.{2 + (n + 2) // 200}.{(n + 2) % 200 + 2}") for n in range(many)]
        rules = [f"to_guest tcp 80 from group g{n + 1}" for n in range(many)]
        self.groups = [group(f"g{n}", blue, rules[n]) for n in range(many)]
        self.own = having(port("own", blue, "02:00:00:00:00:01", here), self.groups[0])
        self.far = [
            having(port(f"p{n}", blue, f"02:00:00:00:{n >> 8:02x}:{n & 255:02x}", self.hosts[n]), self.groups[n])
            for n in range(many)
        ]
        self.mappings = [mapping(f"10.1.{n >> 8}.{n & 255}", each) for n, each in enumerate(self.far)]
        self.mappings += [mapping(f"10.2.0.{n}", self.far[3]) for n in range(addresses)]
        self.linked = Linked()
        self.flows = BridgeFlows(bridge, here.uuid, self.linked)
        names = ("own", "g-own", "n-own")
        self._ofports = {name: number for number, name in enumerate(names, 1)}
        every: list[Any] = [blue, here, *self.hosts, *self.groups, self.own, *self.far, *self.mappings]
        self.change(*every, mapping("10.3.0.1", self.own))
        while self.flows.busy:
            self.change()

    def change(self, *rows: Any) -> None:  # noqa: ANN401
        for row in rows:
            self.linked.put(TABLES[type(row)], row.uuid, row)
        self.flows.update(self.linked.settle(), self._ofports, 1)
        assert self.flows.peers

    def cost(self, before: Any, after: Any) -> int:  # noqa: ANN401
        """Of the second time that a row changes so: what is kept of shapes is there by then."""
        self.change(after)
        self.change(before)
        return work(lambda: self.change(after))


def mapped_elsewhere(world: World) -> tuple[Any, Any]:
    return world.mappings[2], world.mappings[2]._replace(port=world.far[4].uuid)


def other_mac(world: World) -> tuple[Any, Any]:
    return world.far[2], replace(world.far[2], mac="02:00:00:00:ff:01")


def moved(world: World) -> tuple[Any, Any]:
    return world.far[2], replace(world.far[2], host=world.hosts[4].uuid)


def own_mac(world: World) -> tuple[Any, Any]:
    return world.own, replace(world.own, mac="02:00:00:00:ff:02")


def other_rule(world: World) -> tuple[Any, Any]:
    return world.groups[5], replace(world.groups[5], rules=(parse_rule("to_guest tcp 80 from group g9"),))


def other_name(world: World) -> tuple[Any, Any]:
    return world.groups[5], replace(world.groups[5], name="other")


def other_encap(world: World) -> tuple[Any, Any]:
    return world.hosts[3], replace(world.hosts[3], encap=Encap.GENEVE)


@pytest.mark.parametrize("bridge", [BR_NIC, BR_GUEST])
@pytest.mark.parametrize("change", [mapped_elsewhere, other_mac, moved, own_mac, other_rule, other_name, other_encap])
def test_a_change_costs_the_same_among_few_and_many(bridge: str, change: Callable[[World], tuple[Any, Any]]) -> None:
    few, many = (world.cost(*change(world)) for world in (World(bridge, FEW), World(bridge, MANY)))
    assert 0 < many < MORE * few


@pytest.mark.parametrize("bridge", [BR_NIC, BR_GUEST])
def test_a_hosts_change_costs_in_proportion_to_its_addresses(bridge: str) -> None:
    few, many = (world.cost(*other_encap(world)) for world in (World(bridge, 9, 10), World(bridge, 9, 100)))
    assert few < many < 10 * few


def test_a_bridge_that_is_not_concerned_costs_the_same_with_few_ports_and_many() -> None:
    def cost(ports: int) -> int:
        world = World(BR_GUEST, FEW)
        there = {number: SimpleNamespace(name=f"port{number}".encode()) for number in range(ports)}
        switch = Switch(SimpleNamespace(id=1, socket=None, ports=there))
        world.flows.update(Touched(), switch.ofports, 1)
        return work(lambda: world.flows.update(Touched(), switch.ofports, 2))

    assert 0 < cost(MANY) < MORE * cost(FEW)


def test_what_a_guest_is_told_costs_the_same_among_few_hosts_and_many() -> None:
    worlds = World(BR_GUEST, FEW), World(BR_GUEST, MANY)
    for world in worlds:
        world.change(replace(world.hosts[3], substrate_mtu=1400))
        told, hosts = config_of(world.own, world.linked), world.linked.hosts.values()
        assert told.mtu == guest_mtu(world.linked.vpcs[world.own.vpc], hosts) == 1350
    few, many = (work(lambda: config_of(world.own, world.linked)) for world in worlds)  # noqa: B023
    assert 0 < many < MORE * few
