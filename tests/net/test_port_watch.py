"""The program of a host that keeps its filters in step: what it costs. tests/attack/test_filter.py has what it does."""

from __future__ import annotations

from collections.abc import Mapping as MappingABC
from collections.abc import Sequence

import pytest

from flows.pipeline import BR_GUEST
from topo import netns
from topo.lab import Lab
from topo.port_watch import STEP, HostFilters

LIMITS = ["ovs-ofctl"]
PORTS = ["ip", "ovs-ofctl", "ovs-ofctl"]
"""Interfaces, and the ports of both bridges."""
METER = "meter=60000"


def test_ports_are_looked_at_once_in_a_while_and_at_once_after_a_failure_and_when_a_meter_has_changed(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []
    answers = True
    real = netns.run

    def run(
        inside: str | None, argv: Sequence[str], *, env: MappingABC[str, str] | None = None, stdin: str | None = None
    ) -> str:
        if not answers:
            raise netns.CommandError("no answer")
        # What was refused in tests before this one is told the controller each time anew.
        if "packet-out" not in argv:
            started.append(argv[0])
        return real(inside, argv, env=env, stdin=stdin)

    monkeypatch.setattr(netns, "run", run)
    host = lab.host("h1")
    filters = HostFilters(host.ovs)

    def looked(second: float) -> list[str]:
        started.clear()
        filters.look(second)
        return list(started)

    assert [looked(float(second)) for second in range(round(STEP))] == [LIMITS + PORTS, *[LIMITS] * (round(STEP) - 1)]
    answers = False
    with pytest.raises(netns.CommandError):
        filters.look(STEP)
    answers = True
    assert [looked(STEP + second) for second in (1, 2)] == [LIMITS + PORTS, LIMITS]
    host.ofctl("add-meter", BR_GUEST, f"{METER},pktps,burst,stats,band=type=drop,rate=1,burst_size=1")
    try:
        assert [looked(STEP + second) for second in (3, 4)] == [LIMITS + PORTS, LIMITS]
    finally:
        host.ofctl("del-meter", BR_GUEST, METER)
