"""Answers packets that a flow of br-guest has sent here because no flow can.

What is answered goes back to the guest that asked, out of its own port, and past no table. A guest's meter has let the
packet through: see `flows.meter.MeterKind.PUNT`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from controller import dhcp4, dhcp6, router, router_advertisement
from controller.guest_config import config_of
from controller.punted import Punted
from controller.switch import Switch
from flows.flow import Output

log = logging.getLogger(__name__)

_PROTOCOLS: Final = (dhcp4.answer, dhcp6.answer, router_advertisement.answer)


def _configuration(punted: Punted) -> Iterator[bytes]:
    """How the guest is to configure itself (`flows.guest_dhcp`); nothing if it asks nothing that is known."""
    guest = config_of(punted.port, punted.linked)
    for protocol in _PROTOCOLS:
        if frame := protocol(punted.frame, guest):
            yield frame


Answer = Callable[[Punted], Iterable[bytes]]
"""Frames for the guest. Must bear any bits."""

ANSWERS: Final[dict[str, Answer]] = {
    "DHCP": _configuration,
    "TTL_EXPIRED": router.time_exceeded,
    "FIT": router.too_big,
    "ROUTER": router.port_unreachable,
}
"""Name of the table of br-guest that sends it -> what answers."""


def take(switch: Switch, ofport: int, table: str, punted: Punted) -> None:
    """Answer a frame that came in at this port, and was sent here by this table."""
    answer = ANSWERS.get(table)
    if answer is None:
        log.error("port %s: table %s sent a packet, and nobody answers for it", punted.port.name, table)
        return
    for frame in answer(punted):
        switch.send_frame([Output(ofport)], frame)
