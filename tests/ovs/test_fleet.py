"""What the controller hands out of the database, and when: against a real server, without switches."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from ryu.lib import hub

from controller.fleet import Fleet
from controller.switch import Switch
from flows.flow import Output
from mapping.model import Mapping, Snapshot
from mapping.pki import Pki
from mapping.session import Message
from mapping.tls import Identity
from tests.build import BLUE, DB, HOST_A, HOST_B, WEB, mapping, snapshot
from tests.database import Database, insert
from topo.waiting import wait_until


def test_who_runs_while_a_large_message_is_read_knows_all_that_config_seq_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two changes arrive together, the second with many rows: while it is read, the first is handed out already."""
    with Database(tmp_path) as database:
        database.write(snapshot(HOST_A, HOST_B, BLUE, WEB, DB, mapping("10.0.0.1", WEB)))
        controller = Fleet([database.remote])
        replica = controller._replica
        assert replica.wait_in_sync(5000)
        (host,) = (uuid for uuid, row in replica.linked.hosts.items() if row.name == HOST_A.name)
        controller._followed = {host: time.monotonic()}
        controller._choose_hosts()
        assert replica.wait_until(lambda: replica.ready(host) and replica.config_seq == database.config_seq, 5000)
        replica.take_touched()

        first = mapping("10.0.0.2", DB)
        database.transact(insert(only(first)))
        changed = database.config_seq
        database.transact(insert(only(*(mapping(f"10.0.{n >> 8}.{n & 255}", WEB) for n in range(512, 3600)))))
        seen: list[tuple[int, bool]] = []
        monkeypatch.setattr(hub, "sleep", lambda _: seen.append((replica.config_seq, replica.touched)))
        receive, messages = replica.session.run, list[Message]()

        def both() -> bool:
            messages.extend(receive())
            return [each.get("method") for each in messages].count("update3") == 2

        wait_until(both, 5, "both changes")
        monkeypatch.setattr(replica.session, "run", lambda: messages)
        assert replica.run()
        assert seen == [(changed, False)]
        assert replica.touched
        replica.session.close()


@pytest.mark.parametrize(
    ("role", "address", "served"),
    [
        ("host", ("127.0.0.1", 5), True),
        ("host", ("::1", 5, 0, 0), True),
        ("host", ("::ffff:127.0.0.1", 5, 0, 0), True),
        ("host", "", True),
        ("host", ("198.51.100.7", 5), False),
        ("host", ("fe80::7%eth0", 5, 0, 2), False),
        ("host", ("::ffff:198.51.100.7", 5, 0, 0), False),
        ("controller", ("127.0.0.1", 5), False),
        ("controller", "", False),
        ("", ("198.51.100.7", 5), True),
    ],
)
def test_who_shows_no_certificate_is_served_by_a_controller_without_one_or_on_its_own_machine(
    tmp_path: Path, role: str, address: object, served: bool
) -> None:
    identity = None
    if role:
        pki = Pki(tmp_path / "pki")
        pki.init()
        pki.issue(role, HOST_A.name, tmp_path / "own")
        identity = Identity(tmp_path / "own")
    switch = SimpleNamespace(certificate=None, datapath=SimpleNamespace(address=address))
    why = Fleet(["unix:nowhere"], identity)._why_not(cast("Switch", switch), HOST_A)
    assert ("shows no certificate" in why) is not served


class Datapath(SimpleNamespace):
    """What is asked of a connection; each is itself alone."""

    __hash__ = object.__hash__  # type: ignore[assignment]


def test_nothing_is_kept_of_datapaths_that_nobody_knows_when_they_have_gone(tmp_path: Path) -> None:
    with Database(tmp_path) as database:
        controller = Fleet([database.remote])
        assert controller._replica.wait_in_sync(5000)
        for number in range(1000, 1100):
            datapath = Datapath(id=number, socket=None, address=("192.0.2.1", 1))
            controller.connected(datapath)
            assert controller._refused == {(number, None)}
            controller.disconnected(datapath)
        assert (controller._refused, controller._connections, controller._switches) == (set(), {}, {})
        controller._replica.session.close()


def test_a_frame_for_a_switch_that_takes_nothing_waits_by_itself() -> None:
    """Who sends frames does so for all hosts. What is too much is lost."""
    sent: list[bytes] = []
    free = hub.Semaphore(0)

    def send(message: bytes) -> bool:
        free.acquire()
        sent.append(message)
        return True

    switch = Switch(SimpleNamespace(id=1, socket=None, send=send, _send_q_sem=free))
    for _ in range(1000):
        switch.send_frame([Output(1)], bytes(60))
    assert not sent
    for _ in range(1000):
        free.release()
    hub.sleep(0.01)
    assert 0 < len(sent) < 1000
    switch.send_frame([Output(1)], bytes(60))
    assert sent


def only(*mappings: Mapping) -> Snapshot:
    return Snapshot(0, {}, {}, {}, {each.uuid: each for each in mappings})
