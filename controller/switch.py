"""One connected datapath: what it is asked, and what it answers.

Who waits for an answer blocks its greenlet until it is there, and gets a `SwitchError` when the switch refuses, does
not answer, or is gone. Events come in through `take`.
"""

from __future__ import annotations

import itertools
import struct
import time
from array import array
from collections.abc import Callable, Iterable
from collections.abc import Mapping as MappingABC
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeVar

from ryu.lib import hub
from ryu.ofproto import ofproto_v1_5 as ofp
from ryu.ofproto import ofproto_v1_5_parser as parser

from controller import replies, wire
from controller.replies import Malformed, Traffic
from flows.change import Change
from flows.flow import Action
from flows.meter import Meters

ANSWER_TIMEOUT: Final = 30.0
"""Seconds within which a switch must go on answering: one that commits a hundred thousand flows needs a few."""
ANSWER_AT_MOST: Final = 120.0
"""Seconds after which it must have answered in full."""
_MOST_PARTS: Final = 400
"""In which an answer may come, of up to 64 KiB each, that is not of all flows: what 4,000 ports drop needs half."""
_MOST_FLOWS: Final = 1 << 22
"""Flows that a switch may say it has."""
_MOST_LATE: Final = 100
"""Frames that wait while the switch takes nothing; more are lost, as on any full line."""

_CHUNK: Final = 1 << 16
"""Bytes handed to the socket at once: more would keep echo replies waiting behind them."""

_xids = itertools.count(1)
_T = TypeVar("_T")


class SwitchError(Exception):
    """The switch refused, did not answer, or is gone."""


def _is_last_part(answer: Any) -> bool:
    return not answer.flags & ofp.OFPMPF_REPLY_MORE


def _always(_: Any) -> bool:
    return True


def _keep_nothing(_: Any) -> None:
    pass


@dataclass(slots=True, eq=False)
class Ticket:
    """A question to the switch: what answers it, what is done with each part as it comes, and which is the last."""

    xid: int
    """What the question and its answers are known by."""
    kind: type[Any]
    """Ryu's class of the message."""
    read: Callable[[Any], None] = _keep_nothing
    is_last: Callable[[Any], bool] = _is_last_part
    most_parts: int = _MOST_PARTS
    parts: int = 0
    """How many have come."""
    answers: Any = field(default_factory=hub.Queue)
    """When the last part came, on the monotonic clock, and 0 for each before it; or a `SwitchError`."""


