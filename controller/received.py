"""What switches send, looked at before Ryu parses it: every program with a host's key may send it anything.

Ryu parses whatever arrives, asked for or not and of any version of OpenFlow, and most of its parsers go round for ever
at a length of zero. Only the kinds of messages that are used get so far; of others nothing is read. At one that makes
no sense the connection is closed, which costs nobody but its switch, and the log says why.
"""

from __future__ import annotations

import logging
import struct
from typing import Any, Final

from ryu.controller.handler import DEAD_DISPATCHER
from ryu.ofproto import ofproto_parser
from ryu.ofproto import ofproto_v1_5 as ofp

from controller.replies import Malformed

log = logging.getLogger(__name__)

_ANY_VERSION: Final = (ofp.OFPT_HELLO, ofp.OFPT_ERROR)
"""Kinds that come before a version is agreed upon."""
_KINDS: Final = (
    *_ANY_VERSION,
    ofp.OFPT_ECHO_REQUEST,
    ofp.OFPT_ECHO_REPLY,
    ofp.OFPT_FEATURES_REPLY,
    ofp.OFPT_PACKET_IN,
    ofp.OFPT_PORT_STATUS,
    ofp.OFPT_BARRIER_REPLY,
    ofp.OFPT_BUNDLE_CONTROL,
)
_MULTIPART: Final = (
    ofp.OFPMP_FLOW_DESC,
    ofp.OFPMP_PORT_STATS,
    ofp.OFPMP_PORT_DESC,
    ofp.OFPMP_METER_DESC,
    ofp.OFPMP_METER_STATS,
    ofp.OFPMP_FLOW_MONITOR,
)
_PORTS: Final = 1 << 15
"""Ports that a switch may name at most."""
_ELEMENT: Final = struct.Struct("!2xH")
_MULTIPART_KIND: Final = struct.Struct("!H")

_parse = ofproto_parser.msg


def message(datapath: Any, version: int, *rest: Any) -> Any:
    """What Ryu makes of a message; None if it is none of ours, or came on a connection that is closed.

    `rest` is the kind, the length and the id that its header says, and all of its bytes.
    """
    if datapath.state == DEAD_DISPATCHER:
        return None
    kind, _, _, data = rest
    try:
        if not _is_used(version, kind, data):
            return None
        made = ofproto_parser._MSG_PARSERS[version](datapath, version, *rest)  # noqa: SLF001
        _check_ports(datapath)
    except Exception as error:  # noqa: BLE001 - Ryu's parsers raise whatever their tables and struct do
        close(datapath, error)
        return None
    return made


def close(datapath: Any, error: Exception) -> None:
    """End the connection of who has sent that; an Open vSwitch keeps its flows, and connects again."""
    who = "a switch" if datapath.id is None else f"datapath {datapath.id:016x}"
    why = str(error) if isinstance(error, Malformed) else repr(error)[:200]
    text = "%s at %s sent what makes no sense (%s): its connection is closed. If it is no Open vSwitch, revoke its key"
    log.error(text, who, datapath.address, why)
    datapath.close()


def _is_used(version: int, kind: int, data: bytes | bytearray) -> bool:
    """Whether this is to be read. Raises an exception of any kind if no switch sends such."""
    if version != ofp.OFP_VERSION and kind not in _ANY_VERSION:
        raise Malformed(f"version {version} of OpenFlow, which was not agreed upon")
    if kind == ofp.OFPT_HELLO:
        _check_hello(data)
    if kind == ofp.OFPT_MULTIPART_REPLY:
        return _MULTIPART_KIND.unpack_from(data, ofp.OFP_HEADER_SIZE)[0] in _MULTIPART
    return kind in _KINDS


def _check_ports(datapath: Any) -> None:
    """A switch may go on naming ports for ever."""
    if len(getattr(datapath, "ports", None) or ()) > _PORTS:
        raise Malformed(f"more than {_PORTS} ports")


def _check_hello(data: bytes | bytearray) -> None:
    """Ryu goes from element to element by their lengths alone."""
    offset = ofp.OFP_HELLO_HEADER_SIZE
    while offset < len(data):
        (length,) = _ELEMENT.unpack_from(data, offset)
        if length < _ELEMENT.size:
            raise Malformed(f"an element of {length} bytes in its hello")
        offset += length


ofproto_parser.msg = message
