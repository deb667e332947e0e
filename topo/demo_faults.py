"""Steps of the demonstration: what happens to the guests' packets while things move, die or are tampered with."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Final

from flows.pipeline import BR_NIC
from topo.demo_frames import Tunnelled
from topo.demo_look import (
    BRIDGES,
    Flows,
    carries_ping,
    installed,
    is_ping,
    lockgate,
    of_tenants,
    place,
    since,
    the_one,
    wire,
)
from topo.demo_show import Part, Step
from topo.demo_traffic import DB, WEB
from topo.lab import Lab
from topo.pings import Pings, pinging
from topo.waiting import wait_until

_NEW_HOST: Final = "host-c"
_PASSING_ADDRESS: Final = "10.0.0.200"
_WITHOUT: Final = 50
"""Pings that are to be answered while something is dead, before it is started again."""
_CLOCKS_DIFFER: Final = 0.4
"""Seconds by which a flow may seem to be younger: Open vSwitch reads its clock once for all that it does at a time."""


def _move(lab: Lab, step: Step) -> None:
    web, db, to = lab.guest(WEB), lab.guest(DB), lab.host(_NEW_HOST)
    old = place(lab, "blue", db.ip)
    command = ["port", "move", db.name, "--host", to.name]
    step.say(f"the guest's device goes from {db.host.name} to {to.name}, while: lockgate {' '.join(command)}")
    with pinging(web, db.ip) as pings:
        started = time.monotonic()
        argv = [sys.executable, "-m", "mapping.cli", "--db", lab.control.remote, *command]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as cli:
            db.move(to)
            step.figure("device moved after", since(started), "s")
            said = cli.communicate()[0]
        step.figure("mapping changed after", since(started), "s")
        step.check("`lockgate port move`", "; ".join(said.splitlines()), cli.returncode == 0, "exit status 0")
        lab.control.wait_applied()
        step.figure("every host programmed after", since(started), "s")
        wait_until(lambda: web.ping(db.ip), 10, "an answer from the new host")
    _report(step, pings)
    new = place(lab, "blue", db.ip)
    step.equal("host that the mapping names now", to.name, new.host)
    with wire(lab, web.host) as from_web, db.capture("in") as db_in:
        step.equal("a ping afterwards is answered", True, web.ping(db.ip))
    seen = Tunnelled.read(the_one(from_web.frames, carries_ping, "on the substrate"))
    step.equal(f"its outer destination, formerly {old.vtep}", new.vtep, str(seen and seen.outer.dst))
    step.equal(f"its encapsulation, formerly {old.encap}", new.encap.value, seen and seen.encap.value)
    step.equal("pings that reached the guest there", 1, sum(map(is_ping, db_in.frames)))


def _kill_controller(lab: Lab, step: Step) -> None:
    _survive(lab, step, "ryu-manager", lab.kill_controller, lab.start_controller)


def _kill_database(lab: Lab, step: Step) -> None:
    _survive(lab, step, "ovsdb-server", lab.kill_database, lab.start_database)


def _survive(lab: Lab, step: Step, what: str, dies: Callable[[], None], comes_back: Callable[[], None]) -> None:
    web, db = lab.guest(WEB), lab.guest(DB)
    before = installed(lab)
    with web.capture("in") as answers, pinging(web, db.ip) as pings:
        dies()
        alone = len(answers.frames)
        wait_until(lambda: len(answers.frames) >= alone + _WITHOUT, 20, f"answers without {what}")
        started = time.monotonic()
        comes_back()
        # It does not only run, it works: a change arrives, and is taken back.
        lockgate(lab, "mapping", "add", "blue", _PASSING_ADDRESS, db.name)
        lab.control.wait_applied()
        step.figure(f"a change on every switch, from the start of {what} on, after", since(started), "s")
        added = installed(lab).keys() - before.keys()
        lockgate(lab, "mapping", "delete", "blue", _PASSING_ADDRESS)
        lab.control.wait_applied()
    step.equal(f"pings lost, of {pings.sent}, one every {pings.interval * 1000:.0f} ms", 0, pings.lost)
    step.check("a mapping added afterwards", f"{len(added)} flows on {_hosts(added)} hosts", bool(added), "flows")
    _unchanged(step, before, installed(lab))


def _hosts(flows: set[tuple[str, str, int]]) -> int:
    return len({host for host, _, _ in flows})


def _unchanged(step: Step, before: Flows, after: Flows) -> None:
    step.equal("flows gone or new", 0, len(before.keys() ^ after.keys()))
    kept = before.keys() & after.keys()
    younger = [flow for flow in kept if after[flow].earliest - before[flow].latest > _CLOCKS_DIFFER]
    fewer = [flow for flow in kept if after[flow].packets < before[flow].packets]
    step.equal(f"of {len(kept)} flows, installed anew", 0, len(younger))
    step.equal(f"of {len(kept)} flows, with fewer packets than before", 0, len(fewer))
    counted = sum(after[flow].packets - before[flow].packets for flow in kept)
    step.check("packets that they have counted on", counted, counted > 0, "some")


def _wiped(lab: Lab, step: Step) -> None:
    web, db = lab.guest(WEB), lab.guest(DB)
    host = web.host
    wanted = installed(lab, host).keys()
    for bridge in BRIDGES:
        with pinging(web, db.ip) as pings:
            started = time.monotonic()
            host.ofctl("del-flows", bridge)
            wait_until(lambda: installed(lab, host).keys() == wanted, 20, f"the flows of {bridge}")
            step.figure(f"flows of {bridge} back after", since(started), "s")
            wait_until(lambda: web.ping(db.ip), 10, "an answer")
        _report(step, pings)
    started = time.monotonic()
    host.restart_vswitchd()
    step.figure("ovs-vswitchd stopped and started again", since(started), "s")
    started = time.monotonic()
    wait_until(lambda: installed(lab, host).keys() == wanted, 30, "the flows")
    step.figure("flows of both bridges back after that", since(started), "s")
    wait_until(lambda: web.ping(db.ip, seconds=0.1), 20, "an answer")
    step.figure("guest answered after that", since(started), "s")
    step.equal("flows missing or new", 0, len(installed(lab, host).keys() ^ wanted))
    with wire(lab, host) as substrate:
        step.equal("a ping is answered", True, web.ping(db.ip))
    step.equal(f"tunnel packets for it from {BR_NIC}", 1, len(of_tenants(substrate.frames)))


def _report(step: Step, pings: Pings) -> None:
    step.figure("pings lost meanwhile", pings.lost, f"of {pings.sent}")
    step.figure("longest time without an answer", round(pings.longest_gap, 3), "s")


PARTS: Final = (
    Part(
        "A port moves to another host while a ping runs",
        "its packets follow, to the new host's VTEP, in the encapsulation that this one wants; the gap is measured",
        _move,
    ),
    Part(
        "ryu-manager is killed (SIGKILL) and started again while a ping runs",
        "no ping is lost, no flow is replaced, and changes are followed again",
        _kill_controller,
    ),
    Part(
        "The mapping database is killed (SIGKILL) and started again while a ping runs",
        "no ping is lost, no flow is replaced, and changes are followed again",
        _kill_database,
    ),
    Part(
        "The flows of a bridge are deleted behind its back; then ovs-vswitchd is restarted, empty",
        "they come back by themselves; the time is measured",
        _wiped,
    ),
)
