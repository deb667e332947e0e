"""The replica against real servers: standalone and clustered ones, dead ones, and ones that talk nonsense."""

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mapping import document, plan, schema, service
from mapping.errors import MappingError
from mapping.history import Cause
from mapping.model import Snapshot
from mapping.replica import Replica
from mapping.session import Message
from mapping.status import COLUMNS
from mapping.writer import Writer
from topo.ovs import end

WITHIN_MS = 10_000
EXAMPLE = Path(__file__).parents[2] / "examples" / "two-hosts.yaml"


class Server:
    """The database in `folder`, at `remote`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.remote = f"unix:{folder}/mapping.sock"

    def start(self, at: str = "") -> None:
        service.start(self.folder, [f"p{at or self.remote}"])

    def kill(self) -> None:
        end(self.folder / "mapping.pid", signal.SIGKILL)

    def appctl(self, *command: str) -> None:
        subprocess.run(["ovs-appctl", "-t", f"{self.folder}/mapping.ctl", *command], check=True, capture_output=True)

    def apply(self, text: bytes, at: str = "") -> int:
        """Make the database hold what a file says and nothing else; return its config_seq."""
        rows = document.read(text, "f.yaml").rows
        with Writer([at or self.remote]) as writer:
            return writer.carry_out(
                lambda tables: plan.make(rows, tables, absent=plan.left_out(rows, tables, prune=True)),
                Cause("me", "test"),
            ).config_seq

    def raw(self, *operations: dict[str, Any]) -> None:
        with Writer([self.remote]) as writer:
            writer.transact(operations, "test")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    running = Server(tmp_path)
    running.start()
    yield running
    service.stop(tmp_path)


@pytest.fixture
def replica(server: Server) -> Iterator[Replica]:
    following = Replica([server.remote], COLUMNS)
    yield following
    following.session.close()


@pytest.fixture
def replies(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> list[Message]:
    """Every message that the server sends to the replica."""
    seen: list[Message] = []
    run = replica.session.run

    def spy() -> list[Message]:
        messages = run()
        seen.extend(messages)
        return messages

    monkeypatch.setattr(replica.session, "run", spy)
    return seen


def follow(replica: Replica, config_seq: int) -> None:
    def there() -> bool:
        return replica.current and replica.snapshot.config_seq == config_seq

    assert replica.wait_until(there, WITHIN_MS), replica.session.error


def test_an_empty_database_is_in_sync(replica: Replica) -> None:
    assert replica.wait_in_sync(WITHIN_MS)
    assert (replica.snapshot.config_seq, replica.snapshot.hosts, replica.snapshot.bad) == (0, {}, ())


FILES = st.builds(
    lambda subnets, ports, encap, groups: (
        f"vpcs:\n  blue: {{vni: 1, subnets: [{', '.join(sorted(subnets))}]}}\n"
        f"hosts:\n  a: {{vtep: 192.0.2.1, encap: {encap}}}\n{groups}ports:\n"
        + "".join(
            f"  p{number}: {{vpc: blue, mac: '02:00:00:00:00:0{number}', addresses: [10.0.0.1{address}]"
            f"{', host: a' if bound else ''}}}\n"
            for number, (address, bound) in enumerate(zip(ports, [True, False, True], strict=True))
        )
    ).encode(),
    st.sets(st.sampled_from(["10.0.1.0/24", "10.0.2.0/24", "10.9.0.0/16"])).map(lambda more: {"10.0.0.0/24", *more}),
    st.permutations([1, 2, 3]),
    st.sampled_from(["vxlan", "geneve", "gre"]),
    st.builds(
        lambda stateless, rules: (
            f"groups:\n  web: {{vpc: blue, stateless: {str(stateless).lower()}, rules: [{', '.join(rules)}]}}\n"
        ),
        st.booleans(),
        st.sets(st.sampled_from(["to_guest tcp 80 from any", "from_guest any to group web", "to_guest 47 from any"])),
    ),
)
REPORTS = st.dictionaries(st.sampled_from(["no_mapping", "spoofed_ip", "not_here"]), st.integers(0, 99))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.tuples(FILES, REPORTS), min_size=1, max_size=4))
def test_it_holds_what_the_server_holds(server: Server, replica: Replica, steps: list[tuple[bytes, Any]]) -> None:
    """Sets that grow and shrink to one, maps, references that come and go, defaults left out: as a fresh copy is."""
    for text, drops in steps:
        server.apply(text)
        where = [["name", "==", "a"]]
        row = {"drops": ["map", [list(pair) for pair in drops.items()]], "applied_seq": len(drops)}
        server.raw({"op": "update", "table": "Host", "where": where, "row": row})
        with Writer([server.remote]) as writer:
            config_seq = next(iter(writer.read()["Global"].values()))["config_seq"]
        follow(replica, config_seq)
        fresh = Replica([server.remote], COLUMNS)
        assert fresh.wait_in_sync(WITHIN_MS)
        assert replica.tables == fresh.tables
        assert replica.snapshot == fresh.snapshot
        assert replica.content() == fresh.content()
        fresh.session.close()
    assert replica.session.generation == 1, "it has begun anew"


def test_deleted_rows_go(server: Server, replica: Replica) -> None:
    follow(replica, server.apply(EXAMPLE.read_bytes()))
    assert len(replica.snapshot.mappings) == 4
    follow(replica, server.apply(b"ports:\n"))
    assert {table: len(rows) for table, rows in replica.tables.items()} == {"Global": 1, "Host": 0, "Vpc": 0}
    assert replica.snapshot == Snapshot(config_seq=2)
    assert not replica.linked.parsed("Port")
    assert not replica.linked.parsed("Mapping")


def test_a_bad_row_is_set_aside_and_the_rest_stays(server: Server, replica: Replica) -> None:
    follow(replica, server.apply(EXAMPLE.read_bytes()))
    where = [["name", "==", "blue-web"]]
    server.raw({"op": "update", "table": "Port", "where": where, "row": {"mac": "junk"}})
    follow(replica, 2)
    assert [str(bad) for bad in replica.snapshot.bad] == [
        "Port blue-web: MAC 'junk': write six pairs of lower case hex digits, like 02:00:00:00:00:01"
    ]
    assert sorted(port.name for port in replica.snapshot.ports.values()) == ["blue-db", "green-db", "green-web"]
    assert len(replica.snapshot.mappings) == 3
    follow(replica, server.apply(EXAMPLE.read_bytes()))
    assert replica.snapshot.bad == ()


def test_a_restarted_server_says_everything_again_and_only_what_differs_counts(
    server: Server, replica: Replica, replies: list[Message]
) -> None:
    follow(replica, server.apply(EXAMPLE.read_bytes()))
    before = replica.snapshot
    server.kill()
    assert replica.wait_until(lambda: not replica.current, WITHIN_MS)
    assert replica.in_sync
    assert replica.snapshot is before
    server.start()
    changes = 0

    def resumed() -> bool:
        nonlocal changes
        changes += replica.run()
        return replica.current

    del replies[:]
    assert replica.wait_until(resumed, WITHIN_MS)
    assert [message["result"][0] for message in replies if isinstance(message.get("result"), list)] == [False]
    assert changes == 0
    assert replica.snapshot is before


def test_what_changed_while_nobody_listened_is_all_that_changes(server: Server, replica: Replica) -> None:
    text = EXAMPLE.read_bytes()
    follow(replica, server.apply(text))
    mappings, ports = dict(replica.snapshot.mappings), dict(replica.snapshot.ports)
    server.kill()
    elsewhere = f"unix:{server.folder}/elsewhere.sock"
    server.start(elsewhere)
    server.apply(text.replace(b"[10.0.0.12]", b"[10.0.0.13]", 1), elsewhere)
    server.kill()
    server.start()
    follow(replica, 2)
    kept = [after is mappings.get(uuid) for uuid, after in replica.snapshot.mappings.items()]
    assert sorted(kept) == [False, True, True, True]
    assert all(port is ports[uuid] for uuid, port in replica.snapshot.ports.items())


def test_a_cluster_member_tells_only_what_came_after_the_last_transaction(tmp_path: Path) -> None:
    file, raft = str(tmp_path / "mapping.db"), f"unix:{tmp_path}/raft"
    subprocess.run(["ovsdb-tool", "create-cluster", file, str(schema.SCHEMA_FILE), raft], check=True)
    server = Server(tmp_path)
    server.start()
    replica = Replica([server.remote])
    results: list[Any] = []
    load = replica._load

    def spy(found: bool, transaction: str, updates: dict[str, Any]) -> bool:
        results.append((found, sum(map(len, updates.values()))))
        return load(found, transaction, updates)

    replica._load = spy  # type: ignore[method-assign]
    try:
        text = EXAMPLE.read_bytes()
        server.apply(text)
        # The server forgets old transactions when they outweigh the database: begin after a small one.
        follow(replica, server.apply(text.replace(b"[10.0.0.12]", b"[10.0.0.13]", 1)))
        ports = dict(replica.snapshot.ports)
        del results[:]
        server.appctl("ovsdb-server/reconnect")
        follow(replica, server.apply(text.replace(b"[10.0.0.12]", b"[10.0.0.14]", 1)))
        generation = replica.session.generation
        server.appctl("ovsdb-server/reconnect")
        assert replica.wait_until(lambda: replica.session.generation > generation and replica.current, WITHIN_MS)
        # One mapping gone, one new, and the count; or these came as an update when the replica was quicker.
        assert results in ([(True, 3), (True, 0)], [(True, 0), (True, 0)])
        server.kill()
        assert replica.wait_until(lambda: not replica.current, WITHIN_MS)
        server.start()
        assert replica.wait_until(lambda: replica.current, WITHIN_MS)
        assert results[2:] == [(True, 0)]
        assert all(port is ports[uuid] for uuid, port in replica.snapshot.ports.items())
    finally:
        replica.session.close()
        service.stop(tmp_path)


ROW = "00000000-0000-0000-0000-000000000001"
NONSENSE: list[Message] = [
    {"id": 1, "result": 5, "error": None},
    {"id": 1, "result": None, "error": None},
    {"id": 1, "result": [False, "x", {"Host": {"junk": {"initial": {}}}}], "error": None},
    {"id": 1, "result": [False, "x", {"Hosts": {}}], "error": None},
    {"id": 1, "result": [False, "x", {"Host": {ROW: {"initial": {"name": 5}}}}], "error": None},
    {"id": 1, "result": [True, "x", {"Host": {ROW: {"modify": {}}}}], "error": None},
    {"id": 1, "result": [True, "x", {"Host": {ROW: 7}}], "error": None},
    {"method": "update3", "params": [1]},
    {"method": "update3", "params": ["lockgate", "x", []]},
    {"method": "update3"},
    {"method": "monitor_canceled", "params": ["lockgate"]},
]


@pytest.mark.parametrize("nonsense", NONSENSE)
def test_messages_without_sense_change_nothing(
    server: Server, replica: Replica, nonsense: Message, monkeypatch: pytest.MonkeyPatch
) -> None:
    follow(replica, server.apply(EXAMPLE.read_bytes()))
    before, replica._request = replica.snapshot, 1
    with monkeypatch.context() as patched:
        patched.setattr(replica.session, "run", lambda: [nonsense])
        assert not replica.run()
    assert replica.snapshot is before
    assert not replica.session.connected
    assert replica.wait_until(lambda: replica.current, WITHIN_MS)
    assert replica.snapshot is before


class Liar:
    """A server that answers its first connection with the first of these, and so on; the last again and again."""

    def __init__(self, path: Path, *junk: bytes) -> None:
        self.connections = 0
        self._junk = junk
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen()
        self._thread = threading.Thread(target=self._lie)
        self._thread.start()

    def _lie(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            with connection:
                connection.settimeout(0.5)  # the replica may have stopped running when the test has seen enough
                try:
                    connection.recv(1 << 16)
                    connection.sendall(self._junk[min(self.connections, len(self._junk)) - 1])
                    connection.recv(1)
                except OSError:
                    continue

    def stop(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()


def test_junk_changes_nothing_and_the_next_true_server_is_believed(server: Server, replica: Replica) -> None:
    text = EXAMPLE.read_bytes()
    follow(replica, server.apply(text))
    before = replica.snapshot
    server.kill()
    path = server.folder / "mapping.sock"
    path.unlink()
    liar = Liar(path, b"HTTP/1.1 400 Bad Request\r\n\r\n", b'{"a":' * 5000 + b"}" * 5000, bytes(range(256)) * 100)
    try:
        assert replica.wait_until(lambda: liar.connections >= 3, WITHIN_MS)
    finally:
        liar.stop()
    assert replica.snapshot is before
    assert not replica.current
    path.unlink()
    server.start()
    follow(replica, server.apply(text.replace(b"[10.0.0.12]", b"[10.0.0.13]", 1)))


def test_another_database_refuses_until_it_is_ours(tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    subprocess.run(["ovsdb-tool", "create", str(other), "/usr/share/openvswitch/vswitch.ovsschema"], check=True)
    control, remote = f"{tmp_path}/other.ctl", f"unix:{tmp_path}/other.sock"
    argv = ["ovsdb-server", str(other), f"--remote=p{remote}", f"--unixctl={control}", f"--pidfile={tmp_path}/pid"]
    subprocess.run([*argv, "--detach", "--no-chdir", f"--log-file={tmp_path}/log"], check=True, capture_output=True)
    replica = Replica([remote])
    try:
        assert not replica.wait_in_sync(WITHIN_MS)
        assert replica.refused.endswith("unknown database Lockgate_Mapping")
        with Writer([remote]) as writer, pytest.raises(MappingError, match="has no database Lockgate_Mapping"):
            writer.read()
        ours = tmp_path / "mapping.db"
        subprocess.run(["ovsdb-tool", "create", str(ours), str(schema.SCHEMA_FILE)], check=True)
        subprocess.run(["ovs-appctl", "-t", control, "ovsdb-server/add-db", str(ours)], check=True)
        assert replica.wait_until(lambda: replica.current, WITHIN_MS)
        assert replica.refused == ""
    finally:
        replica.session.close()
        subprocess.run(["ovs-appctl", "-t", control, "exit"], check=True)


def test_a_server_that_prepares_a_large_answer_is_given_time_and_one_that_hangs_is_not(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stopped process stands for both: the kernel accepts the connection, and nobody answers."""
    monkeypatch.setattr("mapping.session.PROBE_MS", 1000)
    pid = int((server.folder / "mapping.pid").read_text())
    replica = Replica([server.remote])
    os.kill(pid, signal.SIGSTOP)
    try:
        assert replica.wait_until(lambda: replica.session.connected, WITHIN_MS)
        assert not replica.wait_until(lambda: not replica.session.connected, 3000)
        os.kill(pid, signal.SIGCONT)
        assert replica.wait_until(lambda: replica.current, WITHIN_MS)
        os.kill(pid, signal.SIGSTOP)
        assert replica.wait_until(lambda: not replica.session.connected, WITHIN_MS)
    finally:
        os.kill(pid, signal.SIGCONT)
        replica.session.close()
