"""What is put together for guests; how what they send is taken apart is in the tests of what is done about it."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from scapy.layers.inet import UDP
from scapy.layers.l2 import Ether

from controller import frames


@pytest.mark.parametrize("addresses", [("10.0.0.1", "10.0.0.7"), ("fe80::1", "fe80::2")])
def test_a_checksum_that_comes_to_zero_does_not_say_that_there_is_none(addresses: tuple[str, str]) -> None:
    ends = frames.Ends(bytes(6), bytes(6), *map(ip_address, addresses))
    sum_ = Ether(frames.udp(ends, 67, 68, bytes(2)))[UDP].chksum
    frame = frames.udp(ends, 67, 68, sum_.to_bytes(2))
    assert Ether(frame)[UDP].chksum == 0xFFFF
