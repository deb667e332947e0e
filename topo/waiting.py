"""Wait for a condition, never for a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TypeVar

T = TypeVar("T")

_POLL_SECONDS: Final = 0.01


def wait_until(condition: Callable[[], T], seconds: float, what: str) -> T:
    """Return what `condition` returns, as soon as that is true.

    Raises:
        TimeoutError: it is still false after `seconds`.
    """
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:g} s for {what}")
        time.sleep(_POLL_SECONDS)
    return result
