"""Real TCP and UDP through security groups, over both IP versions.

2 hosts, 1 VPC: a and c on h1, b and d on h2. a has group front, b group back, c and d have none.
"""

from __future__ import annotations

import os
import re
import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from flows.pipeline import BR_GUEST, Reason
from topo import netns
from topo.guest import Guest
from topo.lab import Lab
from topo.waiting import wait_until

RULES = ("to_guest tcp 443 from group front", "to_guest udp 53 from any")
SECONDS = 20
"""For what has to come. Of what must not it is waited until the switch has counted that it was dropped."""
_DROPPED = re.compile(
    rf"n_packets=(\d+),.*reg1=(?:{Reason.GROUP_TO_GUEST.number:#x}|{Reason.GROUP_FROM_GUEST.number:#x})\b"
)
FAMILIES = (socket.AF_INET, socket.AF_INET6)


def mapping(*rules: str) -> str:
    listed = "".join(f'      - "{rule}"\n' for rule in rules)
    return f"""\
vpcs:
  blue: {{vni: 5001, subnets: [10.0.0.0/24, "fd00::/64"]}}
hosts:
  h1: {{vtep: 192.0.2.1}}
  h2: {{vtep: 192.0.2.2, encap: geneve}}
groups:
  front:
    vpc: blue
  back:
    vpc: blue
    rules:
{listed}
ports:
  a: {{vpc: blue, host: h1, mac: "02:00:00:00:00:0a", addresses: [10.0.0.10, "fd00::10"], groups: [front]}}
  b: {{vpc: blue, host: h2, mac: "02:00:00:00:00:0b", addresses: [10.0.0.11, "fd00::11"], groups: [back]}}
  c: {{vpc: blue, host: h1, mac: "02:00:00:00:00:0c", addresses: [10.0.0.12, "fd00::12"]}}
  d: {{vpc: blue, host: h2, mac: "02:00:00:00:00:0d", addresses: [10.0.0.13, "fd00::13"]}}
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("mapping") / "groups.yaml"
    file.write_text(mapping(*RULES))
    return file


@pytest.fixture(scope="module")
def grouped(file: Path) -> Iterator[Lab]:
    with Lab(f"g{os.getpid()}") as lab:
        lab.up(file)
        for guest in lab.guests.values():
            wait_until(partial(has_looked_for_doubles, guest), 10, f"{guest.name} to take its addresses for its own")
        yield lab


def has_looked_for_doubles(guest: Guest) -> bool:
    return "tentative" not in guest.run(["ip", "-6", "address"])


def made(guest: Guest, family: int, kind: int, port: int = 0) -> socket.socket:
    """A socket of a guest; bound, if a port is given."""
    with netns.entered(guest.namespace):
        one = socket.socket(family, kind)
    one.settimeout(SECONDS)
    if port:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind(("", port))
    return one


def address(guest: Guest, family: int) -> str:
    return guest.ip if family == socket.AF_INET else guest.ipv6


@contextmanager
def connected(client: Guest, server: Guest, family: int, port: int) -> Iterator[tuple[socket.socket, socket.socket]]:
    with made(server, family, socket.SOCK_STREAM, port) as listener, made(client, family, socket.SOCK_STREAM) as caller:
        listener.listen()
        caller.connect((address(server, family), port))
        answering, _ = listener.accept()
        with answering:
            answering.settimeout(SECONDS)
            yield caller, answering


def answered(client: Guest, server: Guest, family: int, port: int) -> bool:
    """Whether a datagram comes, and its answer goes back."""
    with made(server, family, socket.SOCK_DGRAM, port) as listens, made(client, family, socket.SOCK_DGRAM) as asks:
        asks.sendto(b"asked", (address(server, family), port))
        said, who = listens.recvfrom(100)
        listens.sendto(said, who)
        return asks.recv(100) == b"asked"


@contextmanager
def refused(lab: Lab) -> Iterator[None]:
    """Wait until groups have dropped something of what is sent in between."""
    before = dropped(lab)
    yield
    wait_until(lambda: dropped(lab) > before, SECONDS, "groups to drop it")


def dropped(lab: Lab) -> int:
    """Packets that groups have let neither out nor in."""
    total = 0
    for host in lab.hosts.values():
        host.appctl("revalidator/wait")
        said = host.ofctl("dump-flows", BR_GUEST, "table=DROP")
        total += sum(int(packets) for packets in _DROPPED.findall(said))
    return total


def nothing_came(one: socket.socket) -> bool:
    return not select.select([one], [], [], 0)[0]


def connects_not(lab: Lab, client: Guest, server: Guest, family: int, port: int) -> bool:
    with made(server, family, socket.SOCK_STREAM, port) as listener, made(client, family, socket.SOCK_STREAM) as caller:
        listener.listen()
        caller.setblocking(False)
        with refused(lab):
            caller.connect_ex((address(server, family), port))
        return nothing_came(listener)


def answers_not(lab: Lab, client: Guest, server: Guest, family: int, port: int) -> bool:
    with made(server, family, socket.SOCK_DGRAM, port) as listens, made(client, family, socket.SOCK_DGRAM) as asks:
        with refused(lab):
            asks.sendto(b"asked", (address(server, family), port))
        return nothing_came(listens)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_rule_allows_connects_and_nothing_else(grouped: Lab, family: int) -> None:
    a, b, c = (grouped.guest(name) for name in "abc")
    with connected(a, b, family, 443) as (caller, answering):
        caller.sendall(b"there")
        assert answering.recv(5) == b"there"
        answering.sendall(b"back" * 100_000)
        assert len(received(caller, 400_000)) == 400_000
    assert answered(a, b, family, 53)
    assert answered(c, b, family, 53)
    assert connects_not(grouped, a, b, family, 444)
    assert connects_not(grouped, c, b, family, 443)
    assert answers_not(grouped, a, b, family, 54)
    # It may ask whom it likes, and nobody may ask a.
    with connected(b, c, family, 8080):
        pass
    assert connects_not(grouped, b, a, family, 443)
    assert connects_not(grouped, c, a, family, 443)


def received(caller: socket.socket, size: int) -> bytes:
    got = b""
    while len(got) < size and (more := caller.recv(size)):
        got += more
    return got


@pytest.mark.parametrize("family", FAMILIES)
def test_a_rule_that_goes_cuts_what_it_allowed_and_comes_back_to_it(grouped: Lab, file: Path, family: int) -> None:
    a, b = grouped.guest("a"), grouped.guest("b")
    with connected(a, b, family, 443) as (caller, answering):
        caller.sendall(b"before")
        assert answering.recv(6) == b"before"
        file.write_text(mapping(RULES[1]))
        grouped.up(file)
        try:
            for one, sent, other in ((caller, b"during", answering), (answering, b"likewise", caller)):
                with refused(grouped):
                    one.sendall(sent)
                assert nothing_came(other)
        finally:
            file.write_text(mapping(*RULES))
            grouped.up(file)
        # What TCP has not heard of it sends again.
        for one, sent in ((answering, b"during"), (caller, b"likewise")):
            assert received(one, len(sent)) == sent


def test_nothing_is_tracked_of_ports_without_groups(grouped: Lab) -> None:
    c, d = grouped.guest("c"), grouped.guest("d")
    hosts = [*grouped.hosts.values()]
    for host in hosts:
        host.appctl("dpctl/flush-conntrack")
        host.appctl("revalidator/purge")
    for family in FAMILIES:
        with connected(c, d, family, 443):
            pass
        assert answered(c, d, family, 53)
    for host in hosts:
        assert host.appctl("dpctl/dump-conntrack") == ""
        flows = host.appctl("dpctl/dump-flows")
        assert "dst=10.0.0.1" in flows
        assert "ct(" not in flows
        assert "ct_state" not in flows


def test_the_same_is_tracked_of_ports_with_groups(grouped: Lab) -> None:
    assert answered(grouped.guest("c"), grouped.guest("b"), socket.AF_INET, 53)
    h1, h2 = (host.appctl("dpctl/dump-conntrack") for host in grouped.hosts.values())
    assert "dport=53" in h2
    assert "dport=53" not in h1
