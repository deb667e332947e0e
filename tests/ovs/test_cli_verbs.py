"""`lockgate get | describe | edit | delete | diff | export | import | watch | history`, on a real database."""

from __future__ import annotations

import getpass
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mapping import history
from mapping.writer import Writer
from tests import shapes
from tests.ovs.test_cli import ATTENTIVE, EXAMPLE, LOCKGATE, Lockgate, lockgate
from topo.waiting import wait_until

__all__ = ["lockgate"]

LIMITED = (
    "port",
    "set",
    "blue-web",
    "--limit",
    "from_guest_kbps=1000",
    "--limit",
    "to_guest_pps=9",
    "--allow",
    "10.0.0.99",
)


@pytest.fixture
def example(lockgate: Lockgate) -> Lockgate:
    lockgate("apply", "-f", str(EXAMPLE))
    return lockgate


def test_get_shows_rows_with_maps_as_objects(example: Lockgate) -> None:
    edits = example(*LIMITED, "--json").json["edits"]
    limits = {"from_guest_kbps": 1000, "to_guest_pps": 9}
    assert edits == [
        {
            "action": "change",
            "table": "Port",
            "key": ["blue-web"],
            "before": {"allowed": [], "limits": {}},
            "after": {"allowed": ["10.0.0.99"], "limits": limits},
        }
    ]
    (row,) = example("get", "ports", "blue-web", "--json").json
    assert (row["limits"], row["allowed"], row["boot"]) == (limits, ["10.0.0.99"], {})
    assert [row["name"] for row in example("get", "hosts", "--json").json] == ["host-a", "host-b"]
    assert [row["ip"] for row in example("get", "mapping", "blue/10.0.0.11", "--json").json] == ["10.0.0.11"]
    example(*LIMITED[:3], "--limit", "none")
    assert example("get", "port", "blue-web", "--json").json[0]["limits"] == {}


def test_describe_shows_what_belongs_together_and_why_it_is_so(example: Lockgate) -> None:
    example("port", "move", "blue-web", "--host", "host-b", "-m", "host-a gets a new fan")
    told = example("describe", "port", "blue-web", "--json").json
    assert told["row"]["host"] == "host-b"
    assert [address["ip"] for address in told["addresses"]] == ["10.0.0.11"]
    assert [(entry["config_seq"], entry["reason"]) for entry in told["history"]] == [
        (2, "host-a gets a new fan"),
        (1, ""),
    ]
    assert {port["name"] for port in example("describe", "host", "host-b", "--json").json["ports"]} >= {"blue-web"}
    example("group", "add", "web", "--vpc", "blue")
    example("port", "groups", "blue-web", "--group", "web")
    told = example("describe", "group", "web", "--json").json
    assert [port["name"] for port in told["ports"]] == ["blue-web"]
    assert [address["ip"] for address in told["addresses"]] == ["10.0.0.11"]
    shown = example("describe", "port", "blue-web").out
    assert "why: host-a gets a new fan\n    ~ port blue-web  host host-a -> host-b\n" in shown
    assert "10.0.0.12" not in shown


def test_history_names_who_how_and_why_and_is_bounded(example: Lockgate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "KEPT", 3)
    example("--reason=because", "vpc", "add", "red", "--vni", "7", "--subnet", "10.0.0.0/24")
    for number in range(3):
        example("mapping", "add", "blue", f"10.0.0.{50 + number}", "blue-web", "--reason", "r" * 1000)
    entries = example("history", "--json").json
    assert [entry["config_seq"] for entry in entries] == [5, 4, 3]
    assert len(entries[0]["reason"]) == 300
    assert entries[0]["command"] == "lockgate mapping add blue 10.0.0.52 blue-web"
    assert entries[0]["who"] == f"{getpass.getuser()}@{socket.gethostname()}"
    assert entries[0]["edits"] == ["+ mapping 10.0.0.52 of VPC blue  port blue-web"]
    assert abs(entries[0]["at"] - time.time()) < 60
    example("vpc", "delete", "nobody", code=1)
    example("vpc", "delete", "red", "--json", "-m", "gone")
    assert len(example("history", "-n", "1", "--json").json) == 1
    assert "why: gone" in example("history").out


def test_delete_takes_several_at_once_or_none(example: Lockgate) -> None:
    assert "there is no port nobody" in example("delete", "ports", "blue-web", "nobody", code=1).err
    assert len(example("delete", "port", "blue-web", "blue-db", "--json").json["edits"]) == 4
    assert "choose vpcs, hosts, groups, ports, mappings\n" in example("delete", "things", "x", code=1).err
    assert "write VPC/ADDRESS" in example("delete", "mapping", "10.0.0.11", code=1).err


