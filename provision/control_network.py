"""Which networks are the control network, as the operator says: BMCs are reached by no other."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final

from mapping.errors import MappingError
from mapping.model import Host

NETWORKS: Final = "LOCKGATE_CONTROL_NETWORK"
"""Environment variable: the networks that BMCs are in, and this machine's own end of what leads there."""

Networks = tuple[IPv4Network | IPv6Network, ...]


def networks(hosts: Collection[Host], environment: Callable[[str], str | None] = os.environ.get) -> Networks:
    """Those that NETWORKS names.

    Raises:
        MappingError: there are none, or one is the substrate: a host's VTEP is in it.
    """
    text = environment(NETWORKS) or ""
    try:
        named = tuple(ip_network(word.strip()) for word in text.split(",") if word.strip())
    except ValueError as error:
        raise MappingError(f"{NETWORKS}: {error}: name networks, like 198.51.100.0/24,2001:db8:1::/64") from None
    if not named:
        raise MappingError(
            f"which network BMCs are in is not said: set {NETWORKS}, like 198.51.100.0/24; they are reached by no other"
        )
    for host in hosts:
        for network in named:
            if host.vtep_ip in network:
                raise MappingError(
                    f"{NETWORKS}: {network} is the substrate, where host {host.name} has its VTEP {host.vtep_ip}: name "
                    "the control network, and put the BMCs there"
                )
    return named
