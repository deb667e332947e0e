"""What the controller tells Prometheus, and its log as JSON. host-a has web; host-b has db and spy."""

from __future__ import annotations

import json
import random
import re
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families
from scapy.layers.inet import ICMP, IP
from scapy.layers.l2 import Ether

from flows.pipeline import BR_GUEST, BR_NIC
from tests.build import HOST_A, WEB
from tests.ovs.conftest import World
from topo.waiting import wait_until

ROOT = Path(__file__).parents[2]
SPOOFED = bytes(Ether(src=WEB.mac, dst="0a:00:5e:00:00:01") / IP(src="10.0.0.66", dst="10.0.0.12") / ICMP())

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(world: World) -> str:
    with urlopen(f"http://{world.controller.metrics}/metrics", timeout=30) as answer:
        return str(answer.read().decode())


def samples(text: str) -> Samples:
    families = text_string_to_metric_families(text)
    return {(each.name, frozenset(each.labels.items())): each.value for family in families for each in family.samples}


def value(world: World, name: str, **labels: str) -> float:
    return samples(scrape(world)).get((name, frozenset(labels.items())), -1)


def test_what_the_controller_knows(world: World) -> None:
    wait_until(lambda: value(world, "lockgate_database_current") == 1, 20, "it to follow the database")
    found = samples(scrape(world))

    def of(name: str, **labels: str) -> float:
        return found[name, frozenset(labels.items())]

    assert (of("lockgate_in_sync"), of("lockgate_database_lag_seconds"), of("lockgate_bad_rows")) == (1, 0, 0)
    assert of("lockgate_rows", table="Mapping") == len(world.snapshot().mappings)
    assert of("lockgate_rows", table="SecurityGroup") == len(world.snapshot().groups)
    assert of("lockgate_config_seq") == of("lockgate_applied_seq", host="host-a") == world.database.config_seq
    for host in (world.a, world.b):
        for bridge in (BR_GUEST, BR_NIC):
            where = {"host": host.host.name, "bridge": bridge}
            assert of("lockgate_switch_connected", **where) == 1
            assert of("lockgate_flows", **where) == len(host.cookies(bridge))
            assert of("lockgate_queue_depth", **where) == 0
    assert of("process_resident_memory_bytes") > 1e6


def test_drops_are_counted_by_host_and_by_port(world: World) -> None:
    world.a.receive("web", SPOOFED)
    of_host = {"host": "host-a", "reason": "spoofed_ip"}
    wait_until(lambda: value(world, "lockgate_dropped_packets_total", **of_host) == 1, 20, "the drop")
    of_port = {**of_host, "vpc": "blue", "port": "web"}
    assert value(world, "lockgate_port_dropped_packets_total", **of_port) == 1
    assert value(world, "lockgate_port_dropped_bytes_total", **of_port) == len(SPOOFED)
    passed = {"host": "host-a", "vpc": "blue", "port": "web", "direction": "from_guest"}
    wait_until(lambda: value(world, "lockgate_port_packets_total", **passed) >= 1, 20, "the port's own count")


def test_a_change_is_timed_and_a_mended_flow_counted(world: World) -> None:
    def changes() -> float:
        return value(world, "lockgate_change_seconds_count")

    before = changes()
    world.write(world.snapshot())
    wait_until(lambda: changes() > before, 20, "the change to be timed")
    world.a.ovs.ofctl("del-flows", BR_NIC, "table=PUSH")
    mended = {"host": "host-a", "bridge": BR_NIC}
    wait_until(lambda: value(world, "lockgate_mended_flows_total", **mended) >= 1, 20, "the mended flows")


def test_a_lost_switch_and_a_lost_database_show(world: World) -> None:
    where = {"host": "host-a", "bridge": BR_NIC}
    controllers = world.a.ovs.vsctl("get-controller", BR_NIC).split()
    world.a.ovs.vsctl("del-controller", BR_NIC)
    wait_until(lambda: value(world, "lockgate_switch_connected", **where) == 0, 20, "it to show")
    world.a.ovs.vsctl("set-controller", BR_NIC, *controllers)
    wait_until(lambda: value(world, "lockgate_switch_reconnects_total", **where) == 1, 20, "its return")
    world.database.stop()
    wait_until(lambda: value(world, "lockgate_database_lag_seconds") > 0, 20, "the lag to grow")
    assert value(world, "lockgate_database_current") == 0
    assert value(world, "lockgate_in_sync") == 1
    world.database.start()
    wait_until(lambda: value(world, "lockgate_database_current") == 1, 20, "the database's return")
    assert value(world, "lockgate_database_reconnects_total") == 1
    world.assert_as_desired()


