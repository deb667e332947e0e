"""What the kernel's datapath leaves open, and a packet filter of the host closes.

The kernel's tunnel ends are sockets and devices of the host: they take tunnel packets that any interface brings, if
they are for the VTEP's address, and hand what is in them to br-nic's tunnel port. Those that the uplink brings have
passed br-nic's rules for it, and come from its LOCAL port; whatever comes from elsewhere (the control network, whose
hosts may send to any address) has not. The userspace datapath takes tunnel headers off what br-nic delivers to LOCAL,
and off nothing else.
"""

from __future__ import annotations

from typing import Final

from flows.pipeline import BR_NIC
from topo import netns

# Of the packets that are for the host itself, which are whole by then. Loaded again, it is made anew in one step.
_RULES: Final = f"""\
table inet lockgate
delete table inet lockgate
table inet lockgate {{
    chain tunnels {{
        type filter hook input priority raw
        iifname != "{BR_NIC}" udp dport {{ 4789, 6081 }} counter drop
        iifname != "{BR_NIC}" meta l4proto gre counter drop
    }}
}}
"""


def guard(datapath_type: str, namespace: str | None = None) -> None:
    """Let tunnel packets in from br-nic alone, if the datapath of the host in this namespace is the kernel's."""
    if datapath_type == "system":
        netns.run(namespace, ["nft", "-f", "-"], stdin=_RULES)
