"""What two virtual machines with the kernel's datapath make of packets: tests/lab/conftest.py says what is where.

All of their tests are tests of this file: files may run side by side, and each would boot machines of its own.
"""

from __future__ import annotations

from functools import partial
from ipaddress import ip_address

import pytest

from flows.nic_substrate import vtep_mac
from flows.pipeline import BR_GUEST, BR_NIC, Reason
from mapping.model import Encap
from tests.conftest import Figure
from tests.lab.control_network import (  # noqa: F401 - tests
    test_a_packet_is_followed_and_flows_are_compared_over_the_kernels_datapath,
    test_nothing_but_tls_listens,
    test_what_the_controller_tells_a_host_is_not_to_be_read_on_the_way,
)
from tests.lab.guests import (  # noqa: F401 - tests
    test_a_guest_is_given_its_addresses,
    test_a_router_solicitation_is_answered,
    test_who_asks_without_end_is_cut_short_by_the_kernels_meter,
)
from tests.lab.looking import dropped_since, drops, operate, send_as
from tests.lab.provision import provision
from topo import netns
from topo.capture import Capture, send
from topo.demo_frames import Tunnelled, arp_request, echo_request, tunnelled
from topo.machine import Machine
from topo.vm_lab import CONTROL, SUBSTRATE, VmLab
from topo.waiting import wait_until

VTEP = {1: "192.0.2.1", 2: "192.0.2.2"}
MAC = {"blue-1": "02:00:00:00:01:01", "blue-2": "02:00:00:00:01:02"}
IP = {"blue-1": "10.0.0.11", "blue-2": "10.0.0.12"}
BLUE = 5001
VTEP_MAC = vtep_mac(ip_address(VTEP[1]))
NEIGHBOUR_MAC = "52:54:00:00:09:09"
CONTROL_ADDRESSES = ("198.51.100.1", "198.51.100.11", "198.51.100.12")
TIMES = 5


def received(machine: Machine, guest: str) -> int:
    """Echo requests that the guest has received. All that is forged here are, but for ARP."""
    return int(machine.guest(guest, "nstat -asz IcmpInEchos").split()[-2])


def ping(lab: VmLab, source: str, target: str, count: int = 3) -> bool:
    """Whether every one of `count` is answered."""
    return lab.machines[f"host-{source[-1]}"].pings(source, target, count) == count


def inner(source: str, target: str, marker: bytes = b"forged") -> bytes:
    return echo_request(MAC[source], MAC[target], IP[source], IP[target], marker)


def to_host_1(claims: str, vni: int = BLUE, mac: str = "") -> bytes:
    """A tunnel packet for host-1, from blue-2 to blue-1."""
    eth = (NEIGHBOUR_MAC, mac or VTEP_MAC)
    return tunnelled(eth, (claims, VTEP[1]), Encap.VXLAN, vni, inner("blue-2", "blue-1"))


def kernel_flows(machine: Machine) -> list[str]:
    return machine.run("ovs-appctl dpctl/dump-flows --names").splitlines()


def outer(frames: list[bytes]) -> list[Tunnelled]:
    """Tunnel packets of VPCs."""
    return [packet for frame in frames if (packet := Tunnelled.read(frame)) and packet.vni]


def test_the_datapath_is_the_kernels(lab: VmLab, figure: Figure) -> None:
    for machine in lab.machines.values():
        for bridge in (BR_GUEST, BR_NIC):
            assert machine.run(f"ovs-vsctl get Bridge {bridge} datapath_type") == "system\n"
        assert "system@ovs-system" in machine.run("ovs-dpctl show")
    figure("kernel", lab.machines["host-1"].run("uname -r").strip(), "")
    figure("Open vSwitch", lab.machines["host-1"].run("ovs-vsctl get Open_vSwitch . ovs_version").strip(), "")


@pytest.mark.parametrize(
    ("encaps", "devices"),
    [((Encap.VXLAN, Encap.GENEVE), ("vxlan_sys_4789", "genev_sys_6081")), ((Encap.GRE, Encap.GRE), ("gre_sys",) * 2)],
    ids=["VXLAN there, Geneve back", "GRE"],
)
def test_guests_reach_each_other_in_the_encapsulation_of_the_receiver_by_flows_of_the_kernel(
    lab: VmLab, encaps: tuple[Encap, Encap], devices: tuple[str, str], figure: Figure
) -> None:
    one = lab.machines["host-1"]
    operate(one, f"/mnt/mapping.sh 2 {' '.join(encaps)} | lockgate apply --wait --timeout 300 -f -")
    with Capture(lab.namespace, "sub1", "in") as from_1, Capture(lab.namespace, "sub2", "in") as from_2:
        assert ping(lab, "blue-1", IP["blue-2"])
        assert ping(lab, "blue-1", "fd00:5001::12")
        flows = kernel_flows(one)
    for frames, (a, b), encap in ((from_1.frames, (1, 2), encaps[1]), (from_2.frames, (2, 1), encaps[0])):
        packets = outer(frames)
        assert len(packets) == 6
        assert {(str(each.outer.src), str(each.outer.dst)) for each in packets} == {(VTEP[a], VTEP[b])}
        assert {(each.encap, each.vni) for each in packets} == {(encap, BLUE)}
    pushes = [flow for flow in flows if f"set(tunnel(tun_id={BLUE:#x}" in flow and f"),{devices[1]}" in flow]
    pops = [flow for flow in flows if f"tunnel(tun_id={BLUE:#x},src=192.0.2.2" in flow and "actions:blue-1" in flow]
    assert pushes
    assert pops
    figure("a flow of the kernel", pushes[0], "")


