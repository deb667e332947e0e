"""HTTPS to one BMC, over the control network and nowhere else, however it answers.

A BMC is a computer of its own that may be in wrong hands: it may send the tool elsewhere, answer without end, or never
end to answer. So each connection is made to an address of the control network, from this machine's own address there;
nobody but the BMC is asked; and an answer is bounded.
"""

from __future__ import annotations

import io
import socket
from contextlib import suppress
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import urlsplit

from requests import PreparedRequest, Response
from requests.adapters import HTTPAdapter
from urllib3 import HTTPResponse, HTTPSConnectionPool
from urllib3.connection import HTTPSConnection

from provision.control_network import NETWORKS, Networks
from provision.machine import MachineError

_MOST: Final = 1 << 20
"""Bytes of one answer."""


class ControlNetwork(HTTPAdapter):
    """Carries a session's requests to the one BMC that `url` names, which errors call `what`."""

    def __init__(self, what: str, url: str, networks: Networks) -> None:
        self._what = what
        self._origin = _origin(url)
        self._networks = networks
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - as it is declared
        super().init_poolmanager(*args, **kwargs)
        connect = self._connect

        class Connection(HTTPSConnection):
            def _new_conn(self) -> socket.socket:
                # Where the library makes its connection: what is checked is what is connected to.
                return connect(self.host, self.port, self.timeout)

        class Pool(HTTPSConnectionPool):
            ConnectionCls = Connection

        self.poolmanager.pool_classes_by_scheme = {"https": Pool}

    def send(self, request: PreparedRequest, *args: Any, **kwargs: Any) -> Response:  # noqa: ANN401 - likewise
        if _origin(request.url or "") != self._origin:
            raise MachineError(
                f"{self._what} sends the tool elsewhere, to {urlsplit(request.url or '').netloc!s:.100}: nothing was "
                "asked there; look whether it is in wrong hands"
            )
        request.headers["Accept-Encoding"] = "identity"
        kwargs["stream"] = True
        response = super().send(request, *args, **kwargs)
        # The library decodes after this, without a bound: some hundred bytes can become gigabytes.
        if response.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
            response.raw.close()
            raise MachineError(
                f"{self._what} answers in an encoding that nobody asked for: look whether it is in wrong hands"
            )
        content = response.raw.read(_MOST + 1, decode_content=False)
        response.raw.close()
        if len(content) > _MOST:
            raise MachineError(f"{self._what} answers without end: look whether it is in wrong hands")
        response.raw = HTTPResponse(io.BytesIO(content), response.headers, preload_content=False)
        return response

    def _connect(self, name: str, port: int, timeout: Any) -> socket.socket:  # noqa: ANN401 - as urllib3 has it
        for family, _, _, _, there in socket.getaddrinfo(name, port, type=socket.SOCK_STREAM):
            self._must_be_inside("is at", there[0])
            own = _own_address(family, there)
            self._must_be_inside("would be reached from", own)
            return socket.create_connection((str(there[0]), port), timeout, source_address=(own, 0))
        raise OSError(f"{name} has no address")

    def _must_be_inside(self, how: str, address: object) -> None:
        if not any(ip_address(str(address)) in network for network in self._networks):
            networks = ", ".join(map(str, self._networks))
            raise MachineError(
                f"{self._what} {how} {address}, which is not in the control network {networks}: mend `bmc` of the "
                f"host's row, this machine's routes, or {NETWORKS}"
            )


def _own_address(family: int, there: Any) -> str:  # noqa: ANN401 - what `socket` has for an address
    """The address that this machine's routes choose to reach another. Nothing is sent."""
    with socket.socket(family, socket.SOCK_DGRAM) as probe, suppress(OSError):
        probe.connect(there)
        return str(probe.getsockname()[0])
    raise OSError("no route leads there")


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or 443
