"""A guest asks for its configuration and is answered, it alone: through a real Open vSwitch and ryu-manager.

web (10.0.0.11, fd00::11, VPC blue) is on host-a; db (VPC blue) and spy (VPC red), both 10.0.0.12, are on host-b.
"""

from __future__ import annotations

import random

import pytest
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.dhcp6 import DUID_LL, DHCP6_Solicit, DHCP6OptClientId, DHCP6OptIA_NA, DHCP6OptIAAddress
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import ICMPv6ND_RA, ICMPv6ND_RS, IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from flows.guest_bridge import PUNTED
from tests.build import DB, SPY, WEB
from tests.ovs.conftest import World
from tests.ovs.dummy import DummyHost
from tests.ovs.test_forwarding import ROUTER, Wires, assert_refused
from tests.ovs.test_ipv6 import LINK_LOCAL
from topo.waiting import wait_until

NOBODY, EVERYBODY = "0.0.0.0", "255.255.255.255"  # noqa: S104 - the address of who has none
SERVER = "10.0.0.1"


@pytest.fixture
def wires(world: World) -> Wires:
    return Wires(world)


def request(kind: str, src: str = NOBODY, dst: str = EVERYBODY, mac: str = WEB.mac, xid: int = 1) -> Packet:
    bootp = BOOTP(chaddr=bytes.fromhex(mac.replace(":", "")), ciaddr=src, xid=xid)
    udp = UDP(sport=68, dport=67) / bootp / DHCP(options=[("message-type", kind), "end"])
    return Ether(src=mac, dst="ff:ff:ff:ff:ff:ff") / IP(src=src, dst=dst) / udp


def solicit(src: str = LINK_LOCAL) -> Packet:
    options = DHCP6OptClientId(duid=DUID_LL(lladdr=WEB.mac)) / DHCP6OptIA_NA(iaid=1)
    udp = UDP(sport=546, dport=547) / DHCP6_Solicit() / options
    return Ether(src=WEB.mac, dst="33:33:00:01:00:02") / IPv6(src=src, dst="ff02::1:2", hlim=1) / udp


def rs(src: str = LINK_LOCAL) -> Packet:
    return Ether(src=WEB.mac, dst="33:33:00:00:00:02") / IPv6(src=src, dst="ff02::2", hlim=255) / ICMPv6ND_RS()


ASKED = {
    "discover": request("discover"),
    "renew": request("request", "10.0.0.11", SERVER),
    "rebind": request("request", "10.0.0.11"),
    "DHCPv6": solicit(),
    "router": rs(),
}


@pytest.mark.parametrize("what", ASKED)
def test_who_asks_is_answered_and_nobody_else_hears_of_it(wires: Wires, what: str) -> None:
    before = len(wires.world.a.sent("web"))
    left = wires.after(ASKED[what], "web")
    assert set(left) <= {"web"}
    # The controller is not waited for by whatever else passes the switch.
    answered = wait_until(
        lambda: [a for a in wires.world.a.sent("web")[before:] if is_answer(what, a)], 10, "an answer"
    )
    assert len(answered) == 1


def is_answer(what: str, frame: bytes) -> bool:
    reply = Ether(frame)
    if (reply.src, reply.dst) != (ROUTER, WEB.mac):
        return False
    if what == "router":
        return ICMPv6ND_RA in reply
    if what == "DHCPv6":
        return DHCP6OptIAAddress in reply and reply[DHCP6OptIAAddress].addr == "fd00::11"
    return BOOTP in reply and (reply[IP].src, reply[BOOTP].yiaddr) == (SERVER, "10.0.0.11")


def from_port(number: int, packet: Packet) -> Packet:
    packet[UDP].sport = number
    return packet


REFUSED = {
    "from another's address": (request("request", "10.0.0.12", SERVER), "spoofed_ip"),
    "from the router's address": (request("discover", SERVER), "spoofed_ip"),
    "with another's MAC": (request("discover", mac=DB.mac), "spoofed_mac"),
    "as a server": (from_port(67, request("offer", "10.0.0.11")), "no_mapping"),
    "from no client's port": (from_port(69, request("discover")), "spoofed_ip"),
    "DHCPv6 from another's address": (solicit("fd00::12"), "spoofed_ip"),
    "for a router from another's address": (rs("fd00::12"), "spoofed_ip"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_clients_of_the_port_is_dropped_before_the_controller(wires: Wires, case: str) -> None:
    frame, reason = REFUSED[case]
    assert_refused(wires, frame, "web", reason)


def answers(host: DummyHost, guest: str, xid: int) -> int:
    return sum(
        BOOTP in reply and (reply[BOOTP].op, reply[BOOTP].xid) == (2, xid) for reply in map(Ether, host.sent(guest))
    )


def test_who_asks_too_much_is_not_heard_and_its_neighbour_on_the_host_is(world: World) -> None:
    flood = bytes(request("discover", mac=DB.mac, xid=7)).hex()
    # A dummy interface has room for 100 frames.
    count, reported = 4 * PUNTED.burst, world.reported_drops()["asked_too_much"]
    world.b.ovs.appctl("netdev-dummy/receive", "db", *[flood] * count)
    world.b.receive("spy", bytes(request("discover", mac=SPY.mac, xid=8)))
    wait_until(lambda: answers(world.b, "spy", 8), 10, "the neighbour to be answered")

    def heard_again() -> int:
        nonlocal count
        count += 1
        world.b.receive("db", bytes(request("discover", mac=DB.mac, xid=9)))
        return answers(world.b, "db", 9)

    wait_until(heard_again, 10, "the guest to be heard again")
    assert PUNTED.burst <= answers(world.b, "db", 7) <= 2 * PUNTED.burst

    def dropped() -> int:
        return count - answers(world.b, "db", 7) - answers(world.b, "db", 9)

    def counted() -> bool:
        return world.reported_drops()["asked_too_much"] - reported == dropped()

    wait_until(counted, 20, "all that was not answered to be counted")


def test_what_a_guest_invents_makes_few_entries_in_the_cache(world: World) -> None:
    rng = random.Random(1)
    before = cached(world.a)
    for _ in range(300):
        to = rng.choice([EVERYBODY, SERVER])
        frame = from_port(rng.randrange(1 << 16), request("discover", rng.choice([NOBODY, "10.0.0.11"]), to))
        frame[UDP].dport = rng.choice([67, rng.randrange(1 << 16)])
        frame[IP].tos, frame[IP].ttl = rng.randrange(256), rng.randrange(1, 256)
        world.a.receive("web", bytes(frame))
    made = cached(world.a) - before
    assert 0 < made < 60


def cached(host: DummyHost) -> int:
    return len(host.ovs.appctl("dpctl/dump-flows").splitlines())
