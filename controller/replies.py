"""Replies of many entries, kept as bytes.

Ryu parses every field of every flow before anyone sees a reply: seven thousand flows a second, and at the first flow
monitor update that is not of one kind it raises (its class asserts the last event that it was registered for), which
ends the connection. It also believes every length: at an entry of no length it goes round for ever, and whoever holds
one host's key could stop the controller for all. So the replies that are asked for are declared to have a body of one
piece, in the attribute that Ryu has for the class of a body, and only what is needed is taken out of it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, Final, Literal, NamedTuple

from ryu.ofproto import ofproto_v1_5 as ofp
from ryu.ofproto import ofproto_v1_5_parser as parser

from flows.meter import Meter

_LENGTH_AND_EVENT: Final = struct.Struct("!HH")
_UPDATE_COOKIE: Final = struct.Struct("!16xQ")
"""Of struct ofp_flow_update_full, OpenFlow 1.5, 7.3.5.17."""
_PUT: Final = (ofp.OFPFME_INITIAL, ofp.OFPFME_ADDED, ofp.OFPFME_MODIFIED)
_LENGTH_AND_COOKIE: Final = struct.Struct("!H14xQ")
_MATCH: Final = 24
_MATCH_LENGTH: Final = struct.Struct("!26xH")
"""Of struct ofp_flow_desc, OpenFlow 1.5, 7.3.5.2."""
_STATISTIC: Final = struct.Struct("!2xBB")
_COUNT: Final = struct.Struct("!Q")
_PACKETS: Final = 4 << 1
_BYTES: Final = 5 << 1
"""Of packet_count and byte_count what is third in a statistic's header (OXS, 7.2.4.2): the number, above one bit."""
_PORT_STATISTICS: Final = struct.Struct("!H2xI8xQQQQ")
"""Of struct ofp_port_stats, 7.3.5.8: length, number, packets and bytes received and sent."""
_UNKNOWN: Final = (1 << 64) - 1
_PORT: Final = struct.Struct("!IH2x8x16s8x")
"""Of struct ofp_port, 7.2.1: number, length, name."""
_METER: Final = struct.Struct("!HHI")
_BAND: Final = struct.Struct("!HHII4x")
"""Of struct ofp_meter_desc, 7.3.5.14: length, flags, number; of its bands: type, length, rate, burst."""
_METER_STATISTICS: Final = struct.Struct("!IH34x")
_BAND_STATISTICS: Final = struct.Struct("!QQ")
"""Of struct ofp_meter_stats, 7.3.5.13: number, length; of its bands: packets and bytes dropped."""


class Malformed(Exception):  # noqa: N818 - what came is at fault, not who reads it
    """A switch sent what no switch sends, in words."""


class Body:
    """What follows the header of one multipart reply, whole."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.length = len(data)

    @classmethod
    def parser(cls, buf: Any, offset: int) -> Body:
        """Called by Ryu for what it takes to be the first of several entries."""
        return cls(bytes(buf[offset:]))


class PortDescription:
    """One port, with what Ryu and `controller.switch` ask of it."""

    def __init__(self, number: int, length: int, name: bytes) -> None:
        self.port_no = number
        self.length = length
        self.name = name

    @classmethod
    def parser(cls, buf: Any, offset: int) -> PortDescription:
        """Called by Ryu for each port that a switch names."""
        number, length, name = _PORT.unpack_from(buf, offset)
        if not _PORT.size <= length <= len(buf) - offset:
            raise Malformed(f"a port of {length} bytes")
        return cls(number, length, name.rstrip(b"\0"))


class _NoProperty:
    """In place of the properties of a bundle's replies: there are none."""

    @classmethod
    def parse(cls, _: Any) -> Any:
        raise Malformed("a property of a bundle")


for _reply in (
    parser.OFPFlowDescStatsReply,
    parser.OFPPortStatsReply,
    parser.OFPFlowMonitorReply,
    parser.OFPMeterDescStatsReply,
    parser.OFPMeterStatsReply,
):
    _reply.cls_stats_body_cls = Body
parser.OFPPortDescStatsReply.cls_stats_body_cls = PortDescription
parser.OFPPort = PortDescription  # of port status messages
parser.OFPBundleProp = _NoProperty


