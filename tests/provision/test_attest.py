"""Whoever changes a host's bridges or flows is seen, and what he did is mended, or the port closed."""

from __future__ import annotations

import configparser
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mapping.history import Cause
from mapping.writer import Writer
from provision.record import Ledger
from provision.site import Site
from provision.watch import STALE_SECONDS, Policy, Watcher
from tests.conftest import Figure
from tests.provision.conftest import Tool, obey
from tests.provision.test_order import Program, state
from topo.host import Host
from topo.waiting import wait_until

UNIT = Path("topo/deploy/lockgate-attest@.service")
SECONDS = 60
"""In which an alarm must come from a machine however busy."""
AT_ONCE = 5.0
"""Seconds in which it must come, and all be done, from a machine that does nothing else."""

TAMPER = {
    "a flow added": (["ofctl", "add-flow", "br-nic", "table=0,priority=60000,ip,actions=NORMAL"], "a flow is stranger"),
    "a port added": (
        ["vsctl", "add-port", "br-nic", "x", "--", "set", "Interface", "x", "type=internal"],
        "port 'x'",
    ),
    "a patch added": (
        ["vsctl", "add-port", "br-ctl", "p", "--", "set", "Interface", "p", "type=patch", "options:peer=q"],
        "port 'p'",
    ),
    "fail mode changed": (["vsctl", "set-fail-mode", "br-guest", "standalone"], "not secure"),
    "in-band turned on": (["vsctl", "set", "Bridge", "br-nic", "other-config:disable-in-band=false"], "in-band"),
    "a controller in band": (["vsctl", "set", "Controller", "br-nic", "connection_mode=in-band"], "speaks in band"),
    "a mirror added": (
        [
            *("vsctl", "--", "--id=@m", "create", "Mirror", "name=m", "select-all=true", "output-vlan=7"),
            *("--", "set", "Bridge", "br-nic", "mirrors=@m"),
        ],
        "mirrors is set",
    ),
    "any authority trusted": (["vsctl", "--bootstrap", "set-ssl", "key", "cert", "ca"], "bootstrap_ca_cert is set"),
    "a manager added": (["vsctl", "set-manager", "ptcp:6640:127.0.0.1"], "manager"),
    "spanning tree turned on": (["vsctl", "set", "Bridge", "br-guest", "stp_enable=true"], "stp_enable is set"),
}


class Watching:
    """A watch that runs, and what it says."""

    def __init__(self, said: Path) -> None:
        self._said = said
        self._read = 0

    def alarm(self) -> dict[str, Any]:
        """The next."""
        line = wait_until(self._next, SECONDS, "an alarm")
        alarm: dict[str, Any] = json.loads(line)
        return alarm

    def _next(self) -> str:
        lines = self._said.read_text().splitlines(keepends=True)
        if self._read < len(lines) and lines[self._read].endswith("\n"):
            self._read += 1
            return lines[self._read - 1]
        return ""


@contextmanager
def watching(tool: Tool, folder: Path, *words: str) -> Iterator[Watching]:
    """One that has looked once."""
    said, asked, via = folder / "said", folder / "asked", folder / "told"
    asked.write_text("")
    via.write_text(f'#!/bin/bash\necho "$*" >> {asked}\nexec "$@"\n')
    via.chmod(0o755)
    told = Tool(tool.lab, tool.env | {"LOCKGATE_VIA": f"{via} {tool.env['LOCKGATE_VIA']}"})
    with said.open("w") as out, told.popen("attest", *words, "--watch", stdout=out) as process:
        try:
            wait_until(lambda: asked.read_text().count("list Open_vSwitch") > 1, SECONDS, "the watch to have looked")
            yield Watching(said)
        finally:
            process.kill()


def _do(host: Host, words: list[str]) -> None:
    tool, *rest = words
    (host.vsctl if tool == "vsctl" else host.ofctl)(*rest)


def _flows(host: Host) -> list[str]:
    return sorted(host.ofctl("--no-stats", "dump-flows", "br-nic").splitlines())


@contextmanager
def within(figure: Figure, name: str) -> Iterator[None]:
    begun = time.monotonic()
    yield
    seconds = time.monotonic() - begun
    figure(f"{name}, of {AT_ONCE:g} s that it may take", round(seconds, 1), "s")
    assert seconds < AT_ONCE, name


@pytest.mark.alone
def test_tampering_is_seen_and_mended_within_5_seconds(lab_tool: Tool, tmp_path: Path, figure: Figure) -> None:
    tool = lab_tool
    host = tool.lab.hosts["host-b"]
    assert tool("attest", "host-b") == ""
    with watching(tool, tmp_path, "host-b", "--policy", "mend") as watch:
        for name, (words, said) in TAMPER.items():
            with within(figure, name):
                _do(host, words)
                alarm = watch.alarm()
            assert said in alarm["what"]
            assert alarm["done"] == "mended", name
        # Every cookie stays as it was. The controller sees that by itself; without one, it is the watch that does.
        tool.lab.kill_controller()
        installed = _flows(host)
        with within(figure, "flows changed, and their cookies kept"):
            host.ofctl("mod-flows", "br-nic", "table=0,actions=NORMAL")
            assert "a flow is changed" in watch.alarm()["what"]
        wait_until(lambda: _flows(host) == installed, SECONDS, "the flows")
    assert tool("attest", "host-b") == ""
    assert "db" in host.vsctl("list-ports", "br-guest").split()


