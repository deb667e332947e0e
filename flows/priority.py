"""The order of rules within a table. Rules of one level never overlap."""

from typing import Final

TAG: Final = 300
"""A VLAN tag, whatever else the packet is: above all that looks at more, so that no tag is worth two cached flows."""
WRONG_BIT: Final = 200
"""Highest of 48 levels: a bit of a MAC that is wrong. Falls to WRONG_BIT - 47."""
BEFORE_LINK: Final = 130
"""What LINK would take, and must not, or need not look at."""
LINK: Final = 120
"""What never leaves a link, whoever it is from or for."""
OWN: Final = 110
"""An exception to PASS."""
PASS: Final = 100
"""Lets a packet on; always matches everything that must be so."""
ALLOWED_OWN: Final = 105
"""As OWN, for an address that a port is allowed besides its own; one that is both meets OWN."""
ALLOWED: Final = 95
"""As PASS, for addresses that a port is allowed besides its own, which those may be among."""
NEIGHBOUR: Final = 90
"""As PASS, for neighbour discovery of the VTEP: below tunnel packets, which then are not looked at as closely."""
NAMED_MISS: Final = 20
"""A miss with a reason of its own."""
VAGUE_MISS: Final = 10
"""A miss with a reason of its own, where NAMED_MISS tells more."""
MISS: Final = 0
"""The table's miss."""