def test_diff_says_by_its_exit_status_whether_there_is_one(example: Lockgate, tmp_path: Path) -> None:
    assert example("diff", "-f", str(EXAMPLE)).out.startswith("nothing to do")
    file = tmp_path / "f.yaml"
    file.write_text(EXAMPLE.read_text().replace("5001", "5009"))
    found = example("diff", "-f", str(file), "--json", code=3).json
    assert [(edit["after"], found["dry_run"]) for edit in found["edits"]] == [({"vni": 5009}, True)]
    file.write_text("vpcs: {x: {}}")
    assert "has no `vni`" in example("diff", "-f", str(file), code=1).err
    assert example("diff", "-f", str(EXAMPLE)).out.startswith("nothing to do")


def test_what_is_exported_and_imported_is_what_was(example: Lockgate, tmp_path: Path) -> None:
    example(*LIMITED)
    example("port", "set", "blue-db", "--boot", "bios=a.0", "--boot", "next_server=10.0.0.9")
    example("port", "unbind", "green-db")
    vpc = ("--vni", "77", "--subnet", "fd00::/64", "--subnet", "10.3.0.0/24", "--route", "10.9.0.0/16=10.3.0.9")
    example("vpc", "add", "no", *vpc, "--mtu", "1300", "--dns", "fd00::53")
    rules = ("--rule", "to_guest tcp 443 from group web", "--rule", "to_guest icmp from 10.0.0.0/24")
    example("group", "add", "web", "--vpc", "blue", *rules)
    example("group", "add", "bare", "--vpc", "green", "--stateless")
    example("port", "groups", "blue-web", "--group", "web")
    text, told = example("export").out, example("export", "--json").json
    file = tmp_path / "all.yaml"
    file.write_text(text)
    assert example("import", "-f", str(file)).out.startswith("nothing to do")
    example("delete", "ports", *(row["name"] for row in told["Port"]))
    example("delete", "groups", "web", "bare")
    example("delete", "vpc", "no", "blue", "green")
    example("vpc", "add", "other", "--vni", "78", "--subnet", "10.3.0.0/24")
    example("import", "-f", str(file), "-m", "put back")
    assert example("export", "--json").json == told
    assert example("export").out == text


def editor(monkeypatch: pytest.MonkeyPatch, old: str, new: str) -> None:
    program = (
        f"import sys, pathlib; f = pathlib.Path(sys.argv[1]); f.write_text(f.read_text().replace({old!r}, {new!r}))"
    )
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", f'{sys.executable} -c "{program}"')


