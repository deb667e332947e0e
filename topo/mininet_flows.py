"""Which flows a packet between two guests meets: asked of the switches themselves, by ofproto/trace.

Nothing is sent. The sender's switch says where its packet would go, and with which tunnel fields; the receiver's is
then asked about a packet with those.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from flows.pipeline import BR_GUEST, BR_NIC, TABLES, Reason
from topo.guest import Guest
from topo.host import Host

_BRIDGE: Final = re.compile(r'bridge\("(.+)"\)')
_STEP: Final = re.compile(r" *(\d+)\. (.+)")
_REASON: Final = re.compile(r"\breg1=(0x[0-9a-f]+)")
_COOKIE: Final = re.compile(r", cookie 0x[0-9a-f]+")
_SET: Final = re.compile(r"set_field:(.+)->(tun_id|tun_dst|eth_dst)")
_TUNNEL: Final = re.compile(r'output:"?(t-\w+)"?')


@dataclass(frozen=True, slots=True)
class Step:
    """One flow that a packet meets."""

    bridge: str
    table: str
    flow: str
    actions: tuple[str, ...]

    def __str__(self) -> str:
        reason = _REASON.search(self.flow) if self.table == "DROP" else None
        why = f": {_label(int(reason[1], 16))}" if reason else ""
        return f"{self.bridge} {self.table}: {self.flow} actions={','.join(self.actions)}{why}"


def _label(number: int) -> str:
    return next(reason.label for reason in Reason if reason.number == number)


def met(sender: Guest, receiver: Guest) -> Iterator[str]:
    """The flows that a ping from one guest to another meets, in order, each with its host.

    It is to the receiver's first address, or in another VPC to its last: the first the sender's own VPC may have, too.
    """
    address = receiver.ip if sender.spec.vpc == receiver.spec.vpc else receiver.spec.addresses[-1].split("/")[0]
    ping = (
        f"icmp,in_port={sender.spec.device},dl_src={sender.spec.mac},dl_dst={receiver.spec.mac},"
        f"nw_src={sender.ip},nw_dst={address},nw_ttl=64,icmp_type=8"
    )
    steps = trace(sender.host, BR_GUEST, ping)
    yield from (f"{sender.host.name} {step}" for step in steps)
    actions = [action for step in steps for action in step.actions]
    fields = {found[2]: found[1] for action in actions if (found := _SET.fullmatch(action))}
    tunnel = next((found[1] for action in actions if (found := _TUNNEL.fullmatch(action))), None)
    if tunnel and fields["tun_dst"] == receiver.host.spec.vtep.split("/")[0]:
        here = sender.host.spec.vtep.split("/")[0]
        outer = f"in_port={tunnel},tun_id={fields['tun_id']},tun_src={here},tun_dst={fields['tun_dst']}"
        inner = ping.partition(",dl_src")[2].replace(receiver.spec.mac, fields["eth_dst"])
        inside = trace(receiver.host, BR_NIC, f"{outer},icmp,dl_src{inner}")
        yield from (f"{receiver.host.name} {step}" for step in inside)


def trace(host: Host, bridge: str, packet: str) -> list[Step]:
    """What a host's switch does with a packet."""
    return parse(host.appctl("ofproto/trace", "--names", bridge, packet))


def parse(said: str) -> list[Step]:
    """The flows in what ofproto/trace has printed."""
    steps: list[Step] = []
    bridge = ""
    for line in said.splitlines():
        if line.startswith("Final flow:"):
            break
        if found := _BRIDGE.fullmatch(line):
            bridge = found[1]
        elif found := _STEP.fullmatch(line):
            tables = {table.number: table.name for table in TABLES[bridge].values()}
            steps.append(Step(bridge, tables[int(found[1])], _COOKIE.sub("", found[2]), ()))
        elif steps and line.startswith("    ") and not line.strip().startswith((">", "->")):
            last = steps.pop()
            steps.append(Step(last.bridge, last.table, last.flow, (*last.actions, line.strip())))
    return steps
