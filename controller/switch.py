"""One connected datapath: what it is asked, and what it answers.

Every call blocks its greenlet until the switch has answered, and raises `SwitchError` when the switch refuses, does not
answer, or is gone. Events come in through `take`.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable
from typing import Any, Final

from ryu.lib import hub
from ryu.ofproto import ofproto_v1_5 as ofp

from controller import replies, wire
from flows.change import Change
from flows.flow import Action

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
        self._answers: dict[int, Any] = {}
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
        for answers in self._answers.values():
            answers.put(None)

    def take(self, message: Any) -> None:
        """An answer has arrived."""
        answers = self._answers.get(message.xid)
        if answers is not None:
            answers.put(message)

    def cookies(self) -> set[int]:
        """The cookies of all flows of ours that the switch holds."""
        return set(replies.cookies(self._read_flows(ofp.OFPTT_ALL)))

    def packets(self, table: int) -> dict[int, int]:
        """Cookie -> packets that the flow has matched, for every flow of ours in a table."""
        return dict(replies.packets(self._read_flows(table)))

    def apply(self, change: Change) -> None:
        """Make the change in one atomic bundle; returns when the switch has confirmed it."""
        xid = next(_xids)
        self._ask(xid, _chunks(wire.bundle(change, next(self._bundles), xid)), _is_commit_reply)

    def watch(self) -> None:
        """Ask to be told when anyone changes flows. The news come as flow monitor replies."""
        # Once for each connection: at a second monitor of the same id the switch objects in a way that Ryu chokes on.
        if not self._watched:
            self._watched = True
            self.datapath.send(wire.watch_flows(next(_xids)))

    def send_frame(self, actions: Iterable[Action], frame: bytes) -> None:
        """Have the switch send a frame. There is no answer to wait for."""
        self.datapath.send(wire.packet_out(actions, frame, next(_xids)))

    def _read_flows(self, table: int) -> list[Any]:
        xid = next(_xids)
        return self._ask(xid, [wire.read_flows(table, xid)], _is_last_part)

    def _ask(self, xid: int, messages: Iterable[bytes], is_last: Any) -> list[Any]:
        answers = self._answers[xid] = hub.Queue()
        received: list[Any] = []
        try:
            for message in messages:
                if not self.datapath.send(message):
                    raise SwitchError("the connection ended")
            while True:
                try:
                    answer = answers.get(timeout=ANSWER_TIMEOUT)
                except hub.QueueEmpty:
                    raise SwitchError(f"no answer within {ANSWER_TIMEOUT:.0f} s") from None
                if answer is None:
                    raise SwitchError("the connection ended")
                if answer.msg_type == ofp.OFPT_ERROR:
                    raise SwitchError(_describe(answer))
                received.append(answer)
                if is_last(answer):
                    return received
        finally:
            del self._answers[xid]


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
