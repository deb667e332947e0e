"""Whatever a switch sends is read in no time: what makes no sense ends its connection."""

from __future__ import annotations

import signal
import struct
from collections.abc import Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ryu.controller.handler import DEAD_DISPATCHER, MAIN_DISPATCHER
from ryu.ofproto import ofproto_parser
from ryu.ofproto import ofproto_v1_5 as ofp
from ryu.ofproto import ofproto_v1_5_parser as parser

from controller import received, replies
from controller.replies import Malformed, Traffic
from flows.meter import Meter

MULTIPART = [ofp.OFPMP_FLOW_DESC, ofp.OFPMP_PORT_STATS, ofp.OFPMP_PORT_DESC, ofp.OFPMP_METER_DESC]
MULTIPART += [ofp.OFPMP_METER_STATS, ofp.OFPMP_FLOW_MONITOR, ofp.OFPMP_TABLE_DESC, ofp.OFPMP_GROUP_DESC]


class Datapath(SimpleNamespace):
    """What Ryu's parsers ask of a connection."""

    def __init__(self) -> None:
        super().__init__(id=7, address=("192.0.2.1", 1), state=MAIN_DISPATCHER, ports={})
        self.ofproto, self.ofproto_parser = ofp, parser

    def close(self) -> None:
        self.state = DEAD_DISPATCHER


@pytest.fixture(autouse=True)
def _in_no_time() -> Iterator[None]:
    """A parser that goes round for ever fails the test, and does not hold up all of them."""

    def give_up(*_: object) -> None:
        raise SystemExit("it goes round for ever")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def take(datapath: Datapath, kind: int, body: bytes, version: int = ofp.OFP_VERSION) -> Any:  # noqa: ANN401
    data = bytearray(struct.pack("!BBHI", version, kind, 8 + len(body), 1) + body)
    return ofproto_parser.msg(datapath, version, kind, len(data), 1, data)


def multipart(kind: int, body: bytes) -> bytes:
    return struct.pack("!HH4x", kind, 0) + body


PORT = struct.pack("!IH2x6s2x16sII", 3, 40, bytes(6), b"web", 0, 0)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (ofp.OFPT_HELLO, bytes([0, 2, 0, 0])),
        (ofp.OFPT_PORT_STATUS, bytes(8) + PORT[:4] + struct.pack("!H", 0) + PORT[6:]),
        (ofp.OFPT_PORT_STATUS, bytes(8) + PORT[:4] + struct.pack("!H", 48) + PORT[6:]),
        (ofp.OFPT_MULTIPART_REPLY, multipart(ofp.OFPMP_PORT_DESC, bytes(48))),
        (ofp.OFPT_BUNDLE_CONTROL, struct.pack("!IHH", 1, ofp.OFPBCT_COMMIT_REPLY, 0) + bytes(16)),
        (ofp.OFPT_PACKET_IN, bytes(16) + b"\0\1\xff\xff" + bytes(4)),
        (ofp.OFPT_FEATURES_REPLY, b""),
        (ofp.OFPT_MULTIPART_REPLY, b""),
    ],
    ids=["hello", "port", "property of a port", "ports", "property of a bundle", "packet", "features", "multipart"],
)
def test_what_makes_no_sense_ends_the_connection(kind: int, body: bytes, caplog: pytest.LogCaptureFixture) -> None:
    datapath = Datapath()
    assert take(datapath, kind, body) is None
    assert datapath.state == DEAD_DISPATCHER
    (said,) = (each.getMessage() for each in caplog.records)
    assert said.startswith("datapath 0000000000000007 at ('192.0.2.1', 1) sent what makes no sense (")
    assert take(datapath, ofp.OFPT_ECHO_REQUEST, b"") is None


def test_a_port_with_properties_is_read() -> None:
    datapath = Datapath()
    described = PORT[:4] + struct.pack("!H", 72) + PORT[6:] + struct.pack("!HH", 0, 32) + bytes(28)
    (port, other) = take(datapath, ofp.OFPT_MULTIPART_REPLY, multipart(ofp.OFPMP_PORT_DESC, described + PORT)).body
    assert (port.port_no, port.name, other.port_no) == (3, b"web", 3)
    assert take(datapath, ofp.OFPT_PORT_STATUS, bytes(8) + described).desc.name == b"web"


