"""How fast mappings reach a switch, beside `ovs-ofctl --bundle` loading the same flows in the same run.

    python -m bench.load [--mappings 100000] [--changes 200]      (`make bench` does it)

One host of the mapping database is there: a private Open vSwitch with the dummy datapath, and ryu-manager. It has one
port; the addresses are those of guests on another host. Figures are printed, and written to bench-results.json.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from flows.pipeline import BR_GUEST, BR_NIC
from mapping import service, status
from mapping.model import DEFAULT_MTU, ROUTER_MAC, default_datapaths
from mapping.replica import Replica
from mapping.writer import MappingError, Writer
from topo import bridges
from topo.ovs import OpenVSwitch
from topo.waiting import wait_until

RESULTS = Path("bench-results.json")
BATCH = 1000
FIRST = IPv4Address("10.1.0.0")
BRIDGES = (BR_NIC, BR_GUEST)


@dataclass
class Row:
    """One figure, and what it is to be measured against; `target` bounds `ratio` where there is one, else `value`."""

    name: str
    value: float
    unit: str
    target: float
    reference: float | None = None

    @property
    def ratio(self) -> float | None:
        """How many times the reference."""
        return self.value / self.reference if self.reference else None

    @property
    def met(self) -> bool:
        """Whether the target is reached."""
        return (self.ratio or self.value) <= self.target


class Site:
    """The database, the switch and the controller."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.remote = f"unix:{folder}/mapping.sock"
        service.start(folder, [f"p{self.remote}"])
        stack.callback(service.stop, folder)
        self.writer = stack.enter_context(Writer([self.remote], timeout_ms=60_000))
        self.config_seq = 0
        self._port = free_port()
        self.ovs = OpenVSwitch(folder / "ovs", vswitchd_options=["--enable-dummy=system", "--disable-system"])
        stack.callback(self.ovs.stop)
        self.ovs.start()
        vtep = IPv4Address("192.0.2.1")
        target = [f"tcp:127.0.0.1:{self._port}"]
        made = bridges.HostBridges("uplink", "mgmt", vtep, *default_datapaths(vtep), target, datapath_type="dummy")
        bridges.build(self.ovs.vsctl, made)
        bridges.plug(self.ovs.vsctl, "local")
        self._controller: subprocess.Popen[bytes] | None = None
        self._replica = Replica([self.remote], {"Host": status.COLUMNS["Host"]})
        stack.callback(self.stop)

    def transact(self, operations: Sequence[dict[str, Any]]) -> list[Any]:
        """Do the operations as one change."""
        commit = self.writer.transact(operations, "bench")
        self.config_seq = commit.config_seq
        return commit.results

    def start(self) -> float:
        """Start ryu-manager; return how many seconds it took until the switch had everything."""
        begin = time.monotonic()
        ryu = [str(Path(sys.executable).with_name("ryu-manager")), "controller.app"]
        listen = ["--ofp-listen-host", "127.0.0.1", "--ofp-tcp-listen-port", str(self._port)]
        with (self.folder / "controller.log").open("ab") as log:
            env = os.environ | {"LOCKGATE_DB": self.remote}
            self._controller = subprocess.Popen([*ryu, *listen], stdout=log, stderr=log, env=env)
        self.wait_applied()
        return time.monotonic() - begin

    def stop(self) -> None:
        """Kill ryu-manager."""
        if self._controller:
            self._controller.send_signal(signal.SIGKILL)
            self._controller.wait(10)
            self._controller = None

    def wait_applied(self) -> None:
        """Wait until the switch has confirmed the last change."""

        def applied() -> bool:
            rows = self._replica.tables["Host"].values()
            return any(row["name"] == "here" and row["applied_seq"] >= self.config_seq for row in rows)

        if not self._replica.wait_until(applied, 300_000):
            raise TimeoutError(f"not applied: see {self.folder}/controller.log")

    def controller(self, what: str, pattern: str) -> float:
        """A number that /proc says of ryu-manager."""
        pid = self._controller.pid if self._controller else 0
        found = re.search(pattern, Path(f"/proc/{pid}/{what}").read_text())
        return sum(map(float, found.groups())) if found else math.nan

    def cpu_seconds(self) -> float:
        """CPU time of ryu-manager so far, of user and system."""
        return self.controller("stat", r"\) \S(?: \S+){10} (\d+) (\d+)") / os.sysconf("SC_CLK_TCK")

    def flows(self, bridge: str) -> int:
        """How many flows a bridge holds."""
        return int(self.ovs.ofctl("dump-aggregate", bridge).split("flow_count=")[1])


