"""A cluster of three members over TLS, each with its front, and what operators do to a database as a whole."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self

import pytest

from mapping import cluster, maintenance, schema, service
from mapping.errors import MappingError
from mapping.replica import Replica
from mapping.session import Session
from mapping.writer import Writer
from tests import shapes
from tests.ovs.dummy import LOOPBACK
from tests.site import Site, free_port, shake_hands, transact
from topo.waiting import wait_until

HERE = Path(__file__).parent
WITHIN = 30


class Served:
    """`lockgate mapping serve` as a process."""

    def __init__(self, folder: Path, tls: Path, *words: str) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.remote = f"unix:{folder}/mapping.sock"
        self.log = folder / "log"
        self._argv = [sys.executable, "-m", "mapping.cli", "--json", "--db", self.remote, "mapping", "serve"]
        self._argv += ["--file", str(folder / "mapping.db"), *words]
        self._env = os.environ | {"LOCKGATE_TLS": str(tls)}

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(self._argv, env=self._env, stdout=log, stderr=log)
        wait_until(lambda: "\n}\n" in self.log.read_text(), WITHIN, f"{self.folder}: {self.log.read_text()}")
        shapes.check("mapping serve", "{" + self.log.read_text().partition("{\n")[2].partition("\n}\n")[0] + "}")

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(20)
        self.log.write_text("")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("maintenance"), LOOPBACK)


@pytest.fixture(scope="module")
def members(site: Site) -> Iterator[list[Served]]:
    raft = [f"ssl:{LOOPBACK}:{free_port(LOOPBACK)}" for _ in range(3)]
    with ExitStack() as stack:
        made = []
        for number in range(3):
            port = free_port(LOOPBACK)
            words = ["--cluster", raft[number], "--operators", f"pssl:{port}:{LOOPBACK}"]
            if number:
                words += ["--join", raft[0]]
            tls = site.issue("member", f"m{number}").folder
            each = Served(site.folder / f"m{number}", tls, *words)
            each.start()
            stack.callback(each.stop)
            site.remotes[f"operator{number}"] = f"ssl:{LOOPBACK}:{port}"
            made.append(each)
        wait_until(lambda: all(maintenance.look(each.remote).connected for each in made), WITHIN, "the cluster")
        yield made


@pytest.fixture
def places(site: Site, members: list[Served], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The fronts of operators, for one."""
    monkeypatch.setenv("LOCKGATE_TLS", str(site.issue("operator", "alice").folder))
    found = [site.remotes[f"operator{number}"] for number in range(len(members))]
    wait_until(lambda: all(maintenance.look(place).connected for place in found), WITHIN, "the fronts")
    return found


def add(remotes: list[str], name: str) -> int:
    row = {"name": name, "vni": len(name), "router_mac": "0a:00:5e:00:00:01", "mtu": 1400, "subnets": "10.0.0.0/24"}
    with Writer(remotes) as writer:
        return writer.transact([{"op": "insert", "table": "Vpc", "row": row}], "test").config_seq


@pytest.mark.parametrize("role", ["operator", "controller", "host"])
def test_only_members_speak_raft(site: Site, members: list[Served], role: str) -> None:
    """Whoever gets through here could be a member, and write what he likes past all rules."""
    raft = members[1]._argv[members[1]._argv.index("--join") + 1]
    shake_hands(raft, site.issue("member", "m9")).close()
    with pytest.raises(OSError, match=r"ALERT|alert"):
        shake_hands(raft, site.issue(role, "m9"))


def test_clients_go_to_another_member_and_are_told_only_what_is_new(members: list[Served], places: list[str]) -> None:
    replica = Replica(places)
    results: list[tuple[bool, int]] = []
    load = replica._load

    def spy(found: bool, transaction: str, updates: dict[str, Any]) -> bool:
        results.append((found, sum(map(len, updates.values()))))
        return load(found, transaction, updates)

    replica._load = spy  # type: ignore[method-assign]
    gone = members[0]
    try:
        for name in ("a", "ab", "abc"):
            seq = add(places, name)
        assert replica.wait_until(lambda: replica.current and replica.config_seq == seq, WITHIN * 1000)
        first = replica.session.remote
        del results[:]
        gone = members[places.index(first)]
        gone.stop()
        assert replica.wait_until(lambda: replica.current and replica.session.remote != first, WITHIN * 1000)
        assert results[-1][0] is True
        left = [each.remote for each in members if each is not gone]
        wait_until(lambda: any(maintenance.look(each).leader for each in left), WITHIN, "another leader")
        rest = [place for place in places if place != first]
        wait_until(lambda: all(maintenance.look(place).connected for place in rest), WITHIN, "the fronts")
        seq = add(rest, "abcd")
        assert replica.wait_until(lambda: replica.config_seq == seq, WITHIN * 1000)
    finally:
        replica.session.close()
        gone.start()


