"""A lab of virtual machines that fails or is broken off: what is left of it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from topo import netns, removal
from topo.spec import LabError
from topo.vm_lab import FILES, VmLab
from topo.waiting import wait_until


def machines(name: str, program: str = "qemu") -> list[int]:
    """Processes of QEMU, or of another program, of a lab."""
    found = []
    for pid in netns.pids(netns.names(removal.prefix(name))):
        # Processes end while we look.
        with contextlib.suppress(OSError):
            if program in Path(f"/proc/{pid}/comm").read_text():
                found.append(pid)
    return found


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["interrupted", "killed"])
def test_a_lab_that_is_broken_off_leaves_no_machine(how: signal.Signals) -> None:
    name = f"vmc{os.getpid()}"
    program = f"from topo.vm_lab import VmLab\nwith VmLab({name!r}) as lab:\n    lab.up(1)"
    with subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, process_group=0) as process:
        try:
            wait_until(lambda: machines(name) or process.poll() is not None, 60, "a machine to be started")
            assert process.poll() is None, process.communicate()[1]
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
    assert not (removal.FOLDER / name).exists()


def test_a_lab_that_fails_leaves_no_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"vmf{os.getpid()}"

    def fails(*_: object) -> None:
        wait_until(lambda: machines(name), 60, "a machine to be started")
        raise LabError("no certificates")

    monkeypatch.setattr("topo.vm_lab.make_certificates", fails)
    with pytest.raises(LabError, match="no certificates"), VmLab(name) as lab:
        lab.up(1)
    assert netns.names(removal.prefix(name)) == []
    assert not (removal.FOLDER / name).exists()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM], ids=["interrupted", "terminated"])
def test_a_test_of_vagrant_that_is_broken_off_leaves_nothing(how: signal.Signals) -> None:
    argv = [sys.executable, "-m", "topo.vagrant_check"]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, process_group=0) as process:
        name = f"vagrant{process.pid}"
        try:
            wait_until(lambda: machines(name, "libvirtd"), 120, "libvirt to be started")
            process.send_signal(how)
            assert process.wait(60) == 130
            assert netns.names(removal.prefix(name)) == []
            assert not (FILES / name).exists()
        finally:
            process.kill()
            removal.remove(name)
