"""What a host tells the controller of its filters."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flows import filter_report
from flows.filter_report import BY_BRIDGE, Counted
from flows.pipeline import Reason

Report = tuple[str, dict[Reason, Counted]]

_COUNT = st.builds(Counted, st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))


_REPORTS = st.sampled_from(sorted(BY_BRIDGE)).flatmap(
    lambda bridge: st.tuples(st.just(bridge), st.fixed_dictionaries(dict.fromkeys(BY_BRIDGE[bridge], _COUNT)))
)


@given(_REPORTS, st.binary(max_size=200), st.integers(0, 300))
def test_what_is_written_is_read_and_nothing_else_is(report: Report, junk: bytes, length: int) -> None:
    bridge, counted = report
    frame = filter_report.write(bridge, counted)
    assert filter_report.read(bridge, frame) == counted
    assert filter_report.read(bridge, junk) is None
    if length != len(frame):
        assert filter_report.read(bridge, frame.ljust(length, b"\0")[:length]) is None
