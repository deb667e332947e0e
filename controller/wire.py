"""`Flow` to OpenFlow 1.5 bytes. Ryu's own encoder writes each shape of flow once; values are stamped into its bytes.

Only complete messages leave here; whoever sends them need not know what is in them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any, Final, NamedTuple

from ryu.ofproto import ofproto_v1_5 as ofp
from ryu.ofproto import ofproto_v1_5_parser as parser
from ryu.ofproto.ofproto_protocol import ProtocolDesc

from controller import oxm
from flows.change import Change
from flows.fields import Field
from flows.flow import (
    COOKIE_MARK,
    COOKIE_MARK_SHIFT,
    Action,
    CheckLarger,
    Commit,
    Conjunction,
    Copy,
    Flow,
    Goto,
    Output,
    OutputInPort,
    SetField,
    Shape,
    ToController,
    Track,
    UseMeter,
)
from flows.meter import Meter, Meters
from flows.pipeline import TABLES

OUR_COOKIES: Final = COOKIE_MARK << COOKIE_MARK_SHIFT
OUR_COOKIES_MASK: Final = 0xFFFF << COOKIE_MARK_SHIFT
EXACT: Final = (1 << 64) - 1

oxm.install()

_PROTOCOL: Final = ProtocolDesc(version=ofp.OFP_VERSION)
_BUNDLE_ADD: Final = struct.Struct("!BBHIIHH")
_XID_END: Final = ofp.OFP_HEADER_SIZE  # of struct ofp_header, whose last field it is
_COOKIE_END: Final = ofp.OFP_HEADER_SIZE + 8  # in struct ofp_flow_mod, whose first field it is
_COMMIT: Final = 1  # NX_CT_F_COMMIT
_NOWHERE: Final = 0xFF  # NX_CT_RECIRC_NONE: go on with the next action
_NUMBER_ONES: Final = 0xFFFFFFFF  # of a port, or a meter
_NXAST_CHECK_PKT_LARGER: Final = 49
_BUNDLE_FLAGS: Final = ofp.OFPBF_ATOMIC | ofp.OFPBF_ORDERED


def _user(field: Any, value: int) -> Any:
    """A value as Ryu's encoder takes it: addresses as text, numbers as they are."""
    return field.notation(value) if field.is_address else value


def match(flow: Flow) -> Any:
    """The flow's match, as Ryu's, in the flow's order: Ryu's own puts extensions before what they require."""
    fields = []
    for item in flow.match:
        value = _user(item.field, item.value)
        fields.append(
            (item.field.oxm, value if item.mask == item.field.ones else (value, _user(item.field, item.mask)))
        )
    return parser.OFPMatch(_ordered_fields=fields)


def actions(items: Iterable[Action], bridge: str = "") -> list[Any]:
    """The actions to apply to a packet, as Ryu's. A `Goto` is no action to OpenFlow, a `Track` is one of `bridge`."""
    encoded = []
    for action in items:
        if isinstance(action, SetField):
            encoded.append(parser.OFPActionSetField(**{action.field.oxm: _user(action.field, action.value)}))
        elif isinstance(action, Copy):
            encoded.append(
                parser.OFPActionCopyField(
                    action.bits or action.target.bits,
                    action.start,
                    action.start,
                    [parser.OFPOxmId(action.source.oxm), parser.OFPOxmId(action.target.oxm)],
                )
            )
        elif isinstance(action, CheckLarger):
            encoded.append(_check_larger(action))
        elif isinstance(action, Output):
            encoded.append(parser.OFPActionOutput(action.port, 0))
        elif isinstance(action, OutputInPort):
            encoded.append(parser.OFPActionOutput(ofp.OFPP_IN_PORT, 0))
        elif isinstance(action, ToController):
            encoded.append(parser.OFPActionOutput(ofp.OFPP_CONTROLLER, ofp.OFPCML_NO_BUFFER))
        elif isinstance(action, UseMeter):
            encoded.append(parser.OFPActionMeter(action.meter))
        elif isinstance(action, Track | Commit | Conjunction):
            encoded.append(_extension(action, bridge))
    return encoded


