"""A lab of virtual machines that is broken off: what is left of it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from topo import netns, removal
from topo.waiting import wait_until


def machines(name: str) -> list[int]:
    """Processes of QEMU of a lab."""
    found = []
    for pid in netns.pids(netns.names(removal.prefix(name))):
        # Processes end while we look.
        with contextlib.suppress(OSError):
            if "qemu" in Path(f"/proc/{pid}/comm").read_text():
                found.append(pid)
    return found


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["interrupted", "killed"])
def test_a_lab_that_is_broken_off_leaves_no_machine(how: signal.Signals) -> None:
    name = f"vmc{os.getpid()}"
    program = f"from topo.vm_lab import VmLab\nwith VmLab({name!r}) as lab:\n    lab.up(1)"
    with subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL, process_group=0) as process:
        try:
            wait_until(lambda: machines(name), 60, "a machine to be started")
            process.send_signal(how)
            process.wait(60)
            wait_until(lambda: not machines(name), 10, "the machine to end")
            if how is signal.SIGINT:
                assert netns.names(removal.prefix(name)) == []
                assert not (removal.FOLDER / name).exists()
        finally:
            process.kill()
            # As `lockgate lab down` does, which finds a killed one by its name.
            removal.remove(name)
    assert netns.names(removal.prefix(name)) == []
