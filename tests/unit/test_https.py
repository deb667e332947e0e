"""A BMC's answer is bounded as it is read, and as it would be decoded: what is compressed is refused."""

from __future__ import annotations

import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_network
from pathlib import Path

import pytest
import requests

from provision.https import ControlNetwork
from provision.machine import MachineError
from tests.provision.liar import BOMB


class _Answers(BaseHTTPRequestHandler):
    """The path is the encoding that it says its answer has."""

    def do_GET(self) -> None:
        assert self.headers["Accept-Encoding"] == "identity"
        self.send_response(200)
        self.send_header("Content-Length", str(len(BOMB)))
        if encoding := self.path.removeprefix("/").replace("+", ", "):
            self.send_header("Content-Encoding", encoding)
        self.end_headers()
        self.wfile.write(BOMB)

    def log_message(self, *_: object) -> None:
        pass


def test_what_is_compressed_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key", tmp_path / "certificate"
    words = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=bmc"]
    words += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(["openssl", *words], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with ThreadingHTTPServer(("127.0.0.1", 0), _Answers) as server, requests.Session() as session:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"https://127.0.0.1:{server.server_port}/"
        session.trust_env = False
        session.mount("https://", ControlNetwork("the BMC", url, (ip_network("127.0.0.0/8"),)))
        try:
            for plain in ("", "identity"):
                assert session.get(url + plain, verify=str(certificate), timeout=10).content == BOMB
            for encoding in ("gzip", "gzip+gzip", "identity+gzip", "deflate"):
                with pytest.raises(MachineError, match="in an encoding that nobody asked for"):
                    session.get(url + encoding, verify=str(certificate), timeout=10)
        finally:
            server.shutdown()