def _extension(action: Track | Commit | Conjunction, bridge: str) -> Any:
    """What only Open vSwitch has, ovs-actions(7)."""
    if isinstance(action, Track):
        return _ct(0, action.zone, TABLES[bridge][action.table].number)
    if isinstance(action, Commit):
        return _ct(_COMMIT, action.zone, _NOWHERE)
    return parser.NXActionConjunction(action.clause - 1, 2, action.number)


def _ct(flags: int, zone: int, table: int) -> Any:
    return parser.NXActionCT(flags=flags, zone_src="", zone_ofs_nbits=zone, recirc_table=table, alg=0, actions=[])


def _check_larger(action: CheckLarger) -> Any:
    """Open vSwitch's own action, which Ryu does not know: size, first bit of the target, the target, padding."""
    body = bytearray(struct.pack("!HH", action.size, 0))
    ofp.oxm_serialize_header(ofp.oxm_from_user_header(action.target.oxm), body, len(body))
    return parser.NXActionUnknown(_NXAST_CHECK_PKT_LARGER, bytes(body) + bytes(6))


def _message(message: Any, xid: int) -> bytes:
    message.set_xid(xid)
    message.serialize()
    return bytes(message.buf)


def encode(flow: Flow, xid: int) -> bytes:
    """The message that installs the flow, as Ryu's own encoder writes it: slow, and the oracle of `flow_add`."""
    instructions = []
    encoded = actions(flow.actions, flow.table.bridge)
    if encoded:
        instructions.append(parser.OFPInstructionActions(ofp.OFPIT_APPLY_ACTIONS, encoded))
    instructions += [
        parser.OFPInstructionGotoTable(TABLES[flow.table.bridge][action.table].number)
        for action in flow.actions
        if isinstance(action, Goto)
    ]
    message = parser.OFPFlowMod(
        _PROTOCOL,
        cookie=flow.cookie,
        table_id=flow.table.number,
        command=ofp.OFPFC_ADD,
        priority=flow.priority,
        out_port=ofp.OFPP_ANY,
        out_group=ofp.OFPG_ANY,
        match=match(flow),
        instructions=instructions,
    )
    return _message(message, xid)


class _Template(NamedTuple):
    """A shape's message as one number, with zero values, and by how many bits each value is shifted into it."""

    blank: int
    size: int
    shifts: tuple[int, ...]


