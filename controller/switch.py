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
from functools import partial
from typing import Any, Final, NamedTuple

from ryu.lib import hub
from ryu.ofproto import ofproto_v1_5 as ofp

from controller import replies, wire
from controller.replies import Traffic
from flows.change import Change
from flows.flow import Action
from flows.meter import Meters

ANSWER_TIMEOUT: Final = 30.0
"""Seconds within which a switch must go on answering: one that commits a hundred thousand flows needs a few."""

_CHUNK: Final = 1 << 16
"""Bytes handed to the socket at once: more would keep echo replies waiting behind them."""

_xids = itertools.count(1)


class SwitchError(Exception):
    """The switch refused, did not answer, or is gone."""


class Switch:
    """A datapath that has said hello and named its ports."""

    def __init__(self, datapath: Any) -> None:
        self.datapath = datapath
        self.certificate = _certified(datapath.socket)
        """The name in its certificate; None without TLS."""
        self._questions: dict[int, Ticket] = {}
        self._bundles = itertools.count(1)
        self._watched = False

    @property
    def id(self) -> int:
        """Datapath id."""
        return int(self.datapath.id)

    @property
    def ofports(self) -> dict[str, int]:
        """Port name -> OpenFlow port number, as the switch last reported."""
        return {port.name.decode(errors="replace"): number for number, port in self.datapath.ports.items()}

    def close(self) -> None:
        """End the connection. The switch keeps its flows (`fail_mode=secure`) and will connect again."""
        self.datapath.close()

    def gone(self) -> None:
        """The connection has ended: whoever waits for an answer gets none."""
        for xid in list(self._questions):
            self._answer(xid, SwitchError("the connection ended"))

    def take(self, message: Any) -> None:
        """An answer has arrived."""
        question = self._questions.get(message.xid)
        if question is None:
            return
        if message.msg_type == ofp.OFPT_ERROR:
            self._answer(message.xid, SwitchError(_describe(message)))
        else:
            # Here, so that parts are not kept until the last one has come.
            question.read(message)
            self._answer(message.xid, time.monotonic() if question.is_last(message) else 0.0)

    def cookies(self) -> array[int]:
        """The cookies of all flows of ours that the switch holds."""
        cookies = array("Q")
        self._read_flows(ofp.OFPTT_ALL, lambda reply: cookies.extend(replies.cookies(reply)))
        return cookies

    def counted(self, table: int) -> dict[int, Traffic]:
        """Cookie -> what the flow has matched, for every flow of ours in a table."""
        counted: dict[int, Traffic] = {}
        self._read_flows(table, lambda reply: counted.update(replies.counted(reply)))
        return counted

    def port_traffic(self) -> dict[int, tuple[Traffic, Traffic]]:
        """OpenFlow port number -> what it has received and what it has sent."""
        found: dict[int, tuple[Traffic, Traffic]] = {}
        xid = next(_xids)
        read = partial(_update, found)
        self.finish(self._ask(xid, [wire.read_ports(xid)], read, _is_last_part))
        return found

    def metered(self) -> dict[int, Traffic]:
        """Meter id -> what it has dropped."""
        found: dict[int, Traffic] = {}
        xid = next(_xids)
        read = partial(_metered, found)
        self.finish(self._ask(xid, [wire.read_meter_counts(xid)], read, _is_last_part))
        return found

    def meters(self) -> Meters:
        """All its meters."""
        meters: Meters = {}
        xid = next(_xids)
        self.finish(
            self._ask(xid, [wire.read_meters(xid)], lambda reply: meters.update(replies.meters(reply)), _is_last_part)
        )
        return meters

    def set_meters(self, known: Meters, wanted: Meters) -> None:
        """Make it have the meters `wanted`, when it has those `known`."""
        xid = next(_xids)
        self.finish(self._ask(xid, wire.set_meters(known, wanted, xid), lambda _: None, lambda _: True))

    def begin(self, change: Change) -> Ticket:
        """Send the change as one atomic bundle; `finish` tells how it went."""
        xid = next(_xids)
        return self._ask(xid, _chunks(wire.bundle(change, next(self._bundles), xid)), lambda _: None, _is_commit_reply)

    def finish(self, ticket: Ticket) -> float:
        """Wait until the switch has answered in full; return when it had, on the monotonic clock."""
        while True:
            try:
                answer = ticket.answers.get(timeout=ANSWER_TIMEOUT)
            except hub.QueueEmpty:
                raise SwitchError(f"no answer within {ANSWER_TIMEOUT:.0f} s") from None
            if isinstance(answer, SwitchError):
                raise answer
            if answer:
                return float(answer)

    def watch(self) -> None:
        """Ask to be told when anyone changes flows. The news come as flow monitor replies."""
        # Once for each connection: at a second monitor of the same id the switch objects in a way that Ryu chokes on.
        if not self._watched:
            self._watched = True
            self.datapath.send(wire.watch_flows(next(_xids)))

    def send_frame(self, actions: Iterable[Action], frame: bytes) -> None:
        """Have the switch send a frame. There is no answer to wait for."""
        self.datapath.send(wire.packet_out(actions, frame, next(_xids)))

    def _read_flows(self, table: int, read: Callable[[Any], None]) -> None:
        xid = next(_xids)
        self.finish(self._ask(xid, [wire.read_flows(table, xid)], read, _is_last_part))

    def _ask(
        self,
        xid: int,
        messages: Iterable[bytes],
        read: Callable[[Any], None],
        is_last: Callable[[Any], bool],
    ) -> Ticket:
        ticket = self._questions[xid] = Ticket(read, is_last, hub.Queue())
        for message in messages:
            if not self.datapath.send(message):
                self._answer(xid, SwitchError("the connection ended"))
                break
        return ticket

    def _answer(self, xid: int, answer: float | SwitchError) -> None:
        self._questions[xid].answers.put(answer)
        if answer:
            del self._questions[xid]


def _update(found: dict[int, tuple[Traffic, Traffic]], reply: Any) -> None:
    found.update(replies.port_traffic(reply))


def _metered(found: dict[int, Traffic], reply: Any) -> None:
    found.update(replies.metered(reply))


def _certified(connection: Any) -> str | None:
    """The name in the certificate of whoever is at the other end, which TLS has proved; None without TLS."""
    if not hasattr(connection, "getpeercert"):
        return None
    subject = (connection.getpeercert() or {}).get("subject", ())
    return next((str(value) for part in subject for kind, value in part if kind == "commonName"), "")


class Ticket(NamedTuple):
    """A question to the switch: what is done with each part of an answer as it comes, and which part is the last."""

    read: Callable[[Any], None]
    is_last: Callable[[Any], bool]
    answers: Any
    """When the last part came, on the monotonic clock, and 0 for each before it; or a `SwitchError`."""


def _is_last_part(answer: Any) -> bool:
    return not answer.flags & ofp.OFPMPF_REPLY_MORE


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
