"""Writing to a real database: one transaction or nothing, by name, with errors that say what to do; and serving it."""

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mapping import document, plan, schema, service, wanted
from mapping.errors import MappingError
from mapping.history import Cause
from mapping.plan import Operation, Plan
from mapping.rows import Tables
from mapping.wanted import Content
from mapping.writer import ConflictError, Writer
from tests.build import as_file
from tests.ovs.conftest import free_port
from tests.ovs.dummy import LOOPBACK

CAUSE = Cause("me@here", "test")
EXAMPLE = (Path(__file__).parents[2] / "examples" / "two-hosts.yaml").read_text()


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[str]:
    service.start(tmp_path, [f"punix:{tmp_path}/mapping.sock"])
    yield f"unix:{tmp_path}/mapping.sock"
    service.stop(tmp_path)


@pytest.fixture
def writer(remote: str) -> Iterator[Writer]:
    with Writer([remote]) as connected:
        yield connected


def rows(text: str) -> Content:
    read = document.read(text.encode(), "f.yaml")
    assert read.problems == ()
    return read.rows


def apply(writer: Writer, wants: Content, *, prune: bool = True) -> Plan:
    done = writer.carry_out(
        lambda tables: plan.make(wants, tables, absent=plan.left_out(wants, tables, prune=prune)), CAUSE
    )
    assert done.plan.faults == ()
    return done.plan


def there(writer: Writer) -> Content:
    return as_file(wanted.named(writer.read())[0])


def test_what_is_applied_is_there_and_counts_as_one_change(writer: Writer) -> None:
    assert len(apply(writer, rows(EXAMPLE)).edits) == 12
    assert there(writer) == rows(EXAMPLE)
    assert [row["config_seq"] for row in writer.read()["Global"].values()] == [1]
    assert apply(writer, rows(EXAMPLE)).edits == ()
    assert [row["config_seq"] for row in writer.read()["Global"].values()] == [1]


@st.composite
def worlds(draw: st.DrawFn) -> str:
    """Names, addresses, MACs, VNIs and VTEPs are few, so that from one file to the next they change owners."""
    vnis, vteps, macs, ips = (draw(st.permutations(range(1, 5))) for _ in range(4))
    vpcs, hosts, ports = (draw(st.lists(st.sampled_from("abc"), unique=True)) for _ in range(3))
    text = "vpcs:\n" + "".join(f"  {v}: {{vni: {vnis[i]}, subnets: [10.0.0.0/24]}}\n" for i, v in enumerate(vpcs))
    text += "hosts:\n" + "".join(f"  {h}: {{vtep: 192.0.2.{vteps[i]}}}\n" for i, h in enumerate(hosts))
    text += "ports:\n"
    for i, port in enumerate(ports if vpcs else []):
        host = draw(st.sampled_from(["", *(f", host: {name}" for name in hosts)]))
        own = f"vpc: {draw(st.sampled_from(vpcs))}, mac: '02:00:00:00:00:0{macs[i]}'"
        text += f"  {port}: {{{own}{host}, addresses: [10.0.0.1{ips[i]}]}}\n"
    return text


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files=st.lists(worlds(), min_size=1, max_size=4))
def test_any_file_follows_any_other_in_one_transaction(writer: Writer, files: list[str]) -> None:
    for text in files:
        apply(writer, rows(text))
        assert there(writer) == rows(text)
        assert apply(writer, rows(text)).edits == ()


def test_exchanges(writer: Writer) -> None:
    apply(writer, rows(EXAMPLE))
    swapped = EXAMPLE
    for one, other in (("192.0.2.1", "192.0.2.2"), ("0.11]", "0.12]"), ("00:11", "00:12"), ("5001", "5002")):
        swapped = swapped.replace(one, "~").replace(other, one).replace("~", other)
    assert all(edit.action == "change" for edit in apply(writer, rows(swapped)).edits)
    assert there(writer) == rows(swapped)