def test_who_writes_by_a_front_is_told_when_its_member_goes_before_it_answers(
    members: list[Served], places: list[str]
) -> None:
    pid = server_of(members[2], "mapping")
    os.kill(pid, signal.SIGSTOP)
    killed = threading.Timer(2, os.kill, (pid, signal.SIGKILL))
    killed.start()
    try:
        with pytest.raises(MappingError, match=r"went away before it answered \(canceled\): look whether"):
            add(places[2:], "ahead of its time")
    finally:
        killed.join()
        members[2].stop()
        members[2].start()


def test_a_former_self_is_told_from_the_others_at_sockets_of_one_name(tmp_path: Path) -> None:
    """Open vSwitch calls a member after its socket, so that these all have one name."""
    folders = [tmp_path / name for name in "abc"]
    raft = [f"unix:{folder}/raft.sock" for folder in folders]

    def start(number: int) -> None:
        cluster.prepare(folders[number] / "mapping.db", raft[number], raft[:1] if number else [])
        service.start(folders[number], [f"punix:{folders[number]}/mapping.sock"])

    try:
        for number in range(3):
            start(number)
        places = [f"unix:{folder}/mapping.sock" for folder in folders]
        wait_until(lambda: all(maintenance.look(place).connected for place in places), WITHIN, "the cluster")
        service.stop(folders[2])
        (folders[2] / "mapping.db").unlink()
        start(2)
        wait_until(lambda: cluster.settle(folders[2]), WITHIN, "its former self to be gone")
    finally:
        for folder in folders:
            service.stop(folder)