@pytest.mark.alone
def test_tampering_is_seen_and_the_port_closed_within_5_seconds(lab_tool: Tool, tmp_path: Path, figure: Figure) -> None:
    tool = lab_tool
    host = tool.lab.hosts["host-b"]
    for name in ("a flow added", "a port added", "in-band turned on", "fail mode changed"):
        words, said = TAMPER[name]
        with watching(tool, tmp_path, "host-b", "--policy", "close") as watch:
            with within(figure, f"closed: {name}"):
                _do(host, words)
                alarm = watch.alarm()
            assert said in alarm["what"]
            assert alarm["done"] == "closed: db", name
            assert "db" not in host.vsctl("list-ports", "br-guest").split()
            assert tool.bound("db") is None
        host.build_bridges()
        host.ofctl("del-flows", "br-nic", "table=0,cookie=0/-1")
        host.vsctl("--if-exists", "del-port", "br-nic", "x")
        host.plug("db")
        tool("port", "move", "db", "--host", "host-b")
        wait_until(lambda: _is_attested(tool), SECONDS, "the host to be as it must be")


def _is_attested(tool: Tool) -> bool:
    with tool.popen("attest", "host-b") as process:
        return process.wait() == 0


def test_a_controller_that_nobody_named_is_an_alarm(lab_tool: Tool, tmp_path: Path) -> None:
    tool = lab_tool
    host, right = tool.lab.hosts["host-b"], tool.lab.control.controller.target
    assert tool("attest", "host-b", "--controller", right) == ""
    with watching(tool, tmp_path, "host-b", "--controller", right) as watch:
        obey(host, "tcp:203.0.113.1:6653")
        assert f"br-nic obeys tcp:203.0.113.1:6653, not {right}" in watch.alarm()["what"]
    obey(host, right)


def test_the_unit_closes_the_port_when_its_file_says_so(lab_tool: Tool, tmp_path: Path) -> None:
    """A port is provisioned on host-b, where db is as well; then its switch gets another flow."""
    tool = lab_tool
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/lockgate/bin/", f"{Path(sys.executable).parent}/"))
    checked = [str(unit).replace("@.", "@host-b.")]
    subprocess.run(["systemd-analyze", "verify", "--man=no", *checked], check=True)
    service = configparser.RawConfigParser(strict=False)
    service.optionxform = str  # type: ignore[assignment,method-assign]
    service.read(unit)
    program, *words = shlex.split(service["Service"]["ExecStart"].replace("%i", "host-b"))
    assert Path(program).name == "lockgate"
    file = service["Service"]["EnvironmentFile"]
    assert file == "/etc/lockgate/attest.env"
    assert "LOCKGATE_ATTEST_POLICY: report, mend or close" in unit.read_text()
    tool(*Program(tmp_path).words[:3], "host-b")
    with Writer([tool.lab.control.remote]) as writer:
        # A run was killed that had found nothing to do.
        writer.record([{"op": "update", "table": "Provision", "where": [], "row": {"owner": "other@elsewhere:1"}}])
    host = tool.lab.hosts["host-b"]
    tool.env["LOCKGATE_ATTEST_POLICY"] = "close"
    try:
        with watching(tool, tmp_path, *(word for word in words[1:] if word != "--watch")) as watch:
            _do(host, TAMPER["a flow added"][0])
            assert watch.alarm()["done"] == "closed: db, web"
    finally:
        del tool.env["LOCKGATE_ATTEST_POLICY"]
    assert {"db", "web"} & set(host.vsctl("list-ports", "br-guest").split()) == set()
    assert state(tool, "host-b") == ("failed", "on", "web", None)
    assert "closed by attestation: br-nic: a flow is stranger" in str(tool.record("host-b")["problem"])
    assert tool.bound("db") is None


def test_only_a_host_that_is_a_tenants_is_condemned_and_no_run_has_it_then(lab_tool: Tool, tmp_path: Path) -> None:
    tool = lab_tool
    tool(*Program(tmp_path).words)
    with Writer([tool.lab.control.remote]) as writer:
        writer.record([{"op": "update", "table": "Provision", "where": [], "row": {"owner": "other@elsewhere:1"}}])
        ledger = Ledger(writer)
        ledger.condemn("host-b", "another")
        assert tool.record()["state"] == "active"
        for problem in ("first", "second"):
            ledger.condemn("host-a", problem)
            record = ledger.of("host-a")
            assert record
            assert (record.state, record.problem, record.owner) == ("failed", "first", "")
        tool("release", "web")
        ledger.condemn("host-a", "third")
    assert state(tool)[::3] == ("available", None)


