"""What a machine can be asked: whether it is on, to be turned on and off, and what to boot from.

A driver is a class with these methods, and a prefix of `Host.bmc` in `provision.cli`.
"""

from __future__ import annotations

from typing import Protocol

from mapping.errors import MappingError


class MachineError(MappingError):
    """The machine cannot be asked, or does not do what it was asked. The text names it, and the mend."""


class Machine(Protocol):
    """A bare-metal host's power and boot device. Each call returns when the machine has taken it, not when it is done.

    Raises, whatever is asked:
        MachineError: it was refused, or not answered in time.
    """

    def is_on(self) -> bool:
        """Whether it has power, as it says itself."""
        ...

    def turn_on(self) -> None:
        """Turn it on. One that is on already stays as it is."""
        ...

    def turn_off(self) -> None:
        """Turn it off at once, whatever its operating system wants. One that is off already stays as it is."""
        ...

    def boot_from(self, image: str) -> None:
        """Boot from this image, a URL, the next time that it is turned on; from the network if it is empty."""
        ...

    def eject(self) -> None:
        """Take the image away again, if there is one."""
        ...
