"""A VPC with much to do does not keep another waiting, on a real switch."""

from __future__ import annotations

import re
from ipaddress import IPv4Address

from flows.pipeline import BR_GUEST, BR_NIC
from mapping.model import Port
from tests.build import BLUE, HOST_A, HOST_B, MAPPINGS, RED, SPY, port, snapshot, vpc
from tests.conftest import Figure
from tests.database import Operation
from tests.ovs.conftest import World

MANY = 10_000
FIRST = IPv4Address("10.64.1.0")
BUSY = vpc("busy", 5010, "10.64.0.0/12")
HERE, THERE = port("db", BUSY, "02:00:00:00:00:02", HOST_B), port("web", BUSY, "02:00:00:00:00:01", HOST_A)
FAR = port("far", RED, "02:00:00:00:00:0a", HOST_A)


def add(at: Port, *ips: str) -> list[Operation]:
    """What adds mappings to rows that `World.write` made."""
    port, vpc = (["named-uuid", "r" + uuid.replace("-", "")] for uuid in (at.uuid, at.vpc))
    return [{"op": "insert", "table": "Mapping", "row": {"ip": ip, "port": port, "vpc": vpc}} for ip in ips]


def ages(world: World, bridge: str, field: str) -> dict[str, float]:
    """Address -> for how many seconds host-b has had its flow."""
    dump = world.b.ovs.ofctl("dump-flows", bridge)
    return {ip: float(age) for age, ip in re.findall(rf"duration=([0-9.]+)s.*[ ,]{field}=([0-9.]+)[ ,]", dump)}


def test_a_change_overtakes_what_another_vpc_still_has_to_do(world: World, figure: Figure) -> None:
    """Guests db and spy are on host-b. The VPC of db gets 10,000 addresses at once, that of spy one right after."""
    base = snapshot(HOST_A, HOST_B, BUSY, BLUE, RED, HERE, THERE, SPY, FAR, MAPPINGS[2])
    world.write(base)
    world.database.transact(add(THERE, *(str(FIRST + n) for n in range(MANY))))
    world.database.transact(add(FAR, "10.0.0.99"))
    world.wait_applied()
    for bridge, field in ((BR_NIC, "nw_dst"), (BR_GUEST, "arp_tpa")):
        found = ages(world, bridge, field)
        quiet = found.pop("10.0.0.99")
        after = sum(age < quiet for ip, age in found.items() if ip.startswith("10.64.")) / MANY
        figure(f"{bridge}: of the busy VPC's flows, later than the quiet one's", round(100 * after), "%")
        assert after > 0.5
    world.assert_as_desired()
