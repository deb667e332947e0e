"""Ryu on a current Python: each test here fails when the repair of `ryu.lib.hub` is taken away.

Ryu always runs in a process of its own, for it monkey patches the one that it is in.
"""

import os
import re
import resource
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from controller.ryu_compat import CLAIM, HANDSHAKE_TIMEOUT, _claimed
from mapping.certificates import pem
from topo.waiting import wait_until

RYU_MANAGER = Path(sys.executable).with_name("ryu-manager")
STARTED_IN = 30.0  # seconds
ANSWERED_IN = HANDSHAKE_TIMEOUT / 2  # that is, without waiting for another client's handshake to time out
FILES = 60  # that it may have open
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
            resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (FILES, FILES))
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


def test_more_connections_than_there_can_be_files_keep_nobody_away_for_good(
    pki: Path, port: int, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        for _ in range(FILES):
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=ANSWERED_IN))
        wait_until(lambda: "Too many open files" in (tmp_path / "log").read_text(), 10, "it to be said")
    wait_until(lambda: says_hello(tls_client(pki), port), 10, "a switch to be served")


def says_hello(context: ssl.SSLContext, port: int) -> bool:
    with suppress(OSError):
        return hello(context, port) == HELLO
    return False


def made_up(name: str) -> bytes:
    """A certificate that whoever connects has made for himself, with its key, as a file has them."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, part) for part in re.findall("(?s).{1,60}", name)])
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
    builder = (
        builder.serial_number(7).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    )
    return pem(builder.sign(key, hashes.SHA256()), key)


def test_a_certificate_made_up_to_be_logged_is_one_short_line(pki: Path, port: int, tmp_path: Path) -> None:
    (tmp_path / "mine.pem").write_bytes(made_up("host host-a\n2026-01-01 all is well\r\x1b[31m\u202e" + 300 * "x"))
    client = tls_client(pki, cert=False)
    client.load_cert_chain(tmp_path / "mine.pem")
    with suppress(OSError):
        hello(client, port)
    wait_until(lambda: "its certificate says" in (tmp_path / "log").read_text(), 10, "it to be said")
    (line,) = (line for line in (tmp_path / "log").read_text().splitlines() if "all is well" in line)
    said = line.partition("its certificate says ")[2]
    assert said.startswith("host host-a?2026-01-01 all is well??[31m?xxx")
    assert said.index(": ") == CLAIM
    assert hello(tls_client(pki), port) == HELLO


def test_a_certificate_of_no_known_version_is_said_to_be_unreadable() -> None:
    certificate = x509.load_pem_x509_certificate(made_up("x")).public_bytes(serialization.Encoding.DER)
    version_3, version_6 = b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x05"
    odd = SimpleNamespace(certificate_claimed=certificate.replace(version_3, version_6, 1))
    assert _claimed(odd) == ", its certificate cannot be read"
    assert _claimed(SimpleNamespace(certificate_claimed=certificate)) == ", its certificate says x"
    assert _claimed(SimpleNamespace(certificate_claimed=b"\x30\x82junk")) == ", its certificate cannot be read"


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
