"""What each field takes, and what is said about the rest."""

from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapping import values
from mapping.model import VNI_MAX, Encap, default_datapaths

GOOD: list[tuple[Callable[[str], object], str, object]] = [
    (values.parse_name, "host-a.rack_1", "host-a.rack_1"),
    (values.parse_mac, "02:00:00:00:00:0a", "02:00:00:00:00:0a"),
    (values.parse_ip, "10.0.0.1", IPv4Address("10.0.0.1")),
    (values.parse_ip, "fd00::1", IPv6Address("fd00::1")),
    (values.parse_ip, "2001:db8:0:1:1:1:1:1", IPv6Address("2001:db8:0:1:1:1:1:1")),
    (values.parse_vtep_ip, "192.0.2.1", IPv4Address("192.0.2.1")),
    (values.parse_vtep_ip, "2001:db8::1", IPv6Address("2001:db8::1")),
    (values.parse_subnet, "10.0.0.0/24", IPv4Network("10.0.0.0/24")),
    (values.parse_subnet, "10.0.0.0/30", IPv4Network("10.0.0.0/30")),
    (values.parse_subnet, "fd00:0:0:1::/64", IPv6Network("fd00:0:0:1::/64")),
    (values.parse_subnet, "fd00::/126", IPv6Network("fd00::/126")),
    (values.parse_device, "tap0", "tap0"),
    (values.parse_device, "a" * 13, "a" * 13),
    (values.parse_datapath, "000000670a000001", 0x670A000001),
    (values.parse_vni, "1", 1),
    (values.parse_vni, str(VNI_MAX), VNI_MAX),
    (values.parse_mtu, "576", 576),
    (values.parse_encap, "gre", Encap.GRE),
]

BAD: list[tuple[Callable[[str], object], str, str]] = [
    (values.parse_name, "", "use 1 to 63"),
    (values.parse_name, "-a", "use 1 to 63"),
    (values.parse_name, "a" * 64, "use 1 to 63"),
    (values.parse_name, "a b", "use 1 to 63"),
    (values.parse_name, "a\n", "use 1 to 63"),
    (values.parse_mac, "02:00:00:00:00:0A", "lower case"),
    (values.parse_mac, "02-00-00-00-00-01", "six pairs"),
    (values.parse_mac, "3:0:0:0:0:1", "six pairs"),
    (values.parse_mac, "03:00:00:00:00:01", "multicast"),
    (values.parse_mac, "ff:ff:ff:ff:ff:ff", "multicast"),
    (values.parse_mac, "00:00:00:00:00:00", "nobody's"),
    (values.parse_ip, "10.0.0.256", "four numbers"),
    (values.parse_ip, "010.0.0.1", "leading zeros"),
    (values.parse_ip, "10.0.0.1 ", "four numbers"),
    (values.parse_ip, "FD00::1", "write it as fd00::1"),
    (values.parse_ip, "fd00:0::1", "write it as fd00::1"),
    (values.parse_ip, "fd00::0001", "write it as fd00::1"),
    (values.parse_ip, "2001:db8::1:1:1:1:1", "write it as 2001:db8:0:1:1:1:1:1"),
    (values.parse_ip, "fe80::1%eth0", "without a zone"),
    (values.parse_ip, "fd00:::1", "write an IPv6 address"),
    (values.parse_ip, "::ffff:10.0.0.1", "::/8, which is reserved"),
    (values.parse_ip, "::1", "::/8, which is reserved"),
    (values.parse_vtep_ip, "127.0.0.1", "no host's"),
    (values.parse_vtep_ip, "224.0.0.1", "no host's"),
    (values.parse_vtep_ip, "255.255.255.255", "no host's"),
    (values.parse_vtep_ip, "0.0.0.0", "no host's"),  # noqa: S104 - refused here
    (values.parse_vtep_ip, "fe80::1", "no host's"),
    (values.parse_vtep_ip, "ff02::1", "no host's"),
    (values.parse_vtep_ip, "::1", "reserved"),
    (values.parse_subnet, "10.0.0.1/24", "write it as 10.0.0.0/24"),
    (values.parse_subnet, "10.0.0.0/255.255.255.0", "write it as 10.0.0.0/24"),
    (values.parse_subnet, "10.0.0.0", "prefix length"),
    (values.parse_subnet, "junk", "prefix length"),
    (values.parse_subnet, "10.0.0.0/31", "/1 to /30"),
    (values.parse_subnet, "0.0.0.0/0", "/1 to /30"),
    (values.parse_subnet, "127.0.0.0/24", "loopback"),
    (values.parse_subnet, "192.0.0.0/2", "multicast"),
    (values.parse_subnet, "fd00::1/64", "write it as fd00::/64"),
    (values.parse_subnet, "fd00:0::/64", "write it as fd00::/64"),
    (values.parse_subnet, "fd00::/127", "/1 to /126"),
    (values.parse_subnet, "fe80::/64", "link-local"),
    (values.parse_subnet, "ff00::/16", "multicast"),
    (values.parse_subnet, "::ffff:0:0/96", "reserved"),
    (values.parse_subnet, "8000::/1", "link-local"),
    (values.parse_subnet, "fd00::%1/64", "prefix length"),
    (values.parse_device, "a" * 14, "1 to 13"),
    (values.parse_device, "tap/0", "1 to 13"),
    (values.parse_device, "g-web", "the bridges' own"),
    (values.parse_device, "br-nic", "the bridges' own"),
    (values.parse_datapath, "0x670a000001", "16 lower case hex digits"),
    (values.parse_datapath, "0" * 16, "not all zero"),
    (values.parse_vni, "0", "from 1 to 16777215"),
    (values.parse_vni, "16777216", "from 1 to 16777215"),
    (values.parse_vni, "0x10", "from 1 to 16777215"),
    (values.parse_vni, "1_000", "from 1 to 16777215"),
    (values.parse_vni, "٣", "from 1 to 16777215"),
    (values.parse_vni, "9" * 5000, "from 1 to 16777215"),
    (values.parse_mtu, "575", "from 576 to 9216"),
    (values.parse_mtu, "9217", "from 576 to 9216"),
    (values.parse_encap, "VXLAN", "choose vxlan, geneve, gre"),
]