@pytest.mark.parametrize("kind", [ofp.OFPMP_GROUP_DESC, ofp.OFPMP_TABLE_DESC, ofp.OFPMP_QUEUE_DESC])
def test_what_nobody_asks_for_is_not_read(kind: int) -> None:
    datapath = Datapath()
    assert take(datapath, ofp.OFPT_MULTIPART_REPLY, multipart(kind, bytes(64))) is None
    assert take(datapath, ofp.OFPT_GROUP_MOD, bytes(64)) is None
    assert datapath.state == MAIN_DISPATCHER
    assert take(datapath, ofp.OFPT_FEATURES_REPLY, bytes(24), version=4) is None
    assert datapath.state == DEAD_DISPATCHER


def test_a_switch_that_names_ports_without_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(received, "_PORTS", 5)
    datapath = Datapath()
    datapath.ports = dict.fromkeys(range(5))
    assert take(datapath, ofp.OFPT_ECHO_REQUEST, b"")
    datapath.ports = dict.fromkeys(range(6))
    assert take(datapath, ofp.OFPT_ECHO_REQUEST, b"") is None
    assert datapath.state == DEAD_DISPATCHER


READERS = {
    ofp.OFPMP_FLOW_DESC: (replies.cookies, replies.counted),
    ofp.OFPMP_PORT_STATS: (replies.port_traffic,),
    ofp.OFPMP_METER_DESC: (replies.meters,),
    ofp.OFPMP_METER_STATS: (replies.metered,),
    ofp.OFPMP_FLOW_MONITOR: (replies.changed_by_others,),
}


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("length", [0, 1, 7, 100, 65535])
def test_an_entry_of_a_wrong_length_is_refused(kind: int, length: int) -> None:
    entry = bytearray(64)
    struct.pack_into("!H", entry, 4 if kind == ofp.OFPMP_METER_STATS else 0, length)
    reply = take(Datapath(), ofp.OFPT_MULTIPART_REPLY, multipart(kind, bytes(entry)))
    for read in READERS[kind]:
        with pytest.raises(Malformed):
            list(read(reply))


def test_meters_are_read_as_they_are() -> None:
    flags = ofp.OFPMF_PKTPS | ofp.OFPMF_BURST
    ours = struct.pack("!HHI", 24, flags, 5) + struct.pack("!HHII4x", ofp.OFPMBT_DROP, 16, 100, 20)
    two = struct.pack("!HHI", 40, flags, 6) + 2 * ours[8:]
    body = ours + two + struct.pack("!HHI", 8, 0, 7)
    reply = take(Datapath(), ofp.OFPT_MULTIPART_REPLY, multipart(ofp.OFPMP_METER_DESC, body))
    assert dict(replies.meters(reply)) == {5: Meter("pktps", 100, 20), 6: Meter("pktps", 0, 0), 7: Meter("kbps", 0, 0)}
    counted = struct.pack("!IH6xIQQII", 5, 72, 0, 9, 9, 0, 0) + struct.pack("!QQQQ", 1, 2, 10, 20)
    reply = take(Datapath(), ofp.OFPT_MULTIPART_REPLY, multipart(ofp.OFPMP_METER_STATS, counted))
    assert dict(replies.metered(reply)) == {5: Traffic(11, 22)}


PIECES = st.lists(
    st.sampled_from([b"\0", bytes(4), b"\0\x08", b"\0\x10", b"\0\x28", b"\xff\xff", bytes(24), PORT]), max_size=12
).map(b"".join)
KINDS = st.sampled_from([ofp.OFPT_HELLO, ofp.OFPT_PORT_STATUS, ofp.OFPT_PACKET_IN, ofp.OFPT_BUNDLE_CONTROL])
MULTIPARTS = st.builds(multipart, st.sampled_from(MULTIPART), PIECES)


@settings(max_examples=600, deadline=None)
@given(
    st.one_of(
        st.tuples(st.integers(0, 40), st.binary(max_size=120)),
        st.tuples(st.just(ofp.OFPT_MULTIPART_REPLY), MULTIPARTS),
        st.tuples(KINDS, PIECES),
    )
)
def test_junk_is_read_or_ends_the_connection(message: tuple[int, bytes]) -> None:
    datapath = Datapath()
    made = take(datapath, *message)
    for read in READERS.get(getattr(made, "type", None), ()) if message[0] == ofp.OFPT_MULTIPART_REPLY else ():
        with suppress(Malformed):
            list(read(made))
