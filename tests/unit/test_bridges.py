"""The bridges of a host, as ovs-vsctl is told to build them."""

import json
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from flows.nic_substrate import vtep_mac
from flows.pipeline import TABLES
from topo.bridges import (
    Existing,
    HostBridges,
    build_commands,
    plug_commands,
    read_existing,
    unplug_commands,
)

HOST = HostBridges(
    uplink="eth1",
    mgmt="eth0",
    vtep_ip=IPv4Address("192.0.2.1"),
    guest_datapath=0x67C0000201,
    nic_datapath=0x6EC0000201,
    controllers=["tcp:198.51.100.1:6653"],
)

FRESH = """
--may-exist add-br br-guest
set Bridge br-guest datapath_type=netdev fail_mode=secure protocols=OpenFlow15 \
other-config:datapath-id=00000067c0000201 other-config:disable-in-band=true
--id=@br-guest-c0 create Controller target="tcp:198.51.100.1:6653" \
connection_mode=out-of-band max_backoff=1000 inactivity_probe=5000
{guest_tables}
--may-exist add-br br-nic
set Bridge br-nic datapath_type=netdev fail_mode=secure protocols=OpenFlow15 \
other-config:datapath-id=0000006ec0000201 other-config:disable-in-band=true
--id=@br-nic-c0 create Controller target="tcp:198.51.100.1:6653" \
connection_mode=out-of-band max_backoff=1000 inactivity_probe=5000
{nic_tables}
--may-exist add-port br-nic eth1
set Interface eth1 ofport_request=1
set Bridge br-nic other-config:hwaddr="0a:6e:c0:00:02:01"
--may-exist add-port br-nic t-vxlan
set Interface t-vxlan type=vxlan options:remote_ip=flow options:key=flow options:local_ip=192.0.2.1 ofport_request=2
--may-exist add-port br-nic t-geneve
set Interface t-geneve type=geneve options:remote_ip=flow options:key=flow options:local_ip=192.0.2.1 ofport_request=3
--may-exist add-port br-nic t-gre
set Interface t-gre type=gre options:remote_ip=flow options:key=flow options:local_ip=192.0.2.1 ofport_request=4
--may-exist add-br br-ctl
set Bridge br-ctl datapath_type=netdev fail_mode=standalone controller=[]
--may-exist add-port br-ctl eth0
"""


TLS_FILES = (("private_key", "key"), ("certificate", "cert"), ("ca_cert", "controller"))


def tables(bridge: str) -> str:
    """What names each flow table of a bridge, and says which addresses' prefixes are tracked in it."""
    known = TABLES[bridge].values()
    prefixes = {table: ",".join(map(str, table.prefixes)) for table in known}
    made = [
        f"--id=@{bridge}-t{table.number} create Flow_Table name={table.name}"
        + (f" prefixes={prefixes[table]}" if prefixes[table] else "")
        for table in known
    ]
    ids = ",".join(f"{table.number}=@{bridge}-t{table.number}" for table in known)
    return "\n".join([*made, f"set Bridge {bridge} controller=[@{bridge}-c0] flow_tables={{{ids}}}"])


def lines(arguments: list[str]) -> list[str]:
    return " ".join(arguments).split(" -- ")


def test_a_host_without_bridges_gets_all_three() -> None:
    fresh = FRESH.replace("{guest_tables}", tables("br-guest")).replace("{nic_tables}", tables("br-nic"))
    assert "--id=@br-nic-t1 create Flow_Table name=PUSH prefixes=nw_dst,ipv6_dst\n" in fresh
    assert lines(build_commands(HOST)) == fresh.strip().splitlines()


def test_rows_that_exist_are_set_and_others_are_made() -> None:
    existing = Existing({"br-nic": {HOST.controllers[0]: "1234"}}, {"br-nic": {0: "5678"}})
    written = lines(build_commands(HOST, existing))
    assert any(line.startswith('set Controller 1234 target="tcp:198.51.100.1:6653"') for line in written)
    assert "set Flow_Table 5678 name=CLASSIFY prefixes=nw_src,ipv6_src,nw_dst" in written
    assert any(
        line.startswith("set Bridge br-nic controller=[1234] flow_tables={0=5678,1=@br-nic-t1,") for line in written
    )
    assert "--id=@br-nic-c0" not in " ".join(written)
    assert "--id=@br-guest-c0" in " ".join(written)


def test_controllers_that_are_no_longer_wanted_are_left_out() -> None:
    existing = Existing({"br-nic": {"tcp:203.0.113.9:6653": "old", HOST.controllers[0]: "kept"}})
    assert any(" controller=[kept] " in line for line in lines(build_commands(HOST, existing)))


def test_existing_rows_are_read_from_what_ovs_vsctl_prints() -> None:
    one, two, table = (["uuid", f"{number:08}"] for number in (1, 2, 3))
    bridges = [
        ["br-guest", one, ["map", [[0, table]]]],
        ["br-nic", ["set", [one, two]], ["map", []]],
        ["br-ctl", ["set", []], ["map", []]],
    ]
    controllers = [[one, "tcp:198.51.100.1:6653"], [two, "tcp:198.51.100.2:6653"]]
    printed = "".join(json.dumps({"headings": [], "data": data}) + "\n" for data in (bridges, controllers, [[one]]))
    assert read_existing(lambda *_: printed) == Existing(
        {
            "br-guest": {"tcp:198.51.100.1:6653": "00000001"},
            "br-nic": {"tcp:198.51.100.1:6653": "00000001", "tcp:198.51.100.2:6653": "00000002"},
            "br-ctl": {},
        },
        {"br-guest": {0: "00000003"}, "br-nic": {}, "br-ctl": {}},
        "00000001",
    )


def test_tls_is_told_once_and_again() -> None:
    secure = replace(HOST, tls=Path("/etc/lockgate/tls"))
    columns = [f'{column}="/etc/lockgate/tls/{file}.pem"' for column, file in TLS_FILES]
    assert lines(build_commands(secure))[:2] == [
        f"--id=@ssl create SSL {' '.join(columns)}",
        "set Open_vSwitch . ssl=@ssl",
    ]
    assert lines(build_commands(secure, Existing(ssl="1234")))[:2] == [
        f"set SSL 1234 {' '.join(columns)}",
        "set Open_vSwitch . ssl=1234",
    ]


def test_a_plugged_device_has_a_patch_pair_of_its_own() -> None:
    assert lines(plug_commands("web0")) == [
        "--may-exist add-port br-guest web0",
        "--may-exist add-port br-guest g-web0",
        "set Interface g-web0 type=patch options:peer=n-web0",
        "--may-exist add-port br-nic n-web0",
        "set Interface n-web0 type=patch options:peer=g-web0",
    ]


def test_unplug_takes_away_what_plug_adds() -> None:
    assert lines(unplug_commands("web0")) == [
        "--if-exists del-port br-guest web0",
        "--if-exists del-port br-guest g-web0",
        "--if-exists del-port br-nic n-web0",
    ]


def test_an_ipv6_vtep_is_the_tunnels_own_address_and_makes_its_mac() -> None:
    written = lines(build_commands(replace(HOST, vtep_ip=IPv6Address("2001:db8::1"))))
    assert sum("options:local_ip=2001:db8::1" in line for line in written) == 3
    macs = {vtep_mac(IPv6Address(0x20010DB8 << 96 | n)) for n in range(1000)}
    assert len(macs) == 1000
    assert all(mac.startswith("0e:") and len(mac) == 17 for mac in macs)
