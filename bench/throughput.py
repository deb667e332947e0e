"""TCP throughput between two guests through Lockgate's pipeline, beside a bare tunnel between the same two hosts.

The bare tunnel is the least that carries the packets: on each br-nic one rule that pushes and one that pops, no checks,
and no filter ahead of the guests' ports. Runs of the two take turns, and each turn's ratio is taken by itself, so that
a machine whose speed drifts changes both sides alike. Needs root, for network namespaces.
"""

from __future__ import annotations

import json
import statistics
import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Interface
from typing import Final

from bench.results import Row
from bench.run import Run
from bench.watch import FlowCount
from flows.pipeline import BR_GUEST, BR_NIC
from topo import netns, port_filter
from topo.host import Host
from topo.lab import Lab
from topo.waiting import wait_until

GOAL: Final = 0.98
MAPPING: Final = """\
vpcs:
  blue: {vni: 5001, subnets: [10.0.0.0/24]}
hosts:
  host-a: {vtep: 192.0.2.1}
  host-b: {vtep: 192.0.2.2}
ports:
  a: {vpc: blue, host: host-a, mac: "02:00:00:00:00:0a", addresses: [10.0.0.11]}
  b: {vpc: blue, host: host-b, mac: "02:00:00:00:00:0b", addresses: [10.0.0.12]}
"""


def measure(run: Run) -> Iterator[Row]:
    """The two in turns."""
    file = run.folder / "throughput.yaml"
    file.write_text(MAPPING)
    run.say("two hosts in namespaces are built")
    with Lab("bench", say=run.say) as lab:
        lab.up(file)
        turns = [_turn(run, lab) for _ in range(run.scale.throughput_turns)]
    ours, bare = (statistics.median(side) for side in zip(*turns, strict=True))
    ratio = statistics.median(ours / bare for ours, bare in turns)
    yield Row(
        "one TCP connection between two guests",
        ours,
        "Gbit/s",
        bare,
        "a bare tunnel: one rule pushes, one pops",
        GOAL,
        at_least=True,
        ratio=ratio,
        note=f"median of {len(turns)} turns, and of their ratios",
    )


def _turn(run: Run, lab: Lab) -> tuple[float, float]:
    """Gbit/s through Lockgate's flows, then through the bare tunnel; the lab is as before afterwards."""
    seconds = run.scale.throughput_seconds
    hosts = [lab.guest(name).host for name in ("a", "b")]
    counts = {host.name: FlowCount(host.ovs.folder, (BR_GUEST, BR_NIC)) for host in hosts}
    flows = {name: count() for name, count in counts.items()}
    ours = tcp(lab, seconds)
    run.say(f"Lockgate: {ours:.3f} Gbit/s")
    lab.kill_controller()
    for guest, host, peer in (("a", hosts[0], hosts[1]), ("b", hosts[1], hosts[0])):
        netns.ip(host.namespace, f"link set dev {guest} xdp off")
        bare_tunnel(host, guest, str(IPv4Interface(peer.spec.vtep).ip))
        other = lab.guest("b" if guest == "a" else "a")
        neighbour = ["ip", "neigh", "replace", other.ip, "lladdr", other.spec.mac, "dev", "eth0"]
        lab.guest(guest).run(neighbour)
    wait_until(lambda: lab.guest("a").ping(lab.guest("b").ip), 10, "the bare tunnel to carry a ping")
    bare = tcp(lab, seconds)
    run.say(f"bare tunnel: {bare:.3f} Gbit/s")
    for guest, host in zip("ab", hosts, strict=True):
        port_filter.attach(host.namespace, guest)
        for bridge in (BR_GUEST, BR_NIC):
            host.ovs.ofctl("del-flows", bridge)
    lab.start_controller()
    # What hosts have reported is as before, and each bridge comes back by itself, after up to 8 s.
    wait_until(lambda: {name: count() for name, count in counts.items()} == flows, 60, "Lockgate's flows to be back")
    wait_until(lambda: lab.guest("a").ping(lab.guest("b").ip), 20, "Lockgate's flows to carry a ping")
    return ours, bare


def bare_tunnel(host: Host, device: str, peer_vtep: str) -> None:
    """Flows that do nothing but push towards the peer and pop what comes."""
    for bridge, flows in {
        BR_GUEST: [f"in_port={device},actions=output:g-{device}", f"in_port=g-{device},actions=output:{device}"],
        BR_NIC: [
            f"in_port=n-{device},actions=set_field:5001->tun_id,set_field:{peer_vtep}->tun_dst,output:t-vxlan",
            f"in_port=t-vxlan,actions=output:n-{device}",
            "in_port=LOCAL,actions=output:uplink",
            "in_port=uplink,actions=LOCAL",
        ],
    }.items():
        host.ovs.ofctl("del-flows", bridge)
        host.ovs.ofctl("add-flows", bridge, "-", stdin="\n".join(flows))


def tcp(lab: Lab, seconds: int) -> float:
    """Gbit/s that one TCP connection from guest a to guest b receives."""
    server = lab.guest("b").popen(["iperf3", "--server", "--one-off"])
    try:
        listening = ["ss", "--listening", "--tcp", "--no-header", "sport = :5201"]
        wait_until(lambda: lab.guest("b").run(listening).strip(), 10, "iperf3 to listen")
        client = ["iperf3", "--client", lab.guest("b").ip, "--time", str(seconds), "--omit", "1", "--json"]
        report = json.loads(lab.guest("a").run(client, seconds=seconds + 30))
        return float(report["end"]["sum_received"]["bits_per_second"]) / 1e9
    finally:
        server.terminate()
        try:
            server.wait(5)
        except subprocess.TimeoutExpired:
            server.kill()