def test_edit_applies_what_the_editor_leaves(
    example: Lockgate, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    editor(monkeypatch, "host-a", "host-b")
    assert example("edit", "port", "blue-web").out.startswith("~ port blue-web  host host-a -> host-b")
    editor(monkeypatch, "nothing", "else")
    assert example("edit", "port", "blue-web").out == "nothing to do: the text is as it was\n"
    assert not list(tmp_path.glob("lockgate-*"))
    editor(monkeypatch, "host-b", "nowhere")
    said = example("edit", "port", "blue-web", code=1).err
    (kept,) = tmp_path.glob("lockgate-*.yaml")
    assert said.startswith(f"{kept}:")
    assert "there is no host 'nowhere'" in said
    assert "nowhere" in kept.read_text()
    monkeypatch.setenv("EDITOR", "/nowhere/ed")
    assert "editor /nowhere/ed: No such file" in example("edit", "port", "blue-web", code=1).err


def test_who_edits_an_address_keeps_the_others_of_its_port(example: Lockgate, monkeypatch: pytest.MonkeyPatch) -> None:
    example("mapping", "add", "blue", "10.0.0.21", "blue-web")
    assert "addresses: [10.0.0.11, 10.0.0.21]" in example("get", "mapping", "blue/10.0.0.21", "--yaml").out
    editor(monkeypatch, "10.0.0.21", "10.0.0.22")
    example("edit", "mapping", "blue/10.0.0.21")
    told = example("describe", "port", "blue-web", "--json").json
    assert {address["ip"] for address in told["addresses"]} == {"10.0.0.11", "10.0.0.22"}


def test_a_group_is_edited_as_a_file_has_it(example: Lockgate, monkeypatch: pytest.MonkeyPatch) -> None:
    example("group", "add", "web", "--vpc", "blue", "--rule", "to_guest tcp 443 from any")
    assert "rules: [to_guest tcp 443 from any]" in example("get", "group", "web", "--yaml").out
    editor(monkeypatch, "443", "444")
    edited = example("edit", "group", "web").out
    assert edited.startswith("~ group web  rules to_guest tcp 443 from any -> to_guest tcp 444 from any")


def test_an_edit_does_not_overwrite_what_others_did_meanwhile(
    example: Lockgate, monkeypatch: pytest.MonkeyPatch
) -> None:
    meanwhile = [*LOCKGATE, "port", "set", "blue-web", "--allow", "10.0.0.99"]
    program = (
        "import subprocess, sys, pathlib; f = pathlib.Path(sys.argv[1]);"
        "f.write_text(f.read_text().replace('host-a', 'host-b'));"
        f"subprocess.run({meanwhile!r}, check=True)"
    )
    monkeypatch.setenv("VISUAL", f'{sys.executable} -c "{program}"')
    said = example("edit", "port", "blue-web", code=1).err
    assert said.startswith("port blue-web was changed meanwhile: edit it again; your text is in ")
    Path(said.rpartition(" ")[2].strip()).unlink()
    assert example("get", "port", "blue-web", "--json").json[0]["host"] == "host-a"


def test_watch_shows_each_change_as_it_comes(example: Lockgate) -> None:
    example("group", "add", "web", "--vpc", "blue", "--rule", "to_guest tcp 80 from any")
    words = ["--db", example.remote, "watch", "--json"]
    before = _monitors(example)
    with subprocess.Popen([sys.executable, "-uc", ATTENTIVE, *words], stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout
        try:
            wait_until(lambda: _monitors(example) > before, 10, "the watcher to follow")
            example("vpc", "add", "red", "--vni", "7", "--subnet", "10.0.0.0/24")
            example("port", "unbind", "blue-web")
            example("group", "allow", "web", "to_guest tcp 443 from any")
            lines = [watching.stdout.readline() for _ in range(3)]
            for line in lines:
                shapes.check("watch", line)
            told = [json.loads(line) for line in lines]
        finally:
            watching.send_signal(signal.SIGINT)
            code = watching.wait(10)
    assert ([each["config_seq"] for each in told], code) == ([3, 4, 5], 130)
    vpc, port, group = (edit for each in told for edit in each["edits"])
    assert vpc["key"] == ["red"]
    assert (port["key"], port["after"]["host"]) == (["blue-web"], None)
    assert (group["key"], len(group["after"]["rules"])) == (["web"], 2)


def _monitors(example: Lockgate) -> int:
    """How many clients follow the database."""
    folder = Path(example.remote.removeprefix("unix:")).parent
    shown = subprocess.run(
        ["ovs-appctl", "-t", f"{folder}/mapping.ctl", "memory/show"], check=True, capture_output=True, text=True
    ).stdout
    found = re.search(r"monitors:(\d+)", shown)
    return int(found[1]) if found else 0


@pytest.mark.usefixtures("example")
def test_the_shell_completes_kinds_and_names(monkeypatch: pytest.MonkeyPatch) -> None:
    def completed(line: str) -> list[str]:
        env = os.environ | {
            "_LOCKGATE_COMPLETE": "complete_bash",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(line.split(" ")) - 1),
        }
        program = "import sys; sys.argv = ['lockgate']; from mapping.cli import main; main()"
        done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=False)
        assert done.stderr == ""
        return done.stdout.split()

    assert completed("lockgate get po") == ["ports"]
    assert completed("lockgate describe port blue-w") == ["blue-web"]
    assert completed("lockgate get mappings blue/10.0.0.11") == ["blue/10.0.0.11"]
    assert completed("lockgate port move x --host host-") == ["host-a", "host-b"]
    monkeypatch.setenv("LOCKGATE_DB", "unix:/nowhere")
    assert completed("lockgate get port b") == []