def test_status_shows_the_members_who_leads_and_who_is_gone(members: list[Served], places: list[str]) -> None:
    def look(*words: str, code: int) -> Any:  # noqa: ANN401 - whatever it printed
        file = str(members[0].folder / "mapping.db")
        argv = [sys.executable, "-m", "mapping.cli", "--db", ",".join(words), "mapping", "status", "--file", file]
        done = subprocess.run([*argv, "--json"], capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        shapes.check("mapping status", done.stdout)
        return json.loads(done.stdout)

    unix = [each.remote for each in members]
    wait_until(lambda: any(maintenance.look(each).leader for each in unix), WITHIN, "a leader")
    found = look(*unix, code=0)
    assert len(found["member"]["members"]) == 3
    assert [server["model"] for server in found["servers"]] == ["clustered"] * 3
    assert sum(server["leader"] for server in found["servers"]) == 1
    assert found["member"]["clients"].keys() >= {"member", "operator"}
    members[2].stop()
    found = look(*unix, code=1)
    assert [bool(server["problem"]) for server in found["servers"]] == [False, False, True]
    members[2].start()
    for place in places:
        wait_until(lambda place=place: not maintenance.look(place).problem, WITHIN, f"the front at {place}")  # type: ignore[misc]
    assert all(server["model"] == "relay" for server in look(*places, code=0)["servers"])


def listed(member: Served) -> tuple[int, str]:
    """How many members one has heard of, and what is wrong with its file."""
    found = maintenance.member(member.folder / "mapping.db")
    return (len(found.members), found.problem) if found else (0, "it does not run")


def test_a_member_with_a_damaged_file_joins_anew_by_being_started(members: list[Served], places: list[str]) -> None:
    """Its former self is taken out of the cluster, what was acknowledged is there, and the file is kept."""
    add(places, "before" * 5)
    damaged, file = members[2], members[2].folder / "mapping.db"
    with file.open("r+b") as content:
        content.seek(content.read().index(b"OVSDB CLUSTER", file.stat().st_size // 2) - 20)
        content.write(b"!" * 10)
    found = maintenance.member(file)
    assert found
    assert "is damaged at byte" in found.problem
    damaged.stop()
    damaged.start()
    assert "and this member joins anew" in damaged.log.read_text()
    assert len(list(damaged.folder.glob("mapping.db.damaged-*"))) == 1

    wait_until(lambda: cluster.former_selves(damaged.folder) == [], WITHIN, "its former self to be gone")
    wait_until(lambda: all(listed(each) == (3, "") for each in members), WITHIN, "lists of three members")
    with Writer([damaged.remote]) as writer:
        assert "before" * 5 in {row["name"] for row in writer.read()["Vpc"].values()}


def test_a_backup_is_restored_and_the_count_goes_on(members: list[Served], places: list[str], tmp_path: Path) -> None:
    add(places, "kept" * 3)
    size = maintenance.backup(places, tmp_path / "backup.db")
    assert size > 1000
    seq = add(places, "lost" * 4)
    with pytest.raises(MappingError, match="does not restore"):
        maintenance.restore(places, tmp_path / "backup.db")  # an operator may not write the rules of the roles
    assert maintenance.restore([members[0].remote], tmp_path / "backup.db") > seq
    with Writer([members[0].remote]) as writer:
        names = {row["name"] for row in writer.read()["Vpc"].values()}
    assert "kept" * 3 in names
    assert "lost" * 4 not in names
    (tmp_path / "junk").write_text("junk")
    with pytest.raises(MappingError, match="is no backup"):
        maintenance.restore([members[0].remote], tmp_path / "junk")
    before, after = maintenance.compact(members[0].folder / "mapping.db")
    assert after < before


def test_a_relay_passes_on_what_members_say(site: Site, members: list[Served], places: list[str]) -> None:
    port = free_port(LOOPBACK)
    source = f"unix:{members[0].folder}/mapping.sock"
    relay = Served(site.folder / "relay", site.issue("member", "r1").folder, "--relay", source)
    relay._argv += ["--operators", f"pssl:{port}:{LOOPBACK}"]
    relay.start()
    try:
        place = f"ssl:{LOOPBACK}:{port}"
        wait_until(lambda: maintenance.look(place).connected, WITHIN, "the relay")
        seq = add([place], "relayed" * 3)
        with Writer(places) as writer:
            assert writer.transact([], "test").config_seq == seq + 1
    finally:
        relay.stop()


def test_whoever_is_connected_when_revoked_is_cut_off(site: Site, members: list[Served], places: list[str]) -> None:
    """By the trust files alone: nobody restarts anything, and the others are back at once."""
    thief, place = Session([places[0]], site.issue("operator", "mallory")), places[0]
    other = Session([place], site.issue("operator", "bob"))
    try:
        for session in (thief, other):
            wait_until(lambda: runs(session) and session.connected, WITHIN, "a connection")  # noqa: B023
        site.pki.revoke("operator", "mallory")
        site.pki.write_trust(Path(members[0]._env["LOCKGATE_TLS"]))
        wait_until(lambda: runs(thief) and "refuses the certificate of operator mallory" in thief.error, WITHIN, "that")
        wait_until(lambda: runs(other) and other.connected and other.generation == 2, WITHIN, "the other")
    finally:
        thief.close()
        other.close()


def test_a_front_that_is_busy_when_trust_files_change_is_told_later(
    site: Site, members: list[Served], places: list[str]
) -> None:
    """The member goes on meanwhile, and whoever is revoked is cut off in the end."""
    member, thief = members[0], Session([places[0]], site.issue("operator", "trudy"))
    front = server_of(member, "operator")
    try:
        wait_until(lambda: runs(thief) and thief.connected, WITHIN, "a connection")
        os.kill(front, signal.SIGSTOP)
        site.pki.revoke("operator", "trudy")
        site.pki.write_trust(Path(member._env["LOCKGATE_TLS"]))
        wait_until(lambda: "cannot be told yet, so again soon" in member.log.read_text(), WITHIN, "it to be said")
        assert maintenance.look(member.remote).connected
        os.kill(front, signal.SIGCONT)
        wait_until(lambda: runs(thief) and "refuses the certificate of operator trudy" in thief.error, WITHIN, "that")
    finally:
        os.kill(front, signal.SIGCONT)
        thief.close()
    assert maintenance.look(places[0]).connected


def server_of(member: Served, name: str) -> int:
    """The process of its server of "mapping", or of the front of a role."""
    file = str(member.folder / f"{name}.db").encode()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            if file in words and words[0].endswith(b"ovsdb-server"):
                return int(process.name)
    raise AssertionError(member.folder)


def runs(session: Session) -> bool:
    session.run()
    return True


def test_history_names_the_certificate(members: list[Served], places: list[str]) -> None:
    """And not the user who runs the command."""
    assert members
    lockgate = [sys.executable, "-m", "mapping.cli", "--db", places[1]]
    add = ["vpc", "add", "named", "--vni", "77", "--subnet", "10.0.0.0/24", "-m", "for a test"]
    subprocess.run([*lockgate, *add], check=True, capture_output=True)
    said = subprocess.run([*lockgate, "history", "-n", "1", "--json"], check=True, capture_output=True, text=True)
    (entry,) = json.loads(said.stdout)
    assert (entry["who"], entry["certificate"]) == (f"operator alice at {socket.gethostname()}", "alice")
    assert entry["reason"] == "for a test"
    assert entry["command"].endswith("vpc add named --vni 77 --subnet 10.0.0.0/24")


def test_members_forget_old_history_which_operators_may_not(members: list[Served], places: list[str]) -> None:
    old, new = (
        {"op": "insert", "table": "History", "row": {"config_seq": number, "certificate": name}}
        for number, name in ((-2000, "long gone"), (1_000_000, "another"))
    )
    whose = {"op": "delete", "table": "History", "where": [["certificate", "==", "another"]]}
    transact(members[0].remote, None, new)
    with Writer(places) as writer:
        wait_until(lambda: "another" in {entry.certificate for entry in writer.history()}, 10, "the member to have it")
        with pytest.raises(MappingError, match="permission error"):
            writer.record([whose])
    transact(members[0].remote, None, whose, old)
    left = {"op": "select", "table": "History", "where": [["certificate", "==", "long gone"]]}
    wait_until(lambda: not transact(members[0].remote, None, left)[0]["rows"], 90, "a member to delete it")
    with Writer(places) as writer:
        assert "alice" in {entry.certificate for entry in writer.history()}


@pytest.mark.parametrize("before", ["1.0.0", "1.3.0", "1.4.0"])
@pytest.mark.parametrize("kind", ["alone", "a member"])
def test_a_running_database_of_a_schema_before_is_brought_to_this_one(tmp_path: Path, kind: str, before: str) -> None:
    """While somebody writes, and a controller of this version waits: what was acknowledged is kept, and roles hold."""
    remote, file = f"unix:{tmp_path}/mapping.sock", tmp_path / "mapping.db"
    old = HERE / f"schema-{before}.ovsschema"
    if kind == "alone":
        subprocess.run(["ovsdb-tool", "create", str(file), str(old)], check=True)
    else:
        raft = f"tcp:{LOOPBACK}:{free_port(LOOPBACK)}"
        subprocess.run(["ovsdb-tool", "create-cluster", str(file), str(old), raft], check=True)
    service._start(tmp_path, "mapping", service.command(file, [f"p{remote}"]))
    replica = Replica([remote])
    try:
        wait_until(lambda: maintenance.look(remote).connected, WITHIN, "the database")
        row = {"name": "host-a", "vtep_ip": "192.0.2.1", "encap": "vxlan"}
        row |= {"guest_datapath": "00000067c0000201", "nic_datapath": "0000006ec0000201"}
        host = {"op": "insert", "table": "Host", "row": row}
        transact(remote, None, {"op": "insert", "table": "Global", "row": {"config_seq": 7}}, host)
        replica.wait_until(lambda: bool(replica.refused) or replica.current, WITHIN * 1000)
        # What is new since 1.4.0 no controller reads.
        assert bool(replica.refused) == (before != "1.4.0")
        with Writing(remote) as writing:
            wait_until(lambda: len(writing.acknowledged) > 5, WITHIN, "writes")
            assert maintenance.convert([remote]) == (before, schema.version())
            after = len(writing.acknowledged)
            wait_until(lambda: len(writing.acknowledged) > after + 5, WITHIN, "writes afterwards")
        seq = next_seq(remote)
        assert replica.wait_until(lambda: replica.current and replica.config_seq == seq, WITHIN * 1000)
        assert [host.name for host in replica.snapshot.hosts.values()] == ["host-a"]
        assert {vpc.vni for vpc in replica.snapshot.vpcs.values()} >= writing.acknowledged
        (found,) = transact(remote, None, {"op": "select", "table": "RBAC_Role", "where": [], "columns": ["name"]})
        assert {role["name"] for role in found["rows"]} == {"operator", "controller", "host"}
        assert maintenance.convert([remote]) == (schema.version(), schema.version())
    finally:
        replica.session.close()
        service.stop(tmp_path)


def next_seq(remote: str) -> int:
    """A change of no row, and its number."""
    with Writer([remote]) as writer:
        return writer.transact([], "test").config_seq


class Writing:
    """Adds VPCs, one transaction after another, as a program of the version before does."""

    def __init__(self, remote: str) -> None:
        self.acknowledged: set[int] = set()
        self._remote = remote
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _write(self) -> None:
        vni = 0
        while not self._stop.is_set():
            vni += 1
            row = {"name": f"v{vni}", "vni": vni, "router_mac": "0a:00:5e:00:00:01", "subnets": "10.0.0.0/24"}
            with suppress(ConnectionError, TimeoutError, AssertionError):
                transact(self._remote, None, {"op": "insert", "table": "Vpc", "row": {**row, "mtu": 1400}})
                self.acknowledged.add(vni)