def test_the_first_mapping_is_back(lab: VmLab) -> None:
    operate(lab.machines["host-1"], "/mnt/mapping.sh 2 | lockgate apply --wait --timeout 300 -f -")


def test_large_packets_and_tcp_whose_checksums_are_left_to_the_hardware_pass(lab: VmLab) -> None:
    one, two = lab.machines.values()
    assert "tx-checksumming: on" in one.guest("blue-1", "ethtool -k eth0")
    assert one.pings("blue-1", IP["blue-2"], options="-M do -s 1372") == 3
    two.run("ip netns exec blue-2 iperf3 --server --daemon --one-off")
    assert "iperf Done" in one.guest("blue-1", f"iperf3 --client {IP['blue-2']} --bytes 8M")


def test_another_vpc_with_the_same_addresses_stays_apart(lab: VmLab) -> None:
    two = lab.machines["host-2"]
    before = received(two, "blue-2")
    with Capture(lab.namespace, "sub1", "in") as wire:
        assert ping(lab, "green-1", IP["blue-2"])
    assert {packet.vni for packet in outer(wire.frames)} == {5002}
    assert received(two, "blue-2") == before


def test_what_a_guest_forges_is_refused_and_counted_and_goes_nowhere(lab: VmLab) -> None:
    one, two = lab.machines.values()
    before, there = drops(one), received(two, "blue-2")
    made_up, stranger = "02:de:ad:be:ef:00", "10.0.0.77"
    frames = {
        Reason.SPOOFED_MAC: echo_request(made_up, MAC["blue-2"], IP["blue-1"], IP["blue-2"], b"MAC"),
        Reason.SPOOFED_IP: echo_request(MAC["blue-1"], MAC["blue-2"], stranger, IP["blue-2"], b"IP"),
        Reason.SPOOFED_ARP: arp_request(MAC["blue-1"], stranger, IP["blue-2"]),
        Reason.NO_MAPPING: echo_request(MAC["blue-1"], MAC["blue-2"], IP["blue-1"], "10.0.0.99", b"unmapped"),
        Reason.ARP_UNMAPPED: arp_request(MAC["blue-1"], IP["blue-1"], "10.0.0.99"),
    }
    with Capture(lab.namespace, "sub1", "in") as wire:
        send_as(one, "blue-1", *[frame for frame in frames.values() for _ in range(TIMES)])
        wanted = dict.fromkeys(frames, TIMES)
        assert dropped_since(one, before, wanted) == wanted
    assert outer(wire.frames) == []
    assert received(two, "blue-2") == there


def test_what_a_neighbour_on_the_substrate_forges_is_refused_and_counted(lab: VmLab) -> None:
    one = lab.machines["host-1"]
    before, there = drops(one), received(one, "blue-1")
    forged = {
        Reason.UNKNOWN_VTEP: to_host_1("192.0.2.66"),
        Reason.SOURCE_NOT_MAPPED: to_host_1(VTEP[2], vni=5003),
        Reason.NOT_HERE: tunnelled(
            (NEIGHBOUR_MAC, VTEP_MAC),
            (VTEP[2], VTEP[1]),
            Encap.VXLAN,
            BLUE,
            echo_request(MAC["blue-2"], MAC["blue-1"], IP["blue-2"], "10.0.0.99", b"forged"),
        ),
    }
    send(lab.namespace, SUBSTRATE, *[frame for frame in forged.values() for _ in range(TIMES)])
    wanted = dict.fromkeys(forged, TIMES)
    assert dropped_since(one, before, wanted) == wanted
    assert received(one, "blue-1") == there
    # In these only what is forged is wrong: one that is as host-2 would send it arrives.
    send(lab.namespace, SUBSTRATE, to_host_1(VTEP[2]))
    wait_until(lambda: received(one, "blue-1") == there + 1, 10, "the frame that is not forged")


