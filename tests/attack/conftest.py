"""One lab for all attacks. Nothing of it stays."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.attack.setting import MAPPING
from tests.attack.world import World


def pytest_configure() -> None:
    # A run that is told to end, or whose terminal is closed, ends its lab first, as with Ctrl-C.
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.default_int_handler)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    file: Path = tmp_path_factory.mktemp("mapping") / "attacked.yaml"
    file.write_text(MAPPING)
    # Several runs may go on at once on one machine, so a lab is named after its run.
    with World.up(f"a{os.getpid()}", file) as world:
        yield world
