"""A BMC in wrong hands, between the tool and the emulator: it hands on what it is asked, and changes what it answers.

The system that it is asked for names the lie: /redfish/v1/Systems/off.
"""

from __future__ import annotations

import base64
import gzip
import json
import ssl
import sys
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

LIES: Final = {
    "off": "says that it is off, and does nothing about it",
    "silent": "says what is wanted of its power, and does nothing about it",
    "disk": "says that it boots from where it is told, and does not",
    "elsewhere": "sends who asks to another service",
    "endless": "answers without end",
    "dripping": "answers a byte now and then",
    "echoing": "refuses, with what it was told to open with, and with what a terminal obeys",
    "list": "answers with JSON that is no object",
    "words": "answers with what is no JSON",
    "empty": "answers with an object that has nothing in it",
    "deep": "answers with lists in lists",
    "bomb": "answers with little that becomes much when it is decoded",
}
_INSTEAD: Final = {"list": b"[]", "words": b"hello", "empty": b"{}", "deep": b"[" * 100_000}
BOMB: Final = gzip.compress(gzip.compress(b" " * (8 << 20)))
"""Some hundred bytes for eight million."""


class _Liar(BaseHTTPRequestHandler):
    target = ""
    ca = ""
    machine = ""
    power = "Off"
    """What it says of it under "silent"."""

    def do_GET(self) -> None:
        self._answer_to(next((lie for lie in LIES if f"/Systems/{lie}" in self.path), ""))

    def do_POST(self) -> None:
        self.do_GET()

    def do_PATCH(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        pass

    def _answer_to(self, lie: str) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        of_system = self.path.endswith(f"/Systems/{lie}")
        if self.path.endswith("ComputerSystem.Reset"):
            _Liar.power = "On" if json.loads(body)["ResetType"] == "On" else "Off"
            self._answer(204, b"")
        elif lie == "disk" and self.command == "PATCH":
            self._answer(204, b"")
        elif of_system and lie == "elsewhere":
            self._answer(307, b"", Location=self.target + self._true_path(lie))
        elif of_system and lie in ("endless", "dripping"):
            self._go_on(b" " * 65536 if lie == "endless" else b" ")
        elif of_system and lie == "echoing":
            known = base64.b64decode((self.headers.get("Authorization") or "").removeprefix("Basic ")).decode()
            said = f"\x1b[31m{known} {self.headers.get('Authorization')} is not enough"
            self._answer(400, json.dumps({"error": {"code": "Base.1.0.GeneralError", "message": said}}).encode())
        elif of_system and lie == "bomb":
            self._answer(200, BOMB, **{"Content-Encoding": "gzip, gzip"})
        elif of_system and lie in _INSTEAD:
            self._answer(200, _INSTEAD[lie])
        else:
            said_of_power = {"off": "Off", "silent": _Liar.power}.get(lie)
            self._hand_on(lie, body, said_of_power if of_system and self.command == "GET" else None)

    def _hand_on(self, lie: str, body: bytes, says: str | None) -> None:
        request = urllib.request.Request(self.target + self._true_path(lie), body or None, method=self.command)  # noqa: S310
        for name in ("Authorization", "Content-Type"):
            if value := self.headers.get(name):
                request.add_header(name, value)
        try:
            with urllib.request.urlopen(request, context=ssl.create_default_context(cafile=self.ca)) as reply:  # noqa: S310
                content = reply.read().replace(self.machine.encode(), lie.encode())
                if says:
                    content = json.dumps({**json.loads(content), "PowerState": says}).encode()
                self._answer(reply.status, content)
        except urllib.error.HTTPError as error:
            self._answer(error.code, error.read())

    def _true_path(self, lie: str) -> str:
        return self.path.replace(f"/Systems/{lie}", f"/Systems/{self.machine}") if lie else self.path

    def _go_on(self, piece: bytes) -> None:
        self.send_response(200)
        self.end_headers()
        # Until nobody listens any more; bounded all the same.
        end = time.monotonic() + 120
        try:
            while time.monotonic() < end:
                self.wfile.write(piece)
                if len(piece) == 1:
                    time.sleep(0.2)
        except OSError:
            self.close_connection = True

    def _answer(self, status: int, content: bytes, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


def main() -> None:
    """Serve: ADDRESS PORT TARGET MACHINE CERTIFICATE KEY."""
    address, port, _Liar.target, _Liar.machine, _Liar.ca, key = sys.argv[1:]
    server = ThreadingHTTPServer((address, int(port)), _Liar)
    server.daemon_threads = True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(_Liar.ca, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