def test_no_guest_reaches_the_control_network_or_a_vtep(lab: VmLab) -> None:
    one = lab.machines["host-1"]
    before = drops(one)
    targets = (*CONTROL_ADDRESSES, *VTEP.values())
    with (
        Capture(lab.namespace, "con1", "in") as control,
        Capture(lab.namespace, "sub1", "in") as wire,
    ):
        for target in targets:
            assert one.pings("blue-1", target, 1, seconds=0.2) == 0
        wanted = {Reason.NO_MAPPING: len(targets)}
        assert dropped_since(one, before, wanted) == wanted
        wait_until(lambda: control.frames, 30, "frames on the control network")
    guest = bytes.fromhex(MAC["blue-1"].replace(":", ""))
    assert not [frame for frame in control.frames if guest in frame]
    assert outer(wire.frames) == []


def test_tunnel_packets_from_the_control_network_end_at_the_packet_filter(lab: VmLab) -> None:
    one = lab.machines["host-1"]
    mac = one.run("cat /sys/class/net/br-ctl/address").strip()
    there = received(one, "blue-1")
    frames = [to_host_1(VTEP[2], mac=mac)] * TIMES

    def counted() -> bool:
        return f"counter packets {TIMES} " in one.run("nft list table inet lockgate")

    one.run("systemctl restart lockgate-bridges")
    send(lab.namespace, CONTROL, *frames)
    wait_until(counted, 10, "packets to be counted")
    assert received(one, "blue-1") == there
    # Without it they would arrive: nothing else is wrong with them, and the kernel takes them.
    one.run("nft delete table inet lockgate")
    try:
        send(lab.namespace, CONTROL, *frames)
        wait_until(lambda: received(one, "blue-1") == there + TIMES, 10, "what nothing refuses")
    finally:
        one.run("systemctl restart lockgate-bridges")
    send(lab.namespace, CONTROL, *frames)
    wait_until(counted, 10, "packets to be counted")
    assert received(one, "blue-1") == there + TIMES


def test_provisioning_again_changes_nothing(lab: VmLab) -> None:
    one = lab.machines["host-1"]
    before = one.run("ovs-vsctl get Open_vSwitch . next_cfg; pgrep -f ryu-manager")
    assert provision(lab) == ["nothing changed\n" * 4, "nothing changed\n" * 2]
    assert one.run("ovs-vsctl get Open_vSwitch . next_cfg; pgrep -f ryu-manager") == before


def test_machines_that_are_started_again_come_back_by_themselves(lab: VmLab) -> None:
    # At once, so that none finds what it needs: neither the hosts the controller, nor that the database's address.
    before = lab.on_all(_boot)
    lab.on_all(lambda machine: machine.run("systemd-run --quiet --on-active=1 systemctl reboot --force"))
    for machine, boot in zip(lab.machines.values(), before, strict=True):
        wait_until(partial(_is_another, machine, boot), 600, f"the reboot of {machine.name}")
    for guest, target in (("blue-1", "blue-2"), ("blue-2", "blue-1")):
        wait_until(partial(_reaches, lab, guest, target), 600, f"{target} to be reached again")
    lab.on_all(lambda machine: machine.run("mount -o ro /dev/vdb1 /mnt"))


@pytest.mark.twice
def test_a_guest_with_a_kernel_of_its_own_boots_over_the_network(lab: VmLab, figure: Figure) -> None:
    one, two = lab.machines.values()
    made, also_made = provision(lab, metal=True)
    assert "changed: lockgate-lab-boot\n" in made
    assert "changed: the mapping\n" in made
    assert "changed: lockgate-lab-metal\n" in made
    assert "changed: lockgate-lab-metal\n" in also_made
    console = "/var/log/lockgate-metal.log"
    # It waits there: who asks again and again takes the time that the emulated processor needs.
    two.run(f"until grep -qs 'lease: ' {console}; do sleep 5; done", seconds=1800)
    said = two.run(f"cat {console}")
    assert "lease: 10.0.0.22/24 router 10.0.0.1 mtu 1400" in said
    figure("kernel", said.partition("kernel: ")[2].split()[0], "")
    for machine, guest in ((one, "blue-1"), (two, "blue-2")):
        assert machine.pings(guest, "10.0.0.22", seconds=20) == 3
    assert provision(lab, metal=True) == ["nothing changed\n" * 4, "nothing changed\n" * 2]


def _reaches(lab: VmLab, guest: str, target: str) -> bool:
    try:
        return ping(lab, guest, IP[target], 1)
    except netns.CommandError:
        return False


def _is_another(machine: Machine, boot: str) -> bool:
    return _boot(machine) not in {"", boot}


def _boot(machine: Machine) -> str:
    """Which run of its kernel this is; nothing while it does not answer."""
    try:
        return machine.run("cat /proc/sys/kernel/random/boot_id", seconds=30)
    except netns.CommandError:
        return ""
