"""DHCPv6 and router advertisements as functions of the request and the mapping. Scapy writes and reads them.

The guest has fd00::7 and fd00::9.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers import dhcp6 as d6
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import (
    ICMPv6ND_RA,
    ICMPv6ND_RS,
    ICMPv6NDOptMTU,
    ICMPv6NDOptPrefixInfo,
    ICMPv6NDOptRDNSS,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
)
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from controller import dhcp6, router_advertisement
from controller.guest_config import GuestConfig, guest_config
from mapping.values import parse_ip
from tests.build import host, port, vpc

MAC, OTHER, ROUTER_MAC = "02:00:00:00:00:11", "02:00:00:00:00:12", "0a:00:5e:00:00:01"
LINK_LOCAL, ROUTER = "fe80::ff:fe00:11", "fe80::1"
HOST = host("h1", "192.0.2.1")
VPC = dataclasses.replace(
    vpc("blue", 5001, "10.0.0.0/24", "fd00::/64", "fd00:1::/64"), dns=(parse_ip("10.0.0.53"), parse_ip("fd00::53"))
)
GUEST = guest_config(port("web", VPC, MAC, HOST), VPC, ["fd00::9", "10.0.0.7", "fd00::7"], 1450)
MTU = 1450
DAY = 86400

CLIENT = d6.DHCP6OptClientId(duid=d6.DUID_LLT(lladdr=MAC, timeval=7))
SERVER = d6.DHCP6OptServerId(duid=d6.DUID_LL(lladdr=ROUTER_MAC))
ANOTHER = d6.DHCP6OptServerId(duid=d6.DUID_LL(lladdr=OTHER))


def to_servers(message: Packet, *options: Packet, mac: str = MAC, src: str = LINK_LOCAL) -> Packet:
    message.trid = 0x123456
    packet = Ether(src=mac, dst="33:33:00:01:00:02") / IPv6(src=src, dst="ff02::1:2", hlim=1)
    packet = packet / UDP(sport=546, dport=547) / message
    for option in options:
        packet = packet / option
    return packet


def ia(*addresses: str, iaid: int = 1) -> Packet:
    return d6.DHCP6OptIA_NA(iaid=iaid, ianaopts=[d6.DHCP6OptIAAddress(addr=address) for address in addresses])


def ask(packet: Packet, guest: GuestConfig = GUEST) -> Packet | None:
    """The answer; it is checked to be whole, and of this exchange."""
    answer = dhcp6.answer(bytes(packet), guest)
    if answer is None:
        return None
    read = Ether(answer)
    assert (read.src, read.dst, read[IPv6].src, read[IPv6].dst) == (ROUTER_MAC, MAC, ROUTER, LINK_LOCAL)
    assert (read[UDP].sport, read[UDP].dport, read[UDP].payload.trid) == (547, 546, 0x123456)
    again = read.copy()
    del again[UDP].chksum, again[UDP].len, again[IPv6].plen
    assert bytes(again) == answer
    assert bytes(read[d6.DHCP6OptServerId]) == bytes(SERVER) + bytes(read[d6.DHCP6OptServerId].payload)
    return read


def given_to(answer: Packet | None, nth: int = 1) -> dict[str, int]:
    """Address -> valid lifetime in the answer's n-th association."""
    assert answer is not None
    association = answer.getlayer(d6.DHCP6OptIA_NA, nth)
    assert association is not None
    assert all(each.preflft == each.validlft for each in association.ianaopts)
    return {each.addr: each.validlft for each in association.ianaopts}


def status(options: Iterable[Packet]) -> list[int]:
    return [each.statuscode for each in options if isinstance(each, d6.DHCP6OptStatusCode)]


