"""What guests of the virtual machines are told of their configuration, over the kernel's datapath and its meters."""

from __future__ import annotations

import re

from scapy.layers.inet6 import ICMPv6ND_RS, IPv6
from scapy.layers.l2 import Ether

from tests.lab.looking import drops, send_as
from topo.machine import Machine
from topo.vm_lab import VmLab
from topo.waiting import wait_until

MAC = "02:00:00:00:01:01"
FLOOD = 60
"""Requests sent at once: three times what a port's meter lets through, and not as many as the filter ahead of it."""
_LEASE = """\
cat > /tmp/lease <<'EOF'
#!/bin/sh
[ "$1" = bound ] && echo "lease: $ip/$mask router $router mtu $mtu"
exit 0
EOF
chmod 755 /tmp/lease
"""
_METER = re.compile(r"packet_in_count:(\d+).*?\n0: packet_count:(\d+)", re.DOTALL)


def metered(machine: Machine) -> tuple[int, int]:
    """Packets that all meters of br-guest have seen, and what they have dropped."""
    said = machine.run("ovs-ofctl -OOpenFlow15 meter-stats br-guest")
    counts = _METER.findall(said)
    assert counts, said
    return sum(int(seen) for seen, _ in counts), sum(int(dropped) for _, dropped in counts)


def advertisements(machine: Machine) -> int:
    """How many a guest has received."""
    return int(machine.guest("blue-1", "nstat -asz Icmp6InRouterAdvertisements").split()[-2])


def solicitation(link_local: str) -> bytes:
    """A guest looks for a router."""
    return bytes(
        Ether(src=MAC, dst="33:33:00:00:00:02") / IPv6(src=link_local, dst="ff02::2", hlim=255) / ICMPv6ND_RS()
    )


def test_a_guest_is_given_its_addresses(lab: VmLab) -> None:
    one = lab.machines["host-1"]
    one.run(_LEASE)
    said = one.guest("blue-1", "busybox udhcpc -i eth0 -f -q -n -t 10 -T 2 -s /tmp/lease")
    assert "lease: 10.0.0.11/24 router 10.0.0.1 mtu 1400" in said
    files = "-lf /tmp/leases6 -pf /tmp/dhclient6.pid"
    one.guest("blue-1", f"timeout 100 dhclient -6 -1 -sf /bin/true {files} eth0")
    one.run("kill $(cat /tmp/dhclient6.pid)")
    assert "iaaddr fd00:5001::11 " in one.run("cat /tmp/leases6")


def test_a_router_solicitation_is_answered(lab: VmLab) -> None:
    one = lab.machines["host-1"]
    before, heard = drops(one), advertisements(one)
    link_local = one.guest("blue-1", "ip -6 -br address show dev eth0 scope link").split()[2].partition("/")[0]
    send_as(one, "blue-1", solicitation(link_local))
    wait_until(lambda: advertisements(one) > heard, 30, "an advertisement")
    assert drops(one) == before


def test_who_asks_without_end_is_cut_short_by_the_kernels_meter(lab: VmLab) -> None:
    one = lab.machines["host-1"]
    seen, dropped = metered(one)
    send_as(one, "blue-1", *[solicitation("fe80::1:2")] * FLOOD)
    wait_until(lambda: metered(one)[0] - seen >= FLOOD, 30, "all of them to be counted")
    assert metered(one)[1] - dropped > FLOOD // 3