@pytest.mark.usefixtures("example")
def test_bash_completes(tmp_path: Path) -> None:
    """What `lockgate --show-completion` prints, in a bash that has read it and is asked for a completion."""
    (tmp_path / "lockgate").symlink_to(Path(sys.executable).with_name("lockgate"))
    asked = """
        eval "$(lockgate --show-completion bash)"
        complete -p lockgate >/dev/null || exit 9
        COMP_WORDS=(lockgate describe port blue-) COMP_CWORD=3
        _lockgate_completion lockgate
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    env = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "--norc", "-c", asked], env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == ["blue-db", "blue-web"]


def test_an_apply_that_is_killed_leaves_the_old_or_the_new(example: Lockgate, tmp_path: Path) -> None:
    """At whatever moment: a file of 2,000 addresses, and kills spread over the time that a whole run takes."""
    old = example("export", "--json").json
    lines = "".join(f"      - 10.0.{n // 200 + 8}.{n % 200 + 10}\n" for n in range(2000))
    text = EXAMPLE.read_text().replace("10.0.0.0/24", "10.0.0.0/16", 1)
    file = tmp_path / "many.yaml"
    file.write_text(text.replace("addresses: [10.0.0.11]", f"addresses:\n      - 10.0.0.11\n{lines}", 1))
    back = tmp_path / "old.yaml"
    back.write_text(example("export").out)
    apply = [*LOCKGATE, "apply", "-f", str(file)]
    begin = time.monotonic()
    subprocess.run(apply, check=True, capture_output=True)
    whole = time.monotonic() - begin
    new = example("export", "--json").json
    example("import", "-f", str(back))
    rng = random.Random(4)
    seen = {"old": 0, "new": 0}
    for attempt in range(12):
        # The last ones come late, when the answer may be under way.
        until = time.monotonic() + whole * (rng.uniform(0.5, 1.1) if attempt % 2 else rng.random())
        with subprocess.Popen(apply, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as killed:
            wait_until(lambda: time.monotonic() > until, 60, "its time")  # noqa: B023 - called in this round
            killed.kill()
        with Writer([example.remote]) as writer:
            writer.read()
        now = example("export", "--json").json
        assert now in (old, new)
        seen["new" if now == new else "old"] += 1
        example("import", "-f", str(back))
    assert seen["old"], "no kill came early enough to tell"


def test_drain_moves_every_port_of_a_host_at_once(example: Lockgate) -> None:
    assert "no other host is live" in example("host", "drain", "host-a", code=1).err
    before = {row["name"]: row["host"] for row in example("get", "ports", "--json").json}
    leaving = {name for name, host in before.items() if host == "host-a"}
    assert leaving
    dry = example("host", "drain", "host-a", "--to", "host-b", "--dry-run", "--json").json
    assert ({edit["key"][0] for edit in dry["edits"]}, dry["dry_run"]) == (leaving, True)
    for number, name in enumerate(("host-c", "host-d", "host-e")):
        example("host", "add", name, "--vtep", f"192.0.2.{number + 20}")
    example("host", "add", "host-six", "--vtep", "2001:db8::6")
    example("vpc", "add", "red", "--vni", "9", "--subnet", "10.0.0.0/24")
    for name in ("host-a", "host-c", "host-d", "host-six"):
        example.reports(name, 1)
    example("host", "drain", "host-a", "-m", "a new fan")
    after = {row["name"]: row["host"] for row in example("get", "ports", "--json").json}
    assert sorted(after[name] for name in leaving) == ["host-c", "host-d"], "the live ones, evenly"
    assert {name: after[name] for name in before.keys() - leaving} == {
        name: host for name, host in before.items() if name not in leaving
    }
    assert example("host", "drain", "host-a").out.startswith("nothing to do")
    assert example("history", "-n", "1", "--json").json[0]["reason"] == "a new fan"


def test_drain_says_what_cannot_go_where_it_should(example: Lockgate) -> None:
    example("host", "add", "host-c", "--vtep", "192.0.2.20")
    example("port", "move", "blue-db", "--host", "host-b", "--device", "blue-web")
    said = example("host", "drain", "host-a", "--to", "host-b", code=1).err
    assert "device blue-web of host host-b is taken by port" in said
    for name in ("host-b", "host-c"):
        example.reports(name, 1)
    other = ("--vpc", "blue", "--mac", "02:00:00:00:09:01", "--host", "host-c", "--device", "blue-web")
    example("port", "add", "other", *other)
    said = example("host", "drain", "host-a", code=1).err
    assert "port blue-web: its device blue-web is taken wherever it could go" in said
    example("port", "delete", "other")
    example("host", "drain", "host-a")
    assert example("get", "port", "blue-web", "--json").json[0]["host"] == "host-c"
    assert "cannot be emptied into itself" in example("host", "drain", "host-a", "--to", "host-a", code=1).err
    assert "there is no host host-x" in example("host", "drain", "host-x", code=1).err


def seats(example: Lockgate) -> tuple[str | None, ...]:
    (row,) = example("get", "port", "blue-web", "--json").json
    return row["host"], row["moving_to"], row["previous_host"]


def test_a_live_move_that_is_broken_off_goes_on_when_given_again(example: Lockgate) -> None:
    live = ("port", "move", "blue-web", "--host", "host-b", "--live", "--timeout", "0.1")
    example.reports("host-b", 1)
    said = example(*live, code=1).err
    assert said.startswith("step written, but not applied after 0.1 s by host-b: look with `lockgate status`")
    assert seats(example) == ("host-a", "host-b", None)
    assert (
        "port blue-web is moving to host-b: end that move first" in example(*live[:4], "host-c", *live[5:], code=1).err
    )
    example.reports("host-b", 2)
    example(*live, code=1)
    assert seats(example) == ("host-b", None, "host-a")
    example.reports("host-b", 9)
    assert len(example(*live, "--json").json["edits"]) == 1
    assert seats(example) == ("host-b", None, None)
    example.reports("host-a", 9)
    assert example("port", "move", "blue-web", "--host", "host-a", "--live").out.splitlines()[:4] == [
        "~ port blue-web  moving_to none -> host-a",
        "1 change(s) written, config_seq 5",
        "~ port blue-web  host host-b -> host-a, moving_to host-a -> none, previous_host none -> host-b",
        "1 change(s) written, config_seq 6",
    ]
    assert seats(example) == ("host-a", None, None)


def test_a_live_move_to_a_host_that_does_not_confirm_is_taken_back(example: Lockgate) -> None:
    """Whatever is wrong with the host; and if that begins after the first step, the last is not taken."""
    live = ("port", "move", "blue-web", "--host", "host-b", "--live")
    before = example("export").out
    said = example(*live, code=1).err
    assert said.startswith("nothing is moved, and the preparations are taken back. host host-b has not confirmed, and")
    assert "no controller has ever reported: start `ryu-manager controller.app`" in said
    assert example("export").out == before
    example.reports("host-b", 1, nic="absent")
    assert "its NIC bridge not connected" in example(*live, code=1).err
    assert example("export").out == before
    example.reports("host-b", 6)
    dies = threading.Thread(target=dies_after_the_second_step, args=(example,))
    dies.start()
    said = example(*live, code=1).err
    dies.join()
    assert said.startswith("moved, but the old host still sends on what arrives there. host host-b has not confirmed")
    assert seats(example) == ("host-b", None, "host-a")
    example.reports("host-b", 99)
    example(*live)
    assert seats(example) == ("host-b", None, None)


def dies_after_the_second_step(example: Lockgate) -> None:
    with Writer([example.remote]) as writer:
        wait_until(lambda: any(row["previous_host"] != ["set", []] for row in writer.read()["Port"].values()), 20, "it")
    example.reports("host-b", 6, guest="absent")


def test_a_live_drain_moves_all_ports_together_and_goes_on_where_it_was_broken_off(example: Lockgate) -> None:
    def seats() -> set[tuple[str | None, ...]]:
        ports = (row for row in example("get", "ports", "--json").json if row["name"] in names)
        return {(row["host"], row["moving_to"], row["previous_host"]) for row in ports}

    names = {row["name"] for row in example("get", "ports", "--json").json if row["host"] == "host-a"}
    assert len(names) == 2
    example("host", "add", "host-c", "--vtep", "192.0.2.20")
    example.reports("host-c", 2)
    drain = ("host", "drain", "host-a", "--live", "--timeout", "0.1")
    said = example(*drain, code=1).err
    assert "step written, but not applied after 0.1 s by host-c" in said
    assert seats() == {("host-a", "host-c", None)}
    # Where it goes is settled, although host-b could have them now.
    example.reports("host-b", 99)
    example.reports("host-c", 3)
    example(*drain, code=1)
    assert seats() == {("host-c", None, "host-a")}
    example.reports("host-c", 99)
    assert len(example(*drain, "--json").json["edits"]) == 2
    assert seats() == {("host-c", None, None)}
    assert example(*drain).out.startswith("nothing to do")


def test_a_live_move_is_given_up_by_moving_to_where_the_port_is(example: Lockgate) -> None:
    example.reports("host-b", 1)
    example("port", "move", "blue-web", "--host", "host-b", "--live", "--timeout", "0.1", code=1)
    example.reports("host-b", 9)
    example("port", "move", "blue-web", "--host", "host-a", "--live")
    assert seats(example) == ("host-a", None, None)
    example("port", "unbind", "blue-web")
    assert "is on no host" in example("port", "move", "blue-web", "--host", "host-a", "--live", code=1).err
    words = ("port", "move", "blue-web", "--host", "host-a", "--live", "--device", "x")
    assert "its name is the same on both hosts" in example(*words, code=1).err
