"""A packet that a flow of br-guest has sent to the controller."""

from __future__ import annotations

from typing import NamedTuple

from mapping.linked import Linked
from mapping.model import Port, Vpc


class Punted(NamedTuple):
    """A frame, and whose it is: its flow has checked that."""

    frame: bytes
    port: Port
    vpc: Vpc
    linked: Linked
    """All else that is known."""
