"""When a switch has what was asked for, seen from outside of Lockgate: two ways, both of any bridge.

`Monitor` is `ovs-ofctl monitor`: it tells of each flow as it is added. `FlowCount` asks for the number of flows by
OpenFlow's table statistics, which the switch has at hand however many flows there are.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Protocol, TypeVar

from bench.process import find
from bench.run import BenchError
from topo.waiting import wait_until

_HEADER: Final = struct.Struct("!BBHI")
_VERSION: Final = 6  # OpenFlow 1.5
_HELLO, _ECHO_REQUEST, _ECHO_REPLY, _MULTIPART_REQUEST, _MULTIPART_REPLY = 0, 2, 3, 18, 19
_TABLES: Final = 3
_MORE: Final = 1
_POLL_SECONDS: Final = 0.02


class Source(Protocol):
    """What tells of changes."""

    def fileno(self) -> int:
        """Ready to be read when there is something to take."""

    def take(self) -> list[str]:
        """The texts that have arrived."""


S = TypeVar("S", bound=Source)


def arrivals(expected: Mapping[S, str], within: float) -> dict[S, float]:
    """Wait until each source has told the text expected of it; return when, on the monotonic clock.

    Raises:
        TimeoutError: not all have.
    """
    times: dict[S, float] = {}
    deadline = time.monotonic() + within
    while waiting := [source for source in expected if source not in times]:
        ready, _, _ = select.select(waiting, [], [], max(0.0, deadline - time.monotonic()))
        now = time.monotonic()
        if not ready:
            raise TimeoutError(f"waited {within:g} s for {', '.join(expected[source] for source in waiting)}")
        times |= {source: now for source in ready if any(expected[source] in text for text in source.take())}
    return times


class Monitor:
    """Follows flows of a bridge, those that `watch` selects: see ovs-ofctl(8), monitor. Texts are lines of its."""

    def __init__(
        self, folder: Path, bridge: str, watch: Sequence[str], stack: ExitStack, *, only_added: bool = True
    ) -> None:
        self._event = "event=ADDED" if only_added else "event="
        control = folder / f"m{time.monotonic_ns()}.ctl"
        argv = [find("ovs-ofctl"), "-OOpenFlow15", f"--unixctl={control}", "monitor", f"unix:{folder}/{bridge}.mgmt"]
        argv += [f"watch:!initial{match}" for match in ([f",{text}" for text in watch] or [""])]
        self._process = stack.enter_context(
            subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, process_group=0)
        )
        stack.callback(self._process.send_signal, signal.SIGTERM)
        if self._process.stdout is None:
            raise BenchError("ovs-ofctl monitor has no output")
        self._out = self._process.stdout.fileno()
        self._rest = ""
        # After the monitor's request it makes others, and loses what the switch tells before those are answered. It
        # listens here when it has done so, and answers this from the loop that tells of changes.
        wait_until(control.exists, 10, "ovs-ofctl monitor")
        subprocess.run([find("ovs-appctl"), "-t", str(control), "ofctl/barrier"], check=True, capture_output=True)

    def fileno(self) -> int:
        """Its output."""
        return self._out

    def take(self) -> list[str]:
        """Lines on flows that were added (or changed in any way), their fields between spaces."""
        lines: list[str] = []
        while select.select([self._out], [], [], 0)[0]:
            data = os.read(self._out, 1 << 20)
            if not data:
                raise BenchError("ovs-ofctl monitor has ended")
            *whole, self._rest = (self._rest + data.decode()).split("\n")
            lines += [f" {line.replace(',', ' ')} " for line in whole if self._event in line]
        return lines


class FlowCount:
    """How many flows some bridges hold together."""

    def __init__(self, folder: Path, bridges: Iterable[str]) -> None:
        self._paths = [f"{folder}/{bridge}.mgmt" for bridge in bridges]

    def __call__(self) -> int:
        """The number now."""
        with ExitStack() as stack:
            return self._ask(self._connect(stack))

    def _connect(self, stack: ExitStack) -> list[socket.socket]:
        # Anew each time: the switch drops a connection that has not answered it for a minute.
        connections = []
        for path in self._paths:
            connection = stack.enter_context(socket.socket(socket.AF_UNIX))
            connection.settimeout(60)
            connection.connect(path)
            connection.sendall(_HEADER.pack(_VERSION, _HELLO, _HEADER.size, 0))
            connections.append(connection)
        return connections

    def _ask(self, connections: Iterable[socket.socket]) -> int:
        for connection in connections:
            connection.sendall(_HEADER.pack(_VERSION, _MULTIPART_REQUEST, 16, 1) + struct.pack("!HH4x", _TABLES, 0))
        return sum(map(self._answer, connections))

    def _answer(self, connection: socket.socket) -> int:
        total = 0
        while True:
            _, kind, length, xid = _HEADER.unpack(_exactly(connection, _HEADER.size))
            body = _exactly(connection, length - _HEADER.size)
            if kind == _ECHO_REQUEST:
                connection.sendall(_HEADER.pack(_VERSION, _ECHO_REPLY, length, xid) + body)
            elif kind == _MULTIPART_REPLY:
                total += sum(int(active) for _, active, _, _ in struct.iter_unpack("!B3xIQQ", body[8:]))
                if not struct.unpack_from("!H", body, 2)[0] & _MORE:
                    return total

    def until(self, done: Callable[[float], bool], within: float) -> tuple[int, float]:
        """Watch until `done(seconds to wait)` says so; return the number then, and when that was first reached.

        Raises:
            TimeoutError: it is not done in time.
        """
        deadline = time.monotonic() + within
        last, since = -1, 0.0
        ready = False
        with ExitStack() as stack:
            connections = self._connect(stack)
            while True:
                number = self._ask(connections)
                if number != last:
                    last, since = number, time.monotonic()
                if ready:
                    return last, since
                if time.monotonic() > deadline:
                    raise TimeoutError(f"not done within {within:g} s: the switch holds {last} flows")
                ready = done(_POLL_SECONDS)


def _exactly(connection: socket.socket, length: int) -> bytes:
    data = bytearray()
    while len(data) < length:
        part = connection.recv(length - len(data))
        if not part:
            raise BenchError("the switch has closed the connection")
        data += part
    return bytes(data)
