"""Replies of many flows, kept as bytes.

Ryu parses every field of every flow before anyone sees a reply: seven thousand flows a second, and at the first flow
monitor update that is not of one kind it raises (its class asserts the last event that it was registered for), which
ends the connection. So the replies that can be long are declared to have a body
of one piece, in the attribute that Ryu has for the class of a body, and only what is needed is taken out of it.
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


class Body:
    """What follows the header of one multipart reply, whole."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.length = len(data)

    @classmethod
    def parser(cls, buf: Any, offset: int) -> Body:
        """Called by Ryu for what it takes to be the first of several entries."""
        return cls(bytes(buf[offset:]))


parser.OFPFlowDescStatsReply.cls_stats_body_cls = Body
parser.OFPPortStatsReply.cls_stats_body_cls = Body
parser.OFPFlowMonitorReply.cls_stats_body_cls = Body


def cookies(reply: Any) -> Iterator[int]:
    """The cookie of each flow in one part of a flow description reply."""
    for body in reply.body:
        data, offset = body.data, 0
        while offset < len(data):
            length, cookie = _LENGTH_AND_COOKIE.unpack_from(data, offset)
            yield cookie
            offset += length


class Traffic(NamedTuple):
    """What was counted."""

    packets: int
    bytes: int


def counted(reply: Any) -> Iterator[tuple[int, Traffic]]:
    """The cookie of each flow in one part of a flow description reply, and what it has matched."""
    for body in reply.body:
        data, offset = body.data, 0
        while offset < len(data):
            length, cookie = _LENGTH_AND_COOKIE.unpack_from(data, offset)
            (match,) = _MATCH_LENGTH.unpack_from(data, offset)
            # The match is filled up to a multiple of 8 bytes; the statistics' own header has 4, as has each of them.
            at, end = offset + _MATCH + (match + 7) // 8 * 8 + 4, offset + length
            found = {}
            while at + 4 <= end:
                kind, size = _STATISTIC.unpack_from(data, at)
                if size == 8:
                    (found[kind],) = _COUNT.unpack_from(data, at + 4)
                at += 4 + size
            yield cookie, Traffic(found[_PACKETS], found[_BYTES])
            offset += length


def port_traffic(reply: Any) -> Iterator[tuple[int, tuple[Traffic, Traffic]]]:
    """The number of each port in one part of a port statistics reply, and what it has received and sent."""
    for body in reply.body:
        data, offset = body.data, 0
        while offset < len(data):
            length, number, *counts = _PORT_STATISTICS.unpack_from(data, offset)
            received, sent, received_bytes, sent_bytes = (0 if count == _UNKNOWN else count for count in counts)
            yield number, (Traffic(received, received_bytes), Traffic(sent, sent_bytes))
            offset += length


def meters(reply: Any) -> Iterator[tuple[int, Meter]]:
    """Each meter in one part of a meter description reply. One that is not like ours is different from all of ours."""
    for meter in reply.body:
        unit: Literal["kbps", "pktps"] = "pktps" if meter.flags & ofp.OFPMF_PKTPS else "kbps"
        drops = [band for band in meter.bands if band.type == ofp.OFPMBT_DROP]
        alike = len(drops) == len(meter.bands) == 1 and meter.flags & ofp.OFPMF_BURST
        yield meter.meter_id, Meter(unit, drops[0].rate, drops[0].burst_size) if alike else Meter(unit, 0, 0)


def metered(reply: Any) -> Iterator[tuple[int, Traffic]]:
    """The id of each meter in one part of a meter statistics reply, and what it has dropped."""
    for meter in reply.body:
        bands = meter.band_stats
        yield meter.meter_id, Traffic(sum(b.packet_band_count for b in bands), sum(b.byte_band_count for b in bands))


def changed_by_others(reply: Any) -> set[int]:
    """The cookies of flows that somebody else has put where a flow monitor reply says; our own changes are abbreviated.

    Flows that are gone, or a pause in which the switch has more to tell than it will, count as the cookie zero.
    """
    changed: set[int] = set()
    for body in reply.body:
        data, offset = body.data, 0
        while offset < len(data):
            length, event = _LENGTH_AND_EVENT.unpack_from(data, offset)
            if event in _PUT:
                changed.update(_UPDATE_COOKIE.unpack_from(data, offset))
            elif event != ofp.OFPFME_ABBREV:
                changed.add(0)
            offset += length
    return changed
