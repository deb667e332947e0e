"""OpenFlow over TLS: a switch is served as the host that its certificate names, and as no other.

1 controller with a certificate of its own, that follows the database through its front; 2 hosts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from flows.pipeline import BR_GUEST, BR_NIC
from mapping.model import Host
from tests.build import HOST_A, HOST_B
from tests.ovs.conftest import free_port
from tests.ovs.dummy import LOOPBACK, Controller, DummyHost
from tests.ovs.secure import controlled, two_hosts
from tests.site import Site, transact
from topo.waiting import wait_until

BRIDGES = (BR_GUEST, BR_NIC)


Hosts = Callable[[Host, Path, str], DummyHost]
"""Makes a switch that says that it is this host, with the certificate in this folder."""


@dataclass
class Secure:
    site: Site
    controller: Controller
    trust: Path
    """The controller's folder."""
    target: str


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    folder = tmp_path_factory.mktemp("id")
    with ExitStack() as stack:
        site = two_hosts(folder, stack)
        controller, identity, target = controlled(site, stack)
        yield Secure(site, controller, identity.folder, target)


@pytest.fixture
def host(secure: Secure) -> Iterator[Hosts]:
    """Switches that go with the test: the next one's of the same name would be cut off for them, and they for it."""
    with ExitStack() as stack:

        def make(host: Host, tls: Path, name: str) -> DummyHost:
            peer = HOST_B if host is HOST_A else HOST_A
            made = DummyHost(secure.site.folder / name, host, secure.target, "external_ids:x=y", peer, tls=tls)
            stack.callback(made.ovs.stop)
            made.start()
            return made

        yield make


def served(host: DummyHost) -> bool:
    return all(len(host.cookies(bridge)) > 5 for bridge in BRIDGES)


def test_a_host_is_served_under_its_own_name_and_goes_on_when_another_poses_as_it(secure: Secure, host: Hosts) -> None:
    b = host(HOST_B, secure.site.issue("host", "host-b").folder, "b")
    wait_until(lambda: served(b), 20, "host-b to be served")
    thief = host(HOST_B, secure.site.issue("host", "host-a").folder, "thief")
    secure.controller.says("refused: it is host-b's, and the certificate is of host-a")
    assert not any(thief.cookies(bridge) for bridge in BRIDGES)
    assert "the older connection is closed" not in secure.controller.log.read_text()
    assert "disconnected" not in secure.controller.log.read_text()
    wait_until(lambda: all(b.connected(bridge) for bridge in BRIDGES), 20, "Open vSwitch to say so")
    thief.ovs.stop()
    wait_until(lambda: reported(secure, "host-b").get("nic") == "connected", 20, "the controller's report of it")
    assert "report refused" not in secure.controller.log.read_text()


def reported(secure: Secure, host: str) -> dict[str, str]:
    """What the database has been told of a host."""
    select = {"op": "select", "table": "Host", "where": [["name", "==", host]]}
    return dict(transact(secure.site.socket, None, select)[0]["rows"][0]["status"][1])


def test_expired_certificates_get_nothing_and_the_log_names_them(secure: Secure, host: Hosts) -> None:
    late = host(HOST_A, secure.site.issue("host", "host-late", days=1, ago=2).folder, "late")
    secure.controller.says("its certificate says host host-late")
    assert not any(late.cookies(bridge) for bridge in BRIDGES)
    assert "certificate has expired" in secure.controller.log.read_text()


def test_certificates_of_another_role_get_nothing_and_the_log_names_them(secure: Secure, host: Hosts) -> None:
    wrong = host(HOST_A, secure.site.issue("operator", "host-wrong").folder, "wrong")
    secure.controller.says("its certificate says operator host-wrong")
    assert not any(wrong.cookies(bridge) for bridge in BRIDGES)


def test_a_revoked_host_is_cut_off_keeps_its_flows_and_comes_back_with_a_new_certificate(
    secure: Secure, host: Hosts
) -> None:
    tls = secure.site.issue("host", "host-a").folder
    a = host(HOST_A, tls, "a")
    wait_until(lambda: served(a), 20, "host-a to be served")
    before = {bridge: a.cookies(bridge) for bridge in BRIDGES}
    secure.site.pki.revoke("host", "host-a")
    secure.site.pki.write_trust(secure.trust)
    secure.controller.says("its certificate says host host-a")
    wait_until(lambda: not any(a.connected(bridge) for bridge in BRIDGES), 20, "host-a to be cut off")
    assert {bridge: a.cookies(bridge) for bridge in BRIDGES} == before
    flows = a.ovs.ofctl("dump-flows", BR_NIC)
    # ovs-vswitchd takes the new files up by itself, and no flow is replaced.
    secure.site.pki.issue("host", "host-a", tls)
    wait_until(lambda: all(a.connected(bridge) for bridge in BRIDGES), 60, "host-a to come back")
    assert {bridge: a.cookies(bridge) for bridge in BRIDGES} == before
    assert flows.count("cookie=") == a.ovs.ofctl("dump-flows", BR_NIC).count("cookie=")


