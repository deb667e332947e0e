"""What tests of virtual machines look at in them, and send in them."""

from __future__ import annotations

import re
from collections import Counter
from contextlib import suppress
from typing import Final

from flows.pipeline import BR_GUEST, BR_NIC, Reason, reasons
from topo.machine import Machine
from topo.netns import CommandError
from topo.vm_lab import AS_OPERATOR
from topo.waiting import wait_until

_DROP: Final = re.compile(r"n_packets=(\d+),.*\breg1=(0x\w+)")
_BACKGROUND: Final = {Reason.NEIGHBOUR_PROBE, Reason.NOT_TUNNEL, Reason.MLD}
"""Drops that go on without anyone's doing."""
_OPERATOR_SECONDS: Final = 600


def drops(machine: Machine) -> Counter[Reason]:
    """What its bridges have dropped until now."""
    counted: Counter[Reason] = Counter()
    machine.run("ovs-appctl revalidator/wait")
    for bridge in (BR_GUEST, BR_NIC):
        known = {reason.number: reason for reason in reasons(bridge)}
        for packets, number in _DROP.findall(
            machine.run(f"ovs-ofctl -OOpenFlow15 dump-flows {bridge} --names table=DROP")
        ):
            counted[known[int(number, 16)]] += int(packets)
    for reason in _BACKGROUND:
        del counted[reason]
    return counted


def dropped_since(machine: Machine, before: Counter[Reason], wanted: dict[Reason, int]) -> dict[Reason, int]:
    """What has been dropped, as soon as it is what is wanted, or after a while."""
    found: dict[Reason, int] = {}

    def as_wanted() -> bool:
        found.clear()
        found.update(drops(machine) - before)
        return found == wanted

    with suppress(TimeoutError):
        wait_until(as_wanted, 60, "drops to be counted")
    return found


def operate(machine: Machine, command: str) -> str:
    """Run a command of `lockgate`, as an operator does: again, if a busy machine was too slow for its patience."""
    said: list[str] = []

    def done() -> bool:
        try:
            said.append(machine.run(command.replace("lockgate", AS_OPERATOR, 1)))
        except CommandError as error:
            if "no mapping database" not in str(error):
                raise
        return bool(said)

    wait_until(done, _OPERATOR_SECONDS, "the mapping database to answer")
    return said[0]


def send_as(machine: Machine, guest: str, *frames: bytes) -> None:
    """Send frames out of a guest's port, as they are."""
    machine.run(
        f"ip netns exec {guest} python3 - <<'EOF'\n"
        "import socket\n"
        "sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)\n"
        "sender.bind(('eth0', 0))\n"
        f"for frame in {[frame.hex() for frame in frames]}:\n"
        "    sender.send(bytes.fromhex(frame))\n"
        "EOF\n"
    )
