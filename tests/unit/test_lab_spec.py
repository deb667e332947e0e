"""The lab that a mapping asks for."""

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from mapping.model import Encap, Host, Mapping, Port, Snapshot, Vpc
from topo.spec import LabError, Spec


def snapshot(*vteps: str, device: str = "web0", mtu: int = 1400) -> Snapshot:
    """A host per VTEP; on the first, one port with three addresses; and a port that is bound nowhere."""
    hosts = [
        Host(f"r{number}", f"h{number}", ip_address(vtep), Encap.VXLAN, 2 * number, 2 * number + 1)
        for number, vtep in enumerate(vteps, 1)
    ]
    subnets = tuple(map(ip_network, ("10.0.0.0/24", "10.1.0.0/16", "fd00::/64")))
    vpc = Vpc("r1", "red", 5001, subnets, "0a:00:5e:00:00:01", mtu)
    ports = [
        Port("r1", "web", vpc.uuid, "02:00:00:00:00:01", hosts[0].uuid, device),
        Port("r2", "idle", vpc.uuid, "02:00:00:00:00:02", None, "idle"),
    ]
    mappings = [
        Mapping(f"r{number}", vpc.uuid, ip, ports[0].uuid)
        for number, ip in enumerate(("fd00::7", "10.1.0.7", "10.0.0.7"))
    ]
    return Snapshot(
        1,
        {host.uuid: host for host in hosts},
        {vpc.uuid: vpc},
        {port.uuid: port for port in ports},
        {mapping.uuid: mapping for mapping in mappings},
    )


def test_a_bound_port_becomes_a_guest_with_its_subnets_prefixes() -> None:
    (guest,) = Spec.of(snapshot("192.0.2.1")).guests
    assert (guest.name, guest.host, guest.device, guest.vpc, guest.mtu) == ("web", "h1", "web0", "red", 1400)
    assert guest.addresses == ["10.0.0.7/24", "10.1.0.7/16", "fd00::7/64"]
    assert (guest.gateway, guest.gateway_ipv6) == ("10.0.0.1", "fd00::1")


def test_vteps_share_one_network_that_holds_them_all() -> None:
    assert [host.vtep for host in Spec.of(snapshot("192.0.2.1", "192.0.2.9")).hosts] == ["192.0.2.1/24", "192.0.2.9/24"]
    assert [host.vtep for host in Spec.of(snapshot("10.0.4.1", "10.0.7.1")).hosts] == ["10.0.4.1/22", "10.0.7.1/22"]
    mixed = Spec.of(snapshot("192.0.2.1", "2001:db8::1", "2001:db8:0:3::1")).hosts
    assert [host.vtep for host in mixed] == ["192.0.2.1/24", "2001:db8::1/62", "2001:db8:0:3::1/62"]


def test_the_substrate_carries_what_the_host_with_the_largest_says() -> None:
    small = snapshot("192.0.2.1", "192.0.2.2")
    assert Spec.of(small).substrate_mtu == 1500
    h1, h2 = small.hosts.values()
    large = replace(small, hosts={h1.uuid: h1, h2.uuid: replace(h2, substrate_mtu=9000)})
    assert Spec.of(large).substrate_mtu == 9000


def test_a_lab_reads_what_it_wrote_down() -> None:
    spec = Spec.of(snapshot("192.0.2.1", "192.0.2.2"))
    assert Spec.from_json(spec.to_json()) == spec


@pytest.mark.parametrize("device", ["uplink", "mgmt", "br-nic", "lo"])
def test_a_device_that_every_host_has_is_refused(device: str) -> None:
    with pytest.raises(LabError, match=f"port web: .*{device}"):
        Spec.of(snapshot("192.0.2.1", device=device))


def test_more_hosts_than_control_addresses_are_refused() -> None:
    with pytest.raises(LabError, match="at most"):
        Spec.of(snapshot(*(f"192.0.2.{number}" for number in range(1, 255))))
