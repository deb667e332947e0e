"""Remove every trace of a lab by its name alone, whatever state it is in, and whoever made it.

A lab called NAME owns the namespaces lg-NAME-*, what runs in them, what builds it from outside of them, and its folder
below `FOLDER`; nothing else. `FOLDER` itself stays: whoever makes another lab is about to make a folder in it.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from topo import netns

FOLDER: Final = Path("/run/lockgate")
BUILDER: Final = "topo.mininet_control"
"""A program that builds parts of a lab from outside of its namespaces: `python -m BUILDER NAME ...`.

Whoever has started it may be ended before he knows that he has.
"""


def prefix(name: str) -> str:
    """What the names of a lab's namespaces begin with."""
    return f"lg-{name}-"


def remove(name: str) -> None:
    """Remove a lab: its processes, namespaces and folder."""
    netns.end(lambda: netns.pids_told([BUILDER, name]), signal.SIGKILL)
    netns.delete(netns.names(prefix(name)))
    # What makes the lab's certificates is in no namespace of it, and would make the folder again.
    netns.end(lambda: netns.pids_at(FOLDER / name), signal.SIGKILL)
    shutil.rmtree(FOLDER / name, ignore_errors=True)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Let nobody's second Ctrl-C break off a clean-up: the programs that it starts ignore it too."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signums = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {signum: signal.signal(signum, signal.SIG_IGN) for signum in signums}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
