"""How many connections the tracker of a host keeps for each guest: one that is flooded takes nothing of another's.

Each port has a zone of its own, with the number of its OpenFlow port (`flows.guest_groups`), and each of these a limit
of its own: what Open vSwitch 3.1 calls the default is in its userspace datapath one limit for all zones together. The
datapath keeps limits as long as it lives: that of a process as long as the process does.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final

from flows.pipeline import BR_GUEST

CONNECTIONS: Final = 65_536
"""For each port. In the userspace datapath, which keeps 3,000,000 of them, one takes half a KB."""

Run = Callable[..., str]
"""Runs ovs-vsctl, or ovs-appctl, with these arguments on the host in question, and returns what it printed."""


def limit(vsctl: Run, appctl: Run, connections: int = CONNECTIONS) -> None:
    """Bound the connections of each port that br-guest has."""
    listed = vsctl("--format=json", "--columns=name,ofport", "list", "Interface")
    ofports = dict(json.loads(listed)["data"])
    zones = [ofports[port] for port in vsctl("list-ports", BR_GUEST).split()]
    datapath = vsctl("get", "Bridge", BR_GUEST, "datapath_type").strip()
    limits = [f"zone={zone},limit={connections}" for zone in zones if isinstance(zone, int) and zone > 0]
    if limits:
        appctl("dpctl/ct-set-limits", f"{datapath}@ovs-{datapath}", *limits)