def test_a_change_in_between_is_planned_for_again(writer: Writer, remote: str) -> None:
    apply(writer, rows(EXAMPLE))
    seen: list[int] = []

    def make(tables: Tables) -> Plan:
        seen.append(next(iter(tables["Global"].values()))["config_seq"])
        if len(seen) == 1:
            with Writer([remote]) as other:
                apply(other, rows(EXAMPLE.replace("5001", "5003")))
        return plan.make(rows(EXAMPLE.replace("5002", "5004")), tables)

    done = writer.carry_out(make, CAUSE)
    assert (seen, done.config_seq) == ([1, 2], 3)
    assert [(edit.name, edit.before) for edit in done.plan.edits] == [
        ("VPC blue", {"vni": 5003}),
        ("VPC green", {"vni": 5002}),
    ]
    stale = plan.make(rows(EXAMPLE), {**writer.read(), "Global": {}})
    with pytest.raises(ConflictError, match="somebody else"):
        writer.transact(stale.operations, "test")


def operations(writer: Writer, text: str) -> list[Operation]:
    """What would add these rows, in a database that had none of the names taken: past all checks of ours."""
    tables = writer.read()
    content, _ = wanted.named(tables)
    extra = rows(text)
    missing = {table: {key: row for key, row in extra[table].items() if key not in content[table]} for table in extra}
    return list(plan._operations(plan.edits(missing, content, ()), wanted.named(tables)[1]))


@pytest.mark.parametrize(
    ("add", "said"),
    [
        ("vpcs:\n  x: {vni: 5001, subnets: [10.0.0.0/24]}", "VNI 5001 is taken by VPC blue: choose another"),
        ("hosts:\n  x: {vtep: 192.0.2.1}", "VTEP 192.0.2.1 is taken by host host-a: choose another"),
        (
            "hosts:\n  x: {vtep: 192.0.2.9, nic_datapath: 0000006ec0000201}",
            "datapath id 0000006ec0000201 is taken by host host-a: give each bridge its own",
        ),
        (
            "ports:\n  x: {vpc: blue, mac: '02:00:00:00:00:11'}",
            "MAC 02:00:00:00:00:11 of VPC blue is taken by port blue-web: choose another",
        ),
        (
            "ports:\n  x: {vpc: blue, mac: '02:00:00:00:00:99', host: host-a, device: blue-web}",
            "device blue-web of host host-a is taken by port blue-web: choose another",
        ),
    ],
)
def test_what_the_database_refuses_is_said_in_names(writer: Writer, add: str, said: str) -> None:
    apply(writer, rows(EXAMPLE))
    with pytest.raises(MappingError) as caught:
        writer.transact(operations(writer, add), "test")
    assert str(caught.value) == said
    assert there(writer) == rows(EXAMPLE)


def test_a_name_or_an_address_that_is_taken(writer: Writer) -> None:
    apply(writer, rows(EXAMPLE))
    blue = next(uuid for uuid, row in writer.read()["Vpc"].items() if row["name"] == "blue")
    web = next(uuid for uuid, row in writer.read()["Port"].items() if row["name"] == "blue-web")
    vpc = {"name": "blue", "vni": 9, "mtu": 1400}
    mapping = {"vpc": ["uuid", str(blue)], "ip": "10.0.0.12", "port": ["uuid", str(web)]}
    for table, row, said in (
        ("Vpc", vpc, "VPC blue is there already"),
        ("Mapping", mapping, "address 10.0.0.12 of VPC blue is mapped already, to port blue-db: choose another"),
    ):
        with pytest.raises(MappingError, match=said):
            writer.transact([{"op": "insert", "table": table, "row": row}], "test")
    with pytest.raises(MappingError, match=r"VPC blue is still needed by 4 other row\(s\): delete those first"):
        writer.transact([{"op": "delete", "table": "Vpc", "where": [["name", "==", "blue"]]}], "test")
    with pytest.raises(MappingError, match="99999999 is not in the valid range"):
        writer.transact([{"op": "insert", "table": "Vpc", "row": {**vpc, "vni": 99999999}}], "test")


