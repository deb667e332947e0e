"""Two bare-metal hosts as virtual machines, which all tests share. Nothing of them stays.

host-1 is the control machine, too. Each host has two guests: blue-N with 10.0.0.(10 + N) and fd00:5001::(10 + N) in VPC
blue, green-N with the same IPv4 address in green: vagrant/plan.sh.
"""

import os
import signal
from collections.abc import Iterator

import pytest

from tests.lab.provision import provision
from topo.vm_lab import BOX, SHARE, VmLab

# Their assertions say as much as those of files of tests.
pytest.register_assert_rewrite("tests.lab.control_network", "tests.lab.guests")


def pytest_configure() -> None:
    # A run that is told to end, or whose terminal is closed, ends its machines first, as with Ctrl-C.
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.default_int_handler)


@pytest.fixture(scope="session")
def lab() -> Iterator[VmLab]:
    """Up and provisioned. Tests leave it as they found it."""
    missing = [file for file in (BOX / "box.img", SHARE / "lockgate.deb") if not file.exists()]
    if missing:
        pytest.fail(f"{missing[0]} is not there: run `make vagrant-smoke`, which makes it", pytrace=False)
    # Several runs may go on at once on one machine, so a lab is named after its run.
    with VmLab(f"vm{os.getpid()}") as lab:
        lab.up(2)
        provision(lab)
        yield lab
