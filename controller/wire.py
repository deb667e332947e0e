"""`Flow` to OpenFlow 1.5 bytes. Ryu's own encoder writes each shape of flow once; values are stamped into its bytes.

Only complete messages leave here; whoever sends them need not know what is in them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import Any, Final, NamedTuple

from ryu.ofproto import ofproto_v1_5 as ofp
from ryu.ofproto import ofproto_v1_5_parser as parser
from ryu.ofproto.ofproto_protocol import ProtocolDesc

from controller import oxm
from flows.change import Change
from flows.fields import Field
from flows.flow import (
    COOKIE_MARK_SHIFT,
    OUR_COOKIES,
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

OUR_COOKIES_MASK: Final = 0xFFFF << COOKIE_MARK_SHIFT
EXACT: Final = (1 << 64) - 1

oxm.install()

_PROTOCOL: Final = ProtocolDesc(version=ofp.OFP_VERSION)
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


def _in_bundle(message: Any, bundle_id: int, xid: int) -> bytes:
    return _message(parser.OFPBundleAddMsg(_PROTOCOL, bundle_id, _BUNDLE_FLAGS, message, []), xid)


def encode(flow: Flow, bundle_id: int, xid: int) -> bytes:
    """What `flow_add` makes, as Ryu's own encoder writes it: slow, and the oracle."""
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
    return _in_bundle(message, bundle_id, xid)


class _Template(NamedTuple):
    """A message of a bundle, read as one number, with zero where numbers go, and how these get there."""

    blank: int
    size: int
    pack: Callable[..., bytes]
    """Makes a message as long, with zero everywhere but where its arguments go: `_HEAD`, then the values."""
    words: tuple[tuple[int, int], ...]
    """If a value is wider than struct's numbers: each of its arguments is which value, shifted right by how much."""


_Place = tuple[int, int]
"""The first byte, and the one after the last."""
_HEAD: Final[tuple[_Place, ...]] = ((4, 8), (8, 12), (20, 24), (24, 32))
"""xid and bundle_id of a struct ofp_bundle_add_msg, then xid and cookie of the struct ofp_flow_mod in it."""
_NUMBERS: Final = {1: "B", 2: "H", 3: "I", 4: "I", 6: "Q", 8: "Q"}
"""Bytes -> the number of struct's that has as many, or more: then what is before them in the message is constant."""
_WIDE: Final = 16
_WORD_ONES: Final = (1 << 64) - 1


@cache
def _template(shape: Shape) -> _Template:
    """A value's place is where the bytes change when they all become the value's own number, from 1 on."""
    holes = [part.ones if isinstance(part, Field) else _NUMBER_ONES for part in shape.holes]
    marks = [int.from_bytes(bytes([number] * 16)) & ones for number, ones in enumerate(holes, 1)]
    blank = encode(Flow(shape, (0,) * len(holes), 0), 0, 0)
    marked = encode(Flow(shape, tuple(marks), 0), 0, 0)
    changed = [at for at, (old, new) in enumerate(zip(blank, marked, strict=True)) if old != new]
    places: list[_Place] = []
    for mark, ones in zip(marks, holes, strict=True):
        at, expected = len(places) and places[-1][1], mark.to_bytes((ones.bit_length() + 7) // 8)
        at = next((each for each in changed if each >= at), 0)
        places.append((at, at + len(expected)))
        if marked[slice(*places[-1])] != expected or any(blank[slice(*places[-1])]):
            raise AssertionError(f"a value of {shape} is not in one place")
    if sum(end - start for start, end in places) != len(changed):
        raise AssertionError(f"a value of {shape} is in more than one place")
    return _filled(blank, places)


def _filled(blank: bytes, places: Sequence[_Place]) -> _Template:
    """The template of a message with values in these places."""
    text, at = "!", 0
    words: list[tuple[int, int]] = []
    for index, (start, end) in enumerate((*_HEAD, *places), -len(_HEAD)):
        middle = (start + end) // 2
        for first, last, shift in (
            [(start, middle, 64), (middle, end, 0)] if end - start == _WIDE else [(start, end, 0)]
        ):
            number = _NUMBERS[last - first]
            text += f"{last - struct.calcsize('!' + number) - at}x{number}"
            at = last
            words.append((index, shift))
    pack = struct.Struct(f"{text}{len(blank) - at}x").pack
    wide = len(words) > len(_HEAD) + len(places)
    return _Template(int.from_bytes(blank), len(blank), pack, tuple(words[len(_HEAD) :]) if wide else ())


def _stamp(template: _Template, bundle_id: int, xid: int, cookie: int, values: Sequence[int]) -> bytes:
    """As numbers, because two as long as a message are joined faster than bytes are written into it."""
    if template.words:
        values = [values[index] >> shift & _WORD_ONES for index, shift in template.words]
    return (int.from_bytes(template.pack(xid, bundle_id, xid, cookie, *values)) | template.blank).to_bytes(
        template.size
    )


def flow_add(flow: Flow, bundle_id: int, xid: int) -> bytes:
    """The message that has a bundle install the flow, or overwrite one of the same table, priority and match."""
    return _stamp(_template(flow.shape), bundle_id, xid, flow.cookie, flow.values)


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
    return _filled(_in_bundle(message, 0, 0), ())


def flow_delete(cookie: int, bundle_id: int, xid: int) -> bytes:
    """The message that has a bundle remove the flows with exactly this cookie. Open vSwitch finds them by index."""
    return _stamp(_delete_template(), bundle_id, xid, cookie, ())


def bundle(change: Change, bundle_id: int, xid: int) -> Iterator[bytes]:
    """The messages that make the change all at once, or not at all; the last one asks for it to be done.

    A bundle is opened by what is put into it first: to ask for that would be one more message to be answered. All carry
    the same xid, so that whatever the switch objects to can be told apart from other traffic.
    """

    def control(kind: int) -> bytes:
        return _message(parser.OFPBundleCtrlMsg(_PROTOCOL, bundle_id, kind, _BUNDLE_FLAGS, []), xid)

    for cookie in change.delete:
        yield flow_delete(cookie, bundle_id, xid)
    for flow in change.add:
        yield flow_add(flow, bundle_id, xid)
    yield control(ofp.OFPBCT_COMMIT_REQUEST)


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