class Switch:
    """A datapath that has said hello and named its ports."""

    def __init__(self, datapath: Any) -> None:
        self.datapath = datapath
        self.certificate = _certified(datapath.socket)
        """The name in its certificate; None without TLS."""
        self._questions: dict[int, Ticket] = {}
        self._bundles = itertools.count(1)
        self._watched = False
        self._ofports: MappingABC[str, int] | None = None
        self._late = 0
        """Frames that wait to be sent."""

    @property
    def id(self) -> int:
        """Datapath id."""
        return int(self.datapath.id)

    @property
    def ofports(self) -> MappingABC[str, int]:
        """Port name -> OpenFlow port number, as the switch last reported: the same object until `ports_changed`."""
        if self._ofports is None:
            ports = self.datapath.ports.items()
            self._ofports = {port.name.decode(errors="replace"): number for number, port in ports}
        return self._ofports

    def ports_changed(self) -> None:
        """A port came, went or was renumbered."""
        self._ofports = None

    def close(self) -> None:
        """End the connection. The switch keeps its flows (`fail_mode=secure`) and will connect again."""
        self.datapath.close()

    def gone(self) -> None:
        """The connection has ended: whoever waits for an answer gets none."""
        for xid in list(self._questions):
            self._answer(xid, SwitchError("the connection ended"))

    def take(self, message: Any) -> None:
        """An answer has arrived.

        Raises:
            Malformed: it is none to what was asked, or has no end. Who has asked waits until the connection is closed.
        """
        question = self._questions.get(message.xid)
        if question is None:
            return
        if message.msg_type == ofp.OFPT_ERROR:
            self._answer(message.xid, SwitchError(_describe(message)))
            return
        if not isinstance(message, question.kind):
            raise Malformed(f"a {type(message).__name__} where a {question.kind.__name__} was asked for")
        # Here, so that parts are not kept until the last one has come.
        question.read(message)
        question.parts += 1
        if question.parts > question.most_parts:
            raise Malformed(f"an answer of more than {question.most_parts} parts")
        self._answer(message.xid, time.monotonic() if question.is_last(message) else 0.0)

    def cookies(self) -> array[int]:
        """The cookies of all flows of ours that the switch holds."""
        cookies = array("Q")

        def read(reply: Any) -> None:
            cookies.extend(replies.cookies(reply))
            if len(cookies) > _MOST_FLOWS:
                raise Malformed(f"more than {_MOST_FLOWS} flows")

        ticket = Ticket(next(_xids), parser.OFPFlowDescStatsReply, read, most_parts=_MOST_FLOWS)
        self.finish(self._ask([wire.read_flows(ofp.OFPTT_ALL, ticket.xid)], ticket))
        return cookies

    def counted(self, table: int) -> dict[int, Traffic]:
        """Cookie -> what the flow has matched, for every flow of ours in a table."""
        return self._read(partial(wire.read_flows, table), parser.OFPFlowDescStatsReply, replies.counted)

    def port_traffic(self) -> dict[int, tuple[Traffic, Traffic]]:
        """OpenFlow port number -> what it has received and what it has sent."""
        return self._read(wire.read_ports, parser.OFPPortStatsReply, replies.port_traffic)

    def metered(self) -> dict[int, Traffic]:
        """Meter id -> what it has dropped."""
        return self._read(wire.read_meter_counts, parser.OFPMeterStatsReply, replies.metered)

    def meters(self) -> Meters:
        """All its meters."""
        return self._read(wire.read_meters, parser.OFPMeterDescStatsReply, replies.meters)

    def set_meters(self, known: Meters, wanted: Meters) -> None:
        """Make it have the meters `wanted`, when it has those `known`."""
        ticket = Ticket(next(_xids), parser.OFPBarrierReply, is_last=_always)
        self.finish(self._ask(wire.set_meters(known, wanted, ticket.xid), ticket))

    def begin(self, change: Change) -> Ticket:
        """Send the change as one atomic bundle; `finish` tells how it went."""
        ticket = Ticket(next(_xids), parser.OFPBundleCtrlMsg, is_last=_is_commit_reply)
        return self._ask(_chunks(wire.bundle(change, next(self._bundles), ticket.xid)), ticket)

    def finish(self, ticket: Ticket) -> float:
        """Wait until the switch has answered in full; return when it had, on the monotonic clock."""
        deadline = time.monotonic() + ANSWER_AT_MOST
        while (left := deadline - time.monotonic()) > 0:
            try:
                answer = ticket.answers.get(timeout=min(ANSWER_TIMEOUT, left))
            except hub.QueueEmpty:
                break
            if isinstance(answer, SwitchError):
                raise answer
            if answer:
                return float(answer)
        self._questions.pop(ticket.xid, None)
        limits = f"within {ANSWER_TIMEOUT:.0f} s, or not all of it within {ANSWER_AT_MOST:.0f} s"
        raise SwitchError(f"no answer {limits}")

    def watch(self) -> None:
        """Ask to be told when anyone changes flows. The news come as flow monitor replies."""
        # Once for each connection: at a second monitor of the same id the switch objects in a way that Ryu chokes on.
        if not self._watched:
            self._watched = True
            self.datapath.send(wire.watch_flows(next(_xids)))

    def send_frame(self, actions: Iterable[Action], frame: bytes) -> None:
        """Have the switch send a frame. There is no answer to wait for, nor for one that takes in nothing."""
        message = wire.packet_out(actions, frame, next(_xids))
        # Ryu's way to ask is to wait. Who sends frames does so for all hosts.
        if not self.datapath._send_q_sem.locked():  # noqa: SLF001
            self.datapath.send(message)
        elif self._late < _MOST_LATE:
            self._late += 1
            hub.spawn(self._send_late, message)

    def _send_late(self, message: bytes) -> None:
        self.datapath.send(message)
        self._late -= 1

    def _read(
        self, ask: Callable[[int], bytes], kind: type[Any], read: Callable[[Any], Iterable[tuple[int, _T]]]
    ) -> dict[int, _T]:
        found: dict[int, _T] = {}
        ticket = Ticket(next(_xids), kind, lambda reply: found.update(read(reply)))
        self.finish(self._ask([ask(ticket.xid)], ticket))
        return found

    def _ask(self, messages: Iterable[bytes], ticket: Ticket) -> Ticket:
        self._questions[ticket.xid] = ticket
        for message in messages:
            if not self.datapath.send(message):
                self._answer(ticket.xid, SwitchError("the connection ended"))
                break
        return ticket

    def _answer(self, xid: int, answer: float | SwitchError) -> None:
        if question := self._questions.get(xid):
            question.answers.put(answer)
            if answer:
                del self._questions[xid]


def _certified(connection: Any) -> str | None:
    """The name in the certificate of whoever is at the other end, which TLS has proved; None without TLS."""
    if not hasattr(connection, "getpeercert"):
        return None
    subject = (connection.getpeercert() or {}).get("subject", ())
    return next((str(value) for part in subject for kind, value in part if kind == "commonName"), "")


def _is_commit_reply(answer: Any) -> bool:
    return bool(answer.type == ofp.OFPBCT_COMMIT_REPLY)


def _chunks(messages: Iterable[bytes]) -> Iterable[bytes]:
    chunk = bytearray()
    for message in messages:
        chunk += message
        if len(chunk) >= _CHUNK:
            yield bytes(chunk)
            chunk.clear()
    yield bytes(chunk)


def _describe(error: Any) -> str:
    name = ofp.ofp_error_code_to_str(error.type, error.code)
    refused = ""
    if len(error.data) >= ofp.OFP_HEADER_SIZE:
        _, kind, _, _ = struct.unpack_from("!BBHI", error.data)
        refused = f" in answer to {ofp.ofp_msg_type_to_str(kind)}"
    return f"the switch refused: {name}{refused}"