@pytest.mark.parametrize("role", ["host", "controller"])
def test_an_authority_is_replaced_step_by_step_and_no_flow_is_touched(secure: Secure, host: Hosts, role: str) -> None:
    """As docs/control-network.md says: rotate, trust files, new certificates, finish, trust files."""
    tls = secure.site.issue("host", "host-a").folder
    folders = (secure.trust, secure.site.member.folder, tls)
    a = host(HOST_A, tls, f"rotated-{role}")
    wait_until(lambda: served(a), 30, "host-a to be served")
    before, ages = {bridge: a.cookies(bridge) for bridge in BRIDGES}, oldest(a)

    def give_out() -> None:
        for folder in folders:
            secure.site.pki.write_trust(folder)

    def still_served() -> None:
        """Also by a connection that is made now."""
        for bridge in BRIDGES:
            target = a.ovs.vsctl("get-controller", bridge).split()
            a.ovs.vsctl("del-controller", bridge)
            a.ovs.vsctl("set-controller", bridge, *target)
        wait_until(lambda: all(a.connected(bridge) for bridge in BRIDGES), 60, "host-a to be connected")
        assert {bridge: a.cookies(bridge) for bridge in BRIDGES} == before

    secure.site.pki.rotate(role, finish=False)
    give_out()
    still_served()
    secure.site.pki.issue("host", "host-a", tls)
    secure.site.pki.issue("controller", "c1", secure.trust)
    still_served()
    secure.site.pki.rotate(role, finish=True)
    give_out()
    still_served()
    assert oldest(a) >= ages, "a flow was put in place anew"


def oldest(host: DummyHost) -> float:
    """Seconds for which the youngest flow of a host's br-nic has been there."""
    dump = host.ovs.ofctl("dump-flows", BR_NIC)
    return min(float(line.split("duration=")[1].split("s,")[0]) for line in dump.splitlines() if "duration=" in line)


@pytest.mark.parametrize(
    ("role", "name", "why"),
    [
        ("controller", "c-late", "certificate expired"),
        ("host", "host-a", "unknown ca"),
        ("controller", "c-gone", "certificate unknown"),
    ],
    ids=["expired", "wrong authority", "revoked"],
)
def test_a_controller_whose_certificate_is_refused_gets_nothing_and_its_log_names_it(
    secure: Secure, tmp_path: Path, role: str, name: str, why: str
) -> None:
    identity = secure.site.issue(role, name, **({"days": 1, "ago": 2} if name == "c-late" else {}))
    if name == "c-gone":
        secure.site.pki.revoke(role, name)
        secure.site.pki.write_trust(secure.site.member.folder)
    refused = Controller(tmp_path, secure.site.remotes["controller"], free_port(), free_port(), identity.folder)
    refused.start()
    try:
        refused.says(f"it refuses the certificate of {role} {name}: ", 30)
        assert why in refused.log.read_text()
        assert "in sync" not in refused.log.read_text()
    finally:
        refused.stop()


def test_a_controller_with_a_certificate_serves_nobody_who_shows_none(secure: Secure, tmp_path: Path) -> None:
    """Started without a word of TLS it listens in plain TCP."""
    port, identity = free_port(), secure.site.issue("controller", "c2")
    plain = Controller(tmp_path, secure.site.remotes["controller"], port, free_port())
    plain.env = {"LOCKGATE_TLS": str(identity.folder)}
    host = DummyHost(tmp_path / "plain", HOST_B, f"tcp:{LOOPBACK}:{port}", "external_ids:x=y", HOST_A)
    try:
        plain.start()
        host.start()
        plain.says(f"datapath {HOST_B.nic_datapath:016x} at ")
        plain.says(
            "it says that it is host-b's, and shows no certificate. If it is, start ryu-manager with --ofp-ssl", 30
        )
        assert not any(host.cookies(bridge) for bridge in BRIDGES)
    finally:
        host.ovs.stop()
        plain.stop()