def main() -> int:
    """Measure, print a table, write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mappings", type=int, default=100_000, help="addresses (default: 100000)")
    parser.add_argument("--changes", type=int, default=200, help="single changes to time (default: 200)")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = Console()
    with tempfile.TemporaryDirectory(prefix="lockgate-bench-") as folder, ExitStack() as stack:
        rows = measure(Site(Path(folder), stack), options.mappings, options.changes, console.print)
    shown = Table("figure", "value", "ovs-ofctl --bundle", "ratio", "target", "", title=f"{options.mappings} mappings")
    for row in rows:
        reference = f"{row.reference:.2f} {row.unit}" if row.reference else ""
        ratio = f"{row.ratio:.2f}" if row.ratio else ""
        verdict = "[green]met[/]" if row.met else "[red]missed[/]"
        shown.add_row(row.name, f"{row.value:.2f} {row.unit}", reference, ratio, f"{row.target:g}", verdict)
    console.print(shown)
    RESULTS.write_text(json.dumps([{**asdict(row), "ratio": row.ratio, "met": row.met} for row in rows], indent=2))
    console.print(f"written to {RESULTS}")
    return 0


def measure(site: Site, mappings: int, changes: int, say: Callable[[str], None]) -> list[Row]:
    """Every figure, from one database."""
    say(f"filling the database with {mappings} mappings")
    rows = fill(site, mappings)
    say("starting ryu-manager on it, with an empty switch")
    first_load = site.start()
    memory = site.controller("status", r"VmRSS:\s+(\d+) kB") / mappings
    counts = {bridge: site.flows(bridge) for bridge in BRIDGES}
    say(f"changing single mappings; the switch holds {sum(counts.values())} flows")
    latencies = single_changes(site, rows[:changes])
    say("killing ryu-manager, and starting it again")
    site.stop()
    site.start()
    restart_cpu = site.cpu_seconds()
    say("emptying the switch behind its back")
    files = {bridge: site.folder / f"{bridge}.flows" for bridge in BRIDGES}
    for bridge, file in files.items():
        dump = site.ovs.ofctl("dump-flows", bridge, "--no-names", "--no-stats").splitlines()
        file.write_text("\n".join(line.strip() for line in dump if "actions=" in line))
    emptied = seconds(lambda: refill(site, counts))
    say("loading the same flows with ovs-ofctl")
    site.stop()
    for bridge in BRIDGES:
        site.ovs.ofctl("del-flows", bridge)
    peer = seconds(lambda: [site.ovs.ofctl("add-flows", bridge, "--bundle", str(files[bridge])) for bridge in BRIDGES])
    return [
        Row("ryu-manager started, empty switch -> last flow", first_load, "s", 2.5, peer),
        Row("switch emptied -> programmed again", emptied, "s", 1.5, peer),
        Row("ryu-manager restarted, nothing changed: CPU", restart_cpu, "s", 5),
        Row("one mapping changes: asked -> switch, p50", statistics.median(latencies), "ms", 3),
        Row("one mapping changes: asked -> switch, p99", statistics.quantiles(latencies, n=100)[98], "ms", 10),
        Row("memory of ryu-manager, per mapping", memory, "KB", 1.5),
    ]


def fill(site: Site, mappings: int) -> list[Any]:
    """Two hosts and one VPC; a port here, and one there for each twenty addresses. Returns the mappings' row ids."""
    ports = max(1, mappings // 20)
    rows = [insert("Vpc", "vpc", name="big", vni=9, subnets="10.0.0.0/8", router_mac=ROUTER_MAC, mtu=DEFAULT_MTU)]
    for number, name in enumerate(("here", "there"), 1):
        vtep = IPv4Address("192.0.2.0") + number
        guest, nic = (f"{datapath:016x}" for datapath in default_datapaths(vtep))
        columns = {"name": name, "vtep_ip": str(vtep), "encap": "vxlan", "guest_datapath": guest, "nic_datapath": nic}
        rows.append(insert("Host", name, **columns))
    rows.append(port("local", "here", 0))
    rows += [port(f"p{number}", "there", number) for number in range(1, ports + 1)]
    results = site.transact(rows)
    vpc, *uuids = [results[index]["uuid"] for index in (0, *range(4, len(rows)))]
    made: list[Any] = []
    for start in range(0, mappings, BATCH):
        numbers = range(start, min(start + BATCH, mappings))
        rows = [insert("Mapping", "", vpc=vpc, port=uuids[n % ports], ip=str(FIRST + n)) for n in numbers]
        made += [result["uuid"] for result in site.transact(rows)]
    return made


def insert(table: str, row_name: str, **columns: object) -> dict[str, Any]:
    """An RFC 7047 insert, to be referred to by `row_name`."""
    return {"op": "insert", "table": table, "row": columns, **({"uuid-name": row_name} if row_name else {})}


def port(name: str, host: str, number: int) -> dict[str, Any]:
    """A port of the VPC, with the MAC of that number."""
    mac = ":".join(f"{byte:02x}" for byte in (0x02 << 40 | number + 1).to_bytes(6))
    refs = {"vpc": ["named-uuid", "vpc"], "host": ["named-uuid", host]}
    return insert("Port", name, name=name, mac=mac, device=name, **refs)


def single_changes(site: Site, rows: Sequence[Any]) -> list[float]:
    """Milliseconds from asking for a mapping's new address to the moment that the switch tells of its flow.

    The database's transaction is in it: the switch often has the flow before the database's reply is read.
    """
    latencies = []
    with monitored(site, BR_NIC) as added:
        for number, uuid in enumerate(rows, 1):
            new = str(IPv4Address("10.255.0.0") + number)
            begin = time.monotonic()
            site.transact([{"op": "update", "table": "Mapping", "where": [["_uuid", "==", uuid]], "row": {"ip": new}}])
            added(f"nw_dst={new} ")
            latencies.append((time.monotonic() - begin) * 1000)
    return latencies


@contextlib.contextmanager
def monitored(site: Site, bridge: str) -> Iterator[Callable[[str], None]]:
    """Follow a bridge's flows; the function returns when a flow with this text has been added."""
    control = f"--unixctl={site.folder}/monitor.ctl"
    argv = ["ovs-ofctl", "-OOpenFlow15", control, "monitor", f"unix:{site.ovs.folder}/{bridge}.mgmt", "watch:!initial"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1) as process:

        def added(text: str) -> None:
            for line in process.stdout or []:
                if "event=ADDED" in line and text in f"{line.strip()} ".replace(",", " "):
                    return
            raise TimeoutError("ovs-ofctl monitor has ended")

        try:
            if process.stdout:
                process.stdout.readline()  # the reply to the request: from here on every change is told
            yield added
        finally:
            process.terminate()


def refill(site: Site, counts: dict[str, int]) -> None:
    """Delete every flow, and wait until they are back."""
    for bridge in BRIDGES:
        site.ovs.ofctl("del-flows", bridge)
    for bridge in BRIDGES:
        wait_until(lambda: site.flows(bridge) >= counts[bridge], 300, "the flows")  # noqa: B023 - called at once


def seconds(do: Callable[[], object]) -> float:
    """How long it takes."""
    begin = time.monotonic()
    do()
    return time.monotonic() - begin


def free_port() -> int:
    """A TCP port of loopback that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (MappingError, TimeoutError) as error:
        sys.exit(f"bench: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
