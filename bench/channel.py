"""A proxy between switches and their controller that measures how long the channel stands still.

Ten times a second it puts an echo request of its own among the switch's messages, and takes the reply out of the
controller's. The reply counts as there when everything before it has gone on to the switch: a controller that answers
at once, behind megabytes of flows, is as deaf as one that computes.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
import threading
import time
from types import TracebackType
from typing import Final, Self

from bench.site import free_port

INTERVAL: Final = 0.1
_HEADER: Final = struct.Struct("!BBHI")
_ECHO_REQUEST, _ECHO_REPLY = 2, 3
_XID: Final = 0xBE000000  # Open vSwitch counts its own up from 1
_CHUNK: Final = 1 << 16

_Waiting = dict[int, float]


class Proxy:
    """Listens on `port` of loopback while in a `with` statement, and hands on to the controller's port."""

    def __init__(self, controller_port: int) -> None:
        self.port = free_port()
        self.connections = 0
        """Connections that came to be: one for each bridge, and one more for each time that one was lost."""
        self._controller_port = controller_port
        self._waited: list[float] = []
        self._outstanding: list[_Waiting] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        listening = asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=_CHUNK)
        self._server = asyncio.run_coroutine_threadsafe(listening, self._loop).result(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def longest(self) -> float:
        """Seconds that the slowest reply took, or has been missing by now."""
        now = time.monotonic()
        missing = [now - sent for waiting in self._outstanding for sent in list(waiting.values())]
        return max([*self._waited, *missing], default=0.0)

    @property
    def answered(self) -> int:
        """How many requests were answered."""
        return len(self._waited)

    async def _end(self) -> None:
        self._server.close()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, from_switch: asyncio.StreamReader, to_switch: asyncio.StreamWriter) -> None:
        # While the controller is not up, the switch is turned away as it would be without us.
        with contextlib.closing(to_switch), contextlib.suppress(OSError):
            from_controller, to_controller = await asyncio.open_connection(
                "127.0.0.1", self._controller_port, limit=_CHUNK
            )
            with contextlib.closing(to_controller):
                # Little may wait here: what waits in front of the reply is to wait in the controller.
                to_switch.transport.set_write_buffer_limits(0)
                self.connections += 1
                waiting: _Waiting = {}
                self._outstanding.append(waiting)
                tasks = [
                    asyncio.create_task(self._to_controller(from_switch, to_controller, waiting)),
                    asyncio.create_task(self._to_switch(from_controller, to_switch, waiting)),
                ]
                try:
                    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for task in tasks:
                        task.cancel()
                    await asyncio.gather(*tasks, return_exceptions=True)

    async def _to_controller(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, waiting: _Waiting) -> None:
        cutter = Cutter()
        xid, due = _XID, 0.0
        pending: asyncio.Task[bytes] | None = None
        while True:
            pending = pending or asyncio.create_task(source.read(_CHUNK))
            done, _ = await asyncio.wait([pending], timeout=max(0.0, due - time.monotonic()) if due else None)
            if done:
                data = pending.result()
                pending = None
                if not data:
                    return
                # Whole messages only, so that ours comes between two of them.
                sink.write(b"".join(cutter.feed(data)))
                await sink.drain()
            if not cutter.count or time.monotonic() < due:
                continue  # not before the hello
            xid += 1
            due = time.monotonic() + INTERVAL
            waiting[xid] = time.monotonic()
            sink.write(_HEADER.pack(cutter.version, _ECHO_REQUEST, _HEADER.size, xid))
            await sink.drain()

    async def _to_switch(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, waiting: _Waiting) -> None:
        cutter = Cutter()
        while data := await source.read(_CHUNK):
            passed = []
            for message in cutter.feed(data):
                if not _is_ours(message, waiting):
                    passed.append(message)
                    continue
                sink.write(b"".join(passed))
                await sink.drain()
                passed.clear()
                self._waited.append(time.monotonic() - waiting.pop(_HEADER.unpack_from(message)[3]))
            sink.write(b"".join(passed))
            await sink.drain()


class Cutter:
    """Cuts a stream into OpenFlow messages."""

    def __init__(self) -> None:
        self.count = 0
        self.version = 0
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that the data completes."""
        data = self._rest + data
        messages, start = [], 0
        while start + _HEADER.size <= len(data):
            self.version, _, length, _ = _HEADER.unpack_from(data, start)
            if start + length > len(data):
                break
            messages.append(data[start : start + length])
            start += length
        self._rest = data[start:]
        self.count += len(messages)
        return messages


def _is_ours(message: bytes, waiting: _Waiting) -> bool:
    return message[1] == _ECHO_REPLY and _HEADER.unpack_from(message)[3] in waiting
