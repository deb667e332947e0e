"""A mapping database that holds two hosts, and a controller of them, over TLS: for tests of who is let in."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from mapping.tls import Identity
from tests.build import TWO_HOSTS
from tests.database import clear, insert
from tests.ovs.conftest import free_port
from tests.ovs.dummy import LOOPBACK, Controller
from tests.site import Site, transact


def two_hosts(folder: Path, stack: ExitStack) -> Site:
    """The database, served until the stack ends."""
    site = Site(folder, LOOPBACK)
    stack.callback(site.stop)
    site.start()
    transact(site.socket, None, *clear(), {"op": "insert", "table": "Global", "row": {}}, *insert(TWO_HOSTS))
    return site


def controlled(site: Site, stack: ExitStack) -> tuple[Controller, Identity, str]:
    """A controller with a certificate of its own, who it is, and where it listens for switches."""
    port, identity = free_port(), site.issue("controller", "c1")
    controller = Controller(site.folder, site.remotes["controller"], port, free_port(), identity.folder)
    stack.callback(controller.stop)
    controller.start()
    return controller, identity, f"ssl:{LOOPBACK}:{port}"
