"""Every command of `lockgate`: what it prints for programs is what docs/cli.md says, and what is wrong is one line.

A new command fails here until it has an entry, and a shape in the document.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from tests import shapes
from tests.ovs.test_cli import EXAMPLE, Lockgate, lockgate

__all__ = ["lockgate"]

TESTS: Final = Path(__file__).parents[1]


class Command(NamedTuple):
    """How a command is given well, and how badly: words, and what is said."""

    well: str
    badly: tuple[tuple[str, str], ...] = ()
    database: bool = True
    """Whether it needs one: then it is tried without as well."""


NAMES = "use 1 to 63"
NO_PORT = "there is no port nobody: "
NO_FILE = "name a YAML file, like examples/two-hosts.yaml"
VPC = "there is no VPC bleu: did you mean 'blue'?"

# In this order, on one database.
HERE: Final = {
    "apply": Command(
        "apply -f {EXAMPLE}",
        (
            ("apply -f /nowhere.yaml", NO_FILE),
            ("apply -f {BAD}", "{BAD}:2: "),
            ("apply -f {BINARY}", "{BINARY}:2: byte 0x80"),
        ),
    ),
    "diff": Command("diff -f {EXAMPLE}", (("diff -f /nowhere.yaml", NO_FILE), ("diff -f {BAD}", "{BAD}:2: "))),
    "status": Command("status"),
    "get": Command("get hosts", (("get things", "choose vpcs, hosts, groups,"), ("get port nobody", NO_PORT))),
    "vpc add": Command(
        "vpc add red --vni 7 --subnet 10.0.0.0/24 --dns 10.0.0.9 --route 10.9.0.0/16=10.0.0.9",
        (
            ("vpc add red --vni 5001 --subnet 10.0.0.0/24", "VNI 5001 is taken by VPC blue: choose another"),
            ("vpc add r! --vni 8 --subnet 10.0.0.0/24", NAMES),
            ("vpc add r --vni 0 --subnet 10.0.0.0/24", "VNI '0': choose a whole number"),
            ("vpc add r --vni 8 --subnet 10.0.0.9/24", "subnet '10.0.0.9/24'"),
        ),
    ),
    "vpc list": Command("vpc list"),
    "host add": Command(
        "host add host-c --vtep 192.0.2.3",
        (
            ("host add x --vtep 192.0.2.1", "VTEP 192.0.2.1 is taken by host host-a"),
            ("host add x --vtep x", "address 'x': "),
            ("host add x --vtep 192.0.2.9 --encap x", "encapsulation 'x': choose "),
        ),
    ),
    "host list": Command("host list"),
    "group add": Command(
        "group add web --vpc blue --rule 'to_guest any from any'",
        (
            ("group add x --vpc bleu --rule 'to_guest any from any'", "there is no VPC 'bleu': did you mean 'blue'?"),
            ("group add x --vpc blue --rule junk", "rule 'junk'"),
        ),
    ),
    "group allow": Command("group allow web 'to_guest tcp 443 from any'", (("group allow web junk", "rule 'junk'"),)),
    "group list": Command("group list"),
    "group disallow": Command(
        "group disallow web 'to_guest tcp 443 from any'",
        (("group disallow web 'to_guest tcp 444 from any'", "has no rule"),),
    ),
    "port add": Command(
        "port add new --vpc blue --mac 02:00:00:00:00:99 --address 10.0.0.99 --limit to_guest_pps=9 --boot bios=a.0",
        (
            ("port add x --vpc bleu --mac 02:00:00:00:00:98", "there is no VPC 'bleu': did you mean 'blue'?"),
            ("port add x --vpc blue --mac junk", "MAC 'junk'"),
            ("port add x --vpc blue --mac 02:00:00:00:00:98 --limit speed=9", "limit 'speed': choose "),
            ("port add x --vpc blue --mac 02:00:00:00:00:98 --address x", "address 'x': "),
        ),
    ),
    "port list": Command("port list"),
    "port show": Command("port show blue-web", (("port show nobody", NO_PORT),)),
    "port set": Command(
        "port set new --allow 10.0.0.98",
        (("port set nobody --limit none", NO_PORT), ("port set new --allow 10.0.0.1", "the router of")),
    ),
    "port groups": Command("port groups new --group web", (("port groups nobody --group web", NO_PORT),)),
    "port move": Command(
        "port move new --host host-c", (("port move new --host host-x", "there is no host 'host-x'"),)
    ),
    "port unbind": Command("port unbind new", (("port unbind nobody", NO_PORT),)),
    "mapping add": Command(
        "mapping add blue 10.0.0.97 new",
        (("mapping add blue x new", "address 'x': "), ("mapping add blue 10.0.1.1 new", "outside its VPC's")),
    ),
    "mapping list": Command("mapping list"),
    "mapping move": Command(
        "mapping move blue 10.0.0.97 blue-web", (("mapping move blue 10.0.0.96 new", "no mapping"),)
    ),
    "mapping delete": Command(
        "mapping delete blue 10.0.0.97", (("mapping delete blue 10.0.0.96", "look with `lockgate mapping list`"),)
    ),
    "edit": Command(
        "edit port new", (("edit port nobody", NO_PORT), ("edit things x", "choose vpcs, hosts, groups, ports"))
    ),
    "describe": Command("describe vpc blue", (("describe port nobody", NO_PORT), ("describe x y", "choose vpcs, "))),
    "history": Command("history", (("history -n x", "`lockgate history --help` shows how"),)),
    "explain": Command(
        "explain spoofed_mac", (("explain junk", "junk is no cookie"), ("explain 0x1 --host x", "no host x")), False
    ),
    "audit": Command("audit --via false", (("audit --host nobody", "there is no host nobody"),)),
    "host drain": Command("host drain host-c --to host-a", (("host drain nobody", "there is no host nobody"),)),
    "port delete": Command("port delete new", (("port delete nobody", NO_PORT),)),
    "group delete": Command("group delete web", (("group delete nobody", "there is no group nobody"),)),
    "host delete": Command("host delete host-c", (("host delete host-a", "is still needed by port"),)),
    "vpc delete": Command("vpc delete red", (("vpc delete bleu", VPC), ("vpc delete blue", "is still needed by"))),
    "delete": Command(
        "delete mapping blue/10.0.0.11",
        (("delete ports nobody blue-web", NO_PORT), ("delete mapping 10.0.0.11", "write VPC/ADDRESS")),
    ),
    "export": Command("export"),
    "import": Command("import -f {EXAMPLE}", (("import -f {BAD}", "{BAD}:2: "), ("import -f /nowhere.yaml", NO_FILE))),
    "mapping status": Command("mapping status --file {DB}", database=False),
    "mapping backup": Command("mapping backup {OUT}", (("mapping backup /nowhere/x", "choose another place"),)),
    "mapping restore": Command("mapping restore {OUT}", (("mapping restore {BAD}", "{BAD} is no backup"),)),
    "mapping compact": Command(
        "mapping compact --file {DB}",
        (("mapping compact --file /nowhere/db", "is `lockgate mapping serve` running, with this --file?"),),
        False,
    ),
    "mapping convert": Command("mapping convert"),
    "pki init": Command("pki init --pki {PKI}", (("pki init --pki /proc/x", "/proc/x"),), False),
    "pki issue": Command(
        "pki issue host host-a --pki {PKI} --out {TLS}",
        (
            ("pki issue host h! --pki {PKI} --out {TLS}", NAMES),
            ("pki issue host host-a --pki /nowhere --out {TLS}", "`lockgate pki init`"),
            ("pki issue host host-a --pki {PKI} --out /proc/x", "/proc/x"),
            ("pki issue nobody host-a --pki {PKI} --out {TLS}", "`lockgate pki issue --help` shows how"),
        ),
        database=False,
    ),
    "pki trust": Command(
        "pki trust --pki {PKI} --out {TLS}", (("pki trust --pki /nowhere --out {TLS}", "init"),), False
    ),
    "pki show": Command("pki show --pki {PKI}", (("pki show --pki /nowhere", "`lockgate pki init`"),), False),
    "pki revoke": Command(
        "pki revoke host host-a --pki {PKI}", (("pki revoke host nobody --pki {PKI}", "host nobody"),), False
    ),
    "pki rotate": Command(
        "pki rotate host --pki {PKI}", (("pki rotate host --finish --pki /nowhere", "`lockgate pki init`"),), False
    ),
}

# What needs a switch, root, or to be interrupted is checked by `tests.shapes.check` there, on every run with --json.
ELSEWHERE: Final = {
    "trace": Command("trace blue-web blue-db", (("trace nobody blue-db", NO_PORT), ("trace blue-web x", "no port x"))),
    "watch": Command("watch", (("watch things", "choose vpcs, hosts, groups, ports"),)),
    "provision": Command(
        "provision blue-web --host host-a", (("provision blue-web --host nobody", "there is no host 'nobody'"),)
    ),
    "release": Command("release blue-web", (("release nobody", "look with `lockgate host list`"),)),
    "attest": Command("attest host-a --via false", (("attest nobody", "there is no host 'nobody'"),)),
    "mapping serve": Command(
        "mapping serve",
        (
            ("--db tcp:127.0.0.1:1 mapping serve --file {OUT}", "say where with --listen"),
            ("mapping serve --file {BAD} --listen punix:{NEW}", "is no database"),
            ("mapping serve --listen junk --file {NEW}", "write punix:PATH or ptcp:PORT:IP"),
            ("mapping serve --operators pssl:1:x --file {NEW}", "write pssl:PORT:IP"),
            ("mapping serve --cluster junk --file {NEW}", "write --cluster ssl:IP:PORT"),
        ),
        database=False,
    ),
    "bridges build": Command(
        "bridges build",
        (("bridges build --uplink a --mgmt b --vtep x --controller tcp:192.0.2.9:6653", "write one like 192.0.2.1"),),
        database=False,
    ),
    "bridges plug": Command("bridges plug x", (("bridges plug no-such-device", "`ip link` shows"),), False),
    "bridges unplug": Command("bridges unplug x", database=False),
    "bridges watch": Command("bridges watch", database=False),
    "lab up": Command("lab up", database=False),
    "lab status": Command("lab status", database=False),
    "lab exec": Command("lab exec a -- true", database=False),
    "lab down": Command("lab down", database=False),
}
CHECKED: Final = {
    "trace": "ovs/test_explain.py",
    "watch": "ovs/test_cli_verbs.py",
    "mapping serve": "ovs/test_maintenance.py",
    "provision": "provision/conftest.py",
    "release": "provision/conftest.py",
    "attest": "provision/conftest.py",
    "bridges build": "net/test_bridges_cli.py",
    "bridges plug": "net/test_bridges_cli.py",
    "bridges unplug": "net/test_bridges_cli.py",
    "bridges watch": "net/test_bridges_cli.py",
    "lab up": "net/test_lab.py",
    "lab status": "net/test_lab.py",
    "lab down": "net/test_lab.py",
    "lab exec": "net/test_lab.py",
}
ALL: Final = HERE | ELSEWHERE


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What stands for a word in braces."""
    (tmp_path / "BAD").write_text("vpcs: [junk\n")
    (tmp_path / "BINARY").write_bytes(bytes(range(256)))
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", "true")
    names = ("BAD", "BINARY", "OUT", "PKI", "TLS", "NEW")
    return {name: str(tmp_path / name) for name in names} | {"DB": f"{tmp_path}/mapping.db", "EXAMPLE": str(EXAMPLE)}


