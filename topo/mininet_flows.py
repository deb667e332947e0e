"""Which flows a packet between two guests meets: asked of the switches themselves, by ofproto/trace.

Nothing is sent. The sender's switch says where its packet would go, and with which tunnel fields; the receiver's is
then asked about a packet with those.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from explain import ofproto
from explain.ofproto import Step
from flows.pipeline import BR_GUEST, BR_NIC, Reason
from topo.guest import Guest
from topo.host import Host

_SET: Final = re.compile(r"set_field:(.+)->(tun_id|tun_dst|eth_dst)")
_TUNNEL: Final = re.compile(r'output:"?(t-\w+)"?')


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
    yield from (f"{sender.host.name} {shown(step)}" for step in steps)
    actions = [action for step in steps for action in step.actions]
    fields = {found[2]: found[1] for action in actions if (found := _SET.fullmatch(action))}
    tunnel = next((found[1] for action in actions if (found := _TUNNEL.fullmatch(action))), None)
    if tunnel and fields["tun_dst"] == receiver.host.spec.vtep.split("/")[0]:
        here = sender.host.spec.vtep.split("/")[0]
        outer = f"in_port={tunnel},tun_id={fields['tun_id']},tun_src={here},tun_dst={fields['tun_dst']}"
        inner = ping.partition(",dl_src")[2].replace(receiver.spec.mac, fields["eth_dst"])
        inside = trace(receiver.host, BR_NIC, f"{outer},icmp,dl_src{inner}")
        yield from (f"{receiver.host.name} {shown(step)}" for step in inside)


def trace(host: Host, bridge: str, packet: str) -> list[Step]:
    """What a host's switch does with a packet."""
    return ofproto.steps(host.appctl("ofproto/trace", "--names", bridge, packet))


def shown(step: Step) -> str:
    """A flow that a packet meets, and if it counts a drop, why."""
    why = next((f": {reason.label}" for reason in Reason if reason.number == step.reason), "")
    match = f"{step.match}, " if step.match else ""
    return f"{step.bridge} {step.table}: {match}priority {step.priority} actions={','.join(step.actions)}{why}"
