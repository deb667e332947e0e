"""Labs for tests: one for the session, and more for tests that break theirs. Nothing of them stays."""

import os
import signal
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from topo.lab import Lab

TWO_HOSTS = """\
vpcs:
  red:
    vni: 5001
    subnets: [10.0.0.0/24]
hosts:
  h1: {vtep: 192.0.2.1}
  h2: {vtep: 192.0.2.2}
ports:
  a: {vpc: red, host: h1, mac: "02:00:00:00:00:0a", addresses: [10.0.0.10]}
  b: {vpc: red, host: h2, mac: "02:00:00:00:00:0b", addresses: [10.0.0.11]}
"""
"""2 hosts, 1 VPC, 1 guest on each host."""

MakeLab = Callable[..., Lab]

# Several runs may go on at once on one machine, so a lab is named after its run.
_names = (f"t{os.getpid()}n{number}" for number in count())


def pytest_configure() -> None:
    # A run that is told to end, or whose terminal is closed, ends its labs first, as with Ctrl-C.
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.default_int_handler)


@pytest.fixture(scope="session")
def two_hosts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The mapping file of `TWO_HOSTS`."""
    file = tmp_path_factory.mktemp("mapping") / "two-hosts.yaml"
    file.write_text(TWO_HOSTS)
    return file


@pytest.fixture(scope="session")
def lab(two_hosts: Path) -> Iterator[Lab]:
    """`TWO_HOSTS`, up and programmed. Tests leave it as they found it."""
    with Lab(next(_names)) as lab:
        lab.up(two_hosts)
        yield lab


@pytest.fixture
def make_lab(two_hosts: Path) -> Iterator[MakeLab]:
    """Make labs of one's own, for `TWO_HOSTS` unless another file is given; `make_lab(None)` is not brought up."""
    made = []

    def make(file: Path | None = two_hosts, *, controller: bool = True) -> Lab:
        lab = Lab(next(_names))
        made.append(lab)
        if file:
            lab.up(file, controller=controller)
        return lab

    yield make
    for lab in made:
        lab.down()