@pytest.mark.parametrize(("parse", "text", "value"), GOOD)
def test_good(parse: Callable[[str], object], text: str, value: object) -> None:
    assert parse(text) == value


@pytest.mark.parametrize(("parse", "text", "said"), BAD)
def test_bad_is_named_with_its_mend(parse: Callable[[str], object], text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        parse(text)
    message = str(caught.value)
    assert repr(text[:60])[1:-1] in message
    assert len(message) < 200
    assert "\n" not in message


@given(st.text() | st.from_regex(r"[0-9./:a-f]{1,20}") | st.ip_addresses(v=6).map(str))
def test_any_text_is_taken_as_it_is_or_refused(text: str) -> None:
    for parse in {parse for parse, _, _ in GOOD}:
        try:
            value = parse(text)
        except ValueError:
            continue
        # The database's unique indexes compare text: there must be one spelling of each value.
        assert (f"{value:016x}" if parse is values.parse_datapath else str(value)) == text


def test_subnets() -> None:
    nets = [ip_network(text) for text in ("10.0.0.0/24", "10.0.1.0/24", "10.0.0.0/16", "10.9.0.0/16", "fd00::/64")]
    values.check_subnets((nets[4], nets[0], nets[1], nets[3]))
    with pytest.raises(ValueError, match=r"10.0.0.0/16 and 10.0.0.0/24 overlap"):
        values.check_subnets((nets[3], nets[4], nets[0], nets[2]))
    with pytest.raises(ValueError, match=r"fd00::/48 and fd00::/64 overlap"):
        values.check_subnets((nets[4], nets[0], ip_network("fd00::/48")))
    with pytest.raises(ValueError, match="at least one"):
        values.check_subnets(())


def test_ipv6_needs_its_least_mtu() -> None:
    values.check_mtu(576, (ip_network("10.0.0.0/24"),))
    values.check_mtu(1280, (ip_network("10.0.0.0/24"), ip_network("fd00::/64")))
    with pytest.raises(ValueError, match="at least 1280"):
        values.check_mtu(1279, (ip_network("10.0.0.0/24"), ip_network("fd00::/64")))


def test_a_guest_is_told_no_more_than_an_answer_holds() -> None:
    subnets = (ip_network("10.0.0.0/24"),)
    servers = [ip_address(f"10.0.0.{number}") for number in range(9)]
    routes = [values.parse_route(f"10.9.{number}.0/24=10.0.0.9") for number in range(25)]
    values.check_dns(servers[:8])
    values.check_routes(routes[:24], subnets)
    with pytest.raises(ValueError, match="9 name servers: name at most 8"):
        values.check_dns(servers)
    with pytest.raises(ValueError, match="25 routes: give at most 24"):
        values.check_routes(routes, subnets)


@pytest.mark.parametrize(
    ("ip", "said"),
    [
        ("10.0.0.1", "router"),
        ("10.0.0.0", "network or broadcast"),
        ("10.0.0.255", "network or broadcast"),
        ("10.0.1.2", "outside"),
        ("fd00::1", "router"),
        ("fd00::", "routers' anycast"),
        ("fd00:0:0:1::2", "outside"),
    ],
)
def test_guest_addresses(ip: str, said: str) -> None:
    subnets = tuple(map(ip_network, ("10.0.0.0/24", "10.9.0.0/16", "fd00::/64")))
    values.check_guest_ip(ip_address("10.0.0.254"), subnets)
    values.check_guest_ip(ip_address("fd00::ffff:ffff:ffff:ffff"), subnets)
    with pytest.raises(ValueError, match=said):
        values.check_guest_ip(ip_address(ip), subnets)


def test_datapath_ids_are_made_of_the_vtep_and_differ() -> None:
    assert default_datapaths(ip_address("192.0.2.1")) == (0x67C0000201, 0x6EC0000201)
    vteps = [ip_address(0x20010DB8 << 96 | n << 32) for n in range(500)] + [ip_address(n) for n in range(500)]
    made = {datapath for vtep in vteps for datapath in default_datapaths(vtep)}
    assert len(made) == 2000
    assert max(made) < 1 << 64
