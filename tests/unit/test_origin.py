"""Every flow has its row, and what several rows ask for has all of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from explain import origin
from flows.desired import Source, desired, misses
from flows.flow import Flow
from flows.pipeline import BR_GUEST, BR_NIC
from flows.view import view
from tests.build import BLUE, GUEST_OFPORTS, HOST_A, HOST_B, NIC_OFPORTS, RED, TWO_HOSTS


@pytest.mark.parametrize(("bridge", "ofports"), [(BR_GUEST, GUEST_OFPORTS), (BR_NIC, NIC_OFPORTS)])
def test_every_flow_that_is_desired_has_an_origin_and_no_other(bridge: str, ofports: dict[str, int]) -> None:
    for host in (HOST_A, HOST_B):
        known = view(TWO_HOSTS, host)
        found = origin.origins(bridge, known, ofports)
        assert {cookie: each.flow for cookie, each in found.items()} == desired(bridge, known, ofports)
        tables = {row.table for each in found.values() for row in each.rows}
        assert tables >= {"", "Host", "Port", "Mapping"}


def test_what_several_rows_ask_for_has_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def by_source(bridge: str, *_: object) -> Iterator[tuple[Source, Iterator[Flow]]]:
        yield from ((vpc, misses(bridge)) for vpc in (BLUE, RED))

    monkeypatch.setattr(origin, "by_source", by_source)
    found = origin.origins(BR_NIC, view(TWO_HOSTS, HOST_A), {})
    assert {each.why for each in found.values()} == {"VPC blue; VPC red"}
