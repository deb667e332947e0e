"""Cables of the substrate, with delay and loss as Mininet's TCLink has them, where the kernel allows.

TCLink leaves both to netem, a part of the kernel that some kernels lack; then it prints an error and goes on without
them. Here a kernel that lacks it is noticed: loss is then done by nftables on the switch that the cable is in, and for
delay there is no other way, so asking for it is an error.

    host1 [uplink]------------[host1] sub1 [host2]------------[uplink] host2
             netem loses here   ^                ^   netem loses here
                                +-- nftables: loses what leaves, and what comes from a host
"""

from __future__ import annotations

from typing import Any, Final

from mininet.link import Link, TCIntf
from mininet.log import info
from mininet.node import Node

from topo import netns
from topo.mininet_nodes import SubstrateSwitch
from topo.spec import LabError

NO_DELAY: Final = (
    "this kernel has no netem (CONFIG_NET_SCH_NETEM, module sch_netem), so a link cannot delay:"
    " leave delay= away, or use a kernel that has it. loss= works here: nftables does it"
)


class Cable(Link):
    """A cable to the control network, or to the substrate without delay or loss."""

    def __init__(self, node1: Node, node2: Node, **params: Any) -> None:
        # Open vSwitch in userspace takes frames from a packet socket, where checksums that are left to the hardware
        # are still missing: whatever sends to it through a veth must finish them.
        super().__init__(node1, node2, **params | {"cls1": TCIntf, "cls2": TCIntf, "txo": False})


class SubstrateCable(Cable):
    """A cable that loses `loss` percent of the packets in each direction, and takes `delay` to pass each.

    `node2` is a switch of the substrate; `node1` is one, or a host.

    Raises:
        LabError: the kernel can not do it.
    """

    def __init__(
        self, node1: Node, node2: SubstrateSwitch, loss: float = 0, delay: str | None = None, **params: Any
    ) -> None:
        netem = not (loss or delay) or has_netem(node2.namespace)
        if delay and not netem:
            raise LabError(NO_DELAY)
        super().__init__(node1, node2, **params | ({"loss": loss, "delay": delay} if netem else {}))
        if loss and not netem:
            info(f"({loss:g}% loss, by nftables) ")
            between_switches = isinstance(node1, SubstrateSwitch)
            # What a host sends its Open vSwitch writes to the cable itself: no rule of its kernel sees it.
            node2.lose(self.intf2.name, loss, both_ways=not between_switches)
            if between_switches:
                node1.lose(self.intf1.name, loss, both_ways=False)


def has_netem(namespace: str) -> bool:
    """Whether the kernel has netem: tried out, as it may be a module that is only now loaded."""
    try:
        netns.run(namespace, ["tc", "qdisc", "add", "dev", "lo", "root", "netem"])
    except netns.CommandError:
        return False
    netns.run(namespace, ["tc", "qdisc", "del", "dev", "lo", "root"])
    return True