@cache
def _template(shape: Shape) -> _Template:
    """A value's place is where the bytes change when it goes from no bit to all bits."""
    zeros = (0,) * len(shape.holes)
    blank = encode(Flow(shape, zeros, 0), 0)
    shifts = []
    for index, part in enumerate(shape.holes):
        ones = part.ones if isinstance(part, Field) else _NUMBER_ONES
        filled = encode(Flow(shape, (*zeros[:index], ones, *zeros[index + 1 :]), 0), 0)
        changed = [at for at, (old, new) in enumerate(zip(blank, filled, strict=True)) if old != new]
        if changed != list(range(changed[0], changed[0] + (ones.bit_length() + 7) // 8)):
            raise AssertionError(f"{part} of {shape} is not in one place")
        shifts.append(8 * (len(blank) - changed[-1] - 1))
    return _Template(int.from_bytes(blank), len(blank), tuple(shifts))


def _stamp(template: _Template, xid: int, cookie: int, values: Iterable[int]) -> bytes:
    """Numbers as long as a message are added faster than slices of it are written."""
    size = template.size
    message: int = template.blank
    message |= xid << 8 * (size - _XID_END) | cookie << 8 * (size - _COOKIE_END)
    for shift, value in zip(template.shifts, values, strict=True):
        message |= value << shift
    return message.to_bytes(size)


def flow_add(flow: Flow, xid: int) -> bytes:
    """The message that installs the flow, or overwrites one of the same table, priority and match."""
    return _stamp(_template(flow.shape), xid, flow.cookie, flow.values)


@cache
def _delete_template() -> _Template:
    message = parser.OFPFlowMod(
        _PROTOCOL,
        cookie_mask=EXACT,
        table_id=ofp.OFPTT_ALL,
        command=ofp.OFPFC_DELETE,
        out_port=ofp.OFPP_ANY,
        out_group=ofp.OFPG_ANY,
    )
    blank = _message(message, 0)
    return _Template(int.from_bytes(blank), len(blank), ())


def flow_delete(cookie: int, xid: int) -> bytes:
    """The message that removes the flows with exactly this cookie. Open vSwitch finds them by index."""
    return _stamp(_delete_template(), xid, cookie, ())


def bundle(change: Change, bundle_id: int, xid: int) -> Iterator[bytes]:
    """The messages that make the change all at once, or not at all; the last one asks for it to be done.

    All carry the same xid, so that whatever the switch objects to can be told apart from other traffic.
    """

    def control(kind: int) -> bytes:
        return _message(parser.OFPBundleCtrlMsg(_PROTOCOL, bundle_id, kind, _BUNDLE_FLAGS, []), xid)

    yield control(ofp.OFPBCT_OPEN_REQUEST)
    for cookie in change.delete:
        yield _add_to_bundle(flow_delete(cookie, xid), bundle_id, xid)
    for flow in change.add:
        yield _add_to_bundle(flow_add(flow, xid), bundle_id, xid)
    yield control(ofp.OFPBCT_COMMIT_REQUEST)


def _add_to_bundle(message: bytes, bundle_id: int, xid: int) -> bytes:
    length = _BUNDLE_ADD.size + len(message)
    head = _BUNDLE_ADD.pack(ofp.OFP_VERSION, ofp.OFPT_BUNDLE_ADD_MESSAGE, length, xid, bundle_id, 0, _BUNDLE_FLAGS)
    return head + message


def packet_out(items: Iterable[Action], frame: bytes, xid: int) -> bytes:
    """The message that has the switch send a frame of ours."""
    origin = parser.OFPMatch(in_port=ofp.OFPP_CONTROLLER)
    return _message(parser.OFPPacketOut(_PROTOCOL, ofp.OFP_NO_BUFFER, origin, actions(items), frame), xid)


def watch_flows(xid: int) -> bytes:
    """The message that asks to be told of every change of flows, whoever makes it; of our own only that it was made."""
    flags = ofp.OFPFMF_ADD | ofp.OFPFMF_REMOVED | ofp.OFPFMF_MODIFY
    return _message(parser.OFPFlowMonitorRequest(_PROTOCOL, monitor_id=1, monitor_flags=flags), xid)


def read_ports(xid: int) -> bytes:
    """The message that asks for the statistics of all ports."""
    return _message(parser.OFPPortStatsRequest(_PROTOCOL, 0, ofp.OFPP_ANY), xid)


def read_flows(table: int, xid: int) -> bytes:
    """The message that asks for our flows in a table (OFPTT_ALL: in all)."""
    message = parser.OFPFlowDescStatsRequest(
        _PROTOCOL, table_id=table, cookie=OUR_COOKIES, cookie_mask=OUR_COOKIES_MASK
    )
    return _message(message, xid)


def set_meters(known: Meters, wanted: Meters, xid: int) -> Iterator[bytes]:
    """The messages that make a switch that has the meters `known` have those `wanted`; the last asks for an answer."""
    for meter_id, meter in wanted.items():
        if known.get(meter_id) != meter:
            yield _meter_mod(ofp.OFPMC_MODIFY if meter_id in known else ofp.OFPMC_ADD, meter_id, meter, xid)
    for meter_id in known.keys() - wanted.keys():
        yield _message(parser.OFPMeterMod(_PROTOCOL, ofp.OFPMC_DELETE, 0, meter_id), xid)
    yield _message(parser.OFPBarrierRequest(_PROTOCOL), xid)


def _meter_mod(command: int, meter_id: int, meter: Meter, xid: int) -> bytes:
    flags = METER_UNITS[meter.unit] | ofp.OFPMF_BURST | ofp.OFPMF_STATS
    bands = [parser.OFPMeterBandDrop(meter.rate, meter.burst)]
    return _message(parser.OFPMeterMod(_PROTOCOL, command, flags, meter_id, bands), xid)


METER_UNITS: Final = {"kbps": ofp.OFPMF_KBPS, "pktps": ofp.OFPMF_PKTPS}


def read_meters(xid: int) -> bytes:
    """The message that asks for all meters."""
    return _message(parser.OFPMeterDescStatsRequest(_PROTOCOL, 0, ofp.OFPM_ALL), xid)


def read_meter_counts(xid: int) -> bytes:
    """The message that asks what all meters have counted."""
    return _message(parser.OFPMeterStatsRequest(_PROTOCOL, 0, ofp.OFPM_ALL), xid)
