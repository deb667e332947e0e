"""Programs with a host's key that complete the handshake and then do what no switch does: others are served on.

1 controller, 1 host that is served; the programs have the key of the other one.
"""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from ryu.ofproto import ofproto_v1_5 as ofp

from controller.switch import ANSWER_TIMEOUT
from flows.pipeline import BR_NIC
from mapping.tls import Identity
from tests.build import HOST_A, HOST_B
from tests.ovs.dummy import Controller, DummyHost
from tests.ovs.rogue import Answer, Rogue, message, multipart, silent
from tests.ovs.secure import controlled, two_hosts
from tests.site import Site, transact
from topo.waiting import wait_until


@dataclass
class Attacked:
    site: Site
    controller: Controller
    a: DummyHost
    openflow: str
    key: Identity
    """Of host-b."""

    def rogue(self, datapath: int, answer: Answer = silent) -> Rogue:
        return Rogue(self.openflow, self.key, datapath, answer)

    def serves_on(self) -> None:
        """A flow that somebody deletes is put back; a change of the database is applied and reported, in seconds."""
        wanted = self.a.cookies(BR_NIC)
        self.a.ovs.ofctl("del-flows", BR_NIC)
        wait_until(lambda: self.a.cookies(BR_NIC) == wanted, 10, "the flows of host-a")
        count = {"op": "mutate", "table": "Global", "where": [], "mutations": [["config_seq", "+=", 1]]}
        read = {"op": "select", "table": "Global", "where": [], "columns": ["config_seq"]}
        _, result = transact(self.site.socket, None, count, read)
        config_seq = result["rows"][0]["config_seq"]
        wait_until(lambda: self.applied_seq() == config_seq, 10, "the report of host-a")

    def applied_seq(self) -> int:
        select = {"op": "select", "table": "Host", "where": [["name", "==", "host-a"]], "columns": ["applied_seq"]}
        return int(transact(self.site.socket, None, select)[0]["rows"][0]["applied_seq"])


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    folder = tmp_path_factory.mktemp("rogue")
    with ExitStack() as stack:
        site = two_hosts(folder, stack)
        controller, _, openflow = controlled(site, stack)
        tls = site.issue("host", "host-a").folder
        a = DummyHost(folder / "a", HOST_A, openflow, "external_ids:x=y", HOST_B, tls=tls)
        stack.callback(a.ovs.stop)
        a.start()
        wait_until(lambda: len(a.cookies(BR_NIC)) > 5, 30, "host-a to be served")
        yield Attacked(site, controller, a, openflow, site.issue("host", "host-b"))


NO_LENGTH = {
    "flow monitor": multipart(ofp.OFPMP_FLOW_MONITOR, 1, bytes(64)),
    "hello": message(ofp.OFPT_HELLO, 1, bytes(4)),
    "port": message(ofp.OFPT_PORT_STATUS, 1, bytes(8) + struct.pack("!IH34x", 1, 48) + bytes(8)),
    "ports": multipart(ofp.OFPMP_PORT_DESC, 1, struct.pack("!IH34x", 1, 48) + bytes(8)),
    "groups": multipart(ofp.OFPMP_GROUP_DESC, 1, bytes(64)),
    "tables": multipart(ofp.OFPMP_TABLE_FEATURES, 1, struct.pack("!H62x", 72) + bytes(8)),
    "meters": multipart(ofp.OFPMP_METER_DESC, 1, struct.pack("!HHI", 24, 0, 1) + bytes(16)),
    "flow removed": message(ofp.OFPT_FLOW_REMOVED, 1, bytes(64)),
}


@pytest.mark.parametrize(
    "datapath", [HOST_B.nic_datapath, HOST_A.nic_datapath, 0x99], ids=["served", "posed", "unknown"]
)
@pytest.mark.parametrize("junk", NO_LENGTH.values(), ids=NO_LENGTH)
def test_an_entry_of_no_length_stops_nobody_else(attacked: Attacked, datapath: int, junk: bytes) -> None:
    asked: list[int] = []

    def note(kind: int, *_: object) -> bytes:
        asked.append(kind)
        return b""

    rogue = attacked.rogue(datapath, note)
    if datapath == HOST_B.nic_datapath:
        wait_until(lambda: ofp.OFPT_MULTIPART_REQUEST in asked, 10, "it to be served")
    rogue.send(junk)
    attacked.serves_on()
    rogue.close()


@pytest.mark.parametrize("wanted", [ofp.OFPMP_FLOW_DESC, ofp.OFPMP_METER_DESC])
def test_an_answer_of_no_length_costs_the_connection_and_the_log_says_why(attacked: Attacked, wanted: int) -> None:
    def answer(kind: int, xid: int, body: bytes) -> bytes:
        if kind != ofp.OFPT_MULTIPART_REQUEST:
            return b""
        (asked,) = struct.unpack_from("!H", body)
        return multipart(asked, xid, bytes(64) if asked == wanted else b"")

    rogue = attacked.rogue(HOST_B.nic_datapath, answer)
    assert rogue.ended.wait(10)
    attacked.controller.says(f"datapath {HOST_B.nic_datapath:016x} at ")
    attacked.controller.says("sent what makes no sense (an entry of 0 bytes")
    attacked.serves_on()
    rogue.close()


def obey(kind: int, xid: int, body: bytes) -> bytes:
    """As a switch that has no flows and does all that it is told, but does not say what it has counted."""
    if kind == ofp.OFPT_BARRIER_REQUEST:
        return message(ofp.OFPT_BARRIER_REPLY, xid)
    if kind == ofp.OFPT_BUNDLE_CONTROL:
        bundle, what = struct.unpack_from("!IH", body)
        return message(ofp.OFPT_BUNDLE_CONTROL, xid, struct.pack("!IHH", bundle, what + 1, 0))
    if kind == ofp.OFPT_MULTIPART_REQUEST and not asks_what_is_dropped(kind, body):
        return multipart(struct.unpack_from("!H", body)[0], xid)
    return b""


def asks_what_is_dropped(kind: int, body: bytes) -> bool:
    asked = kind == ofp.OFPT_MULTIPART_REQUEST and body[:2] == struct.pack("!H", ofp.OFPMP_FLOW_DESC)
    return asked and body[8] != ofp.OFPTT_ALL


def test_a_switch_that_does_not_say_what_it_has_counted_keeps_no_other_host_waiting(attacked: Attacked) -> None:
    asked = threading.Event()

    def answer(kind: int, xid: int, body: bytes) -> bytes:
        if asks_what_is_dropped(kind, body):
            asked.set()
        return obey(kind, xid, body)

    rogue = attacked.rogue(HOST_B.nic_datapath, answer)
    assert asked.wait(10)
    before = time.monotonic()
    for _ in range(3):
        attacked.serves_on()
    assert time.monotonic() - before < ANSWER_TIMEOUT / 2
    assert not rogue.ended.is_set()
    rogue.close()


def test_an_answer_without_end_costs_the_connection_and_keeps_no_other_host_waiting(attacked: Attacked) -> None:
    def answer(kind: int, xid: int, body: bytes) -> bytes:
        if asks_what_is_dropped(kind, body):
            return multipart(ofp.OFPMP_FLOW_DESC, xid, more=True) * 1000
        return obey(kind, xid, body)

    rogue = attacked.rogue(HOST_B.nic_datapath, answer)
    assert rogue.ended.wait(20)
    attacked.controller.says("an answer of more than 400 parts")
    attacked.serves_on()
    rogue.close()
