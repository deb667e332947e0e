"""Faults of the controller's own, which a program around it brings about: what they reach, and that it goes on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from flows.pipeline import BR_GUEST, BR_NIC
from mapping import rows
from mapping.model import Snapshot
from tests.build import DB, TWO_HOSTS, mapping
from tests.database import insert
from tests.ovs.conftest import World, running
from topo.waiting import wait_until

APP = """
from pathlib import Path

from ryu.base.app_manager import RyuApp, require_app

from flows.incremental import BridgeFlows
from mapping.replica import Replica


def faulty(cls, name, file):
    do = getattr(cls, name)

    def instead(self, *args):
        if file.exists():
            file.unlink()
            raise LookupError("brought about")
        return do(self, *args)

    setattr(cls, name, instead)


class App(RyuApp):
    pass


faulty(BridgeFlows, "update", Path(FOLDER, "update"))
faulty(Replica, "run", Path(FOLDER, "run"))
require_app("controller.app")
"""


@dataclass
class Faulty:
    """A world whose controller fails once in what a file in `folder` names, as soon as the file is there."""

    world: World
    folder: Path


@pytest.fixture
def faulty(tmp_path: Path) -> Iterator[Faulty]:
    (tmp_path / "faulty_app.py").write_text(APP.replace("FOLDER", repr(str(tmp_path))))
    with running(tmp_path, TWO_HOSTS, app=str(tmp_path / "faulty_app.py")) as world:
        yield Faulty(world, tmp_path)


def test_a_fault_in_one_bridge_is_said_and_the_bridge_is_made_anew(faulty: Faulty) -> None:
    world = faulty.world
    before = world.a.cookies(BR_NIC)
    (faulty.folder / "update").touch()
    more = mapping("10.0.0.99", DB)
    world.database.transact(insert(Snapshot(0, {}, {}, {}, {more.uuid: more})))
    world.controller.says("LookupError: brought about")
    wait_until(lambda: any("fault" in each for each in problems(world)), 10, "the problem to be reported")
    world.wait_applied()
    world.assert_as_desired()
    assert len(world.a.cookies(BR_NIC)) > len(before)
    wait_until(lambda: not any(problems(world)), 10, "no problem to be left")


def problems(world: World) -> list[str]:
    """What the hosts' rows say is wrong."""
    world._replica.run()
    return [rows.as_dict(row["status"]).get("problem", "") for row in world._replica.tables["Host"].values()]


def test_a_fault_in_what_follows_the_database_ends_the_controller_and_flows_stay(faulty: Faulty) -> None:
    world = faulty.world
    before = {bridge: world.a.cookies(bridge) for bridge in (BR_GUEST, BR_NIC)}
    (faulty.folder / "run").touch()
    wait_until(lambda: world.controller.ended() is not None, 10, "the controller to end")
    assert world.controller.ended() == 1
    world.controller.says("it ends, to be started again")
    assert {bridge: world.a.cookies(bridge) for bridge in before} == before
    world.controller.start()
    world.database.write(TWO_HOSTS)
    world.wait_applied()
    world.assert_as_desired()