def test_the_dashboard_shows_metrics_that_there_are_and_the_document_names_all(world: World) -> None:
    there = {name for name, _ in samples(scrape(world))}
    dashboard = json.loads((ROOT / "docs" / "grafana.json").read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    shown = {name for expression in asked for name in re.findall(r"\b(?:lockgate|process)_\w+", expression)}
    assert len(asked) > 10
    assert shown <= there
    document = (ROOT / "docs" / "operating.md").read_text()
    ours = {re.sub(r"_(bucket|count|sum)$", "", name) for name in there if name.startswith("lockgate_")}
    assert {name for name in ours if f"`{name}" not in document} == set()


def test_only_metrics_are_served_and_nobody_is_kept_waiting(world: World) -> None:
    with pytest.raises(HTTPError, match="404"):
        urlopen(f"http://{world.controller.metrics}/../../etc/passwd", timeout=30)
    host, port = world.controller.metrics.split(":")
    before = value(world, "process_resident_memory_bytes")
    get = b"GET /metrics HTTP/1.1\r\n"
    junk = [b"\0" * 100, get, (get + b"\r\n") * 1000, b"GET /" + b"a" * (1 << 20)]
    junk += [get + b"x: y\r\n" * 100_000, random.Random(1).randbytes(1 << 18), b""]
    idle = [socket.create_connection((host, int(port)), timeout=2) for _ in range(4 * len(junk))]
    try:
        for number, each in enumerate(idle):
            with suppress(OSError):
                each.sendall(junk[number % len(junk)])  # and none of the answers is read
        world.write(world.snapshot())
        assert value(world, "lockgate_in_sync") == 1
        assert value(world, "process_resident_memory_bytes") < before + (100 << 20)
    finally:
        for each in idle:
            each.close()


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("0.0.0.0:9464", "that is every network: name this host's address on the control one"),
        ("[::]:9464", "that is every network: name this host's address on the control one"),
        ("localhost:9464", "write IP:PORT, like 198.51.100.1:9464"),
        ("192.0.2.1", "write IP:PORT, like 198.51.100.1:9464"),
        ("192.0.2.1:99999", "write IP:PORT, like 198.51.100.1:9464"),
    ],
)
def test_an_address_that_will_not_do_is_said_in_one_line(address: str, says: str) -> None:
    argv = [sys.executable, "-c", "from controller.metrics import listen_address as at; import sys; at(sys.argv[1])"]
    done = subprocess.run([*argv, address], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == f"ValueError: LOCKGATE_METRICS={address}: {says}"


def test_the_log_as_json(world: World) -> None:
    world.controller.stop()
    begin = world.controller.log.stat().st_size
    world.controller.env = {"LOCKGATE_LOG": "json"}
    world.controller.start()
    world.assert_as_desired()
    world.a.receive("web", SPOOFED)

    def lines() -> list[dict[str, str]]:
        with world.controller.log.open() as log:
            log.seek(begin)
            return [json.loads(line) for line in log if line.startswith("{")]

    def about_web() -> list[dict[str, str]]:
        return [line for line in lines() if line.get("port") == "web"]

    wait_until(about_web, 20, "a line about web")
    line = about_web()[0]
    assert {key: line[key] for key in ("level", "host", "vpc", "reason")} == {
        "level": "warning",
        "host": "host-a",
        "vpc": "blue",
        "reason": "spoofed_ip",
    }
    nic = {"host": "host-a", "bridge": BR_NIC, "datapath": f"{HOST_A.nic_datapath:016x}"}

    def served() -> bool:
        return any("serving datapath" in line["message"] and line.items() >= nic.items() for line in lines())

    wait_until(served, 20, "a line about br-nic")
