"""What a host tells the controller of its filters."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flows import filter_report
from flows.filter_report import Counted
from flows.pipeline import FILTERED

_COUNT = st.builds(Counted, st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))


@given(st.fixed_dictionaries(dict.fromkeys(FILTERED, _COUNT)), st.binary(max_size=200), st.integers(0, 300))
def test_what_is_written_is_read_and_nothing_else_is(counted: dict, junk: bytes, length: int) -> None:  # type: ignore[type-arg]
    frame = filter_report.write(counted)
    assert filter_report.read(frame) == counted
    assert filter_report.read(junk) is None
    if length != len(frame):
        assert filter_report.read(frame.ljust(length, b"\0")[:length]) is None
