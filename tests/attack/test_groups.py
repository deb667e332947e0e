"""A guest floods where ports have security groups: what it makes the datapath's cache and the tracker hold.

web, who floods, db, whom it floods, near, on web's host, and log have stateful groups with rules of many kinds.
Bounded: some thousand frames of each kind.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from scapy.layers.inet import TCP, UDP
from scapy.packet import Packet

from tests.attack.case import ATTACKER
from tests.attack.floods import FLOODS, Flood, summed_up
from tests.attack.setting import GUESTS, LOG, MAPPING, NEAR, eth, ip, ip6
from tests.attack.test_flood import BURST, FRAMES, mask
from tests.conftest import Figure
from topo import netns, tracker
from topo.host import Host
from topo.lab import Lab

MOST_ENTRIES, MOST_MASKS = 500, 128
FEW = 300
"""Connections, in the place of those that a guest may have."""
RULES = """\
many:
  vpc: blue
  rules:
    - to_guest icmp from any
    - to_guest tcp 22 from group many
    - to_guest tcp 80 from 10.0.0.0/25
    - to_guest tcp 443-500 from any
    - to_guest tcp 8001-8099 from group many
    - to_guest udp 53 from any
    - to_guest udp 1001-65001 from group many
    - to_guest tcp 1-65535 from fd00::/100
    - to_guest 47 from 10.0.0.8/29
    - from_guest any to 10.0.0.0/24
    - from_guest tcp 1-40000 to any
    - from_guest udp 53 to fd00::/64
"""
IN_MANY = ("web", "near", "db", "log")
"""Who has them, in the place of what they have in the other labs."""


def mapping() -> str:
    document = yaml.safe_load(MAPPING)
    document["groups"] |= yaml.safe_load(RULES)
    for name in IN_MANY:
        document["ports"][name]["groups"] = ["many"]
    # What the masks are counted for are groups.
    del document["ports"][ATTACKER]["allowed"]
    return str(yaml.safe_dump(document))


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    file: Path = tmp_path_factory.mktemp("mapping") / "attacked.yaml"
    file.write_text(mapping())
    with Lab(f"g{os.getpid()}") as lab:
        lab.up(file)
        yield lab


def _ends(what: Packet) -> list[tuple[Packet, int]]:
    """Over either IP version, and where its ports begin."""
    return [(eth() / ip() / what, 34), (eth() / ip6() / what, 54)]


_BESIDES = (
    "ports",
    "rest of the IPv4 header",
    "IPv4 destination",
    "IPv6 destination",
    "IPv4 protocol",
    "IPv6 protocol",
)
KINDS = [
    *(
        Flood(f"{what.name} ports, IPv{4 if at == 34 else 6}", frame, ((at, at + 4),))
        for what in (TCP(flags="S"), TCP(flags="A"), UDP())
        for frame, at in _ends(what)
    ),
    Flood("UDP ports, to a neighbour on its host", eth() / ip(dst=NEAR.ip) / UDP(), ((34, 38),)),
    Flood("ports and flags", eth() / ip() / TCP(), ((34, 48),)),
    Flood("source and ports", eth() / ip() / UDP(), ((26, 30), (34, 38))),
    Flood("destination and ports", eth() / ip() / UDP(), ((30, 38),)),
    *(flood for flood in FLOODS if flood.name in _BESIDES),
]


def test_a_flood_where_ports_have_groups_makes_few_entries_of_the_cache(lab: Lab, figure: Figure) -> None:
    hosts = [lab.host(GUESTS[name].host) for name in (ATTACKER, "db")]
    for flood in KINDS:
        for host in hosts:
            host.appctl("revalidator/purge")
            host.appctl("dpctl/flush-conntrack")
        _send(lab, flood, FRAMES)
        figure(flood.name, *_told(hosts))
    for host in hosts:
        host.appctl("revalidator/purge")
    for flood in KINDS:
        _send(lab, flood, FRAMES // 4)
    figure("all in turn", *_told(hosts))
    for host in hosts:
        entries = _entries(host)
        assert len(entries) <= MOST_ENTRIES
        assert len({mask(entry) for entry in entries}) <= MOST_MASKS


def _send(lab: Lab, flood: Flood, count: int) -> None:
    frames = list(map(summed_up, flood.frames(count)))
    for start in range(0, count, BURST):
        lab.guest(ATTACKER).send(*frames[start : start + BURST])
        # Not too many at once; and others go on. The flooder itself may be answered no more.
        assert lab.guest("near").ping(LOG.ip, seconds=5)


def _entries(host: Host) -> list[str]:
    dumped = host.appctl("dpctl/dump-flows", "--names")
    return re.findall(r"^.*\bin_port\(.*$", dumped, re.MULTILINE)


def _told(hosts: list[Host]) -> tuple[str, str]:
    entries = [_entries(host) for host in hosts]
    masks = [len({mask(entry) for entry in each}) for each in entries]
    tracked = [len(host.appctl("dpctl/dump-conntrack").splitlines()) for host in hosts]
    return f"{list(map(len, entries))}", f"entries, under {masks} masks; {tracked} connections"


def _tracked(host: Host, name: str) -> tuple[int, int]:
    """How many connections a guest may have, and has."""
    zone = host.vsctl("get", "Interface", name, "ofport").strip()
    (limit, count) = re.findall(rf"zone={zone},limit=(\d+),count=(\d+)", host.appctl("dpctl/ct-get-limits"))[0]
    return int(limit), int(count)


def test_a_flood_of_connections_fills_no_tracker_but_those_of_both_ends(lab: Lab) -> None:
    host = lab.host(GUESTS[ATTACKER].host)
    assert _tracked(host, ATTACKER)[0] == tracker.CONNECTIONS
    host.appctl("dpctl/flush-conntrack")
    host.limit_connections(FEW)
    try:
        _send(lab, KINDS[0], FRAMES)
        assert _tracked(host, ATTACKER) == (FEW, FEW)
        # Its neighbour, with groups as well, opens connections, and is answered.
        _connect(lab, "near", "log", 450)
        assert 0 < _tracked(host, "near")[1] < FEW
    finally:
        host.limit_connections()


def _connect(lab: Lab, client: str, server: str, port: int) -> None:
    """Open a TCP connection, and send by it both ways."""
    with netns.entered(lab.guest(server).namespace):
        listener = socket.create_server(("", port))
    with netns.entered(lab.guest(client).namespace):
        caller = socket.socket()
    with listener, caller:
        caller.settimeout(10)
        caller.connect((GUESTS[server].ip, port))
        answering, _ = listener.accept()
        with answering:
            answering.sendall(b"there")
            assert caller.recv(5) == b"there"