def _entries(reply: Any, shape: struct.Struct, least: int, at: int = 0) -> Iterator[tuple[bytes, int, int, Any]]:
    """Each entry of one part of a reply: where its bytes are, from and to, and what `shape` reads at its beginning.

    That has the entry's length at the place `at`.
    """
    for body in reply.body:
        data, offset, size = body.data, 0, len(body.data)
        while offset < size:
            if size - offset < least:
                raise Malformed(f"{size - offset} bytes where an entry has {least}")
            read = shape.unpack_from(data, offset)
            end = offset + read[at]
            if not offset + least <= end <= size:
                raise Malformed(f"an entry of {read[at]} bytes, of which {least} to {size - offset} can be")
            yield data, offset, end, read
            offset = end


def cookies(reply: Any) -> Iterator[int]:
    """The cookie of each flow in one part of a flow description reply."""
    return (cookie for _, _, _, (_, cookie) in _entries(reply, _LENGTH_AND_COOKIE, _LENGTH_AND_COOKIE.size))


class Traffic(NamedTuple):
    """What was counted."""

    packets: int
    bytes: int


def counted(reply: Any) -> Iterator[tuple[int, Traffic]]:
    """The cookie of each flow in one part of a flow description reply, and what it has matched."""
    for data, offset, end, (_, cookie) in _entries(reply, _LENGTH_AND_COOKIE, _MATCH_LENGTH.size):
        (match,) = _MATCH_LENGTH.unpack_from(data, offset)
        # The match is filled up to a multiple of 8 bytes; the statistics' own header has 4, as has each of them.
        at = offset + _MATCH + (match + 7) // 8 * 8 + 4
        found = {}
        while at + 4 + _COUNT.size <= end:
            kind, size = _STATISTIC.unpack_from(data, at)
            if size == _COUNT.size:
                (found[kind],) = _COUNT.unpack_from(data, at + 4)
            at += 4 + size
        if _PACKETS not in found or _BYTES not in found:
            raise Malformed("a flow without counters")
        yield cookie, Traffic(found[_PACKETS], found[_BYTES])


def port_traffic(reply: Any) -> Iterator[tuple[int, tuple[Traffic, Traffic]]]:
    """The number of each port in one part of a port statistics reply, and what it has received and sent."""
    for _, _, _, (_, number, *counts) in _entries(reply, _PORT_STATISTICS, _PORT_STATISTICS.size):
        received, sent, received_bytes, sent_bytes = (0 if count == _UNKNOWN else count for count in counts)
        yield number, (Traffic(received, received_bytes), Traffic(sent, sent_bytes))


def meters(reply: Any) -> Iterator[tuple[int, Meter]]:
    """Each meter in one part of a meter description reply. One that is not like ours is different from all of ours."""
    for data, offset, end, (_, flags, number) in _entries(reply, _METER, _METER.size):
        unit: Literal["kbps", "pktps"] = "pktps" if flags & ofp.OFPMF_PKTPS else "kbps"
        alike = end - offset == _METER.size + _BAND.size and flags & ofp.OFPMF_BURST
        kind, _, rate, burst = _BAND.unpack_from(data, offset + _METER.size) if alike else (0, 0, 0, 0)
        yield number, Meter(unit, rate, burst) if kind == ofp.OFPMBT_DROP else Meter(unit, 0, 0)


def metered(reply: Any) -> Iterator[tuple[int, Traffic]]:
    """The id of each meter in one part of a meter statistics reply, and what it has dropped."""
    for data, offset, end, (number, _) in _entries(reply, _METER_STATISTICS, _METER_STATISTICS.size, at=1):
        if (end - offset - _METER_STATISTICS.size) % _BAND_STATISTICS.size:
            raise Malformed("part of a meter's band")
        bands = list(_BAND_STATISTICS.iter_unpack(data[offset + _METER_STATISTICS.size : end]))
        yield number, Traffic(sum(packets for packets, _ in bands), sum(count for _, count in bands))


def changed_by_others(reply: Any) -> set[int]:
    """The cookies of flows that somebody else has put where a flow monitor reply says; our own changes are abbreviated.

    Flows that are gone, or a pause in which the switch has more to tell than it will, count as the cookie zero.
    """
    changed: set[int] = set()
    for data, offset, end, (_, event) in _entries(reply, _LENGTH_AND_EVENT, 8):
        if event in _PUT:
            if end - offset < _UPDATE_COOKIE.size:
                raise Malformed(f"a changed flow of {end - offset} bytes")
            changed.update(_UPDATE_COOKIE.unpack_from(data, offset))
        elif event != ofp.OFPFME_ABBREV:
            changed.add(0)
    return changed
