"""The control network of the virtual machines: TLS alone; and what an operator is told by it."""

from __future__ import annotations

import json
from ipaddress import ip_address

import pytest

from tests.lab.looking import operate
from topo.capture import Capture
from topo.netns import CommandError
from topo.vm_lab import VmLab, well_known_key
from topo.waiting import wait_until

SSH = 22
OPERATORS, CONTROLLERS, OPENFLOW = 6641, 6642, 6653
CONTROL = "198.51.100.1"
ADDRESS = "fd00:5001::7261:6e64:6f6d:1"
"""Nothing else on any wire has these bytes in it."""
_KEY = "/root/key"
_SSH = (
    f"ssh -i {_KEY} -oBatchMode=yes -oStrictHostKeyChecking=no -oLogLevel=ERROR"
    " -oControlMaster=auto -oControlPersist=60 -oControlPath=/root/.ssh/%C vagrant@{host} sudo"
)
_VIA = f"LOCKGATE_VIA='{_SSH}'"
_ALERT = 0x15
_APPLICATION_DATA = b"\x17\x03\x03"
_QUESTION = b'{"id": 1, "method": "list_dbs", "params": []}'
_HELLO = bytes.fromhex("0600000800000001")
_PLAIN = f"""\
import contextlib, socket
for port, said in {[(OPERATORS, _QUESTION), (CONTROLLERS, _QUESTION), (OPENFLOW, _HELLO)]}:
    answer = b""
    with socket.create_connection(("{CONTROL}", port), 30) as connection, contextlib.suppress(ConnectionResetError):
        connection.sendall(said)
        connection.shutdown(socket.SHUT_WR)
        answer = connection.recv(100)
    print(port, answer.hex() or "nothing")
"""


def test_nothing_but_tls_listens(lab: VmLab) -> None:
    listening = {
        name: {int(line.split()[3].rpartition(":")[2]) for line in machine.run("ss -Htln").splitlines()}
        for name, machine in lab.machines.items()
    }
    assert listening == {"host-1": {SSH, OPERATORS, CONTROLLERS, OPENFLOW}, "host-2": {SSH}}
    # Who does not shake hands is answered by nothing, or told so in TLS.
    lines = lab.machines["host-2"].run(f"python3 - <<'EOF'\n{_PLAIN}EOF\n").splitlines()
    assert len(lines) == 3
    for line in lines:
        answer = line.split()[1]
        assert answer == "nothing" or bytes.fromhex(answer)[0] == _ALERT, line


def test_what_the_controller_tells_a_host_is_not_to_be_read_on_the_way(lab: VmLab) -> None:
    one, two = lab.machines.values()
    flow = f"ovs-ofctl -OOpenFlow15 dump-flows br-nic ipv6,ipv6_dst={ADDRESS}"
    with Capture(lab.namespace, "con2", "out") as to_2:
        operate(one, f"lockgate mapping add blue {ADDRESS} blue-1")
        try:
            wait_until(lambda: "actions=" in two.run(flow), 300, "the flow on host-2")
        finally:
            operate(one, f"lockgate mapping delete blue {ADDRESS}")
    openflow = [frame for frame in to_2.frames if frame[12:14] == b"\x08\x00" and OPENFLOW.to_bytes(2) == frame[34:36]]
    assert any(_APPLICATION_DATA in frame for frame in openflow)
    assert not [frame for frame in openflow if ip_address(ADDRESS).packed in frame]


def test_a_packet_is_followed_and_flows_are_compared_over_the_kernels_datapath(lab: VmLab) -> None:
    one = lab.machines["host-1"]
    with well_known_key().open() as key:
        one.run(f"install -m 600 /dev/stdin {_KEY} <<'EOF'\n{key.read()}EOF\n")
    # As an operator has them: names of hosts, and a key.
    one.run("grep -q host-2 /etc/hosts || printf '127.0.0.1 host-1\\n198.51.100.12 host-2\\n' >> /etc/hosts")
    found = json.loads(operate(one, f"{_VIA} lockgate --json trace blue-1 blue-2"))
    assert (found["verdict"], found["text"]) == (
        "delivered",
        "delivered to port blue-2 on host-2, by its interface blue-2",
    )
    # What is dropped makes exit status 1.
    with pytest.raises(CommandError, match='"reason": "no_mapping"'):
        operate(one, f"{_VIA} lockgate --json trace blue-1 10.0.0.99")
    audit = json.loads(operate(one, f"{_VIA} lockgate --json audit"))
    assert (audit["differences"], audit["not_asked"]) == ([], {})
    assert len(audit["hosts"]) == 2