def given(words: str, places: dict[str, str]) -> list[str]:
    return shlex.split(words.format(**places))


def test_every_command_has_an_entry_here_and_a_shape_in_the_document() -> None:
    assert ALL.keys() == shapes.commands()
    assert shapes.commands() <= shapes.shapes().keys()
    assert CHECKED.keys() == ELSEWHERE.keys()
    for file in CHECKED.values():
        assert "shapes.check(" in (TESTS / file).read_text() or "Lockgate" in (TESTS / file).read_text(), file


def test_every_command_prints_what_the_document_says(lockgate: Lockgate, places: dict[str, str]) -> None:
    """`Lockgate` compares each that it runs."""
    for name, command in HERE.items():
        words = given(command.well, places)
        assert shapes.command(words) == name
        lockgate(*words, "--json", code=1 if name == "audit" else 0)


def test_what_is_wrong_is_one_line_with_the_mend(lockgate: Lockgate, places: dict[str, str]) -> None:
    lockgate("apply", "-f", str(EXAMPLE))
    lockgate("group", "add", "web", "--vpc", "blue")
    lockgate("port", "add", "new", "--vpc", "blue", "--mac", "02:00:00:00:00:99")
    lockgate("mapping", "backup", places["OUT"])
    lockgate("pki", "init", "--pki", places["PKI"])
    before = lockgate("export").out
    for name, command in ALL.items():
        for words, said in command.badly:
            refused(lockgate, given(words, places), said.format(**places))
        if command.database:
            refused(lockgate, ["--db", "unix:/nowhere", *given(command.well, places)], "unix:/nowhere")
        misused = f"No such option: --nonsense: `lockgate {name} --help` shows how"
        refused(lockgate, [*name.split(), "--nonsense"], misused)
    assert lockgate("export").out == before


def refused(lockgate: Lockgate, words: list[str], said: str) -> None:
    code = 2 if "--help` shows how" in said else 1
    run = lockgate(*words, code=code)
    assert said in run.err, words
    assert (run.out, run.err.count("\n"), run.err[-1:]) == ("", 1, "\n"), run.err
    assert "Traceback" not in run.err
    told = lockgate(*words, "--json", code=code)
    assert told.err == ""
    assert told.json == {"error": run.err[:-1], "problems": [run.err[:-1]]}
