"""The ports of the bridges: which number or name means what.

This is the agreement between whoever builds the bridges (`topo.bridges`) and the flows: what is always there has a
fixed number, asked for with `ofport_request`; what comes and goes with guests has a name.
"""

from __future__ import annotations

from typing import Final

from mapping.model import Encap

LOCAL: Final = 0xFFFFFFFE
"""OFPP_LOCAL. On br-nic the host's VTEP address sits there, so that outer packets cross br-nic's own tables."""

UPLINK: Final = 1
"""br-nic: the cable to the substrate."""

TUNNEL: Final[dict[Encap, int]] = {Encap.VXLAN: 2, Encap.GENEVE: 3, Encap.GRE: 4}
"""br-nic: the port that pushes and pops each encapsulation, for every remote host (`remote_ip=flow`, `key=flow`)."""


def guest_patch(device: str) -> str:
    """The patch port on br-guest that leads the device's packets to br-nic."""
    return f"g-{device}"


def nic_patch(device: str) -> str:
    """The patch port on br-nic that leads to the device on br-guest."""
    return f"n-{device}"
