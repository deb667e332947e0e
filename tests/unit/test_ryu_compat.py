"""Ryu on a current Python: each test here fails when the repair of `ryu.lib.hub` is taken away.

Ryu always runs in a process of its own, for it monkey patches the one that it is in.
"""

import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from controller.ryu_compat import HANDSHAKE_TIMEOUT

RYU_MANAGER = Path(sys.executable).with_name("ryu-manager")
STARTED_IN = 30.0  # seconds
ANSWERED_IN = HANDSHAKE_TIMEOUT / 2  # that is, without waiting for another client's handshake to time out
HELLO = b"\0"  # the type of the first message of OpenFlow

APP = """
from ryu.base.app_manager import RyuApp, require_app

class App(RyuApp):
    pass

require_app("ryu.controller.ofp_handler")
"""


def openssl(*args: str | Path) -> None:
    subprocess.run(["openssl", *args], check=True, capture_output=True)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an authority (ca) and certificates of its own for 127.0.0.1 (server) and a switch (client)."""
    folder = tmp_path_factory.mktemp("pki")
    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    ca_key, ca_cert = folder / "ca.key", folder / "ca.pem"
    openssl("req", "-x509", *new_key, "-subj", "/CN=ca", "-days", "1", "-keyout", ca_key, "-out", ca_cert)
    for name in ("server", "client"):
        key, request, cert = (folder / f"{name}.{kind}" for kind in ("key", "csr", "pem"))
        openssl("req", "-new", *new_key, "-subj", f"/CN={name}", "-keyout", key, "-out", request)
        openssl("x509", "-req", "-in", request, "-CA", ca_cert, "-CAkey", ca_key, "-days", "1", "-out", cert)
    return folder


@pytest.fixture
def port(pki: Path, tmp_path: Path) -> Iterator[int]:
    """The port where `ryu-manager`, with an app that does nothing, waits for switches behind mutual TLS."""
    (tmp_path / "idle_app.py").write_text(APP)
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port: int = unused.getsockname()[1]
    log = tmp_path / "log"
    command = (
        RYU_MANAGER,
        f"--ofp-ssl-listen-port={port}",
        f"--ctl-privkey={pki / 'server.key'}",
        f"--ctl-cert={pki / 'server.pem'}",
        f"--ca-certs={pki / 'ca.pem'}",
        "./idle_app.py",
    )
    # Without PYTHONPATH: the installation alone has to do.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with (
        log.open("w") as output,
        subprocess.Popen(command, cwd=tmp_path, env=env, stdout=output, stderr=output) as process,
    ):
        try:
            deadline = time.monotonic() + STARTED_IN
            while not is_open(port):
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)
            yield port
            assert process.poll() is None, log.read_text()
            assert "Traceback" not in log.read_text(), log.read_text()
        finally:
            process.terminate()


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def tls_client(pki: Path, *, cert: bool = True) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(pki / "ca.pem")
    context.check_hostname = False
    if cert:
        context.load_cert_chain(pki / "client.pem", pki / "client.key")
    return context


def hello(context: ssl.SSLContext, port: int) -> bytes:
    """Connect like a switch: the type of the first message that the controller sends."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=ANSWERED_IN) as plain,
        context.wrap_socket(plain) as connection,
    ):
        return connection.recv(100)[1:2]


AS_A_MANAGER = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[2], sys.argv[2:])
"""
"""Starts a program as sd_listen_fds(3) says, with a socket that was kept."""


def test_a_switch_that_comes_while_no_controller_runs_is_served_by_the_next(tmp_path: Path) -> None:
    (tmp_path / "idle_app.py").write_text(APP)
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    command = [str(RYU_MANAGER), "--ofp-listen-host=127.0.0.1", f"--ofp-tcp-listen-port={port}", "./idle_app.py"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(STARTED_IN)
        env = os.environ | {"NOTIFY_SOCKET": str(tmp_path / "notify")}
        with subprocess.Popen(command, cwd=tmp_path, env=env) as process:
            try:
                said, (kept,), _, _ = socket.recv_fds(manager, 100, 1)
            finally:
                process.kill()
    assert b"FDSTORE=1" in said.splitlines()
    with socket.create_connection(("127.0.0.1", port), timeout=STARTED_IN) as switch:
        command = [sys.executable, "-c", AS_A_MANAGER, str(kept), *command]
        with subprocess.Popen(command, cwd=tmp_path, pass_fds=[kept]) as process:
            os.close(kept)
            try:
                assert switch.recv(100)[1:2] == HELLO
            finally:
                process.kill()


def test_a_switch_can_reconnect_over_tls(pki: Path, port: int) -> None:
    client = tls_client(pki)
    assert [hello(client, port) for _ in range(3)] == [HELLO] * 3


def test_a_client_without_a_certificate_is_refused_and_others_are_served(pki: Path, port: int) -> None:
    with pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED"):
        hello(tls_client(pki, cert=False), port)
    assert hello(tls_client(pki), port) == HELLO


def test_old_tls_is_refused_and_others_are_served(pki: Path, port: int) -> None:
    old = tls_client(pki)
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError, match="ALERT_PROTOCOL_VERSION"):
        hello(old, port)
    assert hello(tls_client(pki), port) == HELLO


def test_garbage_is_refused_and_others_are_served(pki: Path, port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=ANSWERED_IN) as garbage:
        garbage.sendall(b"garbage " * 100)
        with suppress(ConnectionResetError):
            while garbage.recv(100):
                pass  # until the server closes
    assert hello(tls_client(pki), port) == HELLO


def test_a_silent_client_does_not_hold_up_others(pki: Path, port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=ANSWERED_IN):
        assert hello(tls_client(pki), port) == HELLO


def test_ryu_manager_says_its_version() -> None:
    done = subprocess.run([RYU_MANAGER, "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "ryu-manager 4.34\n"), done.stderr
