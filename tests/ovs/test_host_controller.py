"""A controller with a host's certificate serves that host alone, whoever connects to it and whatever it would report.

1 controller with the certificate of host-a, at the front of hosts; host-a and host-b connect to it by TCP, as switches
do that are on the same machine: over TLS they believe controllers' certificates alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flows.pipeline import BR_GUEST, BR_NIC
from mapping.model import Host
from mapping.tls import Identity
from tests.build import HOST_A, HOST_B
from tests.ovs.conftest import free_port
from tests.ovs.dummy import LOOPBACK, Controller, DummyHost
from tests.ovs.secure import two_hosts
from tests.site import Site, transact
from topo.waiting import wait_until

BRIDGES = (BR_GUEST, BR_NIC)


@dataclass
class Own:
    site: Site
    controller: Controller
    identity: Identity
    a: DummyHost
    b: DummyHost

    def row(self, host: Host) -> dict[str, Any]:
        """What the database says of a host."""
        select = {"op": "select", "table": "Host", "where": [["name", "==", host.name]]}
        found: dict[str, Any] = transact(self.site.socket, None, select)[0]["rows"][0]
        return found


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Own]:
    with ExitStack() as stack:
        site = two_hosts(tmp_path, stack)
        port, identity = free_port(), site.issue("host", "host-a")
        controller = Controller(tmp_path, site.remotes["host"], port, free_port())
        controller.env = {"LOCKGATE_TLS": str(identity.folder)}
        stack.callback(controller.stop)
        controller.start()
        made = []
        for host, peer in ((HOST_A, HOST_B), (HOST_B, HOST_A)):
            each = DummyHost(tmp_path / host.name, host, f"tcp:{LOOPBACK}:{port}", "external_ids:x=y", peer)
            stack.callback(each.ovs.stop)
            each.start()
            made.append(each)
        yield Own(site, controller, identity, *made)


def test_its_own_host_is_served_and_reported_and_another_gets_nothing(own: Own) -> None:
    wait_until(lambda: all(len(own.a.cookies(bridge)) > 5 for bridge in BRIDGES), 30, "host-a to be served")
    own.controller.says("it is host-b's, and the certificate here lets this controller serve host-a alone")
    wait_until(lambda: dict(own.row(HOST_A)["status"][1]).get("nic") == "connected", 30, "the report of host-a")
    assert not any(own.b.cookies(bridge) for bridge in BRIDGES)
    assert own.row(HOST_B)["status"] == ["map", []]
    assert "report refused" not in own.controller.log.read_text()
    # Whoever takes this controller over, or its key, can say of host-b no more than it did.
    for row in ({"status": ["map", [["nic", "connected"]]]}, {"applied_seq": 99}, {"drops": ["map", [["x", 1]]]}):
        update = {"op": "update", "table": "Host", "where": [["name", "==", "host-b"]], "row": row}
        (result, *_) = transact(own.site.remotes["host"], own.identity, update)
        assert result["error"] == "permission error"
    assert own.row(HOST_B)["status"] == ["map", []]
