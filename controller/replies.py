"""Replies of many flows, kept as bytes.

Ryu parses every field of every flow before anyone sees a reply: seven thousand flows a second, and at the first flow
monitor update that is not of one kind it raises (its class asserts the last event that it was registered for), which
ends the connection. So the two replies that can be long are declared to have a body
of one piece, in the attribute that Ryu has for the class of a body, and only what is needed is taken out of it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Any, Final

from ryu.ofproto import ofproto_v1_5 as ofp
from ryu.ofproto import ofproto_v1_5_parser as parser

_LENGTH_AND_EVENT: Final = struct.Struct("!HH")
_UPDATE_COOKIE: Final = struct.Struct("!16xQ")
"""Of struct ofp_flow_update_full, OpenFlow 1.5, 7.3.5.17."""
_FULL: Final = (ofp.OFPFME_INITIAL, ofp.OFPFME_ADDED, ofp.OFPFME_REMOVED, ofp.OFPFME_MODIFIED)
_LENGTH_AND_COOKIE: Final = struct.Struct("!H14xQ")
"""Of struct ofp_flow_desc, OpenFlow 1.5, 7.3.5.2."""


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
parser.OFPFlowMonitorReply.cls_stats_body_cls = Body


def cookies(replies: Iterable[Any]) -> Iterator[int]:
    """The cookie of each flow in flow description replies."""
    for data in _bodies(replies):
        offset = 0
        while offset < len(data):
            length, cookie = _LENGTH_AND_COOKIE.unpack_from(data, offset)
            yield cookie
            offset += length


def packets(replies: Iterable[Any]) -> Iterator[tuple[int, int]]:
    """The cookie of each flow in flow description replies, and how many packets it has matched."""
    for data in _bodies(replies):
        offset = 0
        while offset < len(data):
            flow = parser.OFPFlowDesc.parser(data, offset)
            yield flow.cookie, dict(flow.stats.items())["packet_count"]
            offset += flow.length


def changed_by_others(reply: Any) -> list[int]:
    """The cookies of flows that a flow monitor reply tells of, but for our own changes, which come abbreviated.

    A pause, in which the switch has more to tell than it will, counts as a change of a flow with the cookie zero.
    """
    changed: list[int] = []
    for data in _bodies([reply]):
        offset = 0
        while offset < len(data):
            length, event = _LENGTH_AND_EVENT.unpack_from(data, offset)
            if event in _FULL:
                changed += _UPDATE_COOKIE.unpack_from(data, offset)
            elif event != ofp.OFPFME_ABBREV:
                changed.append(0)
            offset += length
    return changed


def _bodies(replies: Iterable[Any]) -> Iterator[bytes]:
    for reply in replies:
        for body in reply.body:
            yield body.data