def test_no_database_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(MappingError) as caught, Writer([f"unix:{tmp_path}/a", "tcp:127.0.0.1:1"]) as nobody:
        nobody.read()
    assert str(caught.value).startswith(
        f"no mapping database at unix:{tmp_path}/a, tcp:127.0.0.1:1 (Connection refused)"
    )
    assert "start one with `lockgate mapping serve`, or say where it is with --db or LOCKGATE_DB" in str(caught.value)


def test_a_stopped_server_runs_out_of_time(remote: str, tmp_path: Path) -> None:
    pid = int((tmp_path / "mapping.pid").read_text())
    with Writer([remote], timeout_ms=300) as impatient:
        impatient.read()
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(MappingError, match=r"gives no answer in 0.3 s: look whether its process is stopped"):
                impatient.read()
        finally:
            os.kill(pid, signal.SIGCONT)


def test_a_server_that_dies_over_a_request(remote: str, tmp_path: Path) -> None:
    pid = int((tmp_path / "mapping.pid").read_text())
    with Writer([remote]) as unlucky:
        unlucky.read()
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(MappingError, match="went away before it answered"):
            unlucky.read()


def test_something_else_listens(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{tmp_path}/web.sock")
        server.listen()
        with (
            Writer([f"unix:{tmp_path}/web.sock"], timeout_ms=300) as lost,
            pytest.raises(MappingError, match="no answer"),
        ):
            lost.read()


def test_the_daemon_keeps_its_file(tmp_path: Path) -> None:
    place, port = f"punix:{tmp_path}/run/mapping.sock", free_port()
    for config_seq in (1, 2):
        service.start(tmp_path, [place, f"ptcp:{port}:{LOOPBACK}"])
        with Writer([f"tcp:{LOOPBACK}:{port}"]) as tcp:
            assert tcp.transact([], "test").config_seq == config_seq
        service.stop(tmp_path)
        assert not (tmp_path / "mapping.pid").exists()
    service.stop(tmp_path)


def test_why_a_server_does_not_start(tmp_path: Path, remote: str) -> None:
    with pytest.raises(MappingError, match=f"cannot listen at p{remote}: it is in use"):
        service.start(tmp_path / "second", [f"p{remote}"])
    with pytest.raises(MappingError, match=r"does not start: .*already running as pid"):
        service.start(tmp_path, [f"punix:{tmp_path}/other.sock"])
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(MappingError, match=f"cannot listen at ptcp:{port}:127.0.0.1: Address already in use"):
            service.start(tmp_path / "third", [f"ptcp:{port}:127.0.0.1"])
    for place in ("bogus:1", "ptcp:99999", "punix:", "tcp:127.0.0.1:6640"):
        with pytest.raises(MappingError, match=r"cannot listen at .*: write punix:PATH or ptcp:PORT:IP"):
            service.prepare(tmp_path / "new.db", [place])
    with pytest.raises(MappingError, match="Not a directory: run as root, or choose places with --file and --db"):
        service.prepare(tmp_path / "mapping.db" / "x" / "y", [])


def test_files_that_are_no_mapping_database(tmp_path: Path) -> None:
    file = tmp_path / "file.db"
    file.write_text("junk\n")
    with pytest.raises(
        MappingError, match=r"is no database, or cannot be read: .*ovsdb error: .*unexpected file format"
    ):
        service.prepare(file, [])
    file.unlink()
    subprocess.run(["ovsdb-tool", "create", str(file), "/usr/share/openvswitch/vswitch.ovsschema"], check=True)
    with pytest.raises(
        MappingError, match="holds the database Open_vSwitch, not Lockgate_Mapping: choose another file"
    ):
        service.prepare(file, [])
    file.unlink()
    old = tmp_path / "old.ovsschema"
    old.write_text('{"name": "Lockgate_Mapping", "version": "0.9.0", "tables": {}}')
    subprocess.run(["ovsdb-tool", "create", str(file), str(old)], check=True)
    with pytest.raises(
        MappingError, match=rf"has schema version 0.9.0, this program {schema.version()}: `ovsdb-tool convert"
    ):
        service.prepare(file, [])