def test_a_host_that_cannot_be_asked_is_an_alarm_and_no_end(lab_tool: Tool, tmp_path: Path) -> None:
    tool = lab_tool
    host = tool.lab.hosts["host-b"]
    with watching(tool, tmp_path, "host-b") as watch:
        host.ovs.stop_vswitchd()
        alarm = watch.alarm()
        assert alarm["what"].startswith("host host-b cannot be asked")
        assert alarm["done"] == ""
        tool.lab.kill_database()
        assert "mapping database" in watch.alarm()["what"]
        tool.lab.start_database()
        host.restart_vswitchd()
        _do(host, TAMPER["a flow added"][0])
        wait_until(lambda: "a flow is stranger" in watch.alarm()["what"], SECONDS, "the flow to be seen")


JUNK = {
    "dump-flows br-nic": "hello",
    "dump-flows br-guest": " cookie=0x1, table=0, priority=1 actions=bogus:1",
    "dump-meters br-guest": "hello",
    "dump-ports-desc br-nic": f" {'9' * 5000}(n-db): addr:00",
    "list Controller": '{"headings": [], "data": [[]]}',
}
"""What a host in wrong hands is asked, and prints."""


def test_junk_is_one_fault_and_no_pass_and_closes_the_port(lab_tool: Tool, tmp_path: Path) -> None:
    """Nor does it hide anything else that is wrong."""
    tool = lab_tool
    host = tool.lab.hosts["host-b"]
    via = tmp_path / "via"
    via.write_text(
        f"#!/bin/bash\nfor junk in {tmp_path}/junk/*\n"
        'do case "$*" in *"${junk##*/}"*) exec cat "$junk";; esac\ndone\nexec "$@"\n'
    )
    via.chmod(0o755)
    lying = Tool(tool.lab, {"LOCKGATE_VIA": f"{via} {tool.env['LOCKGATE_VIA']}"})
    (tmp_path / "junk").mkdir()
    for asked, junk in JUNK.items():
        file = tmp_path / "junk" / asked
        file.write_text(junk)
        (alarm,) = map(json.loads, lying("attest", "host-b", fails=True).splitlines())
        assert alarm["done"] == "", asked
        file.unlink()
    (tmp_path / "junk" / "dump-flows br-nic").write_text("hello")
    with watching(lying, tmp_path, "host-b", "--policy", "close") as watch:
        alarm = watch.alarm()
        assert "does not understand the flows of br-nic" in alarm["what"]
        assert alarm["done"] == "closed: db"
        _do(host, TAMPER["fail mode changed"][0])
        assert "not secure" in watch.alarm()["what"]
    assert tool.bound("db") is None


@pytest.mark.parametrize("policy", [Policy.MEND, Policy.CLOSE])
def test_without_the_database_bridges_are_compared_with_what_it_said_last(lab_tool: Tool, policy: Policy) -> None:
    """Nor is there a controller, so that a flow of ours that is gone stays so: it may be gone by right."""
    tool = lab_tool
    host = tool.lab.hosts["host-b"]
    now = time.time()
    with Writer([tool.lab.control.remote]) as writer:
        site = Site(writer, tool.env["LOCKGATE_VIA"], Cause("test", "", ""))
        watcher = Watcher(site, Ledger(writer), "host-b", policy, lambda: now)
        assert list(watcher.look()) == []
        tool.lab.kill_database()
        tool.lab.kill_controller()
        (gone,) = watcher.look()
        assert gone.what.startswith(
            f"the mapping database is gone since {time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(now))}"
        )
        assert gone.done == ""
        host.ofctl("del-flows", "br-nic", "table=0")
        assert list(watcher.look()) == []
        for name in ("fail mode changed", "in-band turned on", "a flow added"):
            words, said = TAMPER[name]
            _do(host, words)
            (alarm,) = watcher.look()
            assert said in alarm.what
            if policy is Policy.MEND:
                assert alarm.done == "mended"
            else:
                assert alarm.done == "not closed: only off the bridges, until the database is back: db"
                assert "db" not in host.vsctl("list-ports", "br-guest").split()
            assert list(watcher.look()) == []
        now += STALE_SECONDS + 1
        (alarm,) = watcher.look()
        assert "nothing of the host is compared any more" in alarm.what
        tool.lab.start_database()
        found = wait_until(lambda: list(watcher.look()), SECONDS, "the database to be read")
        assert any("a flow is missing" in alarm.what for alarm in found)
        assert {alarm.done for alarm in found} == {"mended" if policy is Policy.MEND else "closed: db"}
        assert list(watcher.look()) == []
    assert tool.bound("db") == ("host-b" if policy is Policy.MEND else None)
