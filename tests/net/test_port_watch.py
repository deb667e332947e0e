"""The program of a host that keeps its filters in step: what it costs. tests/attack/test_filter.py has what it does."""

from __future__ import annotations

from collections.abc import Mapping as MappingABC
from collections.abc import Sequence

import pytest

from topo import netns
from topo.lab import Lab
from topo.port_watch import STEP, Watch

PROGRAMS = ("ip", "ovs-ofctl", "ovs-ofctl", "ovs-ofctl")
"""By which it learns of interfaces, the ports of both bridges, and limits."""


def test_programs_are_started_once_in_a_while_and_again_at_once_after_a_failure(
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
    watch = Watch(lab.host("h1").ovs)
    for second in range(round(STEP)):
        watch.look(float(second))
    assert started == [*PROGRAMS]
    answers = False
    with pytest.raises(netns.CommandError):
        watch.look(STEP)
    answers = True
    watch.look(STEP + 1)
    watch.look(STEP + 2)
    assert started == [*PROGRAMS, *PROGRAMS]
