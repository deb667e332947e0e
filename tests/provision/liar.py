"""A BMC that lies, between the tool and the emulator: it hands on what it is asked, and changes what it answers."""

from __future__ import annotations

import json
import ssl
import sys
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class _Liar(BaseHTTPRequestHandler):
    """Says what its `lie` says of the power, and does nothing about it."""

    target = ""
    ca = ""
    lie = ""

    def do_GET(self) -> None:
        self._hand_on()

    def do_POST(self) -> None:
        self._hand_on()

    def do_PATCH(self) -> None:
        self._hand_on()

    def log_message(self, *_: object) -> None:
        pass

    def _hand_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path.endswith("ComputerSystem.Reset"):
            self._answer(204, b"")
            return
        request = urllib.request.Request(self.target + self.path, body or None, method=self.command)  # noqa: S310
        for name in ("Authorization", "Content-Type"):
            if value := self.headers.get(name):
                request.add_header(name, value)
        try:
            with urllib.request.urlopen(request, context=ssl.create_default_context(cafile=self.ca)) as reply:  # noqa: S310
                content = reply.read()
                if self.path.rpartition("/")[0].endswith("Systems") and content:
                    content = json.dumps({**json.loads(content), "PowerState": self.lie}).encode()
                self._answer(reply.status, content)
        except urllib.error.HTTPError as error:
            self._answer(error.code, error.read())

    def _answer(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def main() -> None:
    """Serve: ADDRESS PORT TARGET CERTIFICATE KEY LIE."""
    address, port, _Liar.target, certificate, key, _Liar.lie = sys.argv[1:]
    _Liar.ca = certificate
    server = ThreadingHTTPServer((address, int(port)), _Liar)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
