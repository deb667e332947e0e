"""All attacks, in the order of the table in docs/security.md."""

from typing import Final

from tests.attack import (
    from_guest,
    from_guest_allowed,
    from_guest_groups,
    from_guest_ipv6,
    from_guest_routing,
    from_guest_shapes,
    from_substrate,
)

GUEST: Final = [
    *from_guest.SOURCES,
    *from_guest.DESTINATIONS,
    *from_guest.ARP_CASES,
    *from_guest.SERVERS,
    *from_guest_ipv6.SOURCES,
    *from_guest_ipv6.DESTINATIONS,
    *from_guest_ipv6.NEIGHBOURS,
    *from_guest_ipv6.ROUTERS,
    *from_guest_ipv6.SERVERS,
    *from_guest_ipv6.SHAPES,
    *from_guest_allowed.ALLOWED,
    *from_guest_routing.ROUTING,
    *from_guest_groups.GROUPS,
    *from_guest_shapes.TYPES,
    *from_guest_shapes.SHAPES,
    *from_guest_shapes.TUNNELS,
]
SUBSTRATE: Final = [*from_substrate.OUTER, *from_substrate.INNER, *from_substrate.HEADERS, *from_substrate.PLAIN]
CASES: Final = [*GUEST, *SUBSTRATE]
