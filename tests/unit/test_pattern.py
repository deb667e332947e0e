"""What is filled in equals what the rules make, for any place and address."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from hypothesis import given
from hypothesis import strategies as st

from flows.desired import RULES
from flows.pattern import Bridge
from flows.pipeline import BR_GUEST, BR_NIC
from flows.view import Location
from mapping.model import Encap, Host, IPAddress, Port, Vpc

ADDRESS = st.integers(0, (1 << 32) - 1).map(IPv4Address) | st.integers(0, (1 << 128) - 1).map(IPv6Address)
HOST = st.builds(
    Host, st.sampled_from(["r1", "r2"]), st.just("h"), ADDRESS, st.sampled_from(Encap), st.just(1), st.just(2)
)
OFPORTS = st.dictionaries(st.sampled_from(["dev", "g-dev", "n-dev", "other"]), st.integers(1, (1 << 32) - 1))


@given(
    own=HOST,
    there=HOST,
    vni=st.integers(1, (1 << 24) - 1),
    eth=st.integers(0, (1 << 48) - 1),
    ip=ADDRESS,
    ofports=OFPORTS,
    role=st.sampled_from([BR_GUEST, BR_NIC]),
    peers=st.sampled_from([(), ("a",), ("a", "b")]),
)
def test_filled_in_equals_the_rules(
    *,
    own: Host,
    there: Host,
    vni: int,
    eth: int,
    ip: IPAddress,
    ofports: dict[str, int],
    role: str,
    peers: tuple[str, ...],
) -> None:
    if there.uuid == own.uuid:
        there = own
    vpc = Vpc("v", "v", vni, (), "", 1400)
    port = Port("p", "p", "v", eth.to_bytes(6).hex(":"), there.uuid, "dev")
    place = Bridge(role, own, ofports).place(port, vpc, there, ip.version, peers)
    rules = list(RULES[role].of_address(own, Location(vpc, ip, port, there, peers), ofports))
    assert list(place.flows(int(ip))) == rules
    assert list(place.cookies(int(ip))) == [flow.cookie for flow in rules]
