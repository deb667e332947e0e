"""`lockgate bridges`, on a host of the lab: it finds what the lab has built, and takes guests off and on.

2 hosts, 1 VPC, 1 guest on each host.
"""

import json
import os
import sys
from pathlib import Path

import pytest

from mapping import certificates
from mapping.pki import Pki
from tests import shapes
from topo import kernel_filter, netns
from topo.lab import Lab
from topo.waiting import wait_until

OPTIONS = (
    *("--uplink", "uplink", "--mgmt", "mgmt", "--vtep", "192.0.2.1"),
    *("--controller", "tcp:198.51.100.1:6653", "--datapath", "netdev"),
)


def bridges(lab: Lab, *args: str, **env: str) -> str:
    """Run `lockgate bridges` on host h1."""
    host = lab.host("h1")
    argv = [sys.executable, "-m", "mapping.cli", "bridges", *args]
    said = netns.run(host.namespace, argv, env={**os.environ, **host.ovs.env, **env})
    if "--json" in args:
        shapes.check(f"bridges {args[0]}", said)
    return said


def test_a_host_that_is_built_already_is_left_as_it_is(lab: Lab) -> None:
    assert json.loads(bridges(lab, "build", *OPTIONS, "--json")) == {"changed": False, "notes": []}


def test_what_a_units_environment_says_counts_as_options(lab: Lab) -> None:
    words = ("UPLINK", "MGMT", "VTEP", "CONTROLLERS", "DATAPATH")
    env = {f"LOCKGATE_{word}": value for word, value in zip(words, OPTIONS[1::2], strict=True)}
    assert bridges(lab, "build", **env) == "nothing to do: it is so already\n"


def test_what_differs_is_made_as_it_should_be(lab: Lab) -> None:
    lab.host("h1").vsctl(
        "set", "Bridge", "br-nic", "fail_mode=standalone", "--", "set-controller", "br-guest", "tcp:::1"
    )
    assert bridges(lab, "build", *OPTIONS) == "done\n"
    assert lab.host("h1").vsctl("get", "Bridge", "br-nic", "fail_mode") == "secure\n"
    assert bridges(lab, "build", *OPTIONS) == "nothing to do: it is so already\n"
    lab.control.wait_applied()


def test_of_several_controllers_it_says_that_one_is_to_run(lab: Lab) -> None:
    said = json.loads(bridges(lab, "build", *OPTIONS, "--controller", "tcp:198.51.100.9:6653", "--json"))
    note = "2 controllers: let one run at a time, as each takes out what another puts in"
    assert said == {"changed": True, "notes": [note]}
    assert bridges(lab, "build", *OPTIONS) == "done\n"
    lab.control.wait_applied()


def test_a_guest_is_taken_off_and_put_on_again(lab: Lab) -> None:
    a, b = lab.guest("a"), lab.guest("b")
    assert a.ping(b.ip, seconds=5)
    assert bridges(lab, "unplug", "a") == "done\n"
    try:
        assert not a.ping(b.ip, seconds=0.2)
        assert json.loads(bridges(lab, "unplug", "a", "--json")) == {"changed": False, "notes": []}
    finally:
        assert bridges(lab, "plug", "a") == "done\n"
    assert bridges(lab, "plug", "a") == "nothing to do: it is so already\n"
    assert json.loads(bridges(lab, "plug", "a", "--json")) == {"changed": False, "notes": []}
    # Its flows wait for the controller, which hears of the new ports.
    wait_until(lambda: a.ping(b.ip), 20, "an answer")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("plug", "nosuch"), "interface nosuch: this host has none: `ip link` shows those that it has"),
        (("build", *OPTIONS[:3], "eth9", *OPTIONS[4:]), "interface eth9: this host has none"),
        (("build", *OPTIONS[:3], "uplink", *OPTIONS[4:]), "--mgmt uplink: it is the uplink"),
        (("build", *OPTIONS, "--vtep", "host"), "--vtep host: it is no IP address: write one like 192.0.2.1"),
        (("build", *OPTIONS, "--controller", "here"), "--controller here: it is no place: write one like ssl:"),
        (("build", *OPTIONS, "--controller", "ssl:198.51.100.1:6653"), "name its folder in LOCKGATE_TLS"),
        (("plug", "uplink"), "uplink: it is a port of bridge br-nic: take it off there first"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_what_cannot_be_is_one_clear_error(lab: Lab, args: tuple[str, ...], said: str) -> None:
    with pytest.raises(netns.CommandError, match="exit status 1") as error:
        bridges(lab, *args)
    assert said in str(error.value)
    assert "Traceback" not in str(error.value)


def test_without_an_open_vswitch_it_says_so(lab: Lab) -> None:
    with pytest.raises(netns.CommandError, match="Open vSwitch does not answer: start openvswitch-switch"):
        bridges(lab, "plug", "a", OVS_RUNDIR="/nonexistent")


def test_an_address_on_a_bridges_port_is_pointed_out(lab: Lab) -> None:
    namespace = lab.host("h1").namespace
    netns.ip(namespace, "addr add 203.0.113.1/24 dev mgmt")
    try:
        assert "mgmt has 203.0.113.1/24, which does nothing on a bridge's port" in bridges(lab, "build", *OPTIONS)
    finally:
        netns.ip(namespace, "addr del 203.0.113.1/24 dev mgmt")


def test_the_packet_filter_of_the_kernels_datapath_loads_again_and_again(lab: Lab) -> None:
    namespace = lab.host("h2").namespace
    try:
        for _ in range(2):
            kernel_filter.guard("system", namespace)
        assert netns.run(namespace, ["nft", "list", "ruleset"]).count("drop") == 2
    finally:
        netns.run(namespace, ["nft", "delete", "table", "inet", "lockgate"])


def test_what_root_renews_is_its_folders_owners(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, 12345)
    certificates.write(tmp_path / "key.pem", b"new", private=True)
    status = (tmp_path / "key.pem").stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (12345, 12345, 0o600)


def test_a_controller_that_is_reached_over_tls_is_given_the_hosts_certificate(lab: Lab, tmp_path: Path) -> None:
    folder = tmp_path / "host-a"
    pki = Pki(tmp_path / "pki")
    pki.init()
    pki.issue("host", "host-a", folder)
    host = lab.host("h1")
    options = (*OPTIONS[:7], "ssl:198.51.100.1:6653", *OPTIONS[8:])
    before = host.vsctl("get-controller", "br-nic")
    try:
        assert bridges(lab, "build", *options, LOCKGATE_TLS=str(folder)) == "done\n"
        assert host.vsctl("get-controller", "br-nic") == "ssl:198.51.100.1:6653\n"
        for line in ("Private key: {}/key.pem", "Certificate: {}/cert.pem", "CA Certificate: {}/controller.pem"):
            assert line.format(folder) in host.vsctl("get-ssl")
        assert bridges(lab, "build", *options, LOCKGATE_TLS=str(folder)) == "nothing to do: it is so already\n"
        with pytest.raises(netns.CommandError, match="make it with `lockgate pki`"):
            bridges(lab, "build", *options, LOCKGATE_TLS=str(tmp_path))
    finally:
        bridges(lab, "build", *OPTIONS)
        host.vsctl("del-ssl")
    assert host.vsctl("get-controller", "br-nic") == before
    lab.control.wait_applied()
