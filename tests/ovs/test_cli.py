"""The `lockgate` command as a person runs it, on a real database."""

import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from flows.pipeline import BR_GUEST, BR_NIC
from mapping import cli, service
from mapping import status as state
from mapping.model import Port
from mapping.session import Session
from mapping.writer import Writer
from tests import shapes
from tests.build import HOST_B, SPY, WEB
from tests.conftest import Figure
from tests.ovs.conftest import World

EXAMPLE = Path(__file__).parents[2] / "examples" / "two-hosts.yaml"
LOCKGATE = [sys.executable, "-m", "mapping.cli"]
# Whoever runs the tests in the background may have their children ignore interrupts.
ATTENTIVE = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from mapping.cli import main; main()"
)


class Run:
    """What a run of the command left behind."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> Any:  # noqa: ANN401 - whatever it printed
        return json.loads(self.out)


class Lockgate:
    """Runs the command in this process, as `main` would be run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], remote: str) -> None:
        self.remote = remote
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, *words: str, code: int | None = 0) -> Run:
        """Run it; `code` is what it must end with, None if that is of no matter."""
        self._monkeypatch.setattr(sys, "argv", ["lockgate", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = self._capsys.readouterr()
        assert code in (None, ended.value.code), out + err
        if "--json" in words and (name := shapes.command(words)):
            shapes.check(name, out)
        return Run(int(ended.value.code or 0), out, err)

    def reports(self, name: str, applied_seq: int, **said: str) -> None:
        """Write what a controller would."""
        said = {"guest": "connected", "nic": "connected", "controller": "c1", "heard": str(int(time.time()))} | said
        row = {
            "applied_seq": applied_seq,
            "status": ["map", list(map(list, said.items()))],
            "drops": ["map", [["x", 3]]],
        }
        update = {"op": "update", "table": "Host", "where": [["name", "==", name]], "row": row}
        with Writer([self.remote]) as writer:
            writer._transact([update])


@pytest.fixture
def lockgate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Lockgate]:
    remote = f"unix:{tmp_path}/mapping.sock"
    service.start(tmp_path, [f"p{remote}"])
    monkeypatch.setenv("LOCKGATE_DB", remote)
    yield Lockgate(monkeypatch, capsys, remote)
    service.stop(tmp_path)


def test_row_by_row(lockgate: Lockgate) -> None:
    lockgate("vpc", "add", "blue", "--vni", "5001", "--subnet", "10.0.0.0/24", "--subnet", "10.0.1.0/24")
    lockgate("host", "add", "host-a", "--vtep", "192.0.2.1", "--encap", "geneve")
    lockgate("host", "add", "host-b", "--vtep", "192.0.2.2")
    web = ("--vpc", "blue", "--mac", "02:00:00:00:00:01")
    added = lockgate("port", "add", "web", *web, "--host", "host-a", "--address", "10.0.0.11")
    assert added.out.splitlines() == [
        "+ port web  vpc blue, mac 02:00:00:00:00:01, host host-a, device web",
        "+ mapping 10.0.0.11 of VPC blue  port web",
        "2 change(s) written, config_seq 4",
    ]
    lockgate("mapping", "add", "blue", "10.0.1.12", "web")
    assert lockgate("port", "move", "web", "--host", "host-b", "--device", "tap0").out.startswith(
        "~ port web  host host-a -> host-b, device web -> tap0\n"
    )
    assert lockgate("port", "move", "web", "--host", "host-a").out.startswith("~ port web  host host-b -> host-a\n")
    assert lockgate("port", "unbind", "web").out.startswith("~ port web  host host-a -> none, device tap0 -> web\n")
    assert lockgate("mapping", "list", "--json").json == [
        {"vpc": "blue", "ip": "10.0.0.11", "port": "web"},
        {"vpc": "blue", "ip": "10.0.1.12", "port": "web"},
    ]
    row = {"name": "web", "vpc": "blue", "mac": "02:00:00:00:00:01", "host": None, "device": "web"}
    row |= {"moving_to": None, "previous_host": None}
    assert lockgate("--json", "port", "list").json == [{**row, "allowed": [], "limits": {}, "boot": {}, "groups": []}]
    assert [line.split() for line in lockgate("vpc", "list").out.splitlines()] == [
        ["name", "vni", "subnets", "router_mac"],
        ["blue", "5001", "10.0.0.0/24,", "10.0.1.0/24", "0a:00:5e:00:00:01"],
    ]
    lockgate("mapping", "delete", "blue", "10.0.1.12")
    assert len(lockgate("port", "delete", "web", "--json").json["edits"]) == 2
    lockgate("vpc", "delete", "blue")
    lockgate("host", "delete", "host-a")
    assert [row["name"] for row in lockgate("host", "list", "--json").json] == ["host-b"]
    assert lockgate("vpc", "list").out == "none\n"


REFUSED = [
    ("vpc add red --vni 5001 --subnet 10.0.0.0/24", "VNI 5001 is taken by VPC blue: choose another"),
    ("vpc add blue --vni 7 --subnet 10.0.0.0/24", "VPC blue is there already, with vni 5001: delete it first"),
    ("vpc add r! --vni 7 --subnet 10.0.0.0/24", "name 'r!': use 1 to 63"),
    ("vpc delete blue", "VPC blue is still needed by port blue-"),
    ("vpc delete bleu", "there is no VPC bleu: did you mean 'blue'?"),
    ("host add x --vtep 192.0.2.1", "VTEP 192.0.2.1 is taken by host host-a"),
    ("host delete host-a", "host host-a is still needed by port"),
    ("port add x --vpc blue --mac 02:00:00:00:00:11", "MAC 02:00:00:00:00:11 of VPC blue is taken by port blue-web"),
    ("port add x --vpc bleu --mac 02:00:00:00:00:99", "there is no VPC 'bleu': did you mean 'blue'?"),
    ("port add x --vpc blue --mac 02:00:00:00:00:99 --device d", "device 'd' is on no host"),
    ("port add x --vpc blue --mac 02:00:00:00:00:99 --address 10.0.0.12", "address 10.0.0.12 of VPC blue is mapped"),
    ("port move blue-web --host host-c", "there is no host 'host-c': did you mean"),
    ("port move blue-wev --host host-a", "there is no port blue-wev: did you mean 'blue-web'?"),
    ("port unbind nobody", "there is no port nobody: "),
    ("mapping add blue 10.0.0.12 blue-web", "address 10.0.0.12 of VPC blue is mapped already, to port blue-db"),
    ("mapping add blue 10.0.0.1 blue-web", "address 10.0.0.1 is the router of 10.0.0.0/24"),
    ("mapping add blue 10.0.1.1 blue-web", "address 10.0.1.1 is outside its VPC's subnets"),
    ("mapping add blue 10.0.0.99 green-web", "port green-web is in VPC green: map 10.0.0.99 to a port of VPC blue"),
    ("mapping move blue 10.0.0.99 blue-db", "there is no mapping 10.0.0.99 of VPC blue: look with `lockgate mapping"),
    ("mapping move blue 10.0.0.12 blue-wev", "there is no port 'blue-wev': did you mean 'blue-web'?"),
    ("port set blue-web", "nothing to set of port blue-web: give --allow, --limit or --boot"),
    ("port set blue-web --limit speed=9", "limit 'speed': choose from_guest_kbps, to_guest_kbps, from_guest_pps"),
    ("port set blue-web --allow 10.0.0.1", "allowed 10.0.0.1 holds 10.0.0.1, the router of 10.0.0.0/24: choose one"),
    ("port set blue-web --allow 192.168.0.0/24", "allowed 192.168.0.0/24 is outside its VPC's subnets and routes"),
    ("get things", "kind 'things': choose vpcs, hosts, groups, ports, mappings"),
    ("describe port blue-wev", "there is no port blue-wev: did you mean 'blue-web'?"),
    ("--db unix:/nowhere watch", "no mapping database at unix:/nowhere"),
    ("diff -f /nowhere.yaml", "/nowhere.yaml: No such file or directory: name a YAML file"),
    ("mapping delete blue 10.0.0.99", "there is no mapping 10.0.0.99 of VPC blue: look with `lockgate mapping list`"),
    ("apply -f /nowhere.yaml", "/nowhere.yaml: No such file or directory: name a YAML file"),
    ("--db unix:/nowhere status", "no mapping database at unix:/nowhere (No such file or directory): start one with"),
    ("--db unix:/nowhere vpc list", "no mapping database at unix:/nowhere (No such file or directory): start one with"),
    ("--db tcp:127.0.0.1:1 mapping serve --file /tmp/x.db", "nowhere to listen for tcp:127.0.0.1:1: say where with"),
]


def test_what_is_refused_is_one_line_and_changes_nothing(lockgate: Lockgate) -> None:
    lockgate("apply", "-f", str(EXAMPLE))
    for words, said in REFUSED:
        run = lockgate(*words.split(), code=1)
        assert said in run.err
        assert (run.out, len(run.err.splitlines())) == ("", 1), run.err
        told = lockgate(*words.split(), "--json", code=1)
        assert told.json == {"error": run.err[:-1], "problems": [run.err[:-1]]}
        assert told.err == ""
    assert lockgate("apply", "-f", str(EXAMPLE), "--prune").out == (
        "nothing to do: the database says so already (config_seq 1)\n"
    )


def test_a_whole_file_or_nothing(lockgate: Lockgate, tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    text = EXAMPLE.read_text()
    file.write_text(text.replace("5001", "0").replace("host: host-b", "host: host-c").replace("02:00:00:00:00:21", "x"))
    run = lockgate("apply", "-f", str(file), code=1)
    assert [line.partition(": ")[0].rpartition(":")[2] for line in run.err.splitlines()] == ["5", "26", "30", "36"]
    assert lockgate("apply", "-f", str(file), "--json", code=1).json["problems"] == run.err.splitlines()
    # Without a database the file's own problems are still told.
    assert "f.yaml:5: VNI '0'" in lockgate("--db", "unix:/nowhere", "apply", "-f", str(file), code=1).err
    assert lockgate("vpc", "list").out == "none\n"


def test_apply_shows_what_it_does(lockgate: Lockgate, tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_text(EXAMPLE.read_text())
    dry = lockgate("apply", "-f", str(file), "--dry-run", "--json").json
    assert (len(dry["edits"]), dry["config_seq"], dry["dry_run"]) == (12, 0, True)
    assert lockgate("apply", "-f", str(file)).out.endswith("12 change(s) written, config_seq 1\n")
    file.write_text(EXAMPLE.read_text().replace("    host: host-b\n", "").replace("[10.0.0.12]", "[10.0.0.13]", 1))
    assert lockgate("apply", "-f", str(file)).out.splitlines() == [
        "+ mapping 10.0.0.13 of VPC blue  port blue-db",
        "~ port blue-db  host host-b -> none",
        "~ port green-db  host host-b -> none",
        "- mapping 10.0.0.12 of VPC blue  port blue-db",
        "4 change(s) written, config_seq 2",
    ]


WAIT = ("apply", "-f", str(EXAMPLE), "--wait")


def test_apply_waits_for_live_hosts_and_says_why_others_have_not_confirmed(lockgate: Lockgate) -> None:
    shown = lockgate(*WAIT).out.splitlines()
    assert shown[-5] == "12 change(s) written, config_seq 1"
    assert [line.split()[:4] for line in shown[-3:-1]] == [[name, "not", "live", "no"] for name in ("host-a", "host-b")]
    assert shown[-1] == "no host that is concerned is live: nothing to wait for"
    lockgate.reports("host-a", 1)
    lockgate.reports("host-b", 0, problem="br-nic: its table is full")
    late = lockgate(*WAIT, "--timeout", "0.2", code=1)
    assert late.err == "written, but not applied after 0.2 s by host-b: look with `lockgate status`\n"
    assert [line.split() for line in late.out.splitlines()[1:]] == [
        ["host", "state", "after", "why", "not"],
        ["host-a", "applied"],
        ["host-b", "late", "br-nic:", "its", "table", "is", "full"],
    ]
    told = lockgate(*WAIT, "--timeout", "0.2", "--json", code=1)
    assert told.err == ""
    assert told.json == {
        "edits": [],
        "config_seq": 1,
        "dry_run": False,
        "hosts": [
            {"host": "host-a", "state": "applied", "ms": None, "why": ""},
            {"host": "host-b", "state": "late", "ms": None, "why": "br-nic: its table is full"},
        ],
        "notes": [],
        "not_applied": ["host-b"],
    }
    soon = threading.Timer(0.3, lockgate.reports, ("host-b", 1))
    soon.start()
    assert lockgate(*WAIT).out.endswith("applied by every live host that is concerned\n")
    soon.join()


def test_whoever_waits_compares_no_clocks(lockgate: Lockgate, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host is live whose reports change, although this machine's clock is ten minutes ahead; else it is quiet."""
    monkeypatch.setattr(state, "WATCH_SECONDS", 3.0)
    lockgate("apply", "-f", str(EXAMPLE))

    def heard() -> str:
        return str(int(time.time()) - 600)

    over = threading.Event()

    def live() -> None:
        begin = time.monotonic()
        while not over.wait(0.2):
            # Applied when there has been time to find that host-b says nothing.
            lockgate.reports("host-a", int(time.monotonic() > begin + 6), heard=heard())

    for name in ("host-a", "host-b"):
        lockgate.reports(name, 0, heard=heard())
    reporter = threading.Thread(target=live)
    reporter.start()
    found = {host["host"]: host for host in lockgate(*WAIT, "--json").json["hosts"]}
    over.set()
    reporter.join()
    assert (found["host-a"]["state"], found["host-b"]["state"]) == ("applied", "not live")
    assert "whether this machine's clock is ahead" in found["host-b"]["why"]
    assert lockgate(*WAIT, "--timeout", "0.2", "--json", code=1).json["not_applied"] == ["host-b"], "too short to tell"


def test_what_a_stolen_host_key_writes_reaches_no_terminal(lockgate: Lockgate) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J\nAll is well\u202e\x9b31m"
    lockgate("apply", "-f", str(EXAMPLE))
    row = {"drops": ["map", [[evil, 3]]], "port_counters": ["map", [[f"blue-web/{evil}_packets", 3]]]}
    update = {"op": "update", "table": "Host", "where": [["name", "==", "host-a"]], "row": row}
    said = dict.fromkeys(("guest", "nic", "controller", "problem"), evil)
    lockgate.reports("host-a", 1, **said)
    with Writer([lockgate.remote]) as writer:
        writer.record([update])
    commands = (("status", "--all"), ("port", "show", "blue-web"), (*WAIT, "--timeout", "0.1"))
    for words in (*commands, ("port", "move", "blue-db", "--host", "host-a", "--live")):
        run = lockgate(*words, code=None)
        assert all(char.isprintable() or char == "\n" for char in run.out + run.err), words
        assert not [line for line in (run.out + run.err).splitlines() if line.startswith("All is well")], words
    for words in commands:
        assert not [text for text in texts(lockgate(*words, "--json", code=None).json) if not text.isprintable()]


def test_status_says_which_host_could_not_be_given_to_a_guest(lockgate: Lockgate) -> None:
    lockgate("apply", "-f", str(EXAMPLE))
    for name in ("host-a", "host-b"):
        lockgate.reports(name, 1)
    assert lockgate("status").out.startswith("All is well")
    with Writer([lockgate.remote]) as writer:
        tables = writer.read()
        (host,) = (uuid for uuid, row in tables["Host"].items() if row["name"] == "host-a")
        (port,) = (uuid for uuid, row in tables["Port"].items() if row["name"] == "blue-web")
        refs = {"host": ["uuid", host], "port": ["uuid", port]}
        row = {"state": "failed", "step": "check", "problem": "host-a: br-nic differs: look with `lockgate attest`"}
        writer.record([{"op": "insert", "table": "Provision", "row": {**refs, **row}}])
    said = "host host-a, for port blue-web: host-a: br-nic differs: look with `lockgate attest`"
    assert lockgate("status").out.splitlines()[0] == said
    found = lockgate("status", "--json").json
    assert (found["summary"], found["ok"]) == ([said], False)


def test_what_an_operator_writes_into_the_history_reaches_no_terminal(lockgate: Lockgate) -> None:
    evil = "\x1b[2J\nconfig_seq 99  bob: nothing to see"
    row = dict.fromkeys(("who", "command", "reason", "edits"), evil)
    with Writer([lockgate.remote]) as writer:
        writer.record([{"op": "insert", "table": "History", "row": row}])
    out = lockgate("history").out
    assert all(char.isprintable() or char == "\n" for char in out)
    assert not [line for line in out.splitlines() if line.startswith("config_seq 99")]


def texts(value: Any) -> Iterator[str]:  # noqa: ANN401 - whatever JSON holds
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for each in value if isinstance(value, list) else (*value, *value.values()):
            yield from texts(each)


def test_waiting_follows_no_more_than_the_hosts(lockgate: Lockgate, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, Any]] = []
    request = Session.request

    def recorded(session: Session, method: str, params: list[Any]) -> int:
        asked.append((method, params))
        return request(session, method, params)

    monkeypatch.setattr(Session, "request", recorded)
    lockgate(*WAIT)
    methods = [method for method, _ in asked]
    assert methods.count("monitor_cond_since") == 1
    assert methods.index("monitor_cond_since") < len(methods) - 1, "followed before it was written"
    assert set(dict(asked)["monitor_cond_since"][2]) == {"Global", "Host"}


def test_a_change_that_concerns_no_host_is_not_waited_for(lockgate: Lockgate, tmp_path: Path) -> None:
    lockgate("apply", "-f", str(EXAMPLE))
    lockgate.reports("host-a", 0)
    lockgate.reports("host-b", 0)
    file = tmp_path / "f.yaml"
    file.write_text("vpcs:\n  red: {vni: 7, subnets: [10.0.0.0/24]}\n")
    assert lockgate("apply", "-f", str(file), "--wait").out.splitlines()[1:] == [
        "1 change(s) written, config_seq 2",
        "no host is concerned: nothing to wait for",
    ]
    assert lockgate("apply", "-f", str(file), "--wait", "--json").json["hosts"] == []


def test_a_database_that_goes_away_meanwhile_is_told(lockgate: Lockgate, tmp_path: Path) -> None:
    lockgate("apply", "-f", str(EXAMPLE))
    lockgate.reports("host-a", 0)
    soon = threading.Timer(0.3, service.stop, (tmp_path,))
    soon.start()
    said = lockgate(*WAIT, "--timeout", "1", code=1).err
    soon.join()
    assert said.startswith(f"written, but the mapping database at {lockgate.remote} went away (")
    assert "look with `lockgate status`" in said


def test_a_terminal_shows_who_is_waited_for(lockgate: Lockgate) -> None:
    lockgate("apply", "-f", str(EXAMPLE))
    lockgate.reports("host-a", 0)
    lockgate.reports("host-b", 1)
    ours, theirs = pty.openpty()
    run = [*LOCKGATE, *WAIT, "--timeout", "0.5"]
    with subprocess.Popen(run, stdout=subprocess.PIPE, stderr=theirs, env=os.environ | {"TERM": "xterm"}) as waiting:
        os.close(theirs)
        shown = b""
        with suppress(OSError):  # so a terminal ends
            while more := os.read(ours, 4096):
                shown += more
        assert waiting.stdout
        assert b"waiting" not in waiting.stdout.read()
    os.close(ours)
    assert b"config_seq 1 is written, waiting for host host-a" in shown


def test_real_hosts_are_waited_for_as_far_as_they_are_concerned(
    lockgate: Lockgate, world: World, tmp_path: Path, figure: Figure
) -> None:
    file = tmp_path / "f.yaml"

    def apply(port: Port, vpc: str, host: str, ip: str, code: int = 0) -> dict[str, dict[str, Any]]:
        file.write_text(f"ports:\n  {port.name}: {{vpc: {vpc}, mac: '{port.mac}', host: {host}, addresses: [{ip}]}}\n")
        words = ("--db", world.database.remote, "apply", "-f", str(file), "--wait", "--timeout", "2", "--json")
        found = lockgate(*words, code=code).json
        world.database.config_seq = found["config_seq"]
        return {host.pop("host"): host for host in found["hosts"]}

    both = apply(WEB, "blue", "host-a", "10.0.0.21")
    for host in (world.a, world.b):
        for bridge in (BR_GUEST, BR_NIC):
            assert host.cookies(bridge) == world.desired(host, bridge)[0]
        figure(f"{host.host.name} has confirmed", both[host.host.name]["ms"], "ms")
    only = apply(SPY, "red", "host-b", "10.0.0.22")
    assert 0 <= only["host-b"]["ms"] < 2000
    assert only == {"host-b": {"state": "applied", "ms": only["host-b"]["ms"], "why": ""}}

    controllers = world.b.ovs.vsctl("get-controller", BR_NIC).split()
    world.b.ovs.vsctl("del-controller", BR_NIC)
    try:
        world.controller.says(f"host-b {BR_NIC}: datapath {HOST_B.nic_datapath:016x} disconnected")
        found = apply(WEB, "blue", "host-a", "10.0.0.23")
    finally:
        world.b.ovs.vsctl("set-controller", BR_NIC, *controllers)
    assert (found["host-a"]["state"], found["host-b"]["state"]) == ("applied", "not live")
    assert found["host-b"]["why"].startswith("its NIC bridge not connected to the controller: the last flows stay; ")
    world.wait_applied()

    world.controller.signal(signal.SIGSTOP)
    try:
        late = apply(SPY, "red", "host-b", "10.0.0.24", code=1)
    finally:
        world.controller.signal(signal.SIGCONT)
    why = "1 change(s) not applied yet: look again in a second"
    assert late == {"host-b": {"state": "late", "ms": None, "why": why}}
    world.wait_applied()
    world.assert_as_desired()


def test_status(lockgate: Lockgate) -> None:
    assert lockgate("status").out.startswith("The database answers, and knows no host yet")
    lockgate("apply", "-f", str(EXAMPLE))
    lockgate.reports("host-a", 1)
    lockgate.reports("host-b", 1)
    with Writer([lockgate.remote]) as writer:
        where = [["name", "==", "green-db"]]
        writer._transact([{"op": "update", "table": "Port", "where": where, "row": {"mac": "junk"}}])
    shown = lockgate("status").out.splitlines()
    assert shown[0] == "1 row(s) cannot be used and map nowhere, the rest works: mend what is listed as bad"
    assert any(line.split()[:6] == ["host-a", "192.0.2.1", "vxlan", "connected", "connected", "1"] for line in shown)
    assert any(line.split() == ["x", "6", "host-a,", "host-b"] for line in shown)
    assert any(line.startswith("Port     green-db  MAC 'junk'") for line in shown)
    found = lockgate("status", "--json").json
    assert (found["ok"], found["config_seq"], found["database"]) == (False, 1, lockgate.remote)
    assert [row["name"] for row in found["bad"]] == ["green-db"]
    assert [(host["live"], host["lag"]) for host in found["hosts"]] == [(True, 0), (True, 0)]


def test_status_of_many_hosts_fits_on_a_screen_and_begins_with_those_in_trouble(lockgate: Lockgate) -> None:
    for number in range(1, 21):
        lockgate("host", "add", f"h{number}", "--vtep", f"192.0.2.{number}")
    for number in range(1, 20):
        lockgate.reports(f"h{number}", 20)
    shown = lockgate("status").out.splitlines()
    assert len(shown) <= 24
    assert shown[0].startswith("host h20: no controller has ever reported")
    lines = [line.split()[0] for line in shown if "vxlan" in line]
    assert (lines[0], len(lines)) == ("h20", 8)
    assert len([line for line in lockgate("status", "--all").out.splitlines() if "vxlan" in line]) == 20


@pytest.mark.parametrize(
    "words", [["vpc"], ["vpc", "add"], ["nonsense"], ["status", "--nonsense"], ["--db", "foo", "status"], []]
)
def test_wrong_usage(lockgate: Lockgate, words: list[str]) -> None:
    lockgate(*words, code=2)


@pytest.mark.parametrize("command", sorted(shapes.commands()))
def test_help_gives_an_example(lockgate: Lockgate, command: str) -> None:
    shown = " ".join(lockgate(*command.split(), "--help").out.split())
    assert "Example: lockgate " in shown
    assert command in shown.partition("Example:")[2]


def test_serve_until_interrupted(tmp_path: Path) -> None:
    for how in (signal.SIGINT, signal.SIGTERM):
        remote = f"unix:{tmp_path}/run/mapping.sock"
        words = ["--db", remote, "mapping", "serve", "--file", f"{tmp_path}/mapping.db"]
        with subprocess.Popen(
            [sys.executable, "-uc", ATTENTIVE, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as server:
            assert server.stdout
            assert server.stdout.readline() == f"mapping database {tmp_path}/mapping.db at p{remote}; Ctrl-C ends it\n"
            apply = subprocess.run(
                [*LOCKGATE, "--db", remote, "apply", "-f", str(EXAMPLE)], check=True, capture_output=True
            )
            assert apply.stderr == b""
            server.send_signal(how)
            _, err = server.communicate(timeout=10)
        assert (server.returncode, err) == (130, "")
        assert not (tmp_path / "run" / "mapping.sock").exists()


def test_serve_says_why_not(tmp_path: Path) -> None:
    file = tmp_path / "mapping.db"
    file.write_text("junk\n")
    words = ["--json", "mapping", "serve", "--file", str(file), "--listen", f"punix:{tmp_path}/x.sock"]
    done = subprocess.run([*LOCKGATE, *words], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "")
    assert "is no database" in json.loads(done.stdout)["error"]