def test_who_solicits_is_advertised_its_lowest_address_and_told_all() -> None:
    answer = ask(to_servers(d6.DHCP6_Solicit(), CLIENT, ia(iaid=77)))
    assert answer is not None
    assert d6.DHCP6_Advertise in answer
    assert given_to(answer) == {"fd00::7": DAY}
    association = answer[d6.DHCP6OptIA_NA]
    assert (association.iaid, association.T1, association.T2) == (77, DAY // 2, DAY * 4 // 5)
    assert answer[d6.DHCP6OptDNSServers].dnsservers == ["fd00::53"]
    assert bytes(answer[d6.DHCP6OptClientId].duid) == bytes(CLIENT.duid)


def test_who_asks_for_a_rapid_commit_gets_it() -> None:
    answer = ask(to_servers(d6.DHCP6_Solicit(), CLIENT, d6.DHCP6OptRapidCommit(), ia()))
    assert answer is not None
    assert d6.DHCP6_Reply in answer
    assert d6.DHCP6OptRapidCommit in answer
    assert given_to(answer) == {"fd00::7": DAY}


GIVING: dict[str, tuple[Packet, list[Packet]]] = {
    "request": (d6.DHCP6_Request(), [SERVER]),
    "renew": (d6.DHCP6_Renew(), [SERVER]),
    "rebind": (d6.DHCP6_Rebind(), []),
}


@pytest.mark.parametrize("how", GIVING)
def test_addresses_that_are_the_guests_are_given_and_renewed(how: str) -> None:
    message, server = GIVING[how]
    answer = ask(to_servers(message.copy(), CLIENT, *server, ia("fd00::9")))
    assert answer is not None
    assert d6.DHCP6_Reply in answer
    assert given_to(answer) == {"fd00::9": DAY}


def test_who_hopes_for_anothers_address_is_given_its_own() -> None:
    assert given_to(ask(to_servers(d6.DHCP6_Solicit(), CLIENT, ia("fd00::5")))) == {"fd00::7": DAY}
    assert given_to(ask(to_servers(d6.DHCP6_Request(), CLIENT, SERVER, ia("fd00::5")))) == {"fd00::7": DAY}


@pytest.mark.parametrize("how", ["renew", "rebind"])
def test_an_address_that_is_no_longer_the_guests_ends_and_another_takes_its_place(how: str) -> None:
    message, server = GIVING[how]
    assert given_to(ask(to_servers(message.copy(), CLIENT, *server, ia("fd00::5")))) == {"fd00::7": DAY, "fd00::5": 0}


def test_two_associations_are_not_given_the_same_address() -> None:
    answer = ask(to_servers(d6.DHCP6_Request(), CLIENT, SERVER, ia(iaid=1), ia("fd00::7", iaid=2), ia(iaid=3)))
    assert [given_to(answer, nth) for nth in (1, 2)] == [{"fd00::9": DAY}, {"fd00::7": DAY}]
    third = answer and answer.getlayer(d6.DHCP6OptIA_NA, 3)
    assert third
    assert status(third.ianaopts) == [2]


def test_no_prefix_is_delegated_and_no_temporary_address_is_given() -> None:
    answer = ask(to_servers(d6.DHCP6_Solicit(), CLIENT, ia(), d6.DHCP6OptIA_PD(iaid=2), d6.DHCP6OptIA_TA(iaid=3)))
    assert answer is not None
    assert given_to(answer) == {"fd00::7": DAY}
    assert status(answer[d6.DHCP6OptIA_PD].iapdopt) == [6]
    assert status(answer[d6.DHCP6OptIA_TA].iataopts) == [2]


@pytest.mark.parametrize(("has", "code"), [(["fd00::7"], 0), (["fd00::7", "fd00::9"], 0), (["fd00::7", "fd00::5"], 4)])
def test_who_has_come_back_is_told_whether_its_addresses_are_still_good(has: list[str], code: int) -> None:
    answer = ask(to_servers(d6.DHCP6_Confirm(), CLIENT, ia(*has)))
    assert answer is not None
    assert answer[d6.DHCP6OptStatusCode].statuscode == code


@pytest.mark.parametrize("message", [d6.DHCP6_Release(), d6.DHCP6_Decline()])
def test_what_is_given_back_stays_the_guests(message: Packet) -> None:
    answer = ask(to_servers(message, CLIENT, SERVER, ia("fd00::7")))
    assert answer is not None
    assert answer[d6.DHCP6OptStatusCode].statuscode == 0
    assert given_to(ask(to_servers(d6.DHCP6_Solicit(), CLIENT, ia()))) == {"fd00::7": DAY}


@pytest.mark.parametrize("options", [[], [CLIENT], [CLIENT, SERVER]])
def test_who_wants_to_know_the_rest_is_told(options: list[Packet]) -> None:
    answer = ask(to_servers(d6.DHCP6_InfoRequest(), *options))
    assert answer is not None
    assert answer[d6.DHCP6OptDNSServers].dnsservers == ["fd00::53"]
    assert d6.DHCP6OptIA_NA not in answer


SOLICIT = to_servers(d6.DHCP6_Solicit(), CLIENT, ia())


def over_ipv4(packet: Packet) -> Packet:
    return Packet(bytes(Ether(src=MAC) / IP(src="10.0.0.7", dst="10.0.0.1") / packet[UDP]))


@pytest.mark.parametrize(
    "frame",
    [
        to_servers(d6.DHCP6_Solicit(), CLIENT, ia(), mac=OTHER),
        to_servers(d6.DHCP6_Solicit(), CLIENT, ia(), src="fd00::7"),
        to_servers(d6.DHCP6_Solicit(), CLIENT, ia(), src="::"),
        to_servers(d6.DHCP6_Solicit(), ia()),
        to_servers(d6.DHCP6_Solicit(), CLIENT, SERVER, ia()),
        to_servers(d6.DHCP6_Request(), CLIENT, ia()),
        to_servers(d6.DHCP6_Request(), CLIENT, ANOTHER, ia()),
        to_servers(d6.DHCP6_Renew(), CLIENT, ANOTHER, ia("fd00::7")),
        to_servers(d6.DHCP6_Release(), CLIENT, ANOTHER, ia("fd00::7")),
        to_servers(d6.DHCP6_Confirm(), CLIENT),
        to_servers(d6.DHCP6_Confirm(), CLIENT, ia()),
        to_servers(d6.DHCP6_InfoRequest(), CLIENT, ANOTHER),
        to_servers(d6.DHCP6_InfoRequest(), CLIENT, ia()),
        to_servers(d6.DHCP6_Advertise(), CLIENT, SERVER, ia()),
        to_servers(d6.DHCP6_Reply(), CLIENT, SERVER, ia()),
        over_ipv4(SOLICIT),
        Ether(bytes(SOLICIT)[:-1]),
    ],
)
def test_what_is_no_request_of_this_port_to_this_server_is_not_answered(frame: Packet) -> None:
    assert ask(frame) is None


def test_a_port_without_an_ipv6_address_is_not_answered_and_has_no_router() -> None:
    only_ipv4 = dataclasses.replace(GUEST, ipv6=())
    assert ask(SOLICIT, only_ipv4) is None
    assert router_advertisement.answer(bytes(rs()), only_ipv4) is None


def rs(src: str = LINK_LOCAL, hops: int = 255, mac: str = MAC, code: int = 0) -> Packet:
    return Ether(src=mac, dst="33:33:00:00:00:02") / IPv6(src=src, dst="ff02::2", hlim=hops) / ICMPv6ND_RS(code=code)


@pytest.mark.parametrize(
    ("src", "to"), [(LINK_LOCAL, (MAC, LINK_LOCAL)), ("::", ("33:33:00:00:00:01", "ff02::1"))], ids=["own", "none yet"]
)
def test_who_looks_for_routers_is_told_of_one_that_has_addresses_mtu_and_dns(src: str, to: tuple[str, str]) -> None:
    answer = router_advertisement.answer(bytes(rs(src)), GUEST)
    assert answer is not None
    head = Ether(src=ROUTER_MAC, dst=to[0]) / IPv6(src=ROUTER, dst=to[1], hlim=255)
    expected = (
        head
        / ICMPv6ND_RA(chlim=64, M=1, O=1, prf=0, routerlifetime=65535)
        / ICMPv6NDOptSrcLLAddr(lladdr=ROUTER_MAC)
        / ICMPv6NDOptMTU(mtu=MTU)
        / ICMPv6NDOptPrefixInfo(prefixlen=64, L=1, A=0, R=0, validlifetime=DAY, preferredlifetime=DAY, prefix="fd00::")
        / ICMPv6NDOptRDNSS(lifetime=65535, dns=["fd00::53"])
    )
    assert answer == bytes(expected)


@pytest.mark.parametrize("frame", [rs(hops=254), rs(mac=OTHER), rs(code=1), Ether(bytes(rs())[:-1]), SOLICIT])
def test_what_is_no_valid_solicitation_is_not_answered(frame: Packet) -> None:
    assert router_advertisement.answer(bytes(frame), GUEST) is None


SEEDS = [
    bytes(to_servers(message.copy(), CLIENT, *server, ia("fd00::7", iaid=1), ia("fd00::5", iaid=2)))
    for message, server in [*GIVING.values(), (d6.DHCP6_Solicit(), []), (d6.DHCP6_Confirm(), [])]
]


@given(st.sampled_from([*SEEDS, bytes(rs())]), st.data())
def test_whatever_bits_a_guest_sends_it_alone_is_answered_about_its_own_addresses_or_not_at_all(
    seed: bytes, data: st.DataObject
) -> None:
    frame = bytearray(seed)
    for at in data.draw(st.lists(st.integers(0, len(seed) - 1), max_size=6)):
        frame[at] = data.draw(st.integers(0, 255))
    frame += data.draw(st.binary(max_size=40))
    del frame[data.draw(st.integers(len(seed) // 2, len(frame))) :]
    for answer in (dhcp6.answer, router_advertisement.answer):
        said = answer(bytes(frame), GUEST)
        if said is not None:
            assert frame[6:12] == GUEST.mac
            read = Ether(said)
            assert read.dst in (MAC, "33:33:00:00:00:01")
            associations = [each for nth in (1, 2) if (each := read.getlayer(d6.DHCP6OptIA_NA, nth))]
            lasting = {a.addr for each in associations for a in each.ianaopts if getattr(a, "validlft", 0)}
            assert lasting <= {"fd00::7", "fd00::9"}


def test_as_many_associations_as_fit_a_frame_are_answered_in_bounds() -> None:
    head, association = bytes(to_servers(d6.DHCP6_Solicit(), CLIENT)), bytes(d6.DHCP6OptIA_TA(iaid=1))
    many = (1514 - len(head)) // len(association) * association
    packet = Ether(head)
    frame = to_servers(d6.DHCP6_Solicit(), CLIENT, d6.DHCP6OptIA_TA(bytes(many)))
    assert len(bytes(frame)) <= len(bytes(packet)) + len(many)
    answer = dhcp6.answer(bytes(frame), GUEST)
    assert answer is not None
    assert len(answer) < 3000
