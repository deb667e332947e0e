"""DHCP as a function of the request and the mapping. Scapy writes the requests and reads the answers.

The guest has 10.0.0.7, 10.0.0.9 and 10.1.0.5; its VPC's subnets are 10.0.0.0/24 and 10.1.0.0/16.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from controller import dhcp4
from controller.guest_config import GuestConfig, guest_config
from mapping.values import parse_ip, parse_route
from tests.build import host, port, vpc

MAC, BROADCAST, ROUTER_MAC = "02:00:00:00:00:11", "ff:ff:ff:ff:ff:ff", "0a:00:5e:00:00:01"
EVERYBODY = "255.255.255.255"
NOBODY = "0.0.0.0"  # noqa: S104 - the address of who has none
Option = tuple[int | str, object]
HOST = host("h1", "192.0.2.1")
VPC = dataclasses.replace(
    vpc("blue", 5001, "10.0.0.0/24", "10.1.0.0/16", "fd00::/64"),
    dns=(parse_ip("10.0.0.53"), parse_ip("10.0.0.54"), parse_ip("fd00::53")),
    routes=(parse_route("10.9.0.0/17=10.0.0.254"), parse_route("10.8.0.0/16=10.1.0.254")),
)
GUEST = guest_config(port("web", VPC, MAC, HOST), VPC, ["10.1.0.5", "fd00::7", "10.0.0.9", "10.0.0.7"], 1450)


def request(
    kind: str, *options: Option, ciaddr: str = NOBODY, flags: int = 0, mac: str = MAC, dst: str = EVERYBODY
) -> Packet:
    """As a client sends it that has `ciaddr`, or no address."""
    chaddr = bytes.fromhex(mac.replace(":", ""))
    bootp = BOOTP(op=1, xid=0x12345678, secs=3, ciaddr=ciaddr, flags=flags, chaddr=chaddr)
    fields = [("message-type", kind), *options, "end"]
    return (
        Ether(src=mac, dst=BROADCAST) / IP(src=ciaddr, dst=dst) / UDP(sport=68, dport=67) / bootp / DHCP(options=fields)
    )


def ask(packet: Packet, guest: GuestConfig = GUEST) -> Packet | None:
    """The answer; it is checked to be whole, and of this exchange."""
    answer = dhcp4.answer(bytes(packet), guest)
    if answer is None:
        return None
    read = Ether(answer)
    assert (read.src, read[UDP].sport, read[UDP].dport) == (ROUTER_MAC, 67, 68)
    again = read.copy()
    del again[IP].chksum, again[UDP].chksum, again[IP].len, again[UDP].len
    assert bytes(again) == answer
    bootp = read[BOOTP]
    assert (bootp.op, bootp.htype, bootp.hlen, bootp.xid) == (2, 1, 6, 0x12345678)
    assert bootp.chaddr[:6].hex(":") == MAC
    assert len(bytes(bootp)) >= 300
    return read


def options(answer: Packet | None) -> dict[str | int, Any]:
    assert answer is not None
    return {
        each[0]: each[1] if len(each) == 2 else each[1:] for each in answer[DHCP].options if isinstance(each, tuple)
    }


def test_a_guest_without_an_address_is_offered_its_lowest_and_told_all() -> None:
    answer = ask(request("discover"))
    assert answer is not None
    assert (answer[BOOTP].yiaddr, answer[IP].src, answer[IP].dst, answer.dst) == (
        "10.0.0.7",
        "10.0.0.1",
        "10.0.0.7",
        MAC,
    )
    assert options(answer) == {
        "message-type": 2,
        "server_id": "10.0.0.1",
        "subnet_mask": "255.255.255.0",
        "broadcast_address": "10.0.0.255",
        "router": "10.0.0.1",
        "name_server": ("10.0.0.53", "10.0.0.54"),
        "interface-mtu": 1450,
        "classless_static_routes": ["10.9.0.0/17:10.0.0.254", "0.0.0.0/0:10.0.0.1"],
        "lease_time": 86400,
        "renewal_time": 43200,
        "rebinding_time": 75600,
    }


def test_an_address_of_its_own_that_it_asks_for_is_offered_with_that_subnets_router() -> None:
    answer = ask(request("discover", ("requested_addr", "10.1.0.5")))
    assert answer is not None
    assert answer[BOOTP].yiaddr == "10.1.0.5"
    told = options(answer)
    assert (told["router"], told["server_id"], told["subnet_mask"]) == ("10.1.0.1", "10.1.0.1", "255.255.0.0")
    assert told["classless_static_routes"] == ["10.8.0.0/16:10.1.0.254", "0.0.0.0/0:10.1.0.1"]
    other = ask(request("discover", ("requested_addr", "10.0.0.8")))
    assert other is not None
    assert other[BOOTP].yiaddr == "10.0.0.7"


def test_without_routes_only_the_router_option_names_the_way_by_default() -> None:
    told = options(ask(request("discover"), dataclasses.replace(GUEST, routes=(), dns=())))
    assert told["router"] == "10.0.0.1"
    assert not {"classless_static_routes", "name_server"} & told.keys()


def test_as_many_routes_as_a_vpc_may_have_are_one_option() -> None:
    routes = tuple(parse_route(f"10.9.{number}.0/32=10.0.0.9") for number in range(24))
    answer = ask(request("discover"), dataclasses.replace(GUEST, routes=routes))
    assert len(options(answer)["classless_static_routes"]) == 25


def test_a_guest_is_not_told_that_it_is_the_way_itself() -> None:
    routes = (parse_route("0.0.0.0/0=10.0.0.9"), parse_route("10.9.0.0/16=10.0.0.7"))
    told = options(ask(request("discover"), dataclasses.replace(GUEST, routes=routes)))
    assert told["classless_static_routes"] == ["0.0.0.0/0:10.0.0.9"]


STATES = {
    "selecting": request("request", ("requested_addr", "10.0.0.9"), ("server_id", "10.0.0.1")),
    "init-reboot": request("request", ("requested_addr", "10.0.0.9")),
    "renewing": request("request", ciaddr="10.0.0.9", dst="10.0.0.1"),
    "rebinding": request("request", ciaddr="10.0.0.9"),
}
"""RFC 2131, 4.3.2: how a client says which of its states it is in."""


@pytest.mark.parametrize("state", STATES)
def test_in_every_state_what_is_the_guests_is_confirmed_and_what_is_not_is_refused(state: str) -> None:
    asked = STATES[state]
    answer = ask(asked)
    assert answer is not None
    assert (options(answer)["message-type"], answer[BOOTP].yiaddr, answer[IP].dst) == (5, "10.0.0.9", "10.0.0.9")
    assert answer[BOOTP].ciaddr == asked[BOOTP].ciaddr

    moved = dataclasses.replace(GUEST, ipv4=GUEST.ipv4[:1])
    refusal = ask(asked, moved)
    assert refusal is not None
    assert options(refusal) == {"message-type": 6, "server_id": "10.0.0.1"}
    assert (refusal[BOOTP].yiaddr, refusal[IP].dst, refusal.dst) == (NOBODY, EVERYBODY, BROADCAST)


def test_who_cannot_hear_before_it_has_an_address_is_answered_to_all() -> None:
    answer = ask(request("discover", flags=0x8000))
    assert answer is not None
    assert (answer[IP].dst, answer.dst, answer[BOOTP].flags) == (EVERYBODY, BROADCAST, 0x8000)


def test_a_guest_that_has_its_address_by_hand_is_told_the_rest() -> None:
    answer = ask(request("inform", ciaddr="10.0.0.9"))
    told = options(answer)
    assert answer is not None
    assert (answer[BOOTP].yiaddr, answer[IP].dst) == (NOBODY, "10.0.0.9")
    assert told["router"] == "10.0.0.1"
    assert not {"lease_time", "renewal_time", "rebinding_time"} & told.keys()


@pytest.mark.parametrize(("wanted", "given"), [(3600, 3600), (1, 10), (0xFFFFFFFF, 86400)])
def test_a_guest_may_have_its_lease_shorter(wanted: int, given: int) -> None:
    told = options(ask(request("discover", ("lease_time", wanted))))
    assert (told["lease_time"], told["renewal_time"]) == (given, given // 2)


def test_what_a_client_calls_itself_is_said_back() -> None:
    names = ("client_id", b"\xff\x01\x02"), ("pxe_client_machine_identifier", b"\0" + bytes(16))
    answer = ask(request("discover", *names))
    assert b"\x3d\x03\xff\x01\x02" in bytes(answer)  # type: ignore[arg-type] # it is not None, or this fails
    assert b"\x61\x11" + bytes(17) in bytes(answer)  # type: ignore[arg-type]


def changed(packet: Packet, layer: type[Packet], **fields: object) -> Packet:
    copy = packet.copy()
    for name, value in fields.items():
        setattr(copy[layer], name, value)
    return copy


DISCOVER = request("discover")
OTHER = "02:00:00:00:00:12"


@pytest.mark.parametrize(
    "frame",
    [
        request("discover", mac=OTHER),
        changed(DISCOVER, Ether, src=OTHER),
        changed(DISCOVER, BOOTP, chaddr=bytes.fromhex(OTHER.replace(":", ""))),
        changed(DISCOVER, BOOTP, op=2),
        changed(DISCOVER, BOOTP, htype=6),
        changed(DISCOVER, BOOTP, hlen=16),
        changed(DISCOVER, BOOTP, options=b"none"),
        changed(DISCOVER, UDP, sport=67),
        changed(DISCOVER, UDP, dport=68),
        changed(DISCOVER, IP, flags="MF"),
        changed(DISCOVER, IP, frag=1),
        changed(DISCOVER, IP, proto=6),
        changed(DISCOVER, IP, len=2000),
        changed(DISCOVER, UDP, len=7),
        Ether(bytes(DISCOVER)[:-7]),
        request("offer"),
        request("ack"),
        request("release", ("server_id", "10.0.0.1"), ciaddr="10.0.0.7"),
        request("decline", ("server_id", "10.0.0.1"), ("requested_addr", "10.0.0.7")),
        request("inform", ciaddr="10.0.0.8"),
        request("request", ("requested_addr", "10.0.0.9"), ("server_id", "10.0.0.250")),
        request("request"),
    ],
)
def test_what_is_no_request_of_this_port_to_this_server_is_not_answered(frame: Packet) -> None:
    assert ask(frame) is None


def test_a_port_without_an_ipv4_address_is_not_answered() -> None:
    assert ask(DISCOVER, dataclasses.replace(GUEST, ipv4=())) is None


def test_a_frame_longer_than_any_client_sends_is_not_looked_at() -> None:
    assert ask(request("discover", *[(224, b"x" * 255)] * 5)) is None
    assert ask(request("discover", *[(224, b"x" * 255)] * 4)) is not None


SEEDS = [bytes(each) for each in (DISCOVER, *STATES.values())]


@given(st.sampled_from(SEEDS), st.data())
def test_whatever_bits_a_guest_sends_it_is_answered_about_its_own_addresses_or_not_at_all(
    seed: bytes, data: st.DataObject
) -> None:
    frame = bytearray(seed)
    places = st.one_of(st.integers(0, len(seed) - 1), st.integers(278, min(len(seed) - 1, 330)))
    for at in data.draw(st.lists(places, max_size=6)):
        frame[at] = data.draw(st.integers(0, 255))
    frame += data.draw(st.binary(max_size=40))
    del frame[data.draw(st.integers(len(seed) // 2, len(frame))) :]
    answer = dhcp4.answer(bytes(frame), GUEST)
    if answer is not None:
        assert frame[6:12] == GUEST.mac
        read = Ether(answer)
        assert read.dst in (MAC, BROADCAST)
        assert read[BOOTP].yiaddr in {NOBODY, *(str(address.ip) for address in GUEST.ipv4)}


@given(st.binary(max_size=400))
def test_noise_is_not_answered(noise: bytes) -> None:
    assert dhcp4.answer(noise, GUEST) is None
    head = bytes(DISCOVER)[:282]
    dhcp4.answer(head + noise, GUEST)
