"""What the controller hands out of the database, and when: against a real server, without switches."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from ryu.lib import hub

from controller.fleet import Fleet
from mapping.model import Mapping, Snapshot
from mapping.session import Message
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


def only(*mappings: Mapping) -> Snapshot:
    return Snapshot(0, {}, {}, {}, {each.uuid: each for each in mappings})
