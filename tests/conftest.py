"""Tiers of tests: the folder says what a test needs. A test whose needs are not met fails; nothing is skipped."""

import os
import shutil
import signal
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from hypothesis import settings

# Ordinary users of Debian do not have the folders of system programs on their path.
os.environ["PATH"] += ":/usr/sbin:/sbin"

# How long a machine takes decides no test.
settings.register_profile("lockgate", deadline=None)
settings.load_profile("lockgate")

Figure = Callable[[str, object, str], None]
TESTS = Path(__file__).parent
OPEN_VSWITCH = ("ovs-vswitchd", "ovsdb-server", "ovs-vsctl", "ovs-ofctl", "ovs-appctl")
COMMANDS = {
    "ovs": OPEN_VSWITCH,
    "net": (*OPEN_VSWITCH, "ip", "ethtool", "ping", "tcpdump", "mn", "nft"),
    "attack": (*OPEN_VSWITCH, "ip", "ethtool", "ping"),
    "provision": (*OPEN_VSWITCH, "ip", "ethtool", "ping", "libvirtd", "virsh", "genisoimage", "curl", "openssl"),
    "lab": ("ip", "qemu-system-x86_64", "setpriv", "ssh"),
}
AS_ROOT = {
    "net": "make test-net",
    "attack": "make attack",
    "lab": "make vagrant-smoke",
    "provision": "make provision-test",
}
"""Tiers that need root, and what runs them so."""
LONGEST_FIRST = ("lab", "provision", "attack", "net", "ovs", "unit")
"""Tiers, by how long their longest file takes."""


def tier_of(item: pytest.Item) -> str:
    return item.path.relative_to(TESTS).parts[0]


@cache
def unmet(tier: str) -> str | None:
    """What tests of this tier need and this machine lacks."""
    missing = [command for command in COMMANDS.get(tier, ()) if shutil.which(command) is None]
    if missing:
        return f"tests/{tier} needs {', '.join(missing)}: run `make setup`"
    if tier in AS_ROOT and os.geteuid() != 0:
        return f"tests/{tier} needs root: run `{AS_ROOT[tier]}`"
    return None


def pytest_configure() -> None:
    # What asks the run to end gets it ended as Ctrl-C does: fixtures take down what they have put up.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    # A shell has its background jobs ignore Ctrl-C, and so would the programs that are interrupted here.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Figure:
    """Print a measured figure at the end of the run: `figure("flows back", 0.021, "s")`. Figures decide nothing."""

    def note(name: str, value: object, unit: str) -> None:
        # A property of the test is brought from the process that ran it to the one that prints.
        request.node.user_properties.append(("figure", f"{request.node.name}: {name}: {value} {unit}"))

    return note


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [report for category in ("passed", "failed") for report in terminalreporter.getreports(category)]
    properties = [each for report in reports if report.when == "call" for each in report.user_properties]
    if figures := [str(value) for name, value in properties if name == "figure"]:
        terminalreporter.section("measured")
        terminalreporter.write_line("\n".join(figures))


def pytest_itemcollected(item: pytest.Item) -> None:
    if tier_of(item) in COMMANDS:
        item.add_marker(tier_of(item))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Files are handed out in this order when several processes share them: one that is handed out last must be short.
    items.sort(key=lambda item: LONGEST_FIRST.index(tier_of(item)))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if reason := unmet(tier_of(item)):
        pytest.fail(reason, pytrace=False)
