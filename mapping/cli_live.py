"""Moves of ports that lose no packet: three steps, each taken when every live host has confirmed the one before."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import Final

from mapping import cli_names, plan, wanted
from mapping import status as state
from mapping.cli_common import RefusedError, Settings, follow, show_done, wait_until
from mapping.errors import MappingError
from mapping.plan import Plan
from mapping.replica import Replica
from mapping.rows import Tables
from mapping.status import Confirmation
from mapping.wanted import Key, Row
from mapping.writer import Done, Writer

Targets = Mapping[Key, str]
"""Port -> the host that it moves to."""


def move(options: Settings, targets: Targets, seconds: float) -> None:
    """Move ports; each step may take so many seconds. Broken off, it goes on when called again.

    Raises:
        MappingError: a port cannot move so, or a step is not applied in time.
    """
    for step in _STEPS:
        done, hosts, needed = _write(options, targets, step)
        if step is _STEPS[-1] or (done.plan.edits and not options.json):
            show_done(options, done)
        if dead := [each for each in _wait(options, done, hosts, seconds) if each.host in needed and each.why]:
            raise _give_up(options, targets, dead)


def _begin(name: str, host: str, row: Row) -> Row:
    """The new host gets ready, and the others take packets from both."""
    if row["host"] is None:
        raise MappingError(f"port {name} is on no host: move it without --live")
    if row["host"] == host:  # the last steps are left; or a move away from there, which this ends
        return {**row, "moving_to": None}
    if row["moving_to"] not in (None, host) or row["previous_host"] is not None:
        raise MappingError(f"port {name} is moving to {row['moving_to'] or row['host']}: end that move first")
    return {**row, "moving_to": host}


def _turn(_name: str, host: str, row: Row) -> Row:
    """Packets go to the new host; the old one sends on what still arrives there."""
    if row["host"] == host:
        return row
    return {**row, "host": host, "moving_to": None, "previous_host": row["host"]}


def _end(_name: str, _host: str, row: Row) -> Row:
    """The old host forgets it."""
    return {**row, "previous_host": None}


def _take_back(_name: str, host: str, row: Row) -> Row:
    """As it was before the first step; after the second one the port is at the new host, which had it ready."""
    return {**row, "moving_to": None} if row["moving_to"] == host else row


def _give_up(options: Settings, targets: Targets, dead: Sequence[Confirmation]) -> MappingError:
    """Undo the first step, if it is that; return what is to be said."""
    why = "; ".join(f"host {each.host} has not confirmed, and is not live: {each.why}" for each in dead)
    if _write(options, targets, _take_back)[0].plan.edits:
        return MappingError(
            f"nothing is moved, and the preparations are taken back. {why}. Then give the command again"
        )
    return MappingError(
        f"moved, but the old host still sends on what arrives there. {why}. Then give the command again"
    )


_Step = Callable[[str, str, Row], Row]
_STEPS: Final[tuple[_Step, ...]] = (_begin, _turn, _end)


def _write(options: Settings, targets: Targets, step: _Step) -> tuple[Done, frozenset[str], frozenset[str]]:
    """Write a step, in one transaction; also returns the hosts that it concerns, and those of them that must have it.

    Others that are not live, and so do not know, do no harm; but a port must not go where nothing is ready for it.
    """
    hosts: frozenset[str] = frozenset()
    needed: frozenset[str] = frozenset()

    def make(tables: Tables) -> Plan:
        nonlocal hosts, needed
        content, _ = wanted.named(tables)
        rows = wanted.empty()
        for key in cli_names.keys("Port", [name for (name,) in targets], content):
            rows["Port"][key] = step(key[0], targets[key], content["Port"][key])
        moving = (key for key, row in rows["Port"].items() if row["moving_to"] or row["previous_host"])
        needed = frozenset(targets[key] for key in moving)
        made = plan.make(rows, tables)
        # With nothing to change, an earlier run may have written the same, and given up waiting.
        hosts = plan.concerned(made.edits or plan.make(rows, {}).edits, tables)
        return made

    with Writer(options.remotes) as writer:
        done = writer.carry_out(make, options.cause)
    if done.plan.faults:
        raise RefusedError([fault.text for fault in done.plan.faults])
    return done, hosts, needed


def _wait(options: Settings, done: Done, hosts: frozenset[str], seconds: float) -> tuple[Confirmation, ...]:
    """Wait until every live one of these hosts has applied this; return how far each is."""
    replica = Replica(options.remotes, state.HOST_COLUMNS)
    found: tuple[Confirmation, ...] = ()
    late: list[str] = []
    heard = state.HeardHosts()

    def applied() -> bool:
        nonlocal found, late
        heard.look(replica.tables, time.monotonic())
        found = state.confirmations(replica.tables, done.config_seq, hosts, {}, time.time(), heard)
        late = [each.host for each in found if each.state == "late"]
        return replica.current and replica.config_seq >= done.config_seq and not late

    with closing(replica.session):
        follow(replica, options)
        if not wait_until(replica, applied, seconds):
            raise MappingError(
                f"step written, but not applied after {seconds:g} s by {', '.join(late) or 'all'}: "
                "look with `lockgate status`, and give the command again: it goes on where it is"
            )
    return found
